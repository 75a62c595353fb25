"""README's sections of figures, made from a record: never typed."""

from __future__ import annotations

import re
from pathlib import Path

from eagle2_ref.errors import BadInput
from harness.bench import show
from harness.bench.page import markdown
from harness.bench.record import Record
from harness.bench.words import asked, together
from harness.files import write_atomic
from harness.report.summary import text

SPEED = "speed"


def section(record: Record) -> str:
    """What stands between the marks."""
    lines = [
        f"{text(asked(record), 600)}",
        f"{text(show.machine(record.header), 600)}; {record.header.started[:10]}.",
        "",
        *markdown(show.glance(record)),
        "",
        text(f"{show.MEDIANS}. {show.TIMES_AS_FAST}", 600),
        *(["", text(told, 1200)] if (told := together(record)) else []),
    ]
    return "\n".join(lines)


def write(section: str, mark: str, readme: Path) -> Path:
    """Put a section where its marks are."""
    try:
        whole = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"no README at {readme}: {error.strerror}", "run it from the root of the repository") from None
    return write_atomic(readme, put(whole, section, mark, readme))


def put(whole: str, inner: str, mark: str, readme: Path) -> str:
    """The text with `inner` between its marks."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise BadInput(f"{readme} has no section {begin} … {end}", "put the two marks, once, where the figures are to stand")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{inner}\n{end}", whole, flags=re.DOTALL)
