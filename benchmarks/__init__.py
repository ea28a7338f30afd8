"""Benchmarks: what a message costs a server. Run them with `python -m benchmarks`."""
