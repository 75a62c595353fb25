"""Evidence that is carried over belongs to the code that made it, and only counts of tokens are believed."""

from __future__ import annotations

import json
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from harness.case import Case
from harness.implementations import Implementation, connect
from harness.implementations.engine import Missing
from harness.implementations.process import EngineProcess, RemoteEngine
from harness.record.ledger import Ledger, check
from harness.statistics.eprocess import Counts
from properties import test_law_unedited
from properties.meta.hardening import case, promise
from properties.meta.helpers.checks import result_of
from properties.meta.helpers.command import eagle2
from properties.meta.helpers.fake_engines import Outsider, TooCold, implementation
from properties.meta.helpers.full_disk import full_disk
from properties.meta.helpers.streams import stream

VERIFY = ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "SMOKE", "-n", "0", "--out", "out", "--evidence", "kept"]
PROGRAM = """import json, sys, lib.deep.draft, sample
for line in sys.stdin:
    print(json.dumps({"version": "", "capabilities": ["temperature"]}), flush=True)
"""
CLASS = "import sample\nclass Engine:\n    def __init__(self, target, draft=None): ...\n    def generate(self, *request): ...\n"
FILES = {"sample.py": "", "lib/deep/draft.py": "", "unrelated.txt": "", "elsewhere/other.py": ""}

NEW = "its counts start from zero"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def counts(texts: int = 4) -> Counts:
    return Counts.of(stream(5, sequences=texts))


def tokens(folder: Path, name: str) -> int:
    """Tokens that a run of an implementation starts from."""
    return int(Ledger(folder, connect(name), {"campaign": "a"}).read().tokens)


