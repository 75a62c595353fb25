"""A run that is killed or interrupted at any moment loses nothing that it had recorded, and leaves nothing that looks whole."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import harness.report
from eagle2_ref.errors import BadInput
from harness.cli import main
from harness.pairs import FIXTURES
from harness.record.jsonl import read_lines
from harness.record.model import LINES, Footer, read_record
from harness.redraw import redraw
from harness.verdict import STOPPED, USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import WIDE, eagle2, fork

REFERENCE = str(FIXTURES.parent / "reports" / "reference" / "record.jsonl")

INTERRUPTED = {STOPPED}

KILLED = {-signal.SIGKILL}

FILES = {"record.jsonl", "index.html", "summary.md", "junit.xml", "badge.json"}
PROMISED = "every complete line of the record is read, `report` refuses it, no report is left, the next run is clean"


def words(processes: int) -> list[str]:
    return ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "GREEDY", "-n", str(processes), "--out", "out"]


def assert_nothing_looks_whole(out: Path, results: int) -> None:
    """What an interrupted run left is a record that can be read as far as it goes, and no report; or it had finished.

    A run that its user stopped may have closed its record: as inconclusive, unless it has all `results` of a whole run.
    """
    if not (out / "record.jsonl").exists():
        assert not FILES & {path.name for path in out.glob("*")}
        return
    lines = read_lines(out / "record.jsonl", LINES, command="eagle2 verify")
    if lines and isinstance(lines[-1], Footer):
        assert read_record(out / "record.jsonl").footer == lines[-1]
        assert lines[-1].verdict == "inconclusive" or lines[-1].results == results
    else:
        assert not (out / "index.html").exists()
        with pytest.raises(BadInput, match=r"no footer|no header"):
            redraw(out)
    if (out / "index.html").exists():
        assert (out / "index.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


def assert_next_run_is_clean(folder: Path, processes: int) -> None:
    done = eagle2(words(processes), folder)
    assert done.returncode == 0, done
    assert {path.name for path in (folder / "out").iterdir()} == FILES
    assert read_record(folder / "out" / "record.jsonl").footer.verdict in ("pass", "tie")


@cache
def whole_run(processes: int) -> tuple[float, int]:
    """Seconds and results of a whole run on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        eagle2(["--version"], Path(folder))  # starts the process that others are forked from
        start = time.monotonic()
        assert_next_run_is_clean(Path(folder), processes)
        return time.monotonic() - start, read_record(Path(folder, "out", "record.jsonl")).footer.results


def interrupt(sent: signal.Signals, moments: int, processes: int, folder: Path) -> None:
    """Send a signal at random moments of runs on one folder."""
    codes, clock = KILLED if sent == signal.SIGKILL else INTERRUPTED, random.Random(int(sent))  # noqa: S311
    seconds, results = whole_run(processes)
    for _ in range(moments):
        done = eagle2(words(processes), folder, timeout=clock.uniform(0, seconds), at_end=sent)
        assert done.returncode in {0, *codes}, done
        assert_nothing_looks_whole(folder / "out", results)
    assert_next_run_is_clean(folder, processes)


@pytest.mark.parametrize(
    ("sent", "moments"),
    [
        case("SIGKILL at random moments of a run", PROMISED, signal.SIGKILL, 3),
        case("SIGINT at random moments of a run", PROMISED, signal.SIGINT, 3),
    ],
)
def test_interrupted_run_loses_nothing(sent: signal.Signals, moments: int, tmp_path: Path) -> None:
    interrupt(sent, moments, 0, tmp_path)


# --- errors that are no verdict -------------------------------------------------------------------------------------------


ENGINE = """
import resource
class Engine:
    def __init__(self, target, draft=None, limit=0):
        self.limit = limit
    def generate(self, prompts, params, seeds):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))
        return [[0] * param["max_new_tokens"] for param in params]
"""


def on_a_disk_that_fills(words: list[str]) -> None:
    """Run `eagle2 WORDS`; from the first call of its engine on, no file can grow beyond the engine's limit."""
    Path("engines.py").write_text(ENGINE)
    run_main(words)


def with_a_fault_of_the_harness(words: list[str]) -> None:
    """Run `eagle2 WORDS` with a harness that cannot draw a report."""

    def draw(*_: object) -> None:
        raise RuntimeError("no ink")

    harness.report.render = draw  # type: ignore[assignment]
    run_main(words)


