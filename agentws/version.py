"""The version of the package, in a file that all wings may import, unlike the root above them."""

__version__ = "0.1.0"
