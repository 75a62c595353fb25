"""Templates of the pages that are not built from `report.layout` yet: those of `bench` and `compare`."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.report import text


@cache
def templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = {"shown": text.printable, "number": text.number, "seconds": text.seconds, "moment": text.date_and_time}
    environment.filters.update(filters)
    return environment
