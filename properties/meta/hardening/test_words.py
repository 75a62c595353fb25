"""Wrong words on the command line: exit code 2 and a message, before anything runs."""

from __future__ import annotations

import shlex
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
from harness.pairs import FIXTURES
from harness.verdict import USAGE
from properties.meta.hardening import case, promise

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

PAIRS = FIXTURES / "pairs"

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


REFUSED = [
    ("verify reff", "'reff'", "did you mean ref?"),
    ("verify ref -n x", "--jobs: x", "auto"),
    ("verify ref -n -1", "--jobs: -1", "from 0 to"),
    ("verify ref -n 99999", "--jobs: 99999", "from 0 to"),
    ("mutants -n 99999", "--jobs: 99999", "from 0 to"),
    ("calibrate --out out -n 99999", "--jobs: 99999", "from 0 to"),
    ("engines -n 99999", "--jobs: 99999", "from 0 to"),
    ("record ref -n x", "--jobs: x", "auto"),
    ("verify py:no_such_module:Engine", "no_such_module", "run from the folder"),
    ("verify py:json:Lodas", "json has no Lodas", "did you mean loads?"),
    ("verify py:json", "py:json", "py:package.module:Engine"),
    ("verify ref:ruel=walk", "'ruel'", "did you mean rule?"),
    ("verify ref:walk", "'walk'", "name=value"),
    ("verify ref:rule=wlak", "'wlak'", "reject, walk"),
    ("verify ref:k=0", "ref:k=0: k must be a whole number of 1 or more, not 0", ""),
    ("verify ref:depth=0", "depth must be a whole number of 1 or more, not 0", ""),
    ("verify ref:k=2,depth=2,m=7", "m is 7", "at most 6"),
    ("verify ref:k=257", "vocabulary has 256", "at most 256"),
    ("verify --pair stdlob", "'stdlob'", "coin4, coin6, dice8, stdlib"),
    ("verify --target here", "--draft", "give both"),
    ("generate x --target here", "--draft", "give both"),
    ("generate x --drafter lookup --target here", "here is not a directory", "directory of a checkpoint"),
    ("verify --target nowhere --draft nowhere", "nowhere", "directory of a checkpoint"),
    ("verify --target PAIRS/stdlib/target --draft PAIRS/coin4/draft", "fc.weight", "a head trained for this target"),
    ("verify --dtype float8", "'float8'", "bfloat16"),
    ("verify --device gpu", "'gpu'", "cuda"),
    ("verify --tier fast", "'fast'", "quick, full"),
    ("verify --oracle float16", "'float16'", "float64 or float32"),
    ("verify mutant:M4", "'M4'", "M04"),
    ("verify published:no.py", "no.py", "path of the file"),
    ("replay LAW-1.1 --record no.jsonl", "no.jsonl", "eagle2 verify"),
    ("mutants --only M4", "'M4'", "M04"),
    ("mutants --check LAWS", "chapter LAWS", "did you mean LAW?"),
    ("mutants --check LAW,TREE-99", "property TREE-99", "did you mean TREE-"),
    ("engines --check NOPE", "chapter NOPE", "chapters are "),
    ("verify ref --only LAW-99", "property LAW-99", "did you mean LAW-"),
    ("verify ref --only smkoe", "chapter smkoe", "did you mean SMOKE?"),
    ("verify ref --only SMOKE,NOPE-1", "property NOPE-1", "chapters are "),
    ("verify ref --only 'LAW-4[coin4, T=3]'", "case LAW-4[coin4, T=3]", "did you mean LAW-4[coin4, T="),
    ("verify ref --only ,", "','", "SMOKE,LAW-4"),
    ("record ref --only LAW-99", "property LAW-99", "did you mean LAW-"),
    ("verify --time-limit 0", "0 s", "seconds"),
    ("verify --time-limit 1e9", "1e+09 s", "a week"),
    ("verify --seed -1", "seed is -1", "from 0 to"),
    ("smoke py:harness.files:os", "os is of type module", "write_atomic"),
    ("smoke py:math:pi", "pi is of type float", "it has"),
    ("smoke py:decimal:Decimal", "Decimal has no method generate", "generate(self, prompts, params, seeds)"),
    ("""smoke 'cmd:node "x'""", "No closing quotation", "as in a shell"),
    ("generate x --drafter eagel2", "'eagel2'", "did you mean eagle2?"),
    ("verify trace:no.jsonl", "no.jsonl", "eagle2 record"),
    ("report no.jsonl", "no.jsonl", "eagle2 verify"),
    ("generate x --temperature -1", "temperature is -1.0", "0 or more"),
    ("generate x --top-p 0", "top_p is 0", "in (0, 1]"),
    ("generate x --top-p 1.5", "top_p is 1.5", "in (0, 1]"),
    ("generate x --top-k 0", "top_k is 0", "1 or more"),
    ("generate x --max-new-tokens 0", "max_new_tokens is 0", "1 or more"),
    ("generate x --rule greedy", "'greedy'", "reject, walk"),
    ("generate x --max-new-tokens 5 --show-tree --step 99", "99", "steps"),
]
"""A command, what its error names, and what its hint names."""


@pytest.mark.parametrize(
    ("command", "wrong", "hint"),
    [
        case(f"`eagle2 {command}`", f"exit code 2; the message names {wrong}", command, wrong, hint)
        for command, wrong, hint in REFUSED
    ],
)
def test_wrong_word_has_exit_code_2_and_a_hint(command: str, wrong: str, hint: str, no_run: Path) -> None:
    done = invoke(*shlex.split(command.replace("PAIRS", str(PAIRS))))
    assert_refused(done, no_run)
    first, *rest = done.stderr.splitlines()
    assert first.startswith("eagle2: ") and wrong in first and hint in "\n".join(rest), done.stderr


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
