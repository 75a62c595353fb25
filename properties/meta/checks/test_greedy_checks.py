"""The chapter GREEDY itself: a penalty that is lost is seen on the smallest vocabulary too."""

from __future__ import annotations

import pytest

from harness.implementations import connect
from harness.pairs import shipped
from harness.record.model import Verdict
from properties.meta.helpers.run_check import heard


@pytest.mark.parametrize(("connectable", "verdict"), [("ref:", "pass"), ("mutant:M29,", "fault"), ("mutant:M30,", "fault")])
def test_a_penalty_on_eight_tokens(connectable: str, verdict: Verdict) -> None:
    """Prompts that have all of them would hide it: where every token was seen, a penalty keeps their order."""
    result = heard("GREEDY-1", connect(f"{connectable}k=3,depth=3,m=8"), pair=shipped("dice8"), penalty=1.3)
    assert result.verdict == verdict, result.summary
