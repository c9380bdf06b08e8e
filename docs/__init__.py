"""The documentation, and what makes its site and its generated pages."""
