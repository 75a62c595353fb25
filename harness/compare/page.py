"""A comparison, drawn: index.html, summary.md and its pictures; functions of the record, and of what is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.bench.page import markdown
from harness.bench.show import NAMES, machine
from harness.compare import show
from harness.compare.pictures import Named, pictures, quoted
from harness.compare.record import Record
from harness.compare.words import asked, broken, greedy, left_out, order, sentence
from harness.files import write_atomic
from harness.report.page import templates
from harness.report.summary import code, text


def draw(record: Record, out: Path) -> list[Path]:
    """Write the page, the summary and one file a picture, and return their paths."""
    drawn, published = list(pictures(record)), list(quoted())
    told = {
        "record": record,
        "tables": show.tables(record),
        "lead": drawn[:1],
        "drawn": drawn[1:],
        "sentence": sentence(record),
        "asked": asked(record),
    }
    told |= {"quoted": [show.quoted()], "published": published, "words": words(record), "broken": broken(record)}
    told |= {"names": NAMES, "legend": "", "machine": machine(record.header), "arms": arms(record)}
    picture = templates().get_template("picture.svg")
    texts = {"index.html": templates().get_template("compare.html").render(**told)}
    texts |= {f"{name}.svg": picture.render(title=title, plot=plot) for name, title, plot in (*drawn, *published)}
    texts["summary.md"] = "\n".join(_summary(record, drawn, published)) + "\n"
    return [write_atomic(out / name, body) for name, body in texts.items()]


def words(record: Record) -> list[str]:
    """Beside the headline: the expected order, who could not be run, and whether all texts are the same."""
    missing = left_out(record)
    return [said for said in (order(record), f"Left out: {missing}." if missing else "", greedy(record)) if said]


def arms(record: Record) -> dict[str, str]:
    """What each arm is."""
    return {
        one.arm: f"{one.title} ({one.paper}), rule {one.rule}; " + ", ".join(f"{k}={v}" for k, v in one.options.items())
        for one in record.header.entered
    }


def _summary(record: Record, drawn: Sequence[Named], published: Sequence[Named]) -> Iterator[str]:
    yield from ("## Every method of the family", "", text(sentence(record), 2400), "")
    if record.footer is None:
        yield from ("This run was cut off: figures are of what there is.", "")
    yield from _shown(drawn[:1])
    for said in words(record):
        yield from (text(said, 2400), "")
    for cells in show.tables(record):
        yield from (f"### {text(cells.title)}", "", *markdown(cells), *([f"\n{text(cells.note, 600)}"] if cells.note else []), "")
    yield from (text(asked(record), 600), "", text(machine(record.header), 600), "")
    yield from _shown(drawn[1:])
    yield from ("## Published elsewhere", "", text(show.QUOTED, 600), "")
    yield from _shown(published)
    yield from (*markdown(show.quoted()), "", f"Again: {code(record.header.command)}")


def _shown(drawn: Sequence[Named]) -> Iterator[str]:
    for name, title, plot in drawn:
        yield from (f"### {text(title)}", "", f"![{text(title)}]({name}.svg)", "", text(plot.reading, 600), "")
