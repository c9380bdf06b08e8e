"""Measures the daemon against its targets: `python -m bench`."""
