"""The results of a record on a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import terminal
from properties.meta.helpers.records import SAID, hostile, mixed, record, result


def test_terminal_shows_faults_commands_and_the_statement(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(mixed(), Path("reports/latest"))
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    words = " ".join(output.split())
    for part in ("eagle2 replay LAW-2.10 ", "M04", "exact Enumerated: 7.", "once in 200 years"):
        assert part in words
    assert "Measured: 8." not in words, "no property that compares logits was run"


def test_terminal_shows_sampled_evidence_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each property, with the largest detectable effect of its cases."""
    effects = [{"value": value, "unit": "total variation"} for value in (0.03, 0.05)]
    work = {"value": 1000, "unit": "samples"}
    fits = [result("LAW-4", f"case {i}", work=work, detectable=effect) for i, effect in enumerate(effects)]
    of = record(*fits, result("LAW-8", "", work={"value": 1920, "unit": "tokens"}, sensitivity="gross faults only"))
    of = of.model_copy(update={"footer": of.footer.model_copy(update={"statement": SAID})})
    terminal.show_record(of, None)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "LAW-4 2,000 samples in 2 cases total variation of 0.050 or more" in lines
    assert "LAW-8 1,920 tokens in 1 case gross faults only" in lines
    assert not [line for line in lines if "Samples: 9." in line]


def test_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(hostile(), None)
    output = capsys.readouterr().out
    assert "alert(1)" in output and not [c for c in output if not c.isprintable() and c != "\n"]
