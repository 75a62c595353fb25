"""Summary of `eagle2 unedited`: third-party decoders, enumerated without a change to their code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.report.layout import Command, Page, Paragraph, Section, markdown
from harness.report.tables import Table, columns
from harness.report.text import facts_line, number, seconds

METHOD = (
    "All random decisions of the code are intercepted and enumerated. Whole decoders: continuations of models of four tokens in"
    " float32. Rules alone: one draft tree in float64."
)


class Enumerated(Protocol):
    """A decoder that was enumerated. unfinished: probability of the executions that were not run."""

    @property
    def mode(self) -> str: ...
    @property
    def lossless(self) -> bool: ...
    @property
    def executions(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def distance(self) -> float: ...
    @property
    def unfinished(self) -> float: ...


def unedited_summary(decoders: Sequence[Enumerated], versions: Mapping[str, str], command: str) -> str:
    """Markdown: for each decoder whether it is declared lossless, and its total variation from the target's law."""
    rows = tuple(
        (
            decoder.mode,
            "lossless" if decoder.lossless else "lossy",
            number(decoder.executions),
            seconds(decoder.seconds),
            number(decoder.distance),
            number(decoder.unfinished) if decoder.unfinished else "0",
        )
        for decoder in decoders
    )
    headings = ("decoder", "promises", "executions", "time", "total variation", "probability not enumerated")
    table = Table(columns(*headings, left=headings[:2]), rows)
    largest = max((decoder.distance for decoder in decoders if decoder.lossless), default=0.0)
    page = Page(
        title="Third-party decoders, enumerated unedited",
        answer=f"The largest total variation of a decoder that promises to be lossless is {number(largest)}.",
        show_verdict=False,
        sections=(
            Section("Results", (table, Paragraph(METHOD))),
            Section("Run again", (Command(command), Paragraph(facts_line(dict(versions))))),
        ),
    )
    return markdown(page)
