"""Tests: implementations."""
