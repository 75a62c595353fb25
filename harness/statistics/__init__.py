"""Tests and bounds: arrays in, numbers out; no model, no files."""
