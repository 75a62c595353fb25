"""The catalogue of checks: what each property requires, the function that checks it, and the cases it is checked on.

Packages of checks register themselves in the entry-point group `eagle2.checks`, so that the harness imports none of them by
name. This module is imported by every pytest of an environment and therefore imports nothing heavy.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eagle2_ref.errors import BadInput, suggest

if TYPE_CHECKING:
    from harness.context import Context
    from harness.record.model import Property, Result

GROUP = "eagle2.checks"


@dataclass(frozen=True, eq=False)
class Check:
    """A property and the function that checks it.

    Args:
        id: stable id of the property, such as LAW-1; the part before the number is its chapter.
        requirement: one sentence: what must hold.
        needs: ids of its foundations. Where one of them is red, a fault here is blocked.
        cases: case id -> what the function is called with after the context; empty for a property without cases.
        function: the check, `function(context)` or `function(context, case)`; it returns a `Result`.
    """

    id: str
    requirement: str
    needs: tuple[str, ...]
    cases: Mapping[str, Any]
    function: Callable[..., Result]

    def __call__(self, context: Context, *case: Any) -> Result:
        """Call the function as it is: what it raises is not caught. See `run_check`."""
        return self.function(context.on(self.id), *case)

    @property
    def chapter(self) -> str:
        return self.id.partition("-")[0].lower()

    def case_ids(self, full: bool = False) -> list[str]:
        """Ids of its cases, [""] for a property without cases; those of the full tier on request."""
        return [case for case, value in self.cases.items() if full or not getattr(value, "full", False)] or [""]

    def arguments(self, case: str) -> tuple[Any, ...]:
        """What the function is called with, after the context."""
        if not self.cases and not case:
            return ()
        if case not in self.cases:
            raise BadInput(f"{self.id} has no case {case!r}", f"its cases are {', '.join(self.cases) or 'none'}")
        return (self.cases[case],)

    def describe(self) -> Property:
        """The property as a record stores it."""
        from harness.record.model import Property  # imports pydantic

        return Property(id=self.id, chapter=self.chapter, requirement=self.requirement, needs=self.needs)


def check(
    name: str, *, needs: Sequence[str] = (), cases: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., Result]], Check]:
    """Declare a function as the check of a property. The first paragraph of its docstring is the requirement.

    Every property needs SMOKE-1: nothing can be said of an implementation that does not answer at all.
    """

    def declare(function: Callable[..., Result]) -> Check:
        requirement = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
        assert requirement, f"{name} has no docstring that begins with its requirement"
        foundations = () if name.startswith("SMOKE") else ("SMOKE-1",)
        return Check(name, requirement, (*foundations, *needs), cases or {}, function)

    return declare


@cache
def catalogue() -> dict[str, Check]:
    """All installed checks by id, in the order of chapters and numbers. Imports the chapters, and torch with them."""
    found: dict[str, Check] = {}
    for package in _packages():
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2].startswith("test_"):
                for each in checks_of(importlib.import_module(module.name)):
                    assert each.id not in found, f"there are two checks {each.id}"
                    found[each.id] = each
    return dict(sorted(found.items(), key=lambda entry: (entry[1].chapter, int(entry[0].rpartition("-")[2]))))


def split_selectors(only: str) -> list[str]:
    """The chapters, properties and cases of a comma-separated list. Commas in brackets belong to the id of a case."""
    parts, depth = [""], 0
    for character in only:
        depth += (character == "[") - (character == "]")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def check_selectors(only: str, full: bool = True) -> None:
    """Refuse a list of chapters, properties and cases, such as SMOKE,LAW-4, that names something unknown, or nothing.

    Args:
        only: the list.
        full: whether cases of the full tier can be run.

    Raises:
        BadInput: a part of the list selects nothing.
    """
    parts = split_selectors(only)
    if not parts:
        raise BadInput(f"{only!r} names no property", "name chapters, properties or cases: SMOKE,LAW-4")
    for part in parts:
        _check_selector(part, full)


def _check_selector(part: str, full: bool) -> None:
    property_id, bracket, _ = part.partition("[")
    known = catalogue().values()
    checks = [each for each in known if selects(property_id, each.id)]
    if not checks:
        chapters = list(dict.fromkeys(each.chapter.upper() for each in known))
        kind, candidates = ("property", [each.id for each in known]) if "-" in property_id else ("chapter", chapters)
        listed = f"chapters are {', '.join(chapters)}; docs/evidence.md lists all properties"
        near = suggest(property_id, candidates, "")
        raise BadInput(f"there is no {kind} {property_id}", f"{near}\n{listed}" if near else listed)
    in_full, in_tier = ([name(each.id, case) for each in checks for case in each.case_ids(tier)] for tier in (True, full))
    if bracket and not any(selects(part, case) for case in in_full):
        hint = suggest(part, in_full, f"`--only {property_id}` runs all cases of this property")
        raise BadInput(f"there is no case {part}", hint)
    if bracket and not any(selects(part, case) for case in in_tier):
        raise BadInput(f"{part} is a case of the full tier", "add --tier full")


def checks_of(module: ModuleType) -> list[Check]:
    """The checks that a module defines, in their order; not those that it imports."""
    return [each for each in vars(module).values() if isinstance(each, Check) and each.function.__module__ == module.__name__]


def folders() -> list[Path]:
    """The folders of the installed packages of checks, for pytest. Imports the packages, but none of their chapters."""
    return [Path(folder) for package in _packages() for folder in package.__path__]


def name(check: str, case: str) -> str:
    """Name of a case: LAW-4[coin4, T=1.0], or LAW-4 where a property has no cases."""
    return f"{check}[{case}]" if case else check


def selects(selector: str, named: str) -> bool:
    """Whether a chapter, such as LAW, a property, LAW-4, or one case, LAW-4[coin4, T=1.0], selects the case of this name."""
    check = named.partition("[")[0]
    return selector.casefold() in {place.casefold() for place in (check.partition("-")[0], check, named)}


def is_selected(only: str, named: str) -> bool:
    """Whether the setting `only`, a list of what `selects` takes, selects the case of this name; an empty one selects all."""
    return not only or any(selects(part, named) for part in split_selectors(only))


def _packages() -> list[ModuleType]:
    packages = [entry.load() for entry in entry_points(group=GROUP)]
    if not packages:
        raise BadInput(
            f"no checks are installed: the entry-point group {GROUP} is empty",
            "install the package again",
        )
    return packages
