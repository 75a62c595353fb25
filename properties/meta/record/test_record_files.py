"""Record files: what is written is read again, and an incomplete record is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.pairs import FIXTURES
from harness.record.model import Footer, Header, Result, read_record

REPORTS = FIXTURES.parent / "reports"


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    header = Header(
        started="", implementation="ref", pair="", checksums={}, settings={}, versions={}, machine={}, command="", properties=()
    )
    summary = "</script>\u2028\u0085\x00 | ` \ud7ff 🦅"
    hostile = Result(property="LAW-1", case="", verdict="pass", summary=summary)
    footer = Footer(finished="", seconds=0.0, results=1, verdict="pass", exit_code=0)
    path = tmp_path / "record.jsonl"
    path.write_text("".join(line.model_dump_json() + "\n" for line in (header, hostile, footer)), encoding="utf-8")
    record = read_record(path)
    assert (record.header, record.results, record.footer) == (header, (hostile,), footer)


@pytest.mark.parametrize("lost", [-1, 0, 1], ids=["footer", "header", "result"])
def test_record_without_a_line_is_refused(lost: int, tmp_path: Path) -> None:
    lines = (REPORTS / "reference" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    del lines[lost]
    (tmp_path / "record.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(BadInput):
        read_record(tmp_path / "record.jsonl")
