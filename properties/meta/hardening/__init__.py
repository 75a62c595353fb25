"""Faults that users, engines and machines cause, and what the harness promises for each.

Every test here has the marker `promise`, or takes its cases from `case`. `python -m properties.meta.hardening` runs the tests and
writes the table of docs/robustness.md from their outcomes. The area of a test is the name of its module without `test_`.
"""

from __future__ import annotations

from typing import Any

import pytest


def promise(fault: str, promised: str) -> pytest.MarkDecorator:
    """Mark a test with the fault that it injects and what the harness promises then, both as they appear in the table.

    Args:
        fault: what happens, such as "an engine ends the process with exit code 0".
        promised: what a user sees, such as "exit code 4; the message names the call".
    """
    return pytest.mark.promise(fault, promised)


def case(fault: str, promised: str, *values: Any) -> Any:
    """One set of values of a parametrized test, with its promise."""
    return pytest.param(*values, marks=promise(fault, promised), id=fault)
