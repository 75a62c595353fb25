"""Exact distributions by enumeration of every random choice; see README.md."""
