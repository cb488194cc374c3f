"""Linear maps between tensors of any shape."""
