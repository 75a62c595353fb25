"""Write files so that a reader never sees half of one, and so that two runs never write the same folder."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from eagle2_ref.errors import BadInput

NEEDED = 1 << 20
"""Bytes that must be free where a run writes: a record and its report take less."""

TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")


def write_atomic(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 to a temporary file in the same folder, then rename it to `path`.

    Returns:
        The path that was written.

    Raises:
        OSError: with the name of the file. The old file is then unchanged, and no temporary file is left.
    """
    return write_together({path: text})[0]


def write_together(texts: Mapping[Path, str]) -> list[Path]:
    """Write files of one report: all are complete before the first gets its name, and index.html gets its name last.

    Args:
        texts: content by path; folders exist.

    Returns:
        The paths, in the given order.

    Raises:
        OSError: with the name of the file. If writing failed, no file has changed, and no temporary file is left.
    """
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    try:
        for path, text in texts.items():
            try:
                temporaries[path].write_bytes(text.encode())
            except OSError as error:
                raise name_file(error, path) from None
        for path in sorted(texts, key=lambda path: path.name == "index.html"):
            temporaries[path].replace(path)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
    return list(texts)


def append(file: FileIO, path: Path, data: bytes) -> None:
    """Append to an unbuffered file: all of the data, or nothing.

    Raises:
        OSError: with the name of the file, which then ends where it ended before.
    """
    size, done = os.fstat(file.fileno()).st_size, 0
    try:
        while done < len(data):  # a file system that is nearly full takes a part
            done += file.write(data[done:]) or 0
    except OSError as error:
        file.truncate(size)
        raise name_file(error, path) from None


def name_file(error: OSError, path: Path) -> OSError:
    """The same error with the name of the file: an error of `write` has none."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def writable_folder(folder: Path, option: str = "--out") -> Path:
    """Create a folder if there is none, and find out by writing whether it takes files.

    Args:
        folder: the folder.
        option: the option that names it, for the message.

    Raises:
        BadInput: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(NEEDED))
    except OSError as error:
        why = "it is a file" if os.path.isfile(folder) else error.strerror  # noqa: PTH113  takes names of any length
        raise BadInput(f"{option} {folder} cannot be written: {why}", "give another folder") from None
    return folder


def lock(path: Path, seconds: float = 0.0) -> FileLock:
    """Lock a path for this process. The lock ends with the process, or when it is released.

    Args:
        path: what is locked; the lock is a hidden file next to it.
        seconds: time to wait for another process.

    Raises:
        BadInput: another process holds it.
    """
    held = FileLock(lock_file(path), thread_local=False)  # any thread of the process may release it
    try:
        held.acquire(timeout=seconds)
    except Timeout:
        raise BadInput(f"another run is writing {path}", "wait for its end, or give another folder") from None
    except OSError as error:
        raise BadInput(f"{lock_file(path)} cannot be locked: {error.strerror}", "remove it, or give another folder") from None
    return held


def refuse_special_file(path: Path, what: str) -> None:
    """Raise BadInput for a pipe or a device, which can be read or written without an end."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadInput(f"{what} {path} is not a file", "give a regular file")


def lock_file(path: Path) -> Path:
    """The hidden file that a lock of `path` is on."""
    return path.with_name(f".{path.name}.lock")


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Remove temporary files that killed processes left, of one file or of all. Only for the holder of a lock on them."""
    for file in folder.iterdir():
        if (found := TEMPORARY.fullmatch(file.name)) and name in ("", found[1]):
            file.unlink(missing_ok=True)
