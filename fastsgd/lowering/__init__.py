"""What kernels are told of a run: words that cross languages, what of a run is traced, a run as plain data."""
