"""Shared by the tests of the harness: records, tiny pairs, fake clocks, fake engines, a fake CUDA device."""
