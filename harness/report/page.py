"""index.html: one file that opens from disk, reads without scripts and fetches nothing."""

from __future__ import annotations

import math
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.evidence import CountPicture, LawPicture, Picture, Record
from harness.report import plots, trees, view, words

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
        p_values=p_values(record),
        links={row.claim.id: row.anchor for chapter in chapters for row in chapter.rows},
    )


@cache
def templates() -> Environment:
    """Read from beside this file and compiled once."""
    environment = Environment(
        loader=PackageLoader("harness.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        shown=words.shown, number=words.number, seconds=words.seconds, several=words.several, drawing=drawing, moment=moment
    )
    return environment


def drawing(picture: Picture) -> plots.Plot | trees.Drawing:
    """The marks of a picture; the templates draw them."""
    if isinstance(picture, LawPicture):
        return plots.law(picture)
    return plots.count(picture) if isinstance(picture, CountPicture) else trees.tree(picture)


def p_values(record: Record) -> plots.Plot | None:
    """All of the run, those of faults too; None where there are too few to look at."""
    found = [result.p_value for result in record.results if result.p_value is not None and math.isfinite(result.p_value)]
    return plots.uniform(found) if len(found) >= MANY else None


def moment(stamp: str) -> str:
    """2026-07-01T10:20:30.123+00:00 as 2026-07-01 10:20 UTC; any other text as it is."""
    day, _, time = stamp.partition("T")
    known = len(day) == 10 and len(time) >= 5 and time.endswith(("Z", "+00:00"))
    return f"{day} {time[:5]} UTC" if known else words.shown(stamp, 60)
