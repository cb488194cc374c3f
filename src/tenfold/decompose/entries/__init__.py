"""Tensors of which some entries are known: sparse and incomplete ones."""
