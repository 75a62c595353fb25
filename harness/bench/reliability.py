"""Is a confidence a probability? How often drafted nodes are accepted, by what the head said of them (EAGLE-2, section 3.2).

Asked of nodes whose parent was accepted, as only of these the target was asked. The trees are those that decoding verified, so
that tokens of little confidence are seen where there was room for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree
from harness.bench.budgets import with_budget
from harness.bench.record import Reliability
from harness.pairs import Prompt

BINS = 10
TOKENS = 96


def reliability(
    decoder: Decoder, prompts: Sequence[Prompt], temperature: float, budget: Budget, sharper: Sequence[float]
) -> Iterator[Reliability]:
    """At temperature 1 of the head, which is the paper's, and at `sharper` ones; coins keyed by position, one text a prompt."""
    params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
    for head_temperature in dict.fromkeys((1.0, *sharper)):
        asked = with_budget(decoder, replace(budget, head_temperature=head_temperature, node=0.0, layer=0.0))
        made = [asked.generate(prompt.tokens, params, KeyedCoins(seed)) for seed, prompt in enumerate(prompts)]
        seen = np.array([node for one in made for block in one.blocks[1:-1] for node in nodes(block)])
        yield binned(seen[:, 0], seen[:, 1], temperature, head_temperature)


def binned(
    confidence: NDArray[np.float64], accepted: NDArray[np.float64], temperature: float, head_temperature: float
) -> Reliability:
    """Means of equal parts of [0, 1]; error: how far the two are apart, weighted by nodes (expected calibration error)."""
    part = np.minimum((confidence * BINS).astype(int), BINS - 1)
    n = np.bincount(part, minlength=BINS)
    sums = [np.bincount(part, weights=values, minlength=BINS) for values in (confidence, accepted)]
    means = [total / np.maximum(n, 1) for total in sums]
    return Reliability(
        temperature=temperature,
        head_temperature=head_temperature,
        nodes=tuple(n.tolist()),
        confidence=tuple(means[0].tolist()),
        accepted=tuple(means[1].tolist()),
        error=float(np.abs(sums[0] - sums[1]).sum() / len(confidence)),
    )


def nodes(block: Block) -> Iterator[tuple[float, float]]:
    """(confidence, accepted or not) of each node whose parent was accepted."""
    assert isinstance(block.tree, DraftTree), "drawn nodes have no values"
    values, asked = block.tree.values.tolist(), {ROOT, *block.path}
    for node in range(1, len(block.tree)):
        if (parent := block.tree.parent(node)) in asked:
            yield float(np.exp(values[node] - values[parent])), float(node in block.path)
