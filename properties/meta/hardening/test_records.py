"""Records and reports: what was recorded is kept, a half report never looks whole, contradictions are refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eagle2_ref.errors import BadInput
from harness.cli import app
from harness.files import lock_file, write_together
from harness.implementations import connect
from harness.pairs import FIXTURES, shipped
from harness.record.jsonl import Writer, dump, read_lines
from harness.record.model import LINES, Footer, Record, read_record
from harness.recorder import Recorder
from harness.redraw import redraw
from harness.report import render
from harness.settings import Settings
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import eagle2
from properties.meta.helpers.full_disk import full_disk
from properties.meta.helpers.records import BUG, mixed, record, result

VERIFY = ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "SMOKE", "-n", "0", "--out"]
REPORT = ["index.html", "summary.md", "junit.xml", "badge.json"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def write_record(path: Path, of: Record) -> Path:
    path.write_text("".join(map(dump, [of.header, *of.results, of.footer])), encoding="utf-8")
    return path


# --- a folder that takes no files ----------------------------------------------------------------------------------

UNTOUCHED = "exit code 2 and one message before anything runs; the earlier report stays"


@pytest.fixture
def file_system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system in memory that takes no record: the parameter is an option of `mount`."""
    folder = tmp_path / "full"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", request.param, "none", str(folder)]
    mounted = subprocess.run(words, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        case("--out is below a file", UNTOUCHED, "file/x", "Not a directory"),
        case("--out is in /proc", UNTOUCHED, "/proc/x", "No such file or directory"),
        case("--out is in /sys", UNTOUCHED, "/sys/x", "not permitted|denied|Read-only"),
    ],
)
def test_folder_that_takes_no_files_is_refused(out: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BadInput, match=f"--out .*{out} cannot be written: .*({reason})"):
        Writer(tmp_path / out / "record.jsonl")
    assert names(tmp_path) == {"file"} and (tmp_path / "file").read_text() == "kept"


@promise("--out names a file", UNTOUCHED)
def test_folder_that_takes_no_files_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    done = eagle2([*VERIFY, "file"], tmp_path)
    assert done.returncode == 2 and re.search("--out .*file cannot be written: it is a file", done.stderr), done
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert names(tmp_path) == {"file"} and (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("file_system", ["size=64k"], indirect=True)
@promise("the disk is full before a run", UNTOUCHED)
def test_full_disk_before_a_run_is_a_usage_error(file_system: Path, tmp_path: Path) -> None:
    (file_system / "index.html").write_text("the earlier report")
    done = eagle2([*VERIFY, "full"], tmp_path)
    assert done.returncode == 2 and "No space left on device" in done.stderr, done
    assert names(file_system) == {"index.html"}


@pytest.mark.parametrize("file_system", ["ro"], indirect=True)
@promise("--out is on a read-only file system", UNTOUCHED)
def test_read_only_folder_is_refused(file_system: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written: Read-only file system"):
        Writer(file_system / "record.jsonl")


@pytest.mark.parametrize(
    "words",
    [
        case(f"--out of {words[0]} names a file", "exit code 2 and one message before anything runs", words)
        for words in (
            ["engines", "--only", "ref"],
            ["mutants", "--only", "M01", "--check", "TREE-1"],
            ["calibrate", "--quick"],
            ["unedited"],
            ["bench"],
            ["compare"],
            ["acceptance"],
        )
    ],
)
def test_commands_refuse_a_file_for_a_folder(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "file")])
    assert done.exit_code == 2 and "file cannot be written: it is a file" in done.output, done
    assert (tmp_path / "file").read_text() == "kept"


@promise("eagle2 report draws into a folder that takes no files", "exit code 2 and one message")
def test_report_into_a_file_is_a_usage_error(tmp_path: Path) -> None:
    path = write_record(tmp_path / "record.jsonl", mixed())
    done = CliRunner().invoke(app, ["report", str(path), "--out", str(path)])
    assert done.exit_code == 2 and "record.jsonl cannot be written: it is a file" in done.output


# --- two runs ------------------------------------------------------------------------------------------------------


@promise("a second run starts on a folder that a run is writing", "exit code 2, the first run loses nothing")
def test_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "out" / "record.jsonl") as writer:
        writer.write(mixed().header)
        done = eagle2([*VERIFY, "out"], tmp_path)
        assert done.returncode == 2 and re.search("another run is writing .*out/record.jsonl", done.stderr), done
        writer.write(*mixed().results)
    assert len(read_lines(tmp_path / "out" / "record.jsonl", LINES, command="")) == 1 + len(mixed().results)
    assert names(tmp_path / "out") == {"record.jsonl"}


