"""A record, drawn: one page to read, a summary and a badge for a pipeline, JUnit for machines.

Everything here is a function of the record. Nothing is judged: the verdicts are those that stand in it, and a record made
on another machine last year renders to the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from harness.files import write_atomic
from harness.record.model import Record
from harness.report.junit import junit
from harness.report.page import page
from harness.report.summary import badge, summary

__all__ = ["render"]


def render(record: Record, out: Path) -> list[Path]:
    """Write index.html, summary.md, junit.xml and badge.json into `out`, and return their paths.

    All texts are made before the first is written, and each file appears whole or not at all: it is written under
    another name and then renamed.
    """
    texts = {"index.html": page(record), "summary.md": summary(record), "junit.xml": junit(record), "badge.json": badge(record)}
    out.mkdir(parents=True, exist_ok=True)
    return [write_atomic(out / name, text) for name, text in texts.items()]
