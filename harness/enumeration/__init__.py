"""Exact laws by enumeration of every random decision."""
