"""A run as kernels need it: words that cross languages, what of a run is traced, a run as plain data."""
