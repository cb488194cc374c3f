"""Make neural networks smaller and faster by decomposing their weights."""
