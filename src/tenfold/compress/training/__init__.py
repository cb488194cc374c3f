"""Training that makes weights fit for a format before they are decomposed: ADMM, learning-compression."""
