"""Tests: kill matrix."""
