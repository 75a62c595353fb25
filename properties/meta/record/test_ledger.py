"""The ledger carries counts from run to run, for one source and one campaign, and refuses damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from harness.implementations import connect
from harness.implementations.engine import Missing
from harness.record.ledger import Ledger, source_digest
from harness.statistics.eprocess import Counts
from properties.meta.helpers.streams import stream

CAMPAIGN = {"campaign": "a", "params": ({"temperature": 1.0},), "seed": 0}


def counts_of(texts: int = 4) -> Counts:
    return Counts.of(stream(5, sequences=texts))


def equal(a: Counts, b: Counts) -> bool:
    return a.examples == b.examples and all(np.array_equal(x, getattr(b, name)) for name, x in a.arrays().items())


def ledger(folder: Path | None, name: str = "ref", **campaign: Any) -> Ledger:
    return Ledger(folder, connect(name), CAMPAIGN | campaign)


def test_ledger_continues_from_run_to_run(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert equal(ledger(folder).read(), Counts.zero())
    ledger(folder).write(counts_of())
    stored = ledger(folder).read()
    assert equal(stored, counts_of())
    ledger(folder).write(stored + counts_of())
    assert int(ledger(folder).read().sequences) == 8
    assert [path.suffix for path in folder.iterdir()] == [".json"]
    with ledger(folder) as locked:
        assert int(locked.read().sequences) == 8


def test_ledger_without_a_folder_stores_nothing() -> None:
    ledger(None).write(counts_of())
    assert equal(ledger(None).read(), Counts.zero())


def test_ledger_file_depends_on_campaign_implementation_and_version(tmp_path: Path) -> None:
    others = [
        {"campaign": "b"},
        {"seed": 1},
        {"params": ({"temperature": 0.5},)},
        {"name": "ref:rule=walk"},
        {"name": "mutant:M04"},
    ]
    ledgers = [ledger(tmp_path, **cast(Any, one)) for one in ({}, *others)]
    version = replace(connect("ref"), version="9")
    assert len({one.path for one in [*ledgers, Ledger(tmp_path, version, CAMPAIGN)]}) == 7


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
def test_damaged_ledger_is_missing_data(damage: Callable[[str], str], tmp_path: Path) -> None:
    one = ledger(tmp_path)
    one.write(counts_of(1))
    assert one.path is not None
    one.path.write_text(damage(one.path.read_text()))
    with pytest.raises(Missing, match=f"{one.path.name} is not a ledger"):
        one.read()


def test_interrupted_write_leaves_the_old_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ledger(tmp_path)
    one.write(counts_of(1))
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        one.write(counts_of(4))
    assert int(ledger(tmp_path).read().sequences) == 1


ENGINE = "class Engine:\n    def __init__(self, target, draft=None): ...\n    def generate(self, *request): ...\n"
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
def test_source_digest_changes_with_the_source(
    files: dict[str, str], connectable: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts of an earlier version must not be added to those of the present code; unrelated files do not matter."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    implementation = connect(connectable.format(tmp_path))
    before = source_digest(implementation)
    assert before == source_digest(implementation) != ""
    (tmp_path / "unrelated.txt").write_text("")
    assert source_digest(implementation) == before
    (tmp_path / changed).write_text(files[changed] + "# changed\n")
    assert source_digest(implementation) != before
