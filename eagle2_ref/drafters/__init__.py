"""Drafters: each method that proposes draft trees is one file."""
