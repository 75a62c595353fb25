"""README's section on the family, made from a record: never typed."""

from __future__ import annotations

from harness.bench.page import markdown
from harness.bench.show import machine
from harness.compare import show
from harness.compare.record import Record
from harness.compare.words import asked, greedy, left_out, order
from harness.report.summary import text

FAMILY = "family"


def section(record: Record) -> str:
    """What stands between the marks."""
    own, equal = (
        show.glance(record, [one for one in record.header.entered if getattr(one, what)], "", "") for what in ("own", "equal")
    )
    missing = left_out(record)
    lines = [
        text(asked(record), 600),
        f"{text(machine(record.header), 600)}; {record.header.started[:10]}.",
        "",
        *markdown(own),
        "",
        text(show.LEGEND, 1200),
        "",
        *([show.EQUAL.format(m=record.header.settings.m), "", *markdown(equal), ""] if equal.rows else []),
        *([text(f"Left out: {missing}.", 1200), ""] if missing else []),
        *([text(order(record), 2400), ""] if order(record) else []),
        text(greedy(record), 1200),
    ]
    return "\n".join(lines)
