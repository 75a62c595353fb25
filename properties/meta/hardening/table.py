"""The table of faults and promises in docs/robustness.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.files import write_atomic
from harness.pairs import FIXTURES

PAGE = FIXTURES.parent / "docs" / "robustness.md"
BEGIN, END = "<!-- table: python -m properties.meta.hardening -->\n", "<!-- end of table -->\n"


class Row(NamedTuple):
    """One tested promise. held: None if its test did not run."""

    area: str
    fault: str
    promised: str
    held: bool | None


class Outcomes:
    """A pytest plugin that collects the promises of a run and whether they held."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if marker := item.get_closest_marker("promise"):
                area = item.path.stem.removeprefix("test_").replace("_", " ")
                self.rows[item.nodeid] = Row(area, marker.args[0], marker.args[1], None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.rows.get(report.nodeid)
        if row and (report.when == "call" or report.failed):
            self.rows[report.nodeid] = row._replace(held=report.passed and row.held is not False)


def markdown(rows: Iterable[Row]) -> str:
    """The table, grouped by area."""
    lines = ["| area | fault | promise | held |", "|---|---|---|:-:|"]
    signs = {True: "yes", False: "**no**", None: "not run"}
    for area, fault, promised, held in sorted(set(rows)):
        cells = (text.replace("|", "\\|") for text in (area, fault, promised, signs[held]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(rows: Iterable[Row], page: Path = PAGE) -> None:
    """Replace the table of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomic(page, before + BEGIN + "\n" + markdown(rows) + "\n" + END + after)


def read(page: Path = PAGE) -> set[tuple[str, ...]]:
    """The rows of a page, without the heading."""
    table = page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return {tuple(cell.strip().replace("\\|", "|") for cell in line.strip("|").split(" | ")) for line in lines}
