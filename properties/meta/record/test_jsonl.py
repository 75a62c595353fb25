"""The JSON-lines reader and writer: damaged or unfinished records are refused; a run that was cut off stays readable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from eagle2_ref.errors import BadInput
from harness.record.jsonl import Parts, Writer, dump, read_parts


class Start(BaseModel):
    """Header of the format of this test."""

    kind: Literal["start"] = "start"


class Line(BaseModel):
    """Line of the format of this test."""

    kind: Literal["line"] = "line"
    n: int


class End(BaseModel):
    """Footer of the format of this test."""

    kind: Literal["end"] = "end"


LINES: TypeAdapter[Start | Line | End] = TypeAdapter(Annotated[Start | Line | End, Field(discriminator="kind")])
WHOLE = [Start(), Line(n=1), Line(n=2), End()]


def read(path: Path, whole: bool = True) -> Parts[Start, End]:
    return read_parts(path, LINES, Start, End, command="`make record`", whole=whole)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "record.jsonl"


def test_record_is_read_back(path: Path) -> None:
    with Writer(path) as writer:
        writer.write(WHOLE[0])
        writer.write(*WHOLE[1:3])
        assert read(path, whole=False).lines == (Line(n=1), Line(n=2)), "lines are on disk before the end"
        writer.finish([WHOLE[0], WHOLE[2], WHOLE[1], WHOLE[3]])
    assert read(path) == (Start(), (Line(n=2), Line(n=1)), End())
    assert [file.name for file in path.parent.iterdir()] == ["record.jsonl"]


def test_unfinished_record_is_read_only_on_request(path: Path) -> None:
    with Writer(path) as writer:
        writer.write(*WHOLE[:3])
    path.write_text(path.read_text() + '{"kind":"li')
    assert read(path, whole=False) == (Start(), (Line(n=1), Line(n=2)), None)
    with pytest.raises(BadInput, match="no footer"):
        read(path)


def test_resumed_run_replaces_the_unfinished_line(path: Path) -> None:
    with Writer(path) as writer:
        writer.write(*WHOLE[:2])
    path.write_text(path.read_text() + '{"kind":"li')
    with Writer(path, resume=True) as writer:
        writer.write(*WHOLE[2:])
    assert read(path) == (Start(), (Line(n=1), Line(n=2)), End())


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "no header"),
        (WHOLE[1:], "no header"),
        (WHOLE[:3], "no footer"),
        ([*WHOLE[:2], *WHOLE], "second header or footer"),
        ([*WHOLE, *WHOLE[1:]], "second header or footer"),
    ],
    ids=["empty", "no header", "no footer", "two headers", "two footers"],
)
def test_incomplete_record_is_refused(lines: list[BaseModel], reason: str, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("".join(map(dump, lines)))
    with pytest.raises(BadInput, match=reason):
        read(path)


def test_damaged_line_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("".join(map(dump, WHOLE)).replace('"n":1', '"n":"x"'))
    with pytest.raises(BadInput, match=r"record.jsonl, line 2 is not a line of a record"):
        read(path)


def test_missing_file_names_the_command_that_writes_it(path: Path) -> None:
    with pytest.raises(BadInput, match="`make record` writes one"):
        read(path)
