"""Counts that are kept from run to run: one file for each version of an implementation's code and each thing it was asked."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from harness.implementations import Implementation
from harness.statistics.eprocess import Counts


class Ledger:
    """The counts of one campaign on disk. E is a fair bet however often one looks: a later run goes on where this one stopped."""

    def __init__(self, folder: Path | None, implementation: Implementation, asked: dict[str, Any]) -> None:
        self._told = {
            "implementation": implementation.name,
            "version": implementation.version,
            "code": code_of(implementation),
            **asked,
        }
        digest = hashlib.sha256(json.dumps(self._told, sort_keys=True).encode()).hexdigest()[:16]
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
        except (ValueError, KeyError, TypeError) as error:
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
    """A digest of the source of the package, or the lone module, that an implementation is made by."""
    make = implementation.make
    while isinstance(make, partial):
        make = make.func
    try:
        source = Path(inspect.getsourcefile(make) or "")
    except TypeError:
        return ""
    files = [source]
    if make.__module__.startswith("harness."):
        import eagle2_ref

        files += sorted(Path(eagle2_ref.__file__).parent.rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
