"""The kill matrix says who survived: a fault nobody saw that was meant to, a control that died, and what was never judged."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.record.model import Trial, Verdict
from harness.report.matrix import Matrix, confusion, render_matrix, sentence
from properties.meta.helpers.records import HOSTILE, Page


@dataclass(frozen=True)
class Planted:
    """What the gallery tells."""

    id: str
    fault: str = "The bonus is stale."
    source: str = "SafeAILab/EAGLE PR 47"
    part: str = "bonus"
    control: bool = False
    law: bool = True


GALLERY = {told.id: told for told in (Planted("C01", control=True, law=False), *(Planted(f"M0{i}") for i in range(1, 5)))}


def trial(mutant: str, name: str, verdict: Verdict, meant: bool = False, **more: object) -> Trial:
    told = {"mutant": mutant, "property": name, "case": "", "meant": meant, "verdict": verdict, "summary": f"seen by {name}"}
    return Trial.model_validate({**told, "seconds": 2.0, "work": "81 executions", **more})


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


def test_a_gallery_without_survivors(tmp_path: Path) -> None:
    matrix = Matrix.of(GREEN, GALLERY)
    assert matrix.verdict == "pass" and [row.told.id for row in matrix.rows] == ["M01", "M02", "C01"]
    assert sentence(matrix) == (
        "2 of 2 planted faults killed by a property that is meant to; 1 control tried. None survived, and no control died."
    )
    _, summary = rendered(GREEN, tmp_path)
    assert summary.splitlines() == [
        "## ✓ pass: the kill matrix",
        "",
        sentence(matrix),
        "",
        "- trials: 7",
        "- the run took: 75 s",
        "- median time to death: 3.0 s",
        "- longest: 4.0 s",
        "- diagnosis: right for 1 of 2 faults whose laws differ, 50%",
        "",
        "| id | part | fault | source | killed by | what it took | time |",
        "|---|---|---|---|---|--:|--:|",
        "| M01 | bonus | The bonus is stale. | SafeAILab/EAGLE PR 47 | LAW-1 | 81 executions | 4.0 s |",
        "| M02 | bonus | The bonus is stale. | SafeAILab/EAGLE PR 47 | LAW-10 | 81 executions | 2.0 s |",
        "| C01 | bonus | The bonus is stale. | SafeAILab/EAGLE PR 47 | control, alive |  |  |",
        "",
        "### Taken for another",
        "",
        "- M02 for M01",
    ]


@pytest.mark.parametrize(
    ("more", "verdict", "said"),
    [
        ([trial("M03", "LAW-1", "pass", meant=True)], "fault", "1 survived: M03."),
        ([trial("M03", "LAW-1", "inconclusive", meant=True)], "fault", "1 survived: M03."),
        ([trial("M03", "LAW-1", "n/a", meant=True), trial("M03", "LAW-2", "fault")], "fault", "1 survived: M03."),
        ([trial("C01", "LAW-2", "fault")], "fault", "1 died though right: C01."),
        ([trial("M03", "LAW-1", "fault")], "inconclusive", "1 not judged: M03."),
    ],
    ids=["passes", "no answer", "by chance alone", "dead control", "not judged"],
)
def test_what_must_not_be_is_said(more: list[Trial], verdict: Verdict, said: str, tmp_path: Path) -> None:
    matrix = Matrix.of([*GREEN, *more], GALLERY)
    assert matrix.verdict == verdict and sentence(matrix).endswith(said)
    page, summary = rendered([*GREEN, *more], tmp_path)
    assert said in page and said in summary and summary.startswith(f"## {'✗' if verdict == 'fault' else '?'} {verdict}")


def test_nothing_is_no_pass(tmp_path: Path) -> None:
    assert Matrix.of([], GALLERY).verdict == "inconclusive"
    page, summary = rendered([], tmp_path)
    assert "Nothing was tried." in page and "Nothing was tried." in summary


def test_cells_tell_what_came_of_each_pair(tmp_path: Path) -> None:
    page, _ = rendered([*GREEN, trial("M03", "LAW-1", "pass", meant=True), trial("C01", "LAW-2", "fault")], tmp_path)
    table = page[page.index('<table class="kills">') : page.index("</table>")]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["LAW-1", "LAW-2", "LAW-10", "TREE-1", "SMOKE-1"]
    rows = re.findall(r'<tr(.*?)><th scope="row">.*?>([A-Z0-9]+)</a></th>(.*?)</tr>', table)
    cells = {name: re.findall(r'<td(?: class="(.*?)")?>(.*?)</td>', row) for _, name, row in rows}
    assert cells == {
        "M01": [("fault meant", "✗"), ("open alive meant", "!"), ("", ""), ("na", "–"), ("", "")],
        "M02": [("fault", "✗"), ("", ""), ("fault meant", "✗"), ("", ""), ("", "")],
        "M03": [("open alive meant", "!"), ("", ""), ("", ""), ("", ""), ("", "")],
        "C01": [("pass", "✓"), ("fault", "✗"), ("", ""), ("", ""), ("tie", "=")],
    }
    assert [style.strip() for style, _, _ in rows] == ["", "", "", 'class="control gap"']


def test_of_several_cases_the_gravest_counts() -> None:
    two = [trial("M01", "LAW-1", "pass", meant=True, case="a"), trial("M01", "LAW-1", "fault", meant=True, case="b")]
    (row,) = Matrix.of(two, GALLERY).rows
    mark = row.mark("LAW-1")
    assert mark and mark.symbol == "✗" and row.killer is two[1] and row.to_death == 4.0


def test_the_confusion_matrix_lies_on_its_diagonal_where_the_diagnosis_is_right() -> None:
    drawn = confusion(Matrix.of([*GREEN, trial("M03", "LAW-1", "fault", meant=True, looks_like="M77")], GALLERY))
    assert drawn
    marks = {style: re.findall(r"M([0-9.]+) ([0-9.]+)h9", path) for style, path in drawn.paths}
    assert marks["right"] == [("41", "5")] and marks["wrong"] == [("41", "16"), ("74", "27")]
    assert [label.text for label in drawn.labels] == ["M01", "M02", "M01", "M03", "M77"]
    assert "right for 1 of 3" in drawn.reading
    assert confusion(Matrix.of([trial("M01", "LAW-1", "fault", meant=True)], GALLERY)) is None


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    told = {
        "M01": Planted("M01", fault=HOSTILE, source=HOSTILE, part=HOSTILE),
        "C": Planted(HOSTILE, fault=HOSTILE, control=True),
    }
    one = trial("M01", HOSTILE, "fault", meant=True, case=HOSTILE, summary=HOSTILE, work=HOSTILE, looks_like=HOSTILE)
    odd = one.model_copy(update={"mutant": "C", "seconds": math.nan})
    page, summary = (path.read_text(encoding="utf-8") for path in render_matrix([one, odd], told, math.inf, tmp_path))
    assert "<script" not in page and "<img" not in page and "{{ 7*7 }}" in "".join(Page(page).words)
    assert not [c for c in page + summary if not c.isprintable() and c != "\n"]
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == 4 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_the_page_is_light_and_needs_nobody(tmp_path: Path) -> None:
    """A hundred mutants before thirty properties."""
    told = {f"M{i:02}": Planted(f"M{i:02}", fault="x" * 120) for i in range(100)}
    many = [trial(name, f"LAW-{j}", "fault", meant=j < 3, looks_like=name, summary="y" * 200) for name in told for j in range(30)]
    text = render_matrix(many, told, 900.0, tmp_path)[0].read_text(encoding="utf-8")
    page = Page(text)
    assert len(text.encode()) < 300_000
    assert not set(page.tags) & {"script", "img", "iframe", "object", "link"} - {"link"} and "default-src 'none'" in text
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    assert {href[1:] for href in page.values("href") if href.startswith("#")} <= set(page.values("id"))
