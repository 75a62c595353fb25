"""Drafters: one file for each method that proposes draft trees. ../methods.py lists them by name."""
