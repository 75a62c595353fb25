"""`eagle2 report` draws every kind of record that is committed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.redraw import redraw

REPORTS = Path(__file__).parents[3] / "reports"


@pytest.mark.parametrize(
    ("record", "files"),
    [
        ("reference/record.jsonl", {"index.html", "summary.md", "junit.xml", "badge.json"}),
        ("planted", {"index.html", "summary.md", "junit.xml", "badge.json"}),
        ("mutants/trials.jsonl", {"index.html", "summary.md"}),
        ("calibration", {"index.html", "summary.md"}),
    ],
)
def test_report_is_drawn_by_the_kind_of_record(record: str, files: set[str], tmp_path: Path) -> None:
    assert {path.name for path in redraw(REPORTS / record, tmp_path)} == files


def test_report_of_engines_has_a_page_for_each_record(tmp_path: Path) -> None:
    place = "llama-cpp-python-0.3.36/draft_model"
    shutil.copytree(REPORTS / "engines" / place, tmp_path / "engines" / place)
    written = redraw(tmp_path / "engines", tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in written}
    assert names == {"index.html", "index.md", f"{place}/index.html", f"{place}/summary.md"}


@pytest.mark.parametrize("command", ["acceptance", "bench", "compare"])
def test_report_of_a_benchmark_has_a_file_for_each_plot(command: str, tmp_path: Path) -> None:
    names = {path.name for path in redraw(REPORTS / command, tmp_path)}
    plots = {name for name in names if name.endswith(".svg")}
    assert names - plots == {"index.html", "summary.md"}
    assert len(plots) == (tmp_path / "index.html").read_text(encoding="utf-8").count("<svg")


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"kind":"header"}\n'])
def test_damaged_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput):
        redraw(path)
