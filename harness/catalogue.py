"""The catalogue of properties, read from the docstrings of the pytest chapters: a property is written down once."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.resources import files
from pathlib import Path

from harness.evidence import Property

CHAPTERS = Path(str(files("properties")))
_HEAD = re.compile(r"(?P<id>[A-Z]+-\d+): (?P<requirement>.+?)(?:\n\n|$)", re.DOTALL)
_NEEDS = re.compile(r"^Needs (?P<ids>[A-Z0-9, -]+)\.$", re.MULTILINE)


def catalogue() -> dict[str, Property]:
    """All properties, by `file.py::function`. Nothing is imported: `eagle2 --help` and the controller stay light."""
    found = {}
    for path in sorted(CHAPTERS.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and (told := read_docstring(ast.get_docstring(node))):
                found[f"{path.name}::{node.name}"] = told
    return dict(sorted(found.items(), key=lambda place: (place[1].chapter, int(place[1].id.rpartition("-")[2]))))


def read_docstring(docstring: str | None) -> Property | None:
    """A property from a docstring that begins `LAW-1: requirement.` and may say `Needs TREE-2, CACHE-1.` on a line of its own.

    Its chapter is the first part of its id. All but SMOKE needs SMOKE-1: where an implementation does not answer at all,
    nothing else can be said of it.
    """
    docstring = inspect.cleandoc(docstring or "")
    head = _HEAD.match(docstring)
    if not head:
        return None
    needs = _NEEDS.search(docstring)
    ids = tuple(re.split(r",\s*", needs["ids"])) if needs else ()
    smoke = () if head["id"].startswith("SMOKE") else ("SMOKE-1",)
    return Property(
        id=head["id"],
        chapter=head["id"].partition("-")[0].lower(),
        requirement=" ".join(head["requirement"].split()),
        needs=smoke + ids,
    )
