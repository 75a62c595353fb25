"""Tests: calibration."""
