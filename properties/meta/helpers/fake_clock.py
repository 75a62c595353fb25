"""A clock whose seconds are known."""

from __future__ import annotations

from collections.abc import Callable


def ticking() -> Callable[[], float]:
    """A clock that advances by one second with every reading."""
    now = iter(range(100_000))
    return lambda: float(next(now))
