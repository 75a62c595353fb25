"""Counts that are kept: they go on from run to run, for one code and one question, and nothing damaged is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from eagle2_ref.errors import BadInput
from harness.implementations import connect
from harness.record.ledger import Ledger, code_of
from harness.statistics.eprocess import Counts
from properties.meta.helpers.streams import stream

ASKED = {"campaign": "a", "params": ({"temperature": 1.0},), "seed": 0}


def some(texts: int = 4) -> Counts:
    return Counts.of(stream(5, sequences=texts))


def the_same(a: Counts, b: Counts) -> bool:
    return a.examples == b.examples and all(np.array_equal(x, getattr(b, name)) for name, x in a.arrays().items())


def ledger(folder: Path | None, name: str = "ref", **asked: Any) -> Ledger:
    return Ledger(folder, connect(name), ASKED | asked)


def test_counts_go_on_from_run_to_run(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    assert the_same(ledger(folder).read(), Counts.zero())
    ledger(folder).write(some())
    kept = ledger(folder).read()
    assert the_same(kept, some())
    ledger(folder).write(kept + some())
    assert int(ledger(folder).read().sequences) == 8
    assert [path.suffix for path in folder.iterdir()] == [".json"]


def test_without_a_folder_nothing_is_kept() -> None:
    ledger(None).write(some())
    assert the_same(ledger(None).read(), Counts.zero())


def test_another_question_is_another_file(tmp_path: Path) -> None:
    other = [
        {"campaign": "b"},
        {"seed": 1},
        {"params": ({"temperature": 0.5},)},
        {"name": "ref:rule=walk"},
        {"name": "mutant:M04"},
    ]
    ledgers = [ledger(tmp_path, **cast(Any, one)) for one in ({}, *other)]
    version = replace(connect("ref"), version="9")
    assert len({one.path for one in [*ledgers, Ledger(tmp_path, version, ASKED)]}) == 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda _: "",
        lambda text: text.replace('"campaign": "a"', '"campaign": "b"'),
        lambda text: text.replace('"tokens"', '"token"'),
        lambda text: json.dumps(json.loads(text) | {"counts": []}),
        lambda text: json.dumps(json.loads(text) | {"counts": json.loads(text)["counts"] | {"leaf": [[1]]}}),
        lambda text: json.dumps(json.loads(text) | {"counts": json.loads(text)["counts"] | {"examples": [3]}}),
    ],
    ids=["half", "a list", "empty", "another campaign", "a name", "no counts", "a shape", "examples"],
)
def test_a_damaged_ledger_is_bad_input(damage: Callable[[str], str], tmp_path: Path) -> None:
    one = ledger(tmp_path)
    one.write(some(1))
    assert one.path is not None
    one.path.write_text(damage(one.path.read_text()))
    with pytest.raises(BadInput, match="is not a ledger") as told:
        one.read()
    assert "begins anew" in told.value.hint


def test_what_breaks_off_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ledger(tmp_path)
    one.write(some(1))
    write = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        write(path, text[: len(text) // 2], **options)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        one.write(some(4))
    assert int(ledger(tmp_path).read().sequences) == 1


ENGINE = "class Engine:\n    def __init__(self, target, draft=None): ...\n    def generate(self, *asked): ...\n"
RULE = "def accept(tokens, parents, p, coins): return [], 0\n"


@pytest.mark.parametrize(
    ("files", "connectable", "changed"),
    [
        ({"lone_engine.py": ENGINE}, "py:lone_engine:Engine", "lone_engine.py"),
        ({"lone_rule.py": RULE}, "py:lone_rule:accept", "lone_rule.py"),
        ({"published_rule.py": RULE}, "published:{}/published_rule.py:accept", "published_rule.py"),
        (
            {"engines/__init__.py": "", "engines/rules.py": "", "engines/main.py": ENGINE},
            "py:engines.main:Engine",
            "engines/rules.py",
        ),
    ],
    ids=["a module", "a bare rule", "a published rule", "a package"],
)
def test_other_source_is_other_code(
    files: dict[str, str], connectable: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Yesterday's counts must not speak of today's code."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    implementation = connect(connectable.format(tmp_path))
    before = code_of(implementation)
    assert before == code_of(implementation) != ""
    (tmp_path / "beside.py").write_text("")
    assert code_of(implementation) == before
    (tmp_path / changed).write_text(files[changed] + "# mended\n")
    assert code_of(implementation) != before
