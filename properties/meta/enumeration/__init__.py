"""Tests: enumeration."""
