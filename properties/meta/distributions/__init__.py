"""Tests: distributions."""