@pytest.mark.parametrize(
    ("name", "changed", "carried"),
    [
        case("the program behind cmd: changes", NEW, "cmd:{python} engine.py", "engine.py", False),
        case("a file next to the program behind cmd: changes", NEW, "cmd:{python} engine.py", "sample.py", False),
        case("a file in a folder that the program names changes", NEW, "cmd:{python} engine.py", "lib/deep/draft.py", False),
        case("a program that python -m names changes", NEW, "cmd:{python} -m engine", "engine.py", False),
        case(
            "a program that an option names changes", NEW, "cmd:{python} programs/run.py --engine=engine.py", "engine.py", False
        ),
        case("the module of py: changes", NEW, "py:engine_class:Engine", "engine_class.py", False),
        case("a module next to that of py: changes", NEW, "py:engine_class:Engine", "sample.py", False),
        case("a file next to that of published: changes", NEW, "published:rule.py:accept", "sample.py", False),
        case("an unrelated file changes", "its counts are carried over", "cmd:{python} engine.py", "unrelated.txt", True),
        case(
            "a folder that no engine names changes",
            "its counts are carried over",
            "cmd:{python} engine.py",
            "elsewhere/other.py",
            True,
        ),
    ],
)
def test_counts_belong_to_the_code_that_made_them(
    name: str, changed: str, carried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        FILES
        | {
            "engine.py": PROGRAM,
            "programs/run.py": PROGRAM.replace(", lib.deep.draft, sample", ""),
            "engine_class.py": CLASS,
            "rule.py": "def accept(*request): ...\n",
        },
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("engine_class", "sample"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    name, kept = name.format(python=shlex.quote(sys.executable)), tmp_path / "kept"
    Ledger(kept, connect(name), {"campaign": "a"}).write(counts())
    assert tokens(kept, name) == int(counts().tokens)
    (tmp_path / changed).write_text((tmp_path / changed).read_text() + "\n# changed\n")
    assert tokens(kept, name) == (int(counts().tokens) if carried else 0)


@promise("a command names no file, and the engine no version, with --evidence", "exit code 2 before anything runs")
def test_evidence_of_an_unknown_program_is_refused(tmp_path: Path) -> None:
    command = Implementation(
        "cmd:engine --fast", partial(RemoteEngine, partial(EngineProcess, ["engine", "--fast"])), remote=True
    )
    with pytest.raises(BadInput, match="a change of the engine would not be noticed") as raised:
        check(tmp_path, command)
    assert "version" in raised.value.hint
    check(
        tmp_path,
        Implementation("cmd:engine", partial(RemoteEngine, partial(EngineProcess, ["engine"])), version="2.1", remote=True),
    )


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda stored: stored["counts"].update(fields)


def first(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda stored: stored["counts"][name].__setitem__(0, value)


REFUSED = "exit code 2 before anything runs; the message names the ledger"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        case("a ledger with a negative number of tokens", REFUSED, changed(tokens=-5), "tokens has a number that is no count"),
        case("a ledger with a negative histogram", REFUSED, first("histogram", -1), "histogram has a number"),
        case("a ledger with half a token", REFUSED, first("histogram", 0.5), "histogram has a number"),
        case("a ledger whose histogram does not add up", REFUSED, changed(tokens=1), "histogram contradicts"),
        case(
            "a ledger with more tokens after leaves than tokens",
            REFUSED,
            lambda s: s["counts"]["leaf"][0].__setitem__(3, 999),
            "leaf",
        ),
        case("a ledger with too few bins", REFUSED, changed(histogram=[1, 2]), "histogram has shape"),
        case("a ledger with NaN", REFUSED, first("tilt", float("nan")), "tilt has a number"),
        case("a ledger with infinity", REFUSED, first("child", float("inf")), "child has a number"),
        case("a ledger with text for a number", REFUSED, first("tilt", "1"), "tilt has a number"),
        case("a ledger with a negative variance", REFUSED, changed(score=[0.0, -1.0]), "score contradicts"),
        case("a ledger with an impossible token that no text has", REFUSED, changed(examples=[[0, 1]]), "examples contradicts"),
        case("a ledger without its counts", REFUSED, lambda stored: stored.pop("counts"), "KeyError: 'counts'"),
    ],
)
def test_numbers_that_are_no_counts_of_tokens_are_refused(
    damage: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path, connect("ref"), {"campaign": "a"})
    ledger.write(counts())
    assert ledger.path is not None
    check(tmp_path, connect("ref"))
    stored = json.loads(ledger.path.read_text())
    damage(stored)
    ledger.path.write_text(json.dumps(stored))
    with pytest.raises(BadInput, match=rf"{ledger.path.name} is not a ledger: {reason}"):
        check(tmp_path, connect("ref"))
    with pytest.raises(Missing, match=reason):  # damaged after a run has begun: inconclusive, and no fault of the engine
        ledger.read()


def make_file(path: Path) -> None:
    path.write_text("")


def make_ledger_folder(path: Path) -> None:
    (path / "0123456789abcdef.json").mkdir(parents=True)


def make_binary_ledger(path: Path) -> None:
    path.mkdir()
    (path / "0123456789abcdef.json").write_bytes(bytes(range(256)))


NOTHING = "exit code 2 before anything runs; the earlier report stays"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        case("--evidence names a file", NOTHING, make_file, "kept cannot be written: it is a file"),
        case("--evidence is a link into /proc", NOTHING, lambda path: path.symlink_to("/proc/x"), "kept cannot be written: "),
        case("a ledger is a folder", NOTHING, make_ledger_folder, "0123456789abcdef.json is not a ledger: Is a directory"),
        case("a ledger is a binary file", NOTHING, make_binary_ledger, "0123456789abcdef.json is not a ledger: "),
    ],
)
def test_evidence_that_cannot_be_used_is_a_usage_error(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    make(tmp_path / "kept")
    write(tmp_path, {"out/index.html": "the earlier report"})
    done = eagle2(VERIFY, tmp_path)
    assert done.returncode == 2 and reason in done.stdout + done.stderr, done
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


@promise("two runs add to one ledger at once", "the second continues where the first stopped; no text counts twice, none is lost")
def test_runs_at_once_lose_no_counts(tmp_path: Path) -> None:
    started: list[int] = []

    def run() -> None:
        with Ledger(tmp_path, connect("ref"), {"campaign": "a"}) as ledger:
            earlier = ledger.read()
            started.append(int(earlier.sequences))
            time.sleep(0.1)  # long enough for the others to read the same counts, if they could
            ledger.write(earlier + counts(4))

    (tmp_path / ".0123456789abcdef.json.1234.tmp").write_text("another campaign is being written")
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [0, 4, 8]
    assert int(Ledger(tmp_path, connect("ref"), {"campaign": "a"}).read().sequences) == 12
    assert (tmp_path / ".0123456789abcdef.json.1234.tmp").exists()


@promise("the disk is full when a ledger is written", "an error that names the ledger; the earlier counts stay")
def test_full_disk_keeps_the_earlier_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, connect("ref"), {"campaign": "a"})
    ledger.write(counts(1))
    assert ledger.path is not None
    with full_disk(at=1000), pytest.raises(OSError, match=ledger.path.name):
        ledger.write(counts(4))
    assert int(ledger.read().sequences) == 1
    assert list(tmp_path.iterdir()) == [ledger.path]


@pytest.mark.parametrize(
    ("engine", "verdict", "says"),
    [
        case(
            "a wrong law is enumerated in part",
            "a fault that quotes only what was enumerated, and says so",
            TooCold,
            "fault",
            r"total variation of at least 0\.\d+; texts that begin with \[0, 0\] have .* in the executions that were run",
        ),
        case(
            "a correct law is enumerated in part",
            "n/a, with the probability that was left",
            Outsider,
            "n/a",
            "executions cover a prob",
        ),
    ],
)
def test_witness_of_a_partial_enumeration(
    engine: type[Outsider], verdict: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_law_unedited, "LEAST_EXECUTIONS", 6)
    monkeypatch.setattr(test_law_unedited, "SECONDS", 0.0)
    found = result_of(test_law_unedited.law_of_generate, implementation(engine), Case("coin4", {"temperature": 1.3}, 2, 2, 4))
    assert found.verdict == verdict and re.match(says, found.summary.removeprefix("7 ")), found.summary
    assert found.measured["unfinished"] and not found.pictures and not found.effect
