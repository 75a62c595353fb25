"""Text for reports: numbers with units, lists of names, and untrusted text made safe for a terminal, Markdown and HTML.

A record may hold text of an implementation, which is never trusted. `printable` escapes control characters and bounds the
length; it is enough for a terminal. `escape_markdown` and `code_span` also escape Markdown. In HTML, `printable` is followed by
the automatic escaping of jinja2.

    >>> number(12345), number(0.031234), seconds(75.2), plural(3, "check"), join_names(["LAW-1", "LAW-3"])
    ('12,345', '0.03123', '75 s', '3 checks', 'LAW-1 and LAW-3')
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable


def printable(text: str, limit: int = 2000) -> str:
    """Escape unprintable characters, bidirectional overrides included, and cut text that is much longer than `limit`; a cut is
    stated in the text."""
    note = f" … ({len(text) - limit} more characters in the record)"
    shown = text[:limit] if len(text) > limit + len(note) else text  # the note would be longer than what it replaces
    safe = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)
    return safe if shown == text else safe + note


def token_label(text: str, limit: int = 12) -> str:
    """A token as a label: unprintable characters escaped, spaces at the ends or in a row visible, cut to `limit`."""
    label = printable(text[: limit + 1], limit + 1).replace("\n", "\\n")
    label = re.sub(r"^ +| +$|  +", lambda spaces: "␣" * len(spaces[0]), label)
    return label if len(label) <= limit else label[: limit - 1] + "…"


def escape_markdown(text: str, limit: int = 400) -> str:
    """One line of Markdown that shows the text and has no effect: no table cell, tag, link, emphasis or formula."""
    line = printable(text, limit).replace("\n", " ")
    return re.sub(r"([\\`*_\[\]<>|~#$&]|:(?=//)|(?<=www)\.)", r"\\\1", line)


def code_span(text: str, limit: int = 1000) -> str:
    """A Markdown code span; its fence is longer than any run of backticks in the text. Empty for blank text."""
    line = printable(text, limit).replace("\n", "\\n")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line.strip() else ""


def number(value: float | str) -> str:
    """A number to four significant digits, whole numbers in full; a string is returned as printable text."""
    if isinstance(value, str):
        return printable(value, 200)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def seconds(value: float) -> str:
    """A duration to two digits, such as '75 s', '3.0 s' or '12 ms'."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.0f} s" if value >= 9.95 else f"{value:.1f} s" if value >= 0.05 else f"{1000 * value:.0f} ms"


def interval(low: float, high: float, digits: int = 2) -> str:
    """Both ends of an interval, such as '1.97–2.04'."""
    return f"{low:.{digits}f}–{high:.{digits}f}"


def plural(count: int, noun: str) -> str:
    """'1 check', '3 checks'."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def join_names(names: Iterable[str], most: int = 5) -> str:
    """'LAW-1, LAW-3 and TREE-2'; the names after the first `most` are counted."""
    all_names = list(names)
    if len(all_names) > most:
        all_names = [*all_names[:most], f"{len(all_names) - most} more"]
    return " and ".join(part for part in (", ".join(all_names[:-1]), *all_names[-1:]) if part)


def join_sentences(*sentences: str) -> str:
    """The sentences that are not empty, with a space between them."""
    return " ".join(sentence for sentence in sentences if sentence)


def facts_line(facts: dict[str, str]) -> str:
    """'cores 2, memory 8 GB': names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def date_and_time(stamp: str) -> str:
    """'2026-07-01T10:20:30.123+00:00' as '2026-07-01 10:20 UTC'; any other text is returned as printable text."""
    day, _, time = stamp.partition("T")
    is_utc = len(day) == 10 and len(time) >= 5 and time.endswith(("Z", "+00:00"))
    return printable(f"{day} {time[:5]} UTC" if is_utc else stamp, 60)
