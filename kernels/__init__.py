"""Owns the portable GPU path: Triton kernels for training and for tile-shaped metrics; imports only triton."""
