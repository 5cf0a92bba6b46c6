"""Owns metrics that are tile-shaped, or sums over many samples; float64."""
