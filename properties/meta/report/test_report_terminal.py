"""The results of a record on a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from harness import terminal
from harness.record.model import Record
from properties.meta.contract import access
from properties.meta.helpers.records import LIKE, Page, hostile, mixed, record, rendered, result


def test_terminal_shows_faults_commands_and_the_statement(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(mixed(), Path("reports/latest"))
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    words = " ".join(output.split())
    for part in ("eagle2 replay LAW-2.10 ", "M04", "exact Enumerated: 7.", "once in 200 years"):
        assert part in words
    assert "Measured: 8." not in words, "no property that compares logits was run"


def newcomer() -> Record:
    """An error of an engine, a note, cases that wait for a capability, and a fault with a close and a poor likeness."""
    lacks = "the implementation does not declare the capability"
    results = (
        *(result("LAW-4", f"case {i}", "n/a", summary=f"{lacks} 'top_k'") for i in range(6)),
        result("LAW-4", "both", "n/a", summary=f"{lacks} 'top_k', 'top_p'"),
        *(result("TOLD-1", f"case {i}", "n/a", summary=f"{lacks} 'logprobs'") for i in range(4)),
        *(result("LAW-1", f"case {i}", "n/a", summary=f"{lacks} 'coins', 'budget'") for i in range(3)),
        result("COUNT-1", "", note="drafts are hardly ever accepted (3 tokens in 100 passes)"),
        result("TOLD-2", "", note="drafts are hardly ever accepted (3 tokens in 100 passes)"),
        result("STOP-1", "", "fault"),
        result(
            "SMOKE-1",
            "",
            "inconclusive",
            broken=True,
            summary="the implementation raised, generate() of 3 prompts on stdlib: ValueError: no room (my_engine.py:12);"
            " traceback in tracebacks/SMOKE-1.txt",
        ),
    )
    of = record(*results, verdict="fault", exit_code=1)
    alike = (LIKE, LIKE.model_copy(update={"mutant": "M65", "fit": 0.57}))
    return of.model_copy(update={"footer": of.footer.model_copy(update={"likenesses": alike})})


def test_first_record_of_a_newcomer_on_a_terminal(snapshot: SnapshotAssertion) -> None:
    assert access.print_at_80_columns(terminal.show_record, newcomer(), Path("reports/latest")) == snapshot


def test_first_record_of_a_newcomer_in_reports(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    texts = rendered(newcomer(), tmp_path)
    assert texts["summary.md"] == snapshot
    page = Page(texts["index.html"])
    words = " ".join(" ".join(page.words).split())
    for shown in (
        "Declare top_k to be judged on 6 more cases, logprobs on 4, top_k and top_p on 1.",
        "COUNT-1: drafts are hardly ever",
    ):
        assert words.count(shown) == 1
    assert "M04" in words and "M65" not in words


def test_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(hostile(), None)
    output = capsys.readouterr().out
    assert "alert(1)" in output and not [c for c in output if not c.isprintable() and c != "\n"]
