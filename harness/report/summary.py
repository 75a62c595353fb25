"""summary.md, the page for a pipeline's step summary, and badge.json, one word for a README."""

from __future__ import annotations

import json
import re

from harness.record.model import Record
from harness.report.view import Case, Row, cases, chapters, counts
from harness.report.words import (
    LIKENESSES,
    SIGNS,
    excused,
    false_alarm,
    likeness,
    number,
    seconds,
    sentence,
    several,
    shown,
    statement,
    witness,
)

FAULTS, OPEN = 50, 10  # lines; a summary that nobody reads to its end names the rest by their number


def summary(record: Record) -> str:
    """Markdown: the verdict, a table by property, and every fault with the line that shows it again."""
    header, verdict = record.header, record.footer.verdict
    rows = [row for chapter in chapters(record) for row in chapter.rows]
    signs = [sign for sign, _ in counts(record.results)]
    tally = " · ".join(f"{number(n)} {sign.verdict}" for sign, n in counts(record.results)) or "no results"
    name = " ".join(part for part in (code(header.implementation), text(header.implementation_version, 60)) if part)
    lines = [
        f"## {SIGNS[verdict].symbol} {verdict}: {name}",
        "",
        f"{text(sentence(record))}",
        "",
        f"{tally}, in {seconds(record.footer.seconds)} on pair {code(header.pair)}",
        "",
        "| property | requirement |" + "".join(f" {sign.symbol} {sign.verdict} |" for sign in signs),
        "|---|---|" + "--:|" * len(signs),
        *(table_row(row, [sign.verdict for sign in signs]) for row in rows),
        *section("Faults", [case for case in cases(record) if case.result.verdict == "fault"], FAULTS),
        *([""] if record.footer.likenesses else []),
        *(f"- {text(likeness(like), 800)}" for like in record.footer.likenesses[:LIKENESSES]),
        *section("Known faults", [case for case in cases(record) if case.result.verdict == "known"], FAULTS),
        *section("No answer", [case for case in cases(record) if case.result.verdict == "inconclusive"], OPEN),
        *worth(record),
        "",
        f"Again: {code(header.command)}",
    ]
    return "\n".join(lines) + "\n"


def table_row(row: Row, verdicts: list[str]) -> str:
    seen = {sign.verdict: n for sign, n in row.counts}
    cells = "".join(f" {number(seen[v]) if v in seen else ''} |" for v in verdicts)
    silent = "" if row.cases else " *(no case was run)*"
    return f"| {text(row.claim.id, 40)} | {text(row.claim.requirement, 200)}{silent} |{cells}"


def worth(record: Record) -> list[str]:
    """How far from the target it may still be, and how often such a run is wrong about a correct decoder."""
    footer = record.footer
    lines = ["", "### How far from the target it may still be", ""] if footer.statement else []
    lines += [f"- **{name}** {text(line, 1000)}" for name, line in statement(footer.statement)] if footer.statement else []
    return [*lines, *(["", text(false_alarm(footer.false_alarm))] if footer.false_alarm else [])]


def section(title: str, results: list[Case], most: int) -> list[str]:
    """A list of results; what is beyond `most` is counted."""
    if not results:
        return []
    lines = ["", f"### {title}", ""]
    for case in results[:most]:
        result = case.result
        lines.append(f"- **{text(result.property, 40)}** {text(result.case, 200)}: {text(result.summary, 400)}")
        lines += [f"  Known: {text(excused(result.excuse), 800)}"] if result.excuse else []
        lines += [f"  {text(witness(result.witness), 600)}"] if result.witness else []
        lines += [f"  {code(command)}" for command in (case.replay, result.replay) if command]
    return lines + ([f"- and {number(len(results) - most)} more, in index.html"] if len(results) > most else [])


def text(hostile: str, limit: int = 400) -> str:
    """One line of Markdown that shows the text and does nothing else: no table cell, tag, link, emphasis or formula."""
    line = shown(hostile, limit).replace("\n", " ")
    return re.sub(r"([\\`*_\[\]<>|~#$&]|:(?=//)|(?<=www)\.)", r"\\\1", line)


def code(hostile: str) -> str:
    """A code span, its fence longer than any run of backticks inside."""
    line = shown(hostile, 1000).replace("\n", "\\n")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line.strip() else ""


def badge(record: Record) -> str:
    """The endpoint format of shields.io."""
    verdict, total = record.footer.verdict, len(record.results)
    seen = sum(result.verdict == verdict for result in record.results)
    checks = several(total, "check") if verdict == "pass" else f"{number(seen)} of {several(total, 'check')}"
    fields = {"schemaVersion": 1, "label": "target’s law", "message": f"{verdict}, {checks}", "color": SIGNS[verdict].colour}
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
