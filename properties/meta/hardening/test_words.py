"""Wrong words on the command line: exit code 2 and a message, before anything runs."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.verdict import USAGE
from properties.meta.hardening import promise

COMMAND = get_command(app)

NUMBERS = ("nan", "inf", "-1", "1" + 30 * "0", "", "é")
"""Values that no numeric option takes."""

REQUIRED = {
    "generate": ["x", "--pair", "coin4"],
    "record": ["ref"],
    "smoke": ["ref"],
    "judge": ["run.jsonl"],
    "doctor": ["ref"],
    "calibrate": ["--out", "out"],
    "train head": ["--target", "no", "--out", "out"],
    "train target": ["--out", "out", "--corpus", "no"],
    "train stdlib": ["--out", "out", "--corpus", "no"],
    "train large": ["--out", "out", "--corpus", "no"],
    "train toys": ["--out", "out"],
    "train measure": ["--pair", "no"],
    "compare": ["--out", "out"],
    "bench": ["--out", "out"],
}
"""Words without which a command is refused for another reason than a number."""

LISTS = {"--temperature", "--batch", "--jobs"}
"""Options of type text that hold numbers."""


def commands(command: Any = None, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that has none below it, with its words."""
    command = command or COMMAND
    below = getattr(command, "commands", {})
    yield from () if below else [(words, command)]
    for name, each in below.items():
        yield from commands(each, *words, name)


def numeric_options() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every option that takes a number or a list of numbers, with the words of its command."""
    for words, command in commands():
        for parameter in command.params:
            if type(parameter.default) in (int, float) or parameter.opts[-1] in LISTS or _is_number(parameter):
                yield words, next(name for name in parameter.opts if name.startswith("--"))


def _is_number(parameter: Any) -> bool:
    kind = parameter.type_descriptor.annotation
    return not getattr(parameter, "is_flag", False) and bool({int, float} & {kind, *get_args(kind)})


def _plain(text: str) -> str:
    return " ".join(text.replace("-", " ").replace("_", " ").replace("│", " ").split())


@pytest.fixture
def no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, in which no run of checks may start, and none of another kind goes on for 20 seconds."""

    def refuse(*_: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(pytest, "main", refuse)
    monkeypatch.setattr(typer.testing, "_get_command", lambda _: COMMAND)  # building it takes longer than most commands
    monkeypatch.chdir(tmp_path)
    previous = signal.signal(signal.SIGALRM, refuse)
    yield tmp_path
    signal.signal(signal.SIGALRM, previous)


def invoke(*words: str, text: bytes | None = None) -> Result:
    """Run `eagle2 WORDS` in this process."""
    signal.alarm(20)
    try:
        return CliRunner().invoke(app, words, input=text, env={"COLUMNS": "200"})
    finally:
        signal.alarm(0)


def assert_refused(done: Result, folder: Path) -> None:
    """Exit code 2, a message, no traceback, and no file."""
    assert done.exit_code == USAGE and done.stderr.strip(), f"{done.exit_code} {done.output!r} {done.exception!r}"
    assert "Traceback" not in done.output and isinstance(done.exception, SystemExit), done.exception
    assert not list(folder.iterdir())


OPTIONS = sorted(set(numeric_options()))


@promise("a number is nan, inf, -1, 10^30, empty or é, in every numeric option of every command", "exit code 2, and nothing runs")
def test_numbers_are_refused(no_run: Path) -> None:
    assert len(OPTIONS) > 60
    wrong = []
    for words, option in OPTIONS:
        for value in NUMBERS if option != "--batch" else filter(None, NUMBERS):  # no batch is the default
            done = invoke(*words, *REQUIRED.get(" ".join(words), []), f"{option}={value}")
            try:
                assert_refused(done, no_run)
                assert _plain(option) in _plain(done.stderr), done.stderr
            except AssertionError as error:
                shutil.rmtree("out", ignore_errors=True)
                wrong.append(f"{' '.join(words)} {option}={value}: {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)
