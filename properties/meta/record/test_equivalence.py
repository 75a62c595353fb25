"""Tests of the statement of equivalence: three lines, each for its own kind of evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from harness.equivalence import DKW_BOUND, LOG10_E, MEAN_DISTANCE, PIT_BOUND, false_alarm, statement
from harness.record.model import Result, Statement, read_record
from properties.meta.helpers.records import result


def quantity(value: float, unit: str) -> dict[str, object]:
    return {"value": value, "unit": unit}


def enumerated(name: str, executions: int, distance: float, unit: str = "executions") -> Result:
    return result(name, name, work=quantity(executions, unit), effect=quantity(distance, "total variation"))


def fitted(case: str, detectable: float) -> Result:
    return result("LAW-4", case, work=quantity(2000, "samples"), detectable=quantity(detectable, "total variation"))


def streamed(case: str, log10: float, dkw: float, pit: float) -> Result:
    return result(
        "LAW-7",
        case,
        work=quantity(20000, "tokens"),
        detectable=quantity(0.041, "total variation of ranks"),
        measured={LOG10_E: log10, DKW_BOUND: dkw, PIT_BOUND: pit, f"{LOG10_E}, lag": 5.0},
    )


WHOLE = [enumerated("LAW-1", 40, 2e-16), enumerated("LAW-6", 2000, 1.5e-7)]
RULE = [enumerated("LAW-2", 300, 3e-17, "instances")]
LARGEST = quantity(3.1e-4, "total variation")
LOGITS = [result("TREE-5", "", work=quantity(1500, "tokens"), effect=LARGEST, measured={MEAN_DISTANCE: 2e-6})]
FITS = [fitted("a", 0.078), fitted("b", 0.077), fitted("c", 0.077)]
STREAM, OTHER = streamed("a", -0.41, 0.0172, 0.021), streamed("b", 0.7, 0.01, 0.03)
ARMS = [result("LAW-8", "", work=quantity(1920, "tokens"), sensitivity="gross faults only")]


def test_statement_has_three_lines(snapshot: SnapshotAssertion) -> None:
    assert statement([*WHOLE, *RULE, *LOGITS, *FITS, STREAM, OTHER, *ARMS]).model_dump() == snapshot


NOTHING = Statement(
    exact="Not shown: nothing was enumerated.",
    logits="Not shown: the logits were not compared.",
    sampled="Not shown: nothing was sampled.",
)


def test_unjudged_checks_show_nothing() -> None:
    assert statement([]) == NOTHING
    unjudged = [
        one.model_copy(update={"verdict": verdict}) for one in (*WHOLE, STREAM) for verdict in ("n/a", "blocked", "inconclusive")
    ]
    broken = [one.model_copy(update={"broken": True}) for one in (*WHOLE, *RULE, *LOGITS, *FITS, STREAM)]
    assert statement([*unjudged, *broken]) == NOTHING


@pytest.mark.parametrize(
    ("line", "some"), [("exact", WHOLE), ("exact", RULE), ("logits", LOGITS), ("sampled", FITS), ("sampled", [STREAM])]
)
def test_each_kind_of_evidence_has_its_own_line(line: str, some: list[Result]) -> None:
    said = statement(some).model_dump()
    assert [name for name, text in said.items() if not text.startswith("Not shown")] == [line]


def test_faults_are_counted_in_their_line() -> None:
    red = [one.model_copy(update={"verdict": "fault"}) for one in (RULE[0], FITS[0], STREAM)]
    said = statement([*WHOLE, red[0], *FITS[1:], red[1], red[2]])
    assert "(1 of 3 are faults)" in said.exact and "(1 of 3 are faults)" in said.sampled and "(1 of 1 are faults)" in said.sampled


def test_only_measured_bounds_are_stated() -> None:
    measured = {name: value for name, value in STREAM.measured.items() if name != DKW_BOUND}
    sampled = statement([STREAM.model_copy(update={"measured": measured})]).sampled
    assert "rigorous" not in sampled and "asymptotic at 99.9%: total variation within 0.021 of uniform" in sampled


def test_least_sensitive_case_is_stated() -> None:
    assert "0.070 or more" in statement([fitted("a", 0.03), fitted("b", 0.07), fitted("c", 0.05)]).sampled
    assert "0.030 or more" in statement([fitted("a", 0.03)]).sampled


def test_results_without_typed_fields_add_nothing() -> None:
    """Records from before these fields: their statement is stored in the footer."""
    record = read_record(Path("reports/reference/record.jsonl"))
    old = [one.model_copy(update={"work": None, "effect": None, "detectable": None}) for one in record.results]
    assert statement(old) == NOTHING and record.footer.statement is not None


def test_false_alarms_of_all_checks_add_up() -> None:
    shares = [result("LAW-4", "a", false_alarm=1e-9), result("LAW-7", "b", "fault", false_alarm=2e-9), result("LAW-1", "c")]
    assert false_alarm(shares) == pytest.approx(3e-9) and false_alarm([]) == 0
