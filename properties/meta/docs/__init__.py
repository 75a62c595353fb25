"""Tests of the documentation site, of the public files of the repository and of its import contracts."""
