"""Tests, e-processes, bounds and intervals: arrays in, numbers out. Imports no model and reads no files."""
