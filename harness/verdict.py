"""Verdicts: their order and appearance, and how the results of a run become one verdict and an exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.record.model import BROKEN as BROKEN
from harness.record.model import FAULT as FAULT
from harness.record.model import INCONCLUSIVE as INCONCLUSIVE
from harness.record.model import JUDGED as JUDGED
from harness.record.model import PASS as PASS
from harness.record.model import USAGE as USAGE
from harness.record.model import Property, Result, Verdict
from harness.record.model import conclude as conclude

HARNESS_ERROR, STOPPED, CLOSED_PIPE = 70, 130, 141
"""Exit codes of every command that are no verdict: an error of the harness itself or of the machine, such as a full disk; stopped
by Ctrl-C; the reader of its output has ended."""


@dataclass(frozen=True)
class Sign:
    """Appearance of a verdict.

    symbol: one character, so that no reader depends on the colour. style: class in the stylesheet of a page. colour: six
    hexadecimal digits, for a badge. terminal: style of `rich`.
    """

    symbol: str
    style: str
    colour: str
    terminal: str


SIGNS: dict[Verdict, Sign] = {
    "fault": Sign("✗", "fault", "b3261e", "bold red"),
    "inconclusive": Sign("?", "open", "8a5a00", "yellow"),
    "blocked": Sign("⊘", "blocked", "65558f", "magenta"),
    "known": Sign("†", "known", "8f4f3a", "red"),
    "tie": Sign("=", "tie", "2a6299", "cyan"),
    "pass": Sign("✓", "pass", "24704d", "green"),
    "n/a": Sign("–", "na", "626b71", "dim"),
}
"""All verdicts, the gravest first. Every list and every summary uses this order."""


def gravity(verdict: Verdict) -> int:
    """Rank of a verdict for sorting; 0 is the gravest."""
    return _ORDER[verdict]


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of some verdicts."""
    return min(verdicts, key=gravity)


def settle(results: Sequence[Result], properties: Mapping[str, Property]) -> list[Result]:
    """Mark results as blocked if a foundation of their property is red, so that one cause gives one red line.

    A known fault blocks nothing.
    """
    red = {result.property for result in results if result.verdict == "fault" or result.broken}
    return [
        result.model_copy(
            update={"verdict": "blocked", "summary": f"blocked by {', '.join(causes)}: {result.summary}", "broken": False}
        )
        if result.verdict in ("fault", "inconclusive") and (causes := sorted(_foundations(result.property, properties) & red))
        else result
        for result in results
    ]


def _foundations(name: str, properties: Mapping[str, Property]) -> set[str]:
    """All properties that a property needs, directly or not."""
    found: set[str] = set()
    unvisited = list(properties[name].needs) if name in properties else []
    while unvisited:
        below = unvisited.pop()
        if below not in found and below in properties:
            found.add(below)
            unvisited += properties[below].needs
    return found


_ORDER: dict[Verdict, int] = {verdict: rank for rank, verdict in enumerate(SIGNS)}
