"""Verdicts: how those of results become that of a run, and results of checks that break."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.pytest_plugin import RESULT, Recording
from harness.record.model import Property, Result, Verdict
from harness.verdict import BROKEN, FAULT, INCONCLUSIVE, PASS, conclude, settle
from properties.meta.helpers.records import result


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        (["pass", "n/a"], "pass", PASS),
        (["pass", "tie"], "tie", PASS),
        (["pass", "fault", "inconclusive"], "fault", FAULT),
        (["pass", "inconclusive"], "inconclusive", INCONCLUSIVE),
        (["n/a", "n/a"], "inconclusive", INCONCLUSIVE),
        ([], "inconclusive", INCONCLUSIVE),
    ],
)
def test_verdict_of_a_run_is_the_worst_of_its_results(verdicts: list[Verdict], expected: Verdict, code: int) -> None:
    assert conclude([result("LAW-1", "", verdict) for verdict in verdicts]) == (expected, code)


def test_broken_adapter_is_no_pass() -> None:
    assert conclude([result("LAW-1", "", "pass"), result("LAW-2", "", "inconclusive", broken=True)]) == ("inconclusive", BROKEN)


def test_fault_is_blocked_if_what_it_needs_is_not_a_pass() -> None:
    """A result that passes all the same remains a pass."""
    known = {
        name: Property(id=name, chapter="x", requirement="", needs=needs)
        for name, needs in (("SMOKE-1", ()), ("TREE-1", ("SMOKE-1",)), ("LAW-1", ("TREE-1",)))
    }
    found = [result("SMOKE-1", "", "inconclusive", broken=True), result("LAW-1", "", "fault"), result("TREE-1", "", "pass")]
    settled = settle(found, known)
    assert [r.verdict for r in settled] == ["inconclusive", "blocked", "pass"]
    assert "SMOKE-1" in settled[1].summary
    assert conclude(settled) == ("inconclusive", BROKEN)


@pytest.mark.parametrize(
    ("outcome", "sent", "added"),
    [
        ("passed", ["pass"], ["pass"]),
        ("passed", [], ["inconclusive"]),
        ("failed", [], ["inconclusive"]),
        ("failed", ["pass"], ["pass", "inconclusive"]),
        ("failed", ["fault"], ["fault"]),
    ],
)
def test_check_that_breaks_or_has_no_result_is_inconclusive(outcome: str, sent: list[Verdict], added: list[Verdict]) -> None:
    """Also a check that breaks after it has a result."""
    results: list[Result] = []
    recording = Recording(SimpleNamespace(add=results.append))  # type: ignore[arg-type]
    properties = [(RESULT, result("LAW-2", "", verdict).model_dump_json()) for verdict in sent]
    place = "properties/test_law.py::LAW-2"
    longrepr = "IndexError" if outcome == "failed" else None
    report = pytest.TestReport(place, ("", 0, ""), {}, outcome, longrepr, "call", user_properties=properties)  # type: ignore[arg-type]
    recording.pytest_runtest_logreport(report)
    assert [r.verdict for r in results] == added
