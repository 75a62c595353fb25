"""The process's global random generators, and a guard against code that uses them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class GeneratorUsedError(Exception):
    """Code sampled from a global generator, or seeded it. The message names the generators."""


@contextlib.contextmanager
def unchanged_generators() -> Iterator[None]:
    """Restore the states of all global generators afterwards.

    Raises:
        GeneratorUsedError: the code inside changed a state. An exception of the code itself takes precedence.
    """
    before = _states()
    try:
        yield
    finally:
        changed = [name for name, state in _states().items() if not _same(state, before[name])]
        if changed:
            torch.set_rng_state(before["torch"])
            random.setstate(before["random"])
            np.random.set_state(before["numpy.random"])
    if changed:
        raise GeneratorUsedError(f"the code sampled from, or seeded, the global generator of {' and '.join(changed)}")


def _states() -> dict[str, Any]:
    states = {"torch": torch.get_rng_state(), "random": random.getstate(), "numpy.random": np.random.get_state()}
    if torch.cuda.is_available():
        states["torch.cuda"] = torch.cuda.get_rng_state()
    return states


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
