"""Damaged and foreign traces: which line, which field, and which options they were recorded with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.implementations import connect
from harness.implementations.engine import Missing
from harness.implementations.trace import differences, write_head
from harness.pairs import shipped
from harness.settings import Settings
from harness.verdict import INCONCLUSIVE, USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import eagle2

COIN4 = shipped("coin4")
PARAMS = {"temperature": 1.0, "max_new_tokens": 3}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A sound trace: a head, three answers on coin4 and their counters."""
    tape = tmp_path_factory.mktemp("trace") / "run.jsonl"
    recorded = connect("ref:k=2,depth=2,m=4", tape=tape)
    write_head(tape, recorded, Settings(pair="coin4", seed=5))
    recorded.open(COIN4).generate([[1], [2], [3]], [PARAMS] * 3, [0, 1, 2])
    return tape.read_text().splitlines()


def changed(number: int, **fields: Any) -> Callable[[list[str]], bytes]:
    """A trace with other fields in one line, counted from 1; a field that is None is removed."""

    def change(lines: list[str]) -> bytes:
        line = {**json.loads(lines[number - 1]), **fields}
        line = {name: value for name, value in line.items() if name not in fields or value is not None}
        return "\n".join([*lines[: number - 1], json.dumps(line), *lines[number:]]).encode()

    return change


DAMAGED = [
    case(
        "a trace whose head lacks the seed",
        "exit code 2 with line and field",
        changed(1, recorded={"pair": "coin4", "tier": "quick", "dtype": "float32"}),
        "line 1: recorded.seed: Field required",
    ),
    case(
        "a trace that was cut off",
        "exit code 2 with the line",
        lambda lines: "\n".join(lines).encode()[:-20],
        "line 5: EOF while parsing",
    ),
    case("an empty trace", "exit code 2", lambda _: b"", "line 1: it is blank"),
    case(
        "a trace with a blank line", "exit code 2 with the line", lambda lines: "\n\n".join(lines).encode(), "line 2: it is blank"
    ),
    case("a trace that is no text", "exit code 2", lambda _: bytes(range(256)), "it is not UTF-8 text"),
    case(
        "a trace without its head",
        "exit code 2 with the field",
        lambda lines: "\n".join(lines[1:]).encode(),
        "line 1: kind: Field required",
    ),
    case(
        "a trace whose head lacks the capabilities",
        "exit code 2 with line and field",
        changed(1, capabilities=None),
        "line 1: capabilities: Field required",
    ),
    case(
        "a record instead of a trace",
        "exit code 2 with line and field",
        changed(1, kind="header"),
        "line 1: kind: Input should be 'trace'",
    ),
    case(
        "a trace with a request without a prompt",
        "exit code 2 with line and field",
        changed(3, prompt=None),
        "line 3: prompt: Field required",
    ),
    case(
        "a trace with a request without tokens",
        "exit code 2 with line and field",
        changed(4, tokens=None),
        "line 4: tokens: Field required",
    ),
    case(
        "a trace with a token that is a fraction",
        "exit code 2 with line and field",
        changed(2, tokens=[0, 1.5, 1]),
        "line 2: tokens.1: Input should be a valid integer",
    ),
    case(
        "a trace with a seed that is a string",
        "exit code 2 with line and field",
        changed(2, seed="7"),
        "line 2: seed: Input should be a valid integer",
    ),
    case(
        "a trace with a line that is a list",
        "exit code 2 with the line",
        lambda lines: "\n".join([*lines, "[1]"]).encode(),
        "line 6: Input should be a valid dictionary",
    ),
    case(
        "a trace with counters that lack a number",
        "exit code 2 with line and field",
        lambda lines: "\n".join([*lines, '{"call": "x", "counted": {"passes": 1}}']).encode(),
        "line 6: counted.drafted: Field required",
    ),
    case(
        "a trace nested 100,000 deep",
        "exit code 2 with the line",
        lambda lines: "\n".join([*lines, "[" * 100_000]).encode(),
        "line 6: recursion limit exceeded",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_damaged_trace_is_refused(damage: Callable[[list[str]], bytes], message: str, lines: list[str], tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_bytes(damage(lines))
    done = CliRunner().invoke(app, ["judge", str(file)])
    first, *hints = done.stderr.splitlines()
    assert done.exit_code == USAGE and f"run.jsonl is not a trace: {message}" in first and len(hints) == 1, done.output


@pytest.mark.parametrize(("path", "message"), [("none.jsonl", "No such file"), (".", "Is a directory")])
def test_trace_that_cannot_be_read_is_refused(path: str, message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["judge", str(tmp_path / path)])
    assert done.exit_code == USAGE and message in done.stderr


def test_sound_trace_is_read(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("\n".join(lines) + "\n")
    trace = connect(f"trace:{tmp_path / 'run.jsonl'}")
    assert trace.recorded == {"pair": "coin4", "tier": "quick", "dtype": "float32", "seed": 5}
    assert len(trace.open(COIN4).generate([[1], [2], [3]], [PARAMS] * 3, [0, 1, 2])) == 3
    with pytest.raises(Missing, match=r"lacks 1 of 1 requests; none is on the pair coin6, only on coin4; .* --seed 5;"):
        trace.open(shipped("coin6")).generate([[1]], [PARAMS], [0])


def test_options_of_a_run_are_compared_with_those_of_its_trace() -> None:
    recorded: dict[str, str | int] = {"pair": "coin4", "tier": "quick", "dtype": "float32", "seed": 5}
    assert differences(recorded, Settings(pair="coin4", seed=5)) == differences({}, Settings()) == ""
    assert "--pair coin4 --seed 5; this run has --pair stdlib --seed 0" in differences(recorded, Settings())
    assert "--pair coin4; this run has --pair mine" in differences(recorded, Settings(target="my/mine", seed=5))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        case(
            "judge with another pair than the trace's",
            "exit code 2; both pairs are named",
            "--pair coin6",
            "is coin6, but the trace was recorded with the pair coin4",
        ),
        case(
            "judge with another seed than the trace's",
            "exit code 2; both seeds are named",
            "--seed 7",
            "is 7, but the trace was recorded with the seed 5",
        ),
    ],
)
def test_judge_refuses_options_that_differ_from_the_trace(option: str, message: str, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("\n".join(lines) + "\n")
    done = CliRunner().invoke(app, ["judge", str(tmp_path / "run.jsonl"), *option.split()])
    assert done.exit_code == USAGE and message in done.stderr, done.output


@promise("verify with another pair and seed than the trace's", "exit code 3; both pairs and seeds are named")
def test_trace_of_another_seed_names_both(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("\n".join(lines) + "\n")
    done = eagle2(["verify", "trace:run.jsonl", "--pair", "coin6", "--seed", "7", "--only", "SMOKE", "-n", "0"], tmp_path)
    assert done.returncode == INCONCLUSIVE
    assert "recorded with --pair coin4 --seed 5; this run has --pair coin6 --seed 7" in done.stderr
