"""Evidence carried over between runs of the same code: one file of counts per implementation, source digest and campaign."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from eagle2_ref.errors import BadInput
from harness.environment import versions
from harness.files import lock, remove_temporaries, writable_folder, write_atomic
from harness.implementations import Implementation
from harness.implementations.engine import Missing
from harness.implementations.process import EngineProcess
from harness.implementations.published import PublishedRule
from harness.statistics.eprocess import Counts

OWN_PACKAGES = ("eagle2_ref", "harness.implementations", "harness.mutants")
"""Packages whose source decides what the implementations of this repository do."""

INSTALLED = ("site-packages", "dist-packages")
"""Folders whose modules are not each other's neighbours."""

LARGE = 64 << 20
"""Bytes from which a file, such as a checkpoint, counts by its size and time of change instead of its content."""

WAIT = 600.0
"""Seconds to wait for another run that adds to the same ledger."""

NAME = re.compile(r"[0-9a-f]{16}\.json")


class Ledger:
    """The counts of one campaign on disk. Enter it to read and to add: until it is left, other runs wait.

    A later run continues from the counts of the earlier ones: its first text has the number after their last. E-values stay
    valid, since the tokens of all runs are one sequence in which every text occurs once, and an e-process may be looked at and
    continued at any time. Two runs at once would sample the same texts with the same seeds, and adding those would count
    the same tokens twice; therefore the second run waits, and continues where the first one stopped.

    Args:
        folder: folder of all ledgers; None stores nothing.
        implementation: the implementation under test.
        campaign: everything else that the counts depend on: parameters, pair, seed, dtype.
    """

    def __init__(self, folder: Path | None, implementation: Implementation, campaign: dict[str, Any]) -> None:
        key = {
            "implementation": implementation.name,
            "version": implementation.version,
            "code": source_digest(implementation) if folder else "",
            "versions": versions(),
            **campaign,
        }
        self._key = json.loads(json.dumps(key, sort_keys=True))  # as it will be read back: JSON has no tuples
        digest = hashlib.sha256(json.dumps(self._key).encode()).hexdigest()[:16]
        self.path = folder and folder / f"{digest}.json"
        self._lock: FileLock | None = None

    def __enter__(self) -> Ledger:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = lock(self.path, WAIT)
            except BadInput as error:
                raise Missing(str(error)) from None
            remove_temporaries(self.path.parent, self.path.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.release()

    def read(self) -> Counts:
        """The counts of earlier runs; zero if there are none.

        Raises:
            Missing: the file was damaged since `check`, or belongs to another campaign. This is no fault of the implementation.
        """
        if self.path is None or not self.path.exists():
            return Counts.zero()
        try:
            key, counts = _load(self.path)
            if key != self._key:
                raise _damaged(self.path, "it belongs to another campaign")
        except BadInput as error:
            raise Missing(str(error)) from None
        return counts

    def write(self, counts: Counts) -> None:
        """Replace the stored counts, atomically. OSError with the name of the file if it cannot be written."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps({"campaign": self._key, "counts": counts.to_json()}) + "\n")


def check(folder: Path, implementation: Implementation) -> None:
    """Refuse a folder of ledgers that a run could not use, before it starts.

    Raises:
        BadInput: nothing can be written there, a ledger in it is damaged, or the source of the implementation is not known.
    """
    writable_folder(folder, "--evidence")
    for path in sorted(folder.iterdir()):
        if NAME.fullmatch(path.name):
            _load(path)
    for command in (part for part in _parts(implementation.make) if isinstance(part, list)):
        if not implementation.version and not _named_files(command):
            raise BadInput(
                f"--evidence: no word of {implementation.name} is a file, so that a change of the engine would not be noticed",
                "name its file in the command, or let `describe` return a version that changes with the engine",
            )


def _load(path: Path) -> tuple[Any, Counts]:
    """Campaign and counts of a ledger file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return stored["campaign"], Counts.from_json(stored["counts"])
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)) from None


