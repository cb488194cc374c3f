"""Matrices, slices of matrices and sums of Kronecker products by the SVD."""
