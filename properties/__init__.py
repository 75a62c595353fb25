"""The checks, one chapter a file. The docstring of each check begins with the requirement of its property."""