def _damaged(path: Path, reason: str) -> BadInput:
    return BadInput(f"{path} is not a ledger: {reason}", "move it away: the campaign then starts from zero")


# --- the code that made the counts ---------------------------------------------------------------------------------


def source_digest(implementation: Implementation) -> str:
    """Digest of the names and contents of `source_files`."""
    found = sorted(f"{file.name} {_file_digest(file)}" for file in source_files(implementation))
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def source_files(implementation: Implementation) -> set[Path]:
    """The files that decide what an implementation does, as far as they can be found without running it.

    - A Python class or function: its file, or its whole package.
    - A command: its program, and every word that names a file.
    - Next to each of these: the files with the same suffix in the same folder, such as the .js files next to engine.js, and
      those in folders there whose names occur in the files. Installed packages have no neighbours.

    Files that are found in other ways (installed packages, paths computed at run time) are not among them: an engine that
    depends on them reports a `version`.
    """
    found: set[Path] = set()
    for part in _parts(implementation.make):
        found |= _command_files(part) if isinstance(part, list) else _module_files(part)
    return found


def _parts(make: Any) -> Iterator[Any]:
    """A constructor, arguments that are bound to it, such as an external rule, and the words of a command, as a list."""
    if isinstance(make, partial):
        for part in (make.func, *make.args, *make.keywords.values()):
            yield from _parts(part)
        if make.func is EngineProcess:
            yield list(make.args[0])
    elif isinstance(make, PublishedRule):
        yield from (type(make), make.evaluate)
    elif callable(make):
        yield make


def _module_files(part: Any) -> set[Path]:
    package = part.__module__.partition(".")[0]
    if package == "harness":
        folders = [Path(str(files(name))) for name in OWN_PACKAGES]
    else:
        folders = [Path(folder) for folder in getattr(sys.modules.get(package), "__path__", ())]
    try:
        source = {Path(inspect.getsourcefile(part) or "").resolve()}
    except TypeError:  # not written in Python
        source = set()
    found = source | {file for folder in folders for file in folder.rglob("*.py")}
    places = {folder.resolve().parent for folder in folders} or {file.parent for file in source}
    return found if package == "harness" else found | _neighbours(found, places, ".py")


def _command_files(words: list[str]) -> set[Path]:
    program, named = shutil.which(words[0]), _named_files(words)
    found = {Path(program).resolve(), *named} if program else named
    for file in named:
        if file.suffix[1:].isidentifier():  # the end of python3.11 is no suffix
            found |= _neighbours({file}, {file.parent}, file.suffix)
    return found


def _named_files(words: list[str]) -> set[Path]:
    """Files that words of a command name: engine.js, --file=engine.js, engine.py:Engine, or `-m package.engine` of Python."""
    named: set[Path] = set()
    for word, before in zip(words, ["", *words], strict=False):
        module = word.replace(".", "/")
        paths = [f"{module}.py", f"{module}/__init__.py", f"{module}/__main__.py"] if before == "-m" else re.split("[=:]", word)
        named |= {Path(path).resolve() for path in (word, *paths) if os.path.isfile(path)}  # noqa: PTH113  takes any text
    return named


def _neighbours(found: set[Path], places: set[Path], suffix: str) -> set[Path]:
    """Files with a suffix in these folders, and in the folders there whose names occur in any of the files."""
    places = {place for place in places if place.name not in INSTALLED}
    inside = [path for place in places for path in place.iterdir()]
    neighbours = {path for path in inside if path.suffix == suffix and path.is_file()}
    words = {
        word for file in found | neighbours if file.stat().st_size < LARGE for word in re.findall(rb"[\w-]+", file.read_bytes())
    }
    folders = [path for path in inside if path.is_dir() and path.name.encode() in words]
    return neighbours | {file for folder in folders for file in folder.rglob(f"*{suffix}") if file.is_file()}


def _file_digest(file: Path) -> str:
    status = file.stat()
    return _content_digest(file, status.st_size, status.st_mtime_ns)


@cache
def _content_digest(file: Path, size: int, changed: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if size < LARGE else f"{size} {changed}"
