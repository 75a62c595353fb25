"""Tracebacks of engines: the place of an error for its result, and a file with the rest next to the record."""

from __future__ import annotations

import contextlib
import re
import shutil
import sysconfig
import traceback
from pathlib import Path

FOLDER = "tracebacks"
"""Folder next to a record with one file for each result that has a traceback."""

LENGTH = 100_000
"""Characters of a traceback that are stored, its last ones."""

FRAME = re.compile(r'^ *File "([^"<][^"]*)", line (\d+)', re.MULTILINE)
FOREIGN = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, "site-packages", "dist-packages")
"""Folders of installed code, in this and in other environments."""


def format_error(error: BaseException | None) -> str:
    """The traceback of an error with its causes; "" for None."""
    return "".join(traceback.format_exception(error)) if error else ""


def place(text: str) -> str:
    """File and line of the innermost call in code of the engine's author, such as 'my_engine.py:12'; "" if none is known.

    Calls into installed packages and the harness's call of the engine are passed over, unless there are no others.
    """
    frames: list[tuple[str, str]] = FRAME.findall(text)
    own = [frame for frame in frames if not any(folder in frame[0] for folder in (*FOREIGN, "harness/implementations/"))]
    return f"{Path((own or frames)[-1][0]).name}:{(own or frames)[-1][1]}" if frames else ""


def store(text: str, name: str, out: Path) -> str:
    """Write a traceback to the file of a case in the folder of a record, and return its path relative to that folder.

    Control characters are escaped, so that a terminal shows the file as it is. "" if it cannot be written: the result matters
    more.
    """
    file = Path(FOLDER, f"{re.sub(r'[^A-Za-z0-9.=-]+', '-', name).strip('-')[:100]}.txt")
    with contextlib.suppress(OSError):
        (out / FOLDER).mkdir(exist_ok=True)
        lines = (line if line.isprintable() else ascii(line)[1:-1] for line in text[-LENGTH:].split("\n"))
        (out / file).write_text("\n".join(lines), encoding="utf-8")
        return file.as_posix()
    return ""


def clear(out: Path) -> None:
    """Remove the tracebacks of an earlier run from the folder of a record."""
    for file in (out / FOLDER).glob("*.txt"):
        with contextlib.suppress(OSError):
            file.unlink()
    with contextlib.suppress(OSError):  # there is none, or it holds other files
        (out / FOLDER).rmdir()


def move(temporary: Path, out: Path) -> Path | None:
    """Move the tracebacks of a run without a record to the folder of records, and return where they are; None if it has none."""
    files = sorted((temporary / FOLDER).glob("*.txt"))
    if not files:
        return None
    clear(out)
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.move(file, out / FOLDER)
    return out / FOLDER
