"""What is served while measuring, each in a process of its own."""
