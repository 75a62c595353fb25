"""The mutant gallery: decoders with one planted fault each, modelled on public reports, and controls that must pass.

`mutant:M04` connects a mutant like any other implementation. The first sentence of its docstring describes the fault to users;
the docstring of a control also says why it is right. Ids are permanent: a new mutant takes a free one.
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

Decoder = TypeVar("Decoder", bound=Callable[..., Any])

_registered: dict[str, Mutant] = {}

GALLERY: dict[str, Mutant]
"""All mutants and controls by id. The first access imports them, and torch with them."""


@dataclass(frozen=True)
class Mutant:
    """A decoder with one planted fault, or a control: a decoder that looks wrong and is right.

    Attributes:
        fault: one sentence for users.
        source: the public report that the fault is modelled on.
        part: the part of a decoder that the fault is in.
        make: opens the decoder on a pair.
        killers: properties that must detect the fault, the cheapest first, each with its case ("" for a property without cases).
        law: whether the law of the text changes; the other faults affect speed, counts or structure.
        settings: options that a run needs, such as a dtype.
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
        """The reference's name of its drafting method; EAGLE-2 for most."""
        family = getattr(self.make, "family", None)
        return family.name if family else "eagle2"


def mutant(
    label: str,
    *,
    part: str,
    source: str,
    killers: Mapping[str, str],
    law: bool = True,
) -> Callable[[Decoder], Decoder]:
    """Register a faulty decoder: an implementation class, or an acceptance rule as `py:module:accept` takes it."""
    return partial(_register, label, part=part, source=source, killers=killers, law=law)


def control(
    label: str,
    *,
    part: str,
    source: str,
    settings: Mapping[str, Any] | None = None,
) -> Callable[[Decoder], Decoder]:
    """Register a decoder that must pass."""
    return partial(_register, label, part=part, source=source, control=True, law=False, settings=settings or {})


def find(label: str) -> Mutant:
    """The mutant or control with this id."""
    gallery: dict[str, Mutant] = importlib.import_module(__name__).GALLERY
    if label not in gallery:
        similar = sorted(gallery.values(), key=lambda one: -max(_similarity(label, word) for word in (one.id, one.name)))[:3]
        raise BadInput(f"there is no mutant {label!r}", f"similar ids: {', '.join(one.id for one in similar)}")
    return gallery[label]


def _similarity(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _register(label: str, decoder: Decoder, **fields: Any) -> Decoder:
    from harness.implementations import reference

    assert label not in _registered, f"{label} is {_registered[label].name} already"
    is_rule = inspect.isfunction(decoder)
    _registered[label] = Mutant(
        id=label,
        name=decoder.__name__,
        fault=_first_sentence(decoder),
        make=partial(reference.Engine, accept=decoder) if is_rule else decoder,
        capabilities=reference.RULE_CAPABILITIES if is_rule else frozenset(decoder.capabilities),  # type: ignore[attr-defined]
        **fields,
    )
    return decoder


def _first_sentence(decoder: Callable[..., Any]) -> str:
    sentence = re.match(r".+?\.(?=\s|$)", inspect.getdoc(decoder) or "", re.DOTALL)
    assert sentence, f"{decoder.__name__} has no docstring that begins with a sentence"
    return " ".join(sentence[0].split())


def __getattr__(name: str) -> Any:
    """Compute GALLERY on first access, after all modules of this package have registered their mutants."""
    if name != "GALLERY":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    globals()["GALLERY"] = dict(sorted(_registered.items(), key=lambda entry: (entry[0][0], int(entry[0][1:]))))
    return globals()["GALLERY"]
