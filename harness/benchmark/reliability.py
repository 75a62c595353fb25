"""Reliability of the head's confidences: how often drafted nodes are accepted, by confidence (EAGLE-2, section 3.2).

Only nodes whose parent was accepted are counted, since the rule examines no others. The trees are those of decoding, so nodes
of low confidence appear only where the budget was large enough for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eagle2_ref.decode import Decoder, Generation
from eagle2_ref.drafters.eagle2 import TreeBudget
from eagle2_ref.tree import ROOT, DraftTree
from harness.benchmark.arms import keyed_texts, with_budget
from harness.benchmark.record import Reliability
from harness.pairs import Prompt

BINS = 10
TOKENS = 96

Array = NDArray[np.float64]


def reliability(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    temperature: float,
    budget: TreeBudget,
    head_temperatures: Sequence[float],
    ends: tuple[int, ...] = (),
) -> Iterator[Reliability]:
    """Reliability at head temperature 1, which is the paper's, and at further ones. ends: tokens that end a text."""
    for head_temperature in dict.fromkeys((1.0, *head_temperatures)):
        tempered = with_budget(decoder, replace(budget, head_temperature=head_temperature, node=0.0, layer=0.0))
        texts = keyed_texts(tempered, prompts, temperature, TOKENS, ends)
        confidence, accepted = examined_nodes(texts)
        if len(confidence):
            yield binned(confidence, accepted, temperature, head_temperature)


def binned(confidence: Array, accepted: Array, temperature: float, head_temperature: float) -> Reliability:
    """Means in ten equal bins of confidence, and the expected calibration error.

    Args:
        confidence: of each node, [n].
        accepted: 1 for an accepted node, otherwise 0, [n].
        temperature: temperature of the text.
        head_temperature: temperature of the head.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, accepted)]
    means = [total / np.maximum(counts, 1) for total in sums]
    return Reliability(
        temperature=temperature,
        head_temperature=head_temperature,
        nodes=tuple(counts.tolist()),
        confidence=tuple(means[0].tolist()),
        accepted=tuple(means[1].tolist()),
        error=float(np.abs(sums[0] - sums[1]).sum() / len(confidence)),
    )


def examined_nodes(texts: Sequence[Generation]) -> tuple[Array, Array]:
    """Confidence [n], and 1 if accepted, otherwise 0 [n], of each node whose parent was accepted. Last blocks are cut off."""
    found = []
    for block in (block for text in texts for block in text.blocks[1:-1]):
        assert isinstance(block.tree, DraftTree), "sampled nodes have no values"
        values, accepted = block.tree.values.tolist(), {ROOT, *block.path}
        for node in range(1, len(block.tree)):
            if (parent := block.tree.parent(node)) in accepted:
                found.append((np.exp(values[node] - values[parent]), float(node in block.path)))
    confidence, taken = np.array(found).reshape(-1, 2).T
    return confidence, taken
