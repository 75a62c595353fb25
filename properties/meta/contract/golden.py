"""Golden files: JSON that is committed, compared with what the code gives today."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"

MOST_SHOWN = 20
"""Differences that a failing test lists."""


def read_golden(name: str) -> Any:
    """Read the committed value."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write_golden(name: str, value: Any) -> Path:
    """Replace the committed value. What fits takes one line, so that a diff shows one line per changed item."""
    path = FOLDER / f"{name}.json"
    path.write_text(_format(value) + "\n", encoding="utf-8")
    return path


def check_golden(name: str, current: Any, *part: str) -> None:
    """Fail with the list of differences if the current value is not the committed one.

    Args:
        name: name of the golden file, which is also the argument that regenerates it.
        current: a JSON value.
        part: keys that lead to the part of the golden value to compare with; the whole value by default.
    """
    expected = read_golden(name)
    for key in part:
        expected = expected[key]
    differences = list(find_differences(expected, json.loads(json.dumps(current))))
    listed = "\n".join(f"  {line}" for line in differences[:MOST_SHOWN])
    more = len(differences) - MOST_SHOWN
    assert not differences, (
        f"{len(differences)} differences from golden/{name}.json:\n{listed}"
        + (f"\n  and {more} more" if more > 0 else "")
        + f"\nIf the change is intended: python -m properties.meta.contract {name}"
    )


def find_differences(expected: Any, current: Any, place: str = "") -> Iterator[str]:
    """Describe every difference between two JSON values, with its place."""
    if isinstance(expected, dict) and isinstance(current, dict):
        for key in [*expected, *(key for key in current if key not in expected)]:
            below = f"{place}/{key}"
            if key not in current:
                yield f"removed: {below}"
            elif key not in expected:
                yield f"added: {below}"
            else:
                yield from find_differences(expected[key], current[key], below)
    elif expected != current:
        yield f"changed: {place or '/'}: expected {_shorten(expected)}, found {_shorten(current)}"


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _format(value: Any, indent: str = "") -> str:
    text = json.dumps(value, ensure_ascii=False)
    plain = isinstance(value, list) and all(isinstance(item, int) for item in value)
    if len(text) + len(indent) <= 128 or plain or not isinstance(value, dict | list):
        return text
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {_format(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _format(item, inner) for item in value) + f"\n{indent}]"
