"""The kill matrix reports survivors, dead controls and mutants that were not judged."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from harness.record.model import Trial, Verdict
from harness.report.matrix import Matrix, matrix_sentence, render_matrix
from properties.meta.helpers.records import HOSTILE, Page


@dataclass(frozen=True)
class Description:
    """A mutant of the gallery."""

    id: str
    fault: str = "The bonus is stale."
    source: str = "SafeAILab/EAGLE PR 47"
    part: str = "bonus"
    control: bool = False
    law: bool = True


GALLERY = {one.id: one for one in (Description("C01", control=True, law=False), *(Description(f"M0{i}") for i in range(1, 5)))}


def trial(mutant: str, name: str, verdict: Verdict, meant: bool = False, **more: object) -> Trial:
    fields = {"mutant": mutant, "property": name, "case": "", "meant": meant, "verdict": verdict, "summary": f"seen by {name}"}
    return Trial.model_validate({**fields, "seconds": 2.0, "work": "81 executions", **more})


GREEN = [
    trial("M01", "LAW-2", "pass", meant=True, looks_like="M01"),
    trial("M01", "LAW-1", "fault", meant=True, looks_like="M01"),
    trial("M01", "TREE-1", "n/a", looks_like="M01"),
    trial("M02", "LAW-10", "fault", meant=True, looks_like="M01"),
    trial("M02", "LAW-1", "fault", looks_like="M01"),
    trial("C01", "LAW-1", "pass"),
    trial("C01", "SMOKE-1", "tie"),
]


def rendered(trials: Sequence[Trial], out: Path) -> tuple[str, str]:
    page, summary = (path.read_text(encoding="utf-8") for path in render_matrix(trials, GALLERY, 75.0, out))
    return page, summary


def test_gallery_without_survivors_passes(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    matrix = Matrix.of(GREEN, GALLERY)
    assert matrix.verdict == "pass" and [row.mutant.id for row in matrix.rows] == ["M01", "M02", "C01"]
    assert [(row.mutant.id, row.diagnosed_as) for row in matrix.mistaken] == [("M02", "M01")]
    _, summary = rendered(GREEN, tmp_path)
    assert summary == snapshot


@pytest.mark.parametrize(
    ("more", "verdict", "end"),
    [
        ([trial("M03", "LAW-1", "pass", meant=True)], "fault", "1 survived: M03."),
        ([trial("M03", "LAW-1", "inconclusive", meant=True)], "fault", "1 survived: M03."),
        ([trial("M03", "LAW-1", "n/a", meant=True), trial("M03", "LAW-2", "fault")], "fault", "1 survived: M03."),
        ([trial("C01", "LAW-2", "fault")], "fault", "1 died although correct: C01."),
        ([trial("M03", "LAW-1", "fault")], "inconclusive", "1 not judged: M03."),
    ],
    ids=["passes", "no answer", "by chance alone", "dead control", "not judged"],
)
def test_survivor_or_dead_control_is_reported(more: list[Trial], verdict: Verdict, end: str, tmp_path: Path) -> None:
    matrix = Matrix.of([*GREEN, *more], GALLERY)
    assert matrix.verdict == verdict and matrix_sentence(matrix).endswith(end)
    page, summary = rendered([*GREEN, *more], tmp_path)
    assert end in page and end in summary and summary.startswith(f"## {'✗' if verdict == 'fault' else '?'} {verdict}")


def test_empty_matrix_is_not_a_pass(tmp_path: Path) -> None:
    assert Matrix.of([], GALLERY).verdict == "inconclusive"
    page, summary = rendered([], tmp_path)
    assert "Nothing was tried." in page and "Nothing was tried." in summary


def test_mark_shows_the_outcome_of_each_pair(tmp_path: Path) -> None:
    page, _ = rendered([*GREEN, trial("M03", "LAW-1", "pass", meant=True), trial("C01", "LAW-2", "fault")], tmp_path)
    table = page[page.index('<table class="grid">') : page.index("</table>")]
    assert re.findall(r"<th [^>]*>(.*?)</th>", table) == ["", "LAW-1", "LAW-2", "LAW-10", "TREE-1", "SMOKE-1"]
    rows = re.findall(r"<tr><td[^>]*>\s*<a href=\"#row-\d\">([A-Z0-9]+)</a>(.*?)</tr>", table, flags=re.DOTALL)
    cells = {name: row.split("<td")[1:] for name, row in rows}
    pairs = {name: [re.findall(r'mark (.*?)">(.)<', cell) for cell in row] for name, row in cells.items()}
    marks = {name: [" ".join(pair[0]) if pair else "" for pair in row] for name, row in pairs.items()}
    assert marks == {
        "M01": ["fault ✗", "open alive !", "", "na –", ""],
        "M02": ["fault weak ✗", "", "fault ✗", "", ""],
        "M03": ["open alive !", "", "", "", ""],
        "C01": ["pass ✓", "fault ✗", "", "", "tie ="],
    }


def test_gravest_of_several_cases_counts() -> None:
    two = [trial("M01", "LAW-1", "pass", meant=True, case="a"), trial("M01", "LAW-1", "fault", meant=True, case="b")]
    (row,) = Matrix.of(two, GALLERY).rows
    mark = row.mark("LAW-1")
    assert mark and mark.symbol == "✗" and row.killer is two[1] and row.seconds_to_kill == 4.0


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    mutants = {
        "M01": Description("M01", fault=HOSTILE, source=HOSTILE, part=HOSTILE),
        "C": Description(HOSTILE, fault=HOSTILE, control=True),
    }
    one = trial("M01", HOSTILE, "fault", meant=True, case=HOSTILE, summary=HOSTILE, work=HOSTILE, looks_like=HOSTILE)
    odd = one.model_copy(update={"mutant": "C", "seconds": math.nan})
    page, summary = (path.read_text(encoding="utf-8") for path in render_matrix([one, odd], mutants, math.inf, tmp_path))
    assert "<script" not in page and "<img" not in page and "{{ 7*7 }}" in "".join(Page(page).words)
    assert not [c for c in page + summary if not c.isprintable() and c != "\n"]
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_page_of_a_large_matrix_is_small_and_fetches_nothing(tmp_path: Path) -> None:
    """A hundred mutants by thirty properties."""
    mutants = {f"M{i:02}": Description(f"M{i:02}", fault="x" * 120) for i in range(100)}
    many = [
        trial(name, f"LAW-{j}", "fault", meant=j < 3, looks_like=name, summary="y" * 200) for name in mutants for j in range(30)
    ]
    text = render_matrix(many, mutants, 900.0, tmp_path)[0].read_text(encoding="utf-8")
    page = Page(text)
    assert len(text.encode()) < 400_000
    assert not set(page.tags) & {"script", "img", "iframe", "object", "link"} - {"link"} and "default-src 'none'" in text
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    assert {href[1:] for href in page.values("href") if href.startswith("#")} <= set(page.values("id"))
