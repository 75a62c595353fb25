"""Evidence carried over between runs of the same code: one file of counts per implementation, source digest and campaign."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from harness.files import write_atomic
from harness.implementations import Implementation
from harness.implementations.published import PublishedRule
from harness.statistics.eprocess import Counts

OWN_PACKAGES = ("eagle2_ref", "harness.implementations", "harness.mutants")
"""Packages whose source decides what the implementations of this repository do."""


class Ledger:
    """The counts of one campaign on disk.

    E-values stay valid however often they are looked at, so a later run continues from the counts of the earlier ones.

    Args:
        folder: folder of all ledgers; None stores nothing.
        implementation: the implementation under test.
        campaign: everything else that the counts depend on: parameters, pair, seed, dtype.
    """

    def __init__(self, folder: Path | None, implementation: Implementation, campaign: dict[str, Any]) -> None:
        key = {
            "implementation": implementation.name,
            "version": implementation.version,
            "code": source_digest(implementation),
            **campaign,
        }
        self._key = json.loads(json.dumps(key, sort_keys=True))  # as it will be read back: JSON has no tuples
        digest = hashlib.sha256(json.dumps(self._key).encode()).hexdigest()[:16]
        self.path = folder and folder / f"{digest}.json"

    def read(self) -> Counts:
        """The counts of earlier runs; zero if there are none.

        Raises:
            BadInput: if the file is damaged or belongs to another campaign.
        """
        if self.path is None or not self.path.exists():
            return Counts.zero()
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["campaign"] != self._key:
                raise ValueError("it belongs to another campaign")
            return Counts.from_json(stored["counts"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.path} is not a ledger: {error}", "move it away: the campaign then starts from zero") from None

    def write(self, counts: Counts) -> None:
        """Replace the stored counts, atomically."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps({"campaign": self._key, "counts": counts.to_json()}) + "\n")


def source_digest(implementation: Implementation) -> str:
    """Digest of the source of an implementation: the packages, or single modules, of its class and its rule."""
    digest = hashlib.sha256()
    for file in sorted({file for part in _parts(implementation.make) for file in _sources(part)}):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _parts(make: Any) -> Iterator[Any]:
    """A constructor, and arguments that are bound to it, such as an external rule."""
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
        folders = [Path(str(files(name))) for name in OWN_PACKAGES]
    else:
        folders = [Path(folder) for folder in getattr(sys.modules.get(package), "__path__", ())]
    try:
        source = {Path(inspect.getsourcefile(part) or "")}
    except TypeError:  # not written in Python
        source = set()
    return source | {file for folder in folders for file in folder.rglob("*.py")}
