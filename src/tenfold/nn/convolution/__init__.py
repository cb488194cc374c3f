"""Convolutions of order 1 to 3, ordinary and transposed."""
