"""Benchmarks of fastsgd: `python -m bench`; the protocol is in README.md."""
