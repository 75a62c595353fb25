"""Counts that are kept from run to run: one file for each version of an implementation's code and each thing it was asked."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from harness.implementations import Implementation
from harness.implementations.published import PublishedRule
from harness.statistics.eprocess import Counts

OURS = ("eagle2_ref", "harness.implementations", "harness.mutants")
"""What our own implementations are made of."""


class Ledger:
    """The counts of one campaign on disk. E is a fair bet however often one looks: a later run goes on where this one stopped."""

    def __init__(self, folder: Path | None, implementation: Implementation, asked: dict[str, Any]) -> None:
        told = {
            "implementation": implementation.name,
            "version": implementation.version,
            "code": code_of(implementation),
            **asked,
        }
        self._told = json.loads(json.dumps(told, sort_keys=True))  # as it will be read: JSON knows no tuples
        digest = hashlib.sha256(json.dumps(self._told).encode()).hexdigest()[:16]
        self.path = folder and folder / f"{digest}.json"

    def read(self) -> Counts:
        """What earlier runs have counted."""
        if self.path is None or not self.path.exists():
            return Counts.zero()
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["asked"] != self._told:
                raise ValueError("it belongs to another campaign")
            return Counts.from_json(kept["counts"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.path} is not a ledger: {error}", "move it away: the campaign then begins anew") from None

    def write(self, counts: Counts) -> None:
        """Replace what is kept, all or nothing."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({"asked": self._told, "counts": counts.to_json()}) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def code_of(implementation: Implementation) -> str:
    """A digest of the source that an implementation is made by: the packages, or the lone modules, of its class and its rule."""
    digest = hashlib.sha256()
    for file in sorted({file for part in _parts(implementation.make) for file in _sources(part)}):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _parts(make: Any) -> Iterator[Any]:
    """A constructor, and what was handed to it beforehand, such as a rule from outside."""
    if isinstance(make, partial):
        for part in (make.func, *make.args, *make.keywords.values()):
            yield from _parts(part)
    elif isinstance(make, PublishedRule):
        yield from (type(make), make.evaluate)
    elif callable(make):
        yield make


def _sources(part: Any) -> set[Path]:
    package = part.__module__.partition(".")[0]
    if package == "harness":
        folders = [Path(str(files(name))) for name in OURS]
    else:
        folders = [Path(folder) for folder in getattr(sys.modules.get(package), "__path__", ())]
    try:
        source = {Path(inspect.getsourcefile(part) or "")}
    except TypeError:  # not written in Python
        source = set()
    return source | {file for folder in folders for file in folder.rglob("*.py")}
