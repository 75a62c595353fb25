"""From results to a verdict and an exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.record.model import Property, Result, Verdict

PASS, FAULT, USAGE, INCONCLUSIVE, BROKEN = 0, 1, 2, 3, 4
"""Exit codes of `eagle2 verify`. A crash, a time-out or missing data is never a pass."""

JUDGED = ("pass", "tie", "known", "fault")


def settle(results: Sequence[Result], properties: Mapping[str, Property]) -> list[Result]:
    """Mark as blocked what is not green on a red foundation: one cause, one red line. A known fault blocks nothing."""
    red = {result.property for result in results if result.verdict == "fault" or result.broken}
    return [
        result.model_copy(
            update={"verdict": "blocked", "summary": f"blocked by {', '.join(causes)}: {result.summary}", "broken": False}
        )
        if result.verdict in ("fault", "inconclusive") and (causes := sorted(_foundations(result.property, properties) & red))
        else result
        for result in results
    ]


def conclude(results: Sequence[Result]) -> tuple[Verdict, int]:
    """The verdict of a run, and the exit code: fault before broken, before inconclusive, before known, tie and pass."""
    verdicts = {result.verdict for result in results}
    if "fault" in verdicts:
        return "fault", FAULT
    if any(result.broken for result in results):
        return "inconclusive", BROKEN
    if verdicts & {"inconclusive", "blocked"} or not verdicts & set(JUDGED):
        return "inconclusive", INCONCLUSIVE
    mildest: Verdict = "known" if "known" in verdicts else "tie" if "tie" in verdicts else "pass"
    return mildest, PASS


def _foundations(name: str, properties: Mapping[str, Property]) -> set[str]:
    found: set[str] = set()
    todo = list(properties[name].needs) if name in properties else []
    while todo:
        below = todo.pop()
        if below not in found and below in properties:
            found.add(below)
            todo += properties[below].needs
    return found
