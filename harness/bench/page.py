"""A record, drawn: index.html, summary.md and its pictures. Functions of the record alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.bench import show
from harness.bench.pictures import pictures
from harness.bench.record import Record
from harness.bench.show import Cells
from harness.bench.words import asked, sentence
from harness.files import write_atomic
from harness.report.page import templates
from harness.report.summary import code, text


def draw(record: Record, out: Path) -> list[Path]:
    """Write the page, the summary and one file a picture, and return their paths."""
    drawn = list(pictures(record))
    page = templates().get_template("bench.html")
    picture = templates().get_template("picture.svg")
    tables = show.tables(record)
    told = {"record": record, "tables": tables, "drawn": drawn, "sentence": sentence(record), "asked": asked(record)}
    told |= {"names": show.NAMES, "legend": show.LEGEND, "machine": show.machine(record.header), "arms": record.header.arms}
    texts = {"index.html": page.render(**told)}
    texts |= {f"{name}.svg": picture.render(title=title, plot=plot) for name, title, plot in drawn}
    texts["summary.md"] = "\n".join(_summary(record, tables)) + "\n"
    return [write_atomic(out / name, body) for name, body in texts.items()]


def _summary(record: Record, tables: list[Cells]) -> Iterator[str]:
    yield from ("## How fast it decodes", "", text(sentence(record), 1200), "")
    if record.footer is None:
        yield from ("This run was cut off: figures are of what there is.", "")
    for cells in tables:
        yield from (*markdown(cells), *([f"\n{text(cells.note, 600)}"] if cells.note else []), "")
    yield from (text(show.LEGEND, 600), "", text(asked(record), 600), "", text(show.machine(record.header), 600), "")
    for name, title, plot in pictures(record):
        yield from (f"### {text(title)}", "", f"![{text(title)}]({name}.svg)", "", text(plot.reading, 600), "")
    yield f"Again: {code(record.header.command)}"


def markdown(cells: Cells) -> Iterator[str]:
    """A table; the rows that are looked for in bold."""
    yield f"| {' | '.join(text(name, 60) for name in cells.columns)} |"
    yield "|" + "|".join("---" if name in show.NAMES else "--:" for name in cells.columns) + "|"
    for i, row in enumerate(cells.rows):
        mark = "**" if i in cells.heavy else ""
        yield "| " + " | ".join(f"{mark}{text(cell, 200)}{mark}" if cell else "" for cell in row) + " |"
