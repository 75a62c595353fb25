"""summary.md of what was seen when other people's decoders were enumerated as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.enumeration.third_party import EnumeratedDecoder
from harness.report.summary import text
from harness.report.words import number, seconds


def summary(found: Sequence[EnumeratedDecoder], versions: Mapping[str, str], command: str) -> str:
    """A row for each way of decoding: what it promises, and the total variation between what it emits and the target's law."""
    rows = [
        f"| {text(one.mode)} | {'lossless' if one.lossless else 'lossy'} | {one.executions:,} | {seconds(one.seconds)} |"
        f" {number(one.distance)} | {number(one.unfinished) if one.unfinished else '0'} |"
        for one in found
    ]
    lines = [
        "## Decoders that are not ours, enumerated as they are",
        "",
        "Nothing is edited: everything that the code draws is intercepted and run through. Whole continuations of models of four",
        "tokens in float32, and rules alone on one draft tree in float64.",
        "",
        "| what | promises | executions | time | total variation | mass not run |",
        "|---|---|--:|--:|--:|--:|",
        *rows,
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + f". Again: `{command}`",
    ]
    return "\n".join(lines) + "\n"
