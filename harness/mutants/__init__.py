"""The gallery: decoders with one planted fault each, modelled on one that was reported in public; and controls that must pass.

`mutant:M04` connects one of them like any other implementation. A fault is told once, by the first sentence of its docstring; a
control's docstring goes on to say why it is right. Ids are stable: a new fault takes a free one.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from eagle2_ref.errors import BadInput

Planting = TypeVar("Planting", bound=Callable[..., Any])

_registered: dict[str, Mutant] = {}

GALLERY: dict[str, Mutant]
"""All mutants and controls by id. The first look at it imports them, and torch with them."""


@dataclass(frozen=True)
class Mutant:
    """A decoder with one planted fault, or a control: one that looks wrong and is not.

    make: what `connect` opens on a pair, as an outsider would have written it. killers: the properties that are meant to see the
    fault, the cheapest first, each with its case ("" for a property without cases). law: whether the law of the text changes; the
    other faults ruin speed, counts or structure. settings: what a run must be asked for, such as a dtype, where it matters.
    """

    id: str
    name: str
    fault: str
    source: str
    part: str
    make: Callable[..., Any]
    capabilities: frozenset[str]
    killers: Mapping[str, str] = field(default_factory=dict)
    control: bool = False
    law: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """How it drafts, by the reference's name for it; most are faults of EAGLE-2's decoder."""
        family = getattr(self.make, "family", None)
        return family.name if family else "eagle2"


def mutant(
    label: str,
    *,
    part: str,
    source: str,
    killers: Mapping[str, str],
    law: bool = True,
) -> Callable[[Planting], Planting]:
    """Register a fault: a class with the constructor of an implementation, or a bare rule as `py:module:accept` takes it."""
    return partial(_register, label, part=part, source=source, killers=killers, law=law)


def control(
    label: str,
    *,
    part: str,
    source: str,
    settings: Mapping[str, Any] | None = None,
) -> Callable[[Planting], Planting]:
    """Register a decoder that must pass."""
    return partial(_register, label, part=part, source=source, control=True, law=False, settings=settings or {})


def find(label: str) -> Mutant:
    """The mutant or control of an id."""
    gallery: dict[str, Mutant] = importlib.import_module(__name__).GALLERY
    if label not in gallery:
        near = sorted(gallery.values(), key=lambda one: -max(_likeness(label, word) for word in (one.id, one.name)))[:3]
        told = ", ".join(f"{one.id} ({one.name})" for one in near)
        raise BadInput(f"there is no mutant {label!r}", f"near it are {told}")
    return gallery[label]


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _register(label: str, planting: Planting, **told: Any) -> Planting:
    from harness.implementations import reference

    assert label not in _registered, f"{label} is {_registered[label].name} already"
    is_rule = inspect.isfunction(planting)
    _registered[label] = Mutant(
        id=label,
        name=planting.__name__,
        fault=_first_sentence(planting),
        make=partial(reference.Engine, accept=planting) if is_rule else planting,
        capabilities=reference.RULE_CAPABILITIES if is_rule else frozenset(planting.capabilities),  # type: ignore[attr-defined]
        **told,
    )
    return planting


def _first_sentence(planting: Callable[..., Any]) -> str:
    sentence = re.match(r".+?\.(?=\s|$)", inspect.getdoc(planting) or "", re.DOTALL)
    assert sentence, f"{planting.__name__} has no docstring that begins with a sentence"
    return " ".join(sentence[0].split())


def __getattr__(name: str) -> Any:
    """GALLERY, once all modules of this package have registered what they hold."""
    if name != "GALLERY":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    globals()["GALLERY"] = dict(sorted(_registered.items(), key=lambda entry: (entry[0][0], int(entry[0][1:]))))
    return globals()["GALLERY"]
