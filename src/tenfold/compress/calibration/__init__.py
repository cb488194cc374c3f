"""What data show of a model: moments of inputs, outputs and loss gradients at every site."""
