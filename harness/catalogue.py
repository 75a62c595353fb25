"""The catalogue of properties, read from the docstrings of the pytest chapters: a property is written down once."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.record.model import Property

CHAPTERS = Path(__file__).resolve().parents[1] / "properties"
"""Beside the harness, in a checkout as in site-packages. Nothing is imported to find it: projects have such folders too."""

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
    from harness.record.model import (
        Property,  # late: the plugin is loaded by every pytest of an environment, and must cost nothing
    )

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


def name(claim: str, case: str) -> str:
    """What a case is called: LAW-4[coin4, T=1.0], or LAW-4 where a property has no cases."""
    return f"{claim}[{case}]" if case else claim


def selects(selector: str, named: str) -> bool:
    """Whether a chapter, such as LAW, a property, LAW-4, or one case, LAW-4[coin4, T=1.0], takes in a case of this name."""
    claim = named.partition("[")[0]
    return selector in (claim.partition("-")[0], claim, named)