@promise("the process that writes a folder is killed", "the next run writes there, and removes its temporary files")
def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    pid = os.fork()
    if pid == 0:
        Writer(path).write(mixed().header)
        (tmp_path / ".index.html.1234.tmp").write_text("half")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert names(tmp_path) == {"record.jsonl", ".index.html.1234.tmp", lock_file(path).name}
    with Writer(path) as writer:
        writer.write(mixed().header)
    assert names(tmp_path) == {"record.jsonl"}


@promise("a check passes, and its process fails after it", "the case has one result, the graver one")
def test_failure_after_a_pass_replaces_it(tmp_path: Path) -> None:
    recorder = Recorder.begin(Settings(out=str(tmp_path)), connect("ref"), [shipped("coin4")])
    recorder.add(result("TREE-1", ""))
    recorder.add(result("TREE-1", "", "inconclusive", broken=True))
    recorder.add(result("TREE-1", ""))
    assert recorder.finish() == 4
    assert [one.verdict for one in read_record(tmp_path / "record.jsonl").results] == ["inconclusive"]


# --- a disk that becomes full --------------------------------------------------------------------------------------


@promise("the disk becomes full while a record is written", "an error that names the file; every result before it is kept")
def test_full_disk_keeps_the_lines_before(tmp_path: Path) -> None:
    path, lines = tmp_path / "record.jsonl", mixed().results
    with Writer(path) as writer:
        writer.write(mixed().header, *lines[:2])
        with full_disk(at=path.stat().st_size + 100), pytest.raises(OSError, match=r"record\.jsonl"):
            writer.write(lines[2])
        writer.write(lines[3])  # there is room again: the line does not continue a half one
    assert read_lines(path, LINES, command="") == [mixed().header, *lines[:2], lines[3]]
    with pytest.raises(BadInput, match="no footer"):
        read_record(path)


@promise("the disk is full when a record gets its footer", "an error that names the file; every result is kept, without a footer")
def test_full_disk_keeps_an_unfinished_record(tmp_path: Path) -> None:
    path, whole = tmp_path / "record.jsonl", mixed()
    with Writer(path) as writer:
        writer.write(whole.header, *whole.results)
        with full_disk(at=path.stat().st_size), pytest.raises(OSError, match=r"record\.jsonl"):
            writer.finish([whole.header, *whole.results, whole.footer])
    assert read_lines(path, LINES, command="") == [whole.header, *whole.results]
    assert names(tmp_path) == {"record.jsonl"}


@pytest.mark.parametrize("size", [0, 2_000, 20_000], ids="{} bytes free".format)
@promise("the disk becomes full while a report is written", "an error that names the file; none of its files is there")
def test_full_disk_leaves_no_half_report(size: int, tmp_path: Path) -> None:
    with full_disk(at=size), pytest.raises(OSError, match=re.compile("|".join(REPORT))):
        render(mixed(), tmp_path)
    assert names(tmp_path) == set()


