"""A fixed computation of the oracle, whose result must not change while an implementation runs in the same process.

An implementation that patches torch or transformers would otherwise be judged by a target that it has changed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.sampling import SamplingParams
from harness.distributions.scoring import TargetScorer, load_target
from harness.pairs import shipped

TOLERANCE = 1e-9


@cache
def baseline() -> NDArray[np.float64]:
    """The result of the computation when it was first made, before an implementation was imported."""
    return _compute()


def unchanged() -> bool:
    """Whether the computation still has that result."""
    before = baseline()
    try:
        now = _compute()
    except Exception:
        return False
    return now.shape == before.shape and bool(np.abs(now - before).max() < TOLERANCE)


def _compute() -> NDArray[np.float64]:
    """Distributions of the smallest target in float64, with and without filters, and numbers of keyed coins."""
    prompts, texts = [[0, 3, 1]] * 2, [[2, 1, 0, 3]] * 2
    laws = _scorer().laws(prompts, texts, [SamplingParams(), SamplingParams(temperature=0.7, top_k=3, top_p=0.9)])
    return np.stack([*np.concatenate(laws), KeyedCoins(0).noise(1, laws[0].shape[-1]).double().numpy()])


@cache
def _scorer() -> TargetScorer:
    return TargetScorer(load_target(shipped("coin4"), "float64"))
