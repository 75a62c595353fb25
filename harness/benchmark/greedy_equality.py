"""At temperature 0 every method must emit the text of ordinary decoding. A difference is a tie, or the method is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree
from harness.benchmark.arms import VANILLA
from harness.benchmark.record import Divergence
from harness.distributions.noise import largest_difference
from harness.pairs import Prompt

Text = tuple[int, ...]

NOISE_FACTOR = 3
"""Two orders of arithmetic may each be off by the measured distance and half as much again, as in distributions/noise.py."""


def divergences(greedy: Mapping[str, Mapping[Text, Text]], prompts: Sequence[Prompt], target: Target) -> Iterator[Divergence]:
    """Every greedy text that differs from that of ordinary decoding, at the first different token.

    Args:
        greedy: by arm, the new tokens by the tokens of the prompt.
        prompts: all prompts.
        target: the target that all arms share.
    """
    plain = greedy[VANILLA]
    for arm, texts in greedy.items():
        for prompt in prompts:
            text, expected = texts[tuple(prompt.tokens)], plain[tuple(prompt.tokens)]
            if text != expected:
                yield divergence(arm, prompt, text, expected, target)


def divergence(arm: str, prompt: Prompt, text: Text, expected: Text, target: Target) -> Divergence:
    """Where a greedy text leaves the expected one, how close the two tokens' logits are, and how large rounding errors are."""
    differences = (i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b)
    at = next(differences, min(len(text), len(expected)))
    emitted, due = (one[at] if at < len(one) else -1 for one in (text, expected))  # -1: this text has ended
    logits, noise = _logits_and_noise(target, prompt.tokens, expected[:at])
    margin = float((logits[emitted] - logits[due]).abs()) if min(emitted, due) >= 0 else float("inf")
    return Divergence(arm=arm, prompt=prompt.id, at=at, emitted=emitted, expected=due, margin=margin, noise=NOISE_FACTOR * noise)


def _logits_and_noise(target: Target, prompt: Sequence[int], new: Text) -> tuple[Tensor, float]:
    """Logits [V] after a text, and how far the logits of two orders of arithmetic are apart.

    One order decodes the new tokens one pass each, the other in a single pass.
    """
    cache = target.cache()
    steps = [target.prefill([cache], [prompt])[0].logits]
    for token in new:
        steps.append(target.verify([cache], [DraftTree.root_only(token)])[0].logits)
        target.commit(cache, [])
    one_by_one = torch.cat(steps).double()
    if not new:
        return one_by_one[-1], 0.0
    cache = target.cache()
    target.prefill([cache], [prompt])
    chain = DraftTree.of(list(new), list(range(-1, len(new) - 1)))
    at_once = target.verify([cache], [chain])[0].logits.double()
    return one_by_one[-1], largest_difference(at_once, one_by_one[1:])
