"""The results of a record on a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import terminal
from properties.meta.helpers.records import hostile, mixed


def test_terminal_shows_faults_commands_and_the_statement(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(mixed(), Path("reports/latest"))
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    words = " ".join(output.split())
    for part in ("eagle2 replay LAW-2.10 ", "M04", "exact Enumerated: 7.", "once in 200 years"):
        assert part in words
    assert "Measured: 8." not in words, "no property that compares logits was run"


def test_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(hostile(), None)
    output = capsys.readouterr().out
    assert "alert(1)" in output and not [c for c in output if not c.isprintable() and c != "\n"]
