"""Unedited Python code as a function of its coins: all that it draws is branched on, or it is refused by name.

What is drawn stays undecided. A uniform number is an interval that a comparison splits; noise waits for its race; a token
waits until somebody looks. What cannot be followed raises NotEnumerable, and so does randomness that gets past: an aten
operation that draws, one that reads an undecided number, a generator whose state has moved.

Numbers are those of the mathematics: a uniform is a point of an interval, where float32 has 2 ** 24 of them. Seeds are names:
different ones stand for independent numbers, and the same one twice is refused. Not seen, unless the odds of a choice or
the outcome tell: generators of numpy that were made before, os.urandom, other processes, and hash functions as randomness.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from harness.enumeration.coins import Trail
from harness.enumeration.intercept import arithmetic as calls
from harness.enumeration.intercept import observations as looks
from harness.enumeration.intercept import sampling_calls as draws
from harness.enumeration.intercept.dispatch import Interception
from harness.enumeration.intercept.leak_guards import Net, Unswallowed, Untouched
from harness.enumeration.intercept.python_random import replacements
from harness.enumeration.intercept.random_variables import Chance, NotEnumerable

__all__ = ["NotEnumerable", "intercepted"]

INHERITED = object()
assert calls and draws and looks  # their handlers are registered by importing them


@contextlib.contextmanager
def intercepted(trail: Trail) -> Iterator[None]:
    """Code inside draws from the trail. Its tokens may still be undecided when it is done; look at them in here."""
    chance = Chance(trail)
    mode = Interception(chance)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Unswallowed())
        stack.enter_context(Untouched())
        stack.enter_context(_replaced(replacements(chance)))
        stack.enter_context(Net(mode))
        stack.enter_context(mode)
        yield


@contextlib.contextmanager
def _replaced(stand_ins: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes (object, name, stand-in) are set, and afterwards as they were; an inherited one is deleted again."""
    before = [(place, name, vars(place).get(name, INHERITED)) for place, name, _ in stand_ins]
    for place, name, stand_in in stand_ins:
        setattr(place, name, stand_in)
    try:
        yield
    finally:
        for place, name, value in reversed(before):
            if value is INHERITED:
                delattr(place, name)
            else:
                setattr(place, name, value)
