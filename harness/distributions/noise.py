"""Noise of the arithmetic: how far logits in the dtype under test are from float64, and how often the best token changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree
from harness.statistics.intervals import clopper_pearson_upper

DEPTH = 10
"""Depth of the draft trees on which noise is measured."""

ROUNDING = 1e-6
"""Logits by which two orders of float64 arithmetic may differ, generously."""


@dataclass(frozen=True)
class Noise:
    """Effect of a dtype on the target's logits.

    Attributes:
        logits: largest difference from float64 at any of the 8 likeliest tokens of a position.
        flips: positions at which the likeliest token is not that of float64.
        positions: positions measured, over all kinds of passes.
    """

    logits: float
    flips: int
    positions: int

    @property
    def tolerance(self) -> float:
        """Logits by which a token may trail the best one in float64: both logits may err, each by half as much again."""
        return 3 * self.logits

    def too_many(self, ties: int, tokens: int) -> float:
        """p-value of `ties` among `tokens`, if ties occur at most as often as flips did when measured (99.9 % upper limit)."""
        return float(binom.sf(ties - 1, tokens, clopper_pearson_upper(self.flips, self.positions, 0.999)))


@torch.inference_mode()
def measure_noise(low: PreTrainedModel, high: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Noise:
    """Compare the target in the dtype under test with float64, in every kind of pass that decoding uses.

    The passes: a whole text at once, one token at a time with a cache, and draft trees verified in one pass. They round
    differently, and each of them is the target.

    Args:
        low: the target in the dtype under test; `high` itself if that is float64.
        high: the target in float64.
        texts: texts of one length.

    Raises:
        AssertionError: if a tree pass in float64 differs by more than rounding: that is a fault of the verification, and would
            widen the tolerance by which it is judged.
    """
    tokens = torch.tensor([list(text) for text in texts], device=high.device)
    truth, cache = high(tokens).logits, DynamicCache()
    steps = [low(tokens[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(tokens.shape[1])]
    exact = list(_tree_passes(high, texts, truth))
    trees = exact if low is high else _tree_passes(low, texts, truth)
    pairs = [(low(tokens).logits, truth), (torch.cat(steps, dim=1), truth), *trees]
    wrong = max((float((logits - expected).abs().max()) for logits, expected in exact), default=0.0)
    assert wrong <= ROUNDING, f"verification of a tree in float64 is wrong by {wrong:.1e}: a fault, which noise must not hide"
    return Noise(
        logits=max(largest_difference(logits.double(), expected) for logits, expected in pairs),
        flips=sum(int((logits.argmax(-1) != expected.argmax(-1)).sum()) for logits, expected in pairs),
        positions=sum(expected[..., 0].numel() for _, expected in pairs),
    )


def largest_difference(logits: Tensor, expected: Tensor) -> float:
    """The largest difference at any of the 8 likeliest tokens of a position."""
    likeliest = expected.topk(min(8, expected.shape[-1]), dim=-1).indices
    return float((logits - expected).gather(-1, likeliest).abs().max())


def _tree_passes(model: PreTrainedModel, texts: Sequence[Sequence[int]], truth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of a model along the main path of every tree, and the rows of `truth` [texts, n, V] for the same positions."""
    for text, expected in zip(texts, truth, strict=True):
        for start, logits in _trees(model, text):
            yield logits, expected[start : start + len(logits)]


def _trees(model: PreTrainedModel, text: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Verify a text as the main path of three draft trees: the start of each tree, and logits [DEPTH + 1, V] along its path.

    Every node of the path has a sibling of lower index, so a mask that shows siblings changes the logits.
    """
    target, found = Target(model), []
    for start in range(1, len(text) - DEPTH, max(DEPTH, len(text) // 3)):
        cache = target.cache()
        target.prefill([cache], [text[:start]])
        root, *path = text[start : start + DEPTH + 1]
        tokens = [root, *(node for token in path for node in ((token + 1) % target.vocab_size, token))]
        parents = [-1, *(2 * depth for depth in range(DEPTH) for _ in range(2))]
        found.append((start, target.verify([cache], [DraftTree.of(tokens, parents)])[0].logits[::2]))
    return found
