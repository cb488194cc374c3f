"""Attention and the layers of transformers, of linear maps that are factorized one by one."""