@promise("the disk becomes full while a report is drawn again", "the earlier report stays whole")
def test_full_disk_keeps_the_earlier_report(tmp_path: Path) -> None:
    render(record(result("LAW-1", "a")), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(at=8_000), pytest.raises(OSError, match=r"index\.html"):
        render(mixed(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and set(before) == set(REPORT)


@promise("a file of a report cannot be replaced", "index.html is not written: a report with it is whole")
def test_index_is_written_last(tmp_path: Path) -> None:
    (tmp_path / "summary.md").mkdir()
    with pytest.raises(OSError, match=r"summary\.md"):
        write_together({tmp_path / name: "text" for name in REPORT})
    assert "index.html" not in names(tmp_path) and not [name for name in names(tmp_path) if name.endswith(".tmp")]


# --- records that contradict themselves ----------------------------------------------------------------------------

REFUSED = "`report` has exit code 2; the message says what contradicts what"


def footer(**fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[-1].update(fields)


def line(number: int, **fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[number].update(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        case(
            "the verdict of a footer was changed to pass",
            REFUSED,
            footer(verdict="pass"),
            "the footer says pass, exit code 1, and",
        ),
        case(
            "the exit code of a footer was changed to 0", REFUSED, footer(exit_code=0), "the footer says fault, exit code 0, and"
        ),
        case("the faults of a record were changed to pass", REFUSED, line(1, verdict="pass"), "and the results inconclusive"),
        case(
            "a record has two results for one case", REFUSED, line(3, property="LAW-1", case="red"), r"LAW-1\[red\] has 2 results"
        ),
        case("a fault was changed to known, without an excuse", REFUSED, line(1, verdict="known"), "is known without an excuse"),
        case("an excuse is left on a pass", REFUSED, line(4, verdict="pass"), "is pass with an excuse"),
        case("a broken result was changed to pass", REFUSED, line(2, verdict="pass"), "its implementation is broken"),
        case("a footer counts more results than there are", REFUSED, footer(results=9), "lacks some of its results"),
        case("a result was removed from a record", REFUSED, lambda lines: lines.pop(3), "lacks some of its results"),
        case("a record has no footer", REFUSED, lambda lines: lines.pop(), "has no footer"),
        case("a line of a record was cut", REFUSED, lambda lines: lines[2].pop("summary"), "line 3 is not a line of a record"),
        case(
            "a record has a verdict that does not exist", REFUSED, line(1, verdict="perfect"), "line 2 is not a line of a record"
        ),
    ],
)
def test_record_that_contradicts_itself_is_refused(
    change: Callable[[list[dict[str, Any]]], None], reason: str, tmp_path: Path
) -> None:
    seen = [
        result("LAW-1", "red", "fault"),
        result("LAW-1", "broken", "inconclusive", broken=True),
        result("LAW-2", "green"),
        result("LAW-2", "excused", "known", excuse=BUG),
    ]
    path = write_record(tmp_path / "record.jsonl", record(*seen, verdict="fault", exit_code=1))
    assert read_record(path).results == tuple(seen)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    done = CliRunner().invoke(app, ["report", str(path)])
    assert done.exit_code == 2 and re.search(reason, done.output), done.output
    assert names(tmp_path) == {"record.jsonl"} and "Traceback" not in done.output


@promise("a record of an earlier version", "it is read, and its footer agrees with its results")
def test_committed_records_are_consistent() -> None:
    paths = [path for path in (FIXTURES.parent / "reports").rglob("record.jsonl") if '"kind":"result"' in path.read_text()]
    assert len(paths) > 30 and all(isinstance(read_record(path).footer, Footer) for path in paths)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        case("a record is a binary file", REFUSED, "record.jsonl", bytes(range(256))),
        case("a record is empty", REFUSED, "record.jsonl", b""),
        case("a record is a deeply nested list", REFUSED, "record.jsonl", b"[" * 200_000),
        case("a record is a page of HTML", REFUSED, "record.jsonl", b"<html>\n</html>\n"),
    ],
)
def test_damaged_records_are_refused_in_one_message(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = CliRunner().invoke(app, ["report", str(path)])
    assert done.exit_code == 2 and "Traceback" not in done.output and len(done.output) < 600, done.output


REPEAT, REMOVE = 2, 0


@pytest.mark.parametrize(
    ("place", "kind", "times", "reason"),
    [
        case("a kill matrix holds a trial twice", REFUSED, "mutants/trials", '"kind":"trial"', REPEAT, "holds a trial twice"),
        case(
            "a calibration holds a shard twice", REFUSED, "calibration/calibration", '"shard":', REPEAT, "not each of them once"
        ),
        case(
            "a record of bench holds a timed text twice",
            REFUSED,
            "bench/temperatures/record",
            '"kind":"call"',
            REPEAT,
            "the footer counts",
        ),
        case(
            "a timed text was removed from a record of bench",
            REFUSED,
            "bench/temperatures/record",
            "call",
            REMOVE,
            "footer counts",
        ),
        case(
            "a timed text was removed from a record of compare",
            REFUSED,
            "compare/record",
            '"kind":"call"',
            REMOVE,
            "the footer counts",
        ),
    ],
)
def test_changed_measurements_are_refused(place: str, kind: str, times: int, reason: str, tmp_path: Path) -> None:
    committed = FIXTURES.parent / "reports" / f"{place}.jsonl"
    lines = committed.read_text(encoding="utf-8").splitlines(keepends=True)
    number = next(i for i, text in enumerate(lines) if kind in text)
    path = tmp_path / committed.name
    path.write_text("".join([*lines[:number], *[lines[number]] * times, *lines[number + 1 :]]), encoding="utf-8")
    with pytest.raises(BadInput, match=reason):
        redraw(path)
    assert names(tmp_path) == {committed.name}
