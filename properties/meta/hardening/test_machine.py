"""A run that is killed or interrupted at any moment loses nothing that it had recorded, and leaves nothing that looks whole."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.record.jsonl import read_lines
from harness.record.model import LINES, Footer, read_record
from harness.redraw import redraw
from properties.meta.hardening import case
from properties.meta.helpers.command import eagle2

INTERRUPTED = {3, 130}
"""Exit codes of a run after SIGINT. 3: pytest was interrupted. 130: the interruption came before or after pytest ran."""

KILLED = {-signal.SIGKILL}

FILES = {"record.jsonl", "index.html", "summary.md", "junit.xml", "badge.json"}
PROMISED = "every complete line of the record is read, `report` refuses it, no report is left, the next run is clean"


def words(processes: int) -> list[str]:
    return ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "GREEDY", "-n", str(processes), "--out", "out"]


def assert_nothing_looks_whole(out: Path) -> None:
    """What an interrupted run left is a record that can be read as far as it goes, and no report; or it had finished."""
    if not (out / "record.jsonl").exists():
        assert not FILES & {path.name for path in out.glob("*")}
        return
    lines = read_lines(out / "record.jsonl", LINES, command="eagle2 verify")
    if lines and isinstance(lines[-1], Footer):
        assert read_record(out / "record.jsonl").footer == lines[-1]
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
def seconds_of_a_run(processes: int) -> float:
    """Time of a whole run on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        eagle2(["--version"], Path(folder))  # starts the process that others are forked from
        start = time.monotonic()
        assert_next_run_is_clean(Path(folder), processes)
        return time.monotonic() - start


def interrupt(sent: signal.Signals, moments: int, processes: int, folder: Path) -> None:
    """Send a signal at random moments of runs on one folder."""
    codes, clock = KILLED if sent == signal.SIGKILL else INTERRUPTED, random.Random(int(sent))  # noqa: S311
    seconds = seconds_of_a_run(processes)
    for _ in range(moments):
        done = eagle2(words(processes), folder, timeout=clock.uniform(0, seconds), at_end=sent)
        assert done.returncode in {0, *codes}, done
        assert_nothing_looks_whole(folder / "out")
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
