"""JSON-lines records: a header, lines that are appended while a run goes on, and a footer that shows that it was finished.

Every record format of the harness uses this reader and writer. A format is a pydantic type of its lines; what the lines mean
is defined there.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from eagle2_ref.errors import BadInput
from harness.files import append, lock, lock_file, refuse_special_file, remove_temporaries, writable_folder, write_atomic

H = TypeVar("H", bound=BaseModel)
F = TypeVar("F", bound=BaseModel)


class Parts(NamedTuple, Generic[H, F]):
    """A record as it was read. footer: None if the run was cut off."""

    header: H
    lines: tuple[Any, ...]
    footer: F | None


def read_parts(
    path: Path,
    lines: TypeAdapter[Any],
    header: type[H],
    footer: type[F],
    *,
    command: str,
    whole: bool = True,
) -> Parts[H, F]:
    """Read a record, and refuse one that is damaged.

    Args:
        path: the file.
        lines: type of all that a line may hold.
        header: type of the first line.
        footer: type of the last line.
        command: the command that writes such a record, for error messages.
        whole: refuse a record without a footer; otherwise its footer is None.

    Raises:
        BadInput: with the number of the line that is wrong.
    """
    found = read_lines(path, lines, command=command)
    first, rest = (found[0], found[1:]) if found else (None, [])
    last = rest.pop() if rest and isinstance(rest[-1], footer) else None
    if not isinstance(first, header):
        raise BadInput(f"{path} has no header", f"the file is damaged or was cut off; {command} writes one")
    if any(isinstance(line, header | footer) for line in rest):
        raise BadInput(f"{path} has a second header or footer", "a record holds one run")
    if whole and last is None:
        raise BadInput(f"{path} has no footer", "the run was cut off; run it again")
    return Parts(first, tuple(rest), last)


def read_lines(path: Path, lines: TypeAdapter[Any], *, command: str) -> list[Any]:
    """All lines of a file. An unfinished last line, as a run that was cut off leaves one, is dropped."""
    refuse_special_file(path, "the record")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"there is no record in {path}", f"{command} writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", f"{command} writes a record") from None
    *finished, unfinished = text.split("\n")
    found = []
    for number, line in enumerate([*finished, unfinished] if unfinished else finished, start=1):
        try:
            found.append(lines.validate_json(line))
        except ValidationError as error:
            if number > len(finished):
                break
            reason = error.errors()[0]["msg"]
            raise BadInput(f"{path}, line {number} is not a line of a record: {reason}", "the record is damaged") from None
    return found


class Writer:
    """Appends lines to a file as they come, so that a run that is cut off loses nothing but its footer.

    A line is written whole or not at all. Until the writer is closed, no other run can write to the same file.

    Args:
        path: the file; its folder is created.
        resume: append to what an earlier run left there instead of starting anew. An unfinished last line is removed.
        stale: files of an earlier run that are removed first.

    Raises:
        BadInput: the file cannot be written, or another run is writing it. Nothing was changed then.
    """

    def __init__(self, path: Path, *, resume: bool = False, stale: Iterable[Path] = ()) -> None:
        self.path = path
        refuse_special_file(path, "the record")
        self._lock = lock(writable_folder(path.parent) / path.name)
        try:
            self._file = _start(path, resume, stale)
        except OSError as error:
            self._lock.release()
            raise BadInput(f"{error.filename or path} cannot be replaced: {error.strerror}", "give another folder") from None

    def write(self, *lines: BaseModel) -> None:
        """Append lines. OSError with the name of the file if the disk is full; earlier lines are kept."""
        append(self._file, self.path, "".join(map(dump, lines)).encode())

    def finish(self, lines: Iterable[BaseModel]) -> None:
        """Replace the file, atomically, by the whole record in its final order. The file stays locked until `close`."""
        self._file.close()
        write_atomic(self.path, "".join(map(dump, lines)))

    def close(self) -> None:
        self._file.close()
        if self._lock.is_locked:
            lock_file(self.path).unlink(missing_ok=True)  # while it is held: a later run makes a new one
            self._lock.release()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _start(path: Path, resume: bool, stale: Iterable[Path]) -> FileIO:
    """Open a record for appending, after removing what an earlier run left."""
    remove_temporaries(path.parent)
    for old in stale:
        old.unlink(missing_ok=True)
    whole = path.read_bytes() if resume and path.exists() else b""
    with path.open("ab") as file:
        file.truncate(whole.rfind(b"\n") + 1)
    return path.open("ab", buffering=0)


def dump(line: BaseModel) -> str:
    """One line of a record, with its line end."""
    return line.model_dump_json() + "\n"