def into_a_closed_pipe(words: list[str]) -> None:
    """Run `eagle2 WORDS` where the reader of its output has ended."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(reading)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    run_main(words)


def into_a_full_device(words: list[str]) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    run_main(words)


def run_main(words: list[str]) -> None:
    sys.argv = ["eagle2", *words]
    main()


SMOKE = ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "SMOKE", "-n", "0", "--out", "out"]


def full(limit: int) -> list[str]:
    return ["verify", f"py:engines:Engine,limit={limit}", *SMOKE[2:]]


REPORT_WORDS = ["report", REFERENCE, "--out", "out"]
NO_VERDICT = "exit code 70 and one message, no traceback; the record keeps what was found"


@pytest.mark.parametrize(
    ("run", "words", "code", "message"),
    [
        case("the disk becomes full in a run, in its record", NO_VERDICT, on_a_disk_that_fills, full(9000), 70, "record.jsonl"),
        case("the disk becomes full in a run, in its report", NO_VERDICT, on_a_disk_that_fills, full(30000), 70, "index.html"),
        case(
            "an exception of the harness itself",
            NO_VERDICT,
            with_a_fault_of_the_harness,
            SMOKE,
            70,
            "RuntimeError: no ink",
        ),
        case("output into a full device", NO_VERDICT, into_a_full_device, SMOKE, 70, "No space left on device"),
        case("the reader of the output has ended", "exit code 141, no message", into_a_closed_pipe, SMOKE, 141, ""),
        case(
            "the reader of `report` has ended",
            "exit code 141, no message",
            into_a_closed_pipe,
            REPORT_WORDS,
            141,
            "",
        ),
    ],
)
def test_errors_of_machine_and_harness_are_no_verdict(
    run: Callable[[list[str]], None], words: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = fork(run, words, tmp_path, 120, WIDE)
    assert done.returncode == code and message in done.stderr, done
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "out" / "index.html").exists() == (run in (into_a_full_device, into_a_closed_pipe))
    if trace := re.search(r"the traceback is in (\S+);", done.stderr):
        assert "no ink" in Path(trace[1]).read_text()
        Path(trace[1]).unlink()


def without_streams(words: list[str]) -> None:
    """Run `eagle2 WORDS` as a shell does after `<&- >&- 2>&-`."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.close(number)
        setattr(sys, name, None)
    run_main(words)


@promise("all standard streams are closed", "the run ends with its verdict")
def test_closed_streams_do_not_stop_a_run(tmp_path: Path) -> None:
    assert fork(without_streams, SMOKE, tmp_path, 120, WIDE).returncode == 0
    assert read_record(tmp_path / "out" / "record.jsonl").footer.verdict == "pass"


@pytest.mark.parametrize(
    "words",
    [
        case(f"a pipe is given to `{words[0]}` as a file", "exit code 2 at once", words)
        for words in (
            ["report", "pipe"],
            ["replay", "SMOKE-1.1", "--record", "pipe"],
            ["judge", "pipe"],
            ["verify", "ref", "--known", "pipe"],
            ["record", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "SMOKE", "-n", "0", "-o", "pipe"],
        )
    ],
)
def test_pipe_is_no_file(words: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = eagle2(words, tmp_path)
    assert done.returncode == USAGE and "is not a file" in done.stderr, done


@promise("Ctrl-C before anything runs", "exit code 130")
def test_interrupted_start_has_exit_code_130(tmp_path: Path) -> None:
    assert eagle2(SMOKE, tmp_path, timeout=0.2, at_end=signal.SIGINT).returncode == STOPPED


# --- many moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("processes", [0, 1], ids="-n {}".format)
@pytest.mark.parametrize(
    ("sent", "moments"),
    [
        case("SIGKILL at 50 random moments of a run", PROMISED, signal.SIGKILL, 50),
        case("SIGINT at 50 random moments of a run", PROMISED, signal.SIGINT, 50),
    ],
)
def test_run_interrupted_at_many_moments_loses_nothing(
    sent: signal.Signals, moments: int, processes: int, tmp_path: Path
) -> None:
    interrupt(sent, moments, processes, tmp_path)
