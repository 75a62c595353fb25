"""Tests of chapter GREEDY: a lost penalty is detected on the smallest vocabulary too."""

from __future__ import annotations

import pytest

from harness.implementations import connect
from harness.pairs import shipped
from harness.record.model import Verdict
from properties.meta.helpers.checks import result_of
from properties.test_greedy import greedy_on_code


@pytest.mark.parametrize(("connectable", "verdict"), [("ref:", "pass"), ("mutant:M29,", "fault"), ("mutant:M30,", "fault")])
def test_lost_penalty_is_a_fault_on_eight_tokens(connectable: str, verdict: Verdict) -> None:
    """Prompts that contain all eight tokens would hide it: a penalty on all of them keeps their order."""
    result = result_of(greedy_on_code, connect(f"{connectable}k=3,depth=3,m=8"), 1.3, pair=shipped("dice8"))
    assert result.verdict == verdict, result.summary
