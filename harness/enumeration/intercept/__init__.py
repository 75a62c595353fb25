"""Run unedited Python code as a function of its random choices. See ../README.md for the idea, an example and the limits.

A draw is symbolic until the code reads it; a read branches. Code that cannot be followed raises NotEnumerable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from harness.enumeration.coins import ChoiceTrail
from harness.enumeration.intercept import arithmetic, observations, sampling_calls
from harness.enumeration.intercept.dispatch import InterceptMode
from harness.enumeration.intercept.leak_guards import AtenGuard, RefusalGuard, generator_guard
from harness.enumeration.intercept.python_random import patches
from harness.enumeration.intercept.random_variables import NotEnumerable, RandomVariables

__all__ = ["NotEnumerable", "intercepted"]

INHERITED = object()
assert arithmetic and observations and sampling_calls  # importing them registers their handlers


@contextlib.contextmanager
def intercepted(trail: ChoiceTrail) -> Iterator[None]:
    """Code inside takes its random choices from the trail. Results may still be symbolic; read them before leaving."""
    variables = RandomVariables(trail)
    mode = InterceptMode(variables)
    with contextlib.ExitStack() as stack:
        stack.enter_context(RefusalGuard())
        stack.enter_context(generator_guard())
        stack.enter_context(_patched(patches(variables)))
        stack.enter_context(AtenGuard(mode))
        stack.enter_context(mode)
        yield


@contextlib.contextmanager
def _patched(replacements: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes (object, name, replacement) and restore them on exit; an inherited attribute is deleted again."""
    before = [(owner, name, vars(owner).get(name, INHERITED)) for owner, name, _ in replacements]
    for owner, name, replacement in replacements:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
