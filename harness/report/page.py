"""index.html: one file that opens from disk, reads without scripts and fetches nothing."""

from __future__ import annotations

import math
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.record.model import CountPicture, LawPicture, Picture, Record
from harness.report import svg_paths as plots
from harness.report import trees, view, words

MANY = 5  # p-values, from which on their distribution says something


def page(record: Record) -> str:
    """The whole page. The record's text is hostile: each template escapes, and the page's policy forbids scripts and fetching."""
    chapters = view.chapters(record)
    template = templates().get_template("page.html")
    return template.render(
        header=record.header,
        footer=record.footer,
        chapters=chapters,
        rows=[row for chapter in chapters for row in chapter.rows],
        counts=view.counts(record.results),
        results=record.results,
        sign=words.SIGNS[record.footer.verdict],
        signs=words.SIGNS.values(),
        sentence=words.sentence(record),
        likenesses=[words.likeness(like) for like in record.footer.likenesses[: words.LIKENESSES]],
        statement=words.statement(record.footer.statement) if record.footer.statement else [],
        false_alarm=words.false_alarm(record.footer.false_alarm) if record.footer.false_alarm else "",
        p_values=p_values(record),
        links={row.claim.id: row.anchor for chapter in chapters for row in chapter.rows},
    )


@cache
def templates() -> Environment:
    """Read from beside this file and compiled once."""
    environment = Environment(
        loader=PackageLoader("harness.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    ours = (words.shown, words.number, words.seconds, words.several, words.witness, words.excused, drawing, moment)
    environment.filters.update({one.__name__: one for one in ours})
    return environment


def drawing(picture: Picture) -> plots.Plot | trees.Drawing:
    """The marks of a picture; the templates draw them."""
    if isinstance(picture, LawPicture):
        return plots.law(picture)
    return plots.count(picture) if isinstance(picture, CountPicture) else trees.tree(picture)


def p_values(record: Record) -> plots.Plot | None:
    """All of the run, those of faults and of diagnostics too; None where there are too few to look at."""
    told = [p for result in record.results for p in (result.p_value, *result.diagnostics.values()) if p is not None]
    found = [p for p in told if math.isfinite(p)]
    return plots.uniform(found, sum(len(result.diagnostics) for result in record.results)) if len(found) >= MANY else None


def moment(stamp: str) -> str:
    """2026-07-01T10:20:30.123+00:00 as 2026-07-01 10:20 UTC; any other text as it is."""
    day, _, time = stamp.partition("T")
    known = len(day) == 10 and len(time) >= 5 and time.endswith(("Z", "+00:00"))
    return f"{day} {time[:5]} UTC" if known else words.shown(stamp, 60)
