"""The report of `eagle2 verify`: a page, a summary and a badge, all functions of the record. Nothing is judged here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from harness.files import write_together
from harness.record.model import CountPicture, LawPicture, Picture, Record, Result
from harness.report import evidence_plots, plots
from harness.report.canvas import Drawing
from harness.report.cases import Case, JudgedProperty, cases, chapters, properties, verdict_counts
from harness.report.junit import junit
from harness.report.layout import (
    Block,
    Command,
    Details,
    Facts,
    Item,
    Items,
    Page,
    Paragraph,
    Section,
    html,
    markdown,
    verdict_legend,
    verdict_mark,
    write,
)
from harness.report.sentences import (
    MEANINGS,
    excuse_sentence,
    false_alarm_sentence,
    leads,
    likeness_sentence,
    note_sentences,
    statement_lines,
    unlocking_sentence,
    verdict_sentence,
    witness_sentence,
)
from harness.report.tables import Cell, Column, Table, text_columns
from harness.report.text import date_and_time, join_names, number, plural, printable, seconds
from harness.report.trees import tree
from harness.verdict import SIGNS

PICTURES = 4  # drawn for one property
FAULTS = 6  # listed at the top of the page
SENSITIVITIES = 3  # of one property, before the others are counted
P_VALUES = 5  # fewest whose distribution is drawn

LABELS = {"oracle": "scoring dtype"}
"""Labels of settings whose name in the record is not plain."""


def render(record: Record, out: Path) -> list[Path]:
    """Write index.html, summary.md, junit.xml and badge.json into `out`, and return their paths.

    All files are complete before the first gets its name, and index.html is the last.
    """
    texts = {
        "index.html": html(verify_page(record)),
        "summary.md": markdown(verify_summary(record)),
        "junit.xml": junit(record),
        "badge.json": badge(record),
    }
    out.mkdir(parents=True, exist_ok=True)
    return write_together({out / name: text for name, text in texts.items()})


def render_page(record: Record, out: Path) -> list[Path]:
    """Write index.html and summary.md alone into `out`, for a record among others."""
    return write(verify_page(record), out, summary=verify_summary(record))


def verify_page(record: Record) -> Page:
    """The whole record as a page."""
    judged = properties(record)
    sections = (
        _faults(record, judged),
        _notes(record),
        _requirements(record),
        _distance(record),
        _sensitivities(judged),
        _error_budget(record),
        Section("Evidence", tuple(_evidence(one) for one in judged), id="evidence"),
        Section("Meaning of the verdicts", (Facts(tuple((f"{SIGNS[v].symbol} {v}", text) for v, text in MEANINGS.items())),)),
        _provenance(record),
    )
    return _page(record, tuple(section for section in sections if any(map(_has_content, section.blocks))))


def verify_summary(record: Record) -> Page:
    """The record in short, for a pipeline: the verdict, a table by property, every fault with its commands."""
    verdicts = [verdict for verdict, _ in verdict_counts(record.results)]
    columns = (*text_columns("property", "requirement"), *(Column(f"{SIGNS[v].symbol} {v}") for v in verdicts))
    rows = []
    for one in properties(record):
        counts = dict(one.counts)
        requirement = printable(one.claim.requirement, 200) + ("" if one.cases else " (no case was run)")
        rows.append((one.claim.id, requirement, *(number(counts[v]) if v in counts else "" for v in verdicts)))
    known = [case for case in cases(record) if case.result.verdict == "known"]
    silent = [case for case in cases(record) if case.result.verdict == "inconclusive"]
    found = [case for case in cases(record) if case.result.verdict == "fault"]
    likenesses = [Item(likeness_sentence(one), "Diagnosis") for one in leads(record.footer.likenesses)]
    waiting = unlocking_sentence(record.results)
    sections = (
        Section("Results", (Table(columns, tuple(rows)), *([Paragraph(waiting)] if waiting else []))),
        Section("Faults", (Items((*map(_item, found),)), Items(tuple(likenesses)))),
        _notes(record),
        Section("Known faults", (Items(tuple(map(_item, known))),)),
        Section("No answer", (Items(tuple(map(_item, silent)), most=10),)),
        _distance(record),
        Section("Run again", (Command(record.header.command),)),
    )
    return _page(record, tuple(section for section in sections if any(map(_has_content, section.blocks))))


def badge(record: Record) -> str:
    """The endpoint format of shields.io."""
    verdict, total = record.footer.verdict, plural(len(record.results), "check")
    count = sum(result.verdict == verdict for result in record.results)
    message = f"{verdict}, {total}" if verdict == "pass" else f"{verdict}, {number(count)} of {total}"
    fields = {"schemaVersion": 1, "label": "target’s law", "message": message, "color": SIGNS[verdict].colour}
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _page(record: Record, sections: tuple[Section, ...]) -> Page:
    header, footer = record.header, record.footer
    settings = [f"{LABELS.get(name, name)} {value}" for name, value in header.settings.items()]
    times = [date_and_time(header.started), seconds(footer.seconds)]
    return Page(
        title=header.implementation,
        subtitle=header.implementation_version,
        eyebrow="eagle2 verify",
        answer=verdict_sentence(record),
        verdict=footer.verdict,
        counts=tuple(verdict_counts(record.results)),
        meta=" · ".join([f"pair {header.pair}", *settings, *times]),
        sections=sections,
    )


def _has_content(block: Block) -> bool:
    return not isinstance(block, Items) or bool(block.items)


def _faults(record: Record, judged: Sequence[JudgedProperty]) -> Section:
    """The first faults, and the mutants that they look like."""
    faults = [case for one in judged for case in one.by_gravity if case.result.verdict == "fault"]
    items = [_item(case, witness=False) for case in faults[:FAULTS]]
    if more := len(faults) - len(items):
        items.append(Item(f"And {plural(more, 'more fault')}: see the red marks below.", style="fault"))
    items += [Item(likeness_sentence(one), "Diagnosis") for one in leads(record.footer.likenesses)]
    return Section("Faults", (Items(tuple(items)),) if items else (), id="faults")


def _notes(record: Record) -> Section:
    """What to look at although it is no fault."""
    return Section("Notes", (Items(tuple(map(Item, note_sentences(record.results)))),), id="notes")


def _item(case: Case, witness: bool = True) -> Item:
    result = case.result
    notes = [f"Known: {excuse_sentence(result.excuse)}"] if result.excuse else []
    notes += [witness_sentence(result.witness)] if result.witness and witness else []
    lead = " ".join(part for part in (result.property, printable(result.case, 200)) if part)
    style = SIGNS[result.verdict].style
    return Item(printable(result.summary, 400), lead, f"#{case.anchor}", tuple(notes), case.commands, style)


def _distance(record: Record) -> Section:
    """The statement: three kinds of knowledge, which never become one number."""
    lines = statement_lines(record.footer.statement)
    facts = (Facts(tuple(lines)),) if lines else ()
    budget = (Paragraph(false_alarm_sentence(record.footer.false_alarm)),) if record.footer.false_alarm else ()
    return Section("Largest undetected difference from the target", (*facts, *budget), id="statement")


def _requirements(record: Record) -> Section:
    """A row for each property, a mark for each of its cases."""
    blocks: list[Block] = []
    for chapter in chapters(record):
        rows = []
        for one in chapter.properties:
            marks = tuple(verdict_mark(c.result.verdict, f"#{c.anchor}", _tooltip(c.result)) for c in one.cases)
            cell = Cell(marks=marks) if marks else Cell("no case was run", "na")
            rows.append((Cell(one.claim.id, link=f"#{one.anchor}"), printable(one.claim.requirement, 400), cell))
        table = Table(text_columns("property", "requirement", "cases"), tuple(rows), kind="requirements")
        blocks.append(Section(chapter.title, (table,), note=chapter.question))
    legend = verdict_legend("Each mark is a case and leads to its measurements.")
    waiting = unlocking_sentence(record.results)
    return Section("Requirements", (*blocks, legend, *([Paragraph(waiting)] if waiting else [])), id="matrix")


def _tooltip(result: Result) -> str:
    return f"{printable(result.case, 120)}\n{result.verdict}: {printable(result.summary, 200)}"


def _sensitivities(judged: Sequence[JudgedProperty]) -> Section:
    """The smallest effect that each property would have detected."""
    rows = []
    for one in judged:
        counted = [(printable(text, 300), f" ({plural(n, 'case')})" if n > 1 else "") for text, n in one.sensitivities]
        stated = [f"{text}{times}" for text, times in counted]
        more = [f"and {len(stated) - SENSITIVITIES} more, with the cases below"] if len(stated) > SENSITIVITIES else []
        if stated:
            rows.append((Cell(one.claim.id, link=f"#{one.anchor}"), Cell(stated[0], notes=(*stated[1:SENSITIVITIES], *more))))
    table = Table(text_columns("property", "a passing case would have detected"), tuple(rows))
    return Section("Smallest detectable effect", (table,) if rows else (), id="sensitivity")


def _error_budget(record: Record) -> Section:
    """All p-values of the run, those of faults and of diagnostics included."""
    all_values = [p for r in record.results for p in (r.p_value, *r.diagnostics.values()) if p is not None]
    finite = [p for p in all_values if math.isfinite(p)]
    if len(finite) < P_VALUES:
        return Section("", ())
    diagnostics = sum(len(result.diagnostics) for result in record.results)
    drawing = evidence_plots.p_values("p-values", "Distribution of all p-values of the run", finite, diagnostics)
    return Section("p-values", (drawing,), id="p-values")


def _evidence(one: JudgedProperty) -> Section:
    """All cases of a property, with its first pictures."""
    blocks: list[Block] = [Paragraph(one.claim.requirement, "requirement")]
    if one.claim.needs:
        blocks.append(Paragraph(f"Needs {join_names(printable(name, 60) for name in one.claim.needs)}.", "note"))
    if not one.cases:
        blocks.append(Paragraph("No case was run.", "note"))
    blocks += [_cases(one.unfolded)] if one.unfolded else []
    blocks += [_draw(f"{case.anchor}-{i}", case, picture) for i, (case, picture) in enumerate(one.pictures[:PICTURES])]
    if (hidden := len(one.pictures) - PICTURES) > 0:
        blocks.append(Paragraph(f"The record has {plural(hidden, 'more picture')} of this property.", "note"))
    for verdict, folded in one.folded:
        blocks.append(Details(f"{plural(len(folded), 'case')}: {verdict}", (_cases(folded),), verdict_mark(verdict)))
    tally = ", ".join(f"{n} {verdict}" for verdict, n in one.counts)
    return Section(printable(one.claim.id, 60), tuple(blocks), id=one.anchor, note=tally)


def _cases(many: Sequence[Case]) -> Table:
    rows = []
    for case in many:
        result = case.result
        verdict = Cell(result.verdict, SIGNS[result.verdict].style, SIGNS[result.verdict].symbol)
        notes = [result.summary]
        notes += [f"Note: {result.note}"] if result.note else []
        notes += ["The implementation raised an error, timed out or gave an invalid answer."] if result.broken else []
        notes += [f"Known: {excuse_sentence(result.excuse)}"] if result.excuse else []
        notes += [witness_sentence(result.witness)] if result.witness else []
        notes += [f"Smallest detectable effect: {printable(result.sensitivity, 300)}"] if result.sensitivity else []
        measured = [f"p-value {number(result.p_value)}"] if result.p_value is not None else []
        measured += [f"{printable(name, 60)} {number(value)}" for name, value in result.measured.items()]
        measured += [f"p-value, {printable(name, 60)} {number(p)}" for name, p in result.diagnostics.items()]
        seen = Cell(printable(result.case, 400), notes=tuple(notes), commands=case.commands)
        rows.append((verdict, seen, Cell(notes=tuple(measured)), seconds(result.seconds)))
    columns = (*text_columns("verdict", "case and result", "measured"), Column("time"))
    return Table(columns, tuple(rows), ids=tuple(case.anchor for case in many), kind="cases")


def _draw(name: str, case: Case, picture: Picture) -> Drawing:
    title, name_of_case = printable(picture.title, 120), printable(case.result.case, 120)
    title = title if name_of_case in title else f"{title} · {name_of_case}"
    if isinstance(picture, LawPicture):
        return evidence_plots.law(name, title, picture.outcomes, picture.expected, picture.observed, picture.n)
    if isinstance(picture, CountPicture):
        return plots.histogram(name, title, picture.counts, picture.xlabel)
    return tree(name, picture.model_copy(update={"title": title}))


def _provenance(record: Record) -> Section:
    header, footer = record.header, record.footer
    run = (
        ("implementation", header.implementation),
        ("version", header.implementation_version or "not stated"),
        ("capabilities", ", ".join(header.capabilities) or "none declared"),
        ("pair", header.pair),
        ("started", header.started),
        ("finished", footer.finished),
        ("results", number(footer.results)),
        ("exit code", number(footer.exit_code)),
    )
    groups = {"Settings": header.settings, "Versions": header.versions, "Machine": header.machine}
    blocks: list[Block] = [Command(header.command), Facts(run, "Run")]
    blocks += [Facts(tuple(pairs.items()), title) for title, pairs in groups.items() if pairs]
    if header.checksums:
        blocks.append(Details(f"SHA-256 of {plural(len(header.checksums), 'file')}", (Facts(tuple(header.checksums.items())),)))
    blocks.append(Paragraph(f"Drawn from a record of format {header.format}; nothing was measured or judged later.", "note"))
    return Section("Provenance", tuple(blocks), id="provenance")
