"""The statement says what was shown and no more: three lines, each of its own kind, each able to say that nothing was."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.equivalence import false_alarm, statement
from harness.record.model import Result, Statement, read_record
from properties.meta.helpers.records import result

WHOLE = [
    result("LAW-1", "a", measured={"total variation": 2e-16, "executions": 40, "continuations": 9}),
    result("LAW-6", "b", measured={"total variation": 1.5e-7, "executions": 2000}),
]
RULE = [result("LAW-2", "", measured={"instances": 300, "total variation": 3e-17})]
LOGITS = [result("TREE-5", "", measured={"mean total variation": 2e-6, "largest total variation": 3.1e-4, "tokens": 1500})]
FITS = [
    result("LAW-4", name, measured={"samples": 2000, "chi-square": 9.0}, sensitivity=f"total variation of {tv} or more")
    for name, tv in (("a", 0.078), ("b", 0.077), ("c", 0.077))
]
STREAM = result(
    "LAW-7",
    "a",
    measured={"tokens": 20000, "log10 E": -0.41, "dkw bound": 0.0172, "pit tv": 0.021, "log10 E, lag": 5.0},
    sensitivity="a total variation of 0.041 or more of tokens' ranks from uniform (power 0.9, asymptotic)",
)
OTHER = STREAM.model_copy(
    update={"case": "b", "measured": {**STREAM.measured, "log10 E": 0.7, "dkw bound": 0.01, "pit tv": 0.03}}
)
ARMS = [result("LAW-8", "", measured={"tokens": 1920}, sensitivity="gross faults only")]


def test_the_three_lines() -> None:
    assert statement([*WHOLE, *RULE, *LOGITS, *FITS, STREAM, OTHER, *ARMS]) == Statement(
        exact="Enumerated: 2,040 executions of whole decoders, all of 2 instances, total variation at most 1.5e-07;"
        " the rule alone on 300 instances of tree and law, at most 3e-17 at any node.",
        logits="Measured: total variation of 2e-06 a token on average, 0.00031 at most, over 1,500 tokens; of others nothing is"
        " proved.",
        sampled="First tokens of 6,000 samples in 3 laws; would have seen total variation of 0.078 or more, the least sensitive"
        " of them. 40,000 tokens, evidence against it at most 10^0.7 in any of 2 streams; would have seen total variation"
        " of 0.041 or more of tokens' ranks from uniform (power 0.9, asymptotic); rigorous at 99.9% if ranks are independent and"
        " their number was fixed: distribution function within 0.017 of uniform; asymptotic at 99.9%: total variation within 0.03"
        " of uniform. 1,920 tokens against its own control; would have seen gross faults only.",
    )


def test_what_was_not_run_is_not_shown() -> None:
    nothing = Statement(
        exact="Not shown: nothing was enumerated.",
        logits="Not shown: the logits were not compared.",
        sampled="Not shown: nothing was sampled.",
    )
    assert statement([]) == nothing
    silent = [
        one.model_copy(update={"verdict": verdict}) for one in (*WHOLE, STREAM) for verdict in ("n/a", "blocked", "inconclusive")
    ]
    broken = [one.model_copy(update={"broken": True}) for one in (*WHOLE, *RULE, *LOGITS, *FITS, STREAM)]
    assert statement([*silent, *broken]) == nothing


@pytest.mark.parametrize(
    ("line", "some"), [("exact", WHOLE), ("exact", RULE), ("logits", LOGITS), ("sampled", FITS), ("sampled", [STREAM])]
)
def test_no_line_speaks_for_another(line: str, some: list[Result]) -> None:
    said = statement(some).model_dump()
    assert [name for name, text in said.items() if not text.startswith("Not shown")] == [line]


def test_a_fault_is_not_hidden_in_a_line() -> None:
    red = [one.model_copy(update={"verdict": "fault"}) for one in (RULE[0], FITS[0], STREAM)]
    said = statement([*WHOLE, red[0], *FITS[1:], red[1], red[2]])
    assert "(1 of 3 are faults)" in said.exact and "(1 of 3 are faults)" in said.sampled and "(1 of 1 are faults)" in said.sampled


def test_rigorous_and_asymptotic_stand_apart() -> None:
    """Where only one was measured, the other is not promised."""
    measured = {name: value for name, value in STREAM.measured.items() if name != "dkw bound"}
    said = statement([STREAM.model_copy(update={"measured": measured})]).sampled
    assert "rigorous" not in said and "asymptotic at 99.9%: total variation within 0.021 of uniform" in said


def test_what_is_missing_in_a_measurement_is_said() -> None:
    assert "total variation at most what was not measured" in statement([result("LAW-1", "", measured={"executions": 3})]).exact


def test_the_least_sensitive_speaks_for_all() -> None:
    many = [FITS[0].model_copy(update={"case": str(i), "sensitivity": f"total variation of 0.0{i}"}) for i in (3, 7, 5)]
    assert "would have seen total variation of 0.07, the least sensitive of them." in statement(many).sampled
    assert "would have seen total variation of 0.03." in statement(many[:1]).sampled


def test_the_statement_of_the_shipped_record() -> None:
    said = statement(read_record(Path("reports/reference/record.jsonl")).results)
    assert said.exact.startswith("Enumerated: ") and "are faults" not in said.exact + said.sampled


def test_the_shares_of_all_checks_are_added() -> None:
    shares = [result("LAW-4", "a", false_alarm=1e-9), result("LAW-7", "b", "fault", false_alarm=2e-9), result("LAW-1", "c")]
    assert false_alarm(shares) == pytest.approx(3e-9) and false_alarm([]) == 0
