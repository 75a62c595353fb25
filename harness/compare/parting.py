"""At temperature 0 every text is that of ordinary decoding. One that is not is a tie, or the comparison is worth nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree
from harness.bench.arms import VANILLA, Ours, Timed
from harness.compare.record import Parted
from harness.pairs import Prompt

Text = tuple[int, ...]

BOTH_ERR = 3
"""Two orders of arithmetic, each off by as much as was seen and half as much again, as distributions/noise.py has it."""


@dataclass
class Heard:
    """An arm whose greedy texts are kept, by the tokens of their prompts."""

    arm: Ours
    greedy: dict[Text, Text] = field(default_factory=dict)

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        made = self.arm.run(prompt, temperature, tokens, seed)
        if temperature == 0:
            self.greedy[tuple(prompt)] = made.text
        return made


def parted(arms: Mapping[str, Heard], prompts: Sequence[Prompt], target: Target) -> Iterator[Parted]:
    """Every greedy text that leaves ordinary decoding's, at the first token where it does."""
    plain = arms[VANILLA].greedy
    for name, arm in arms.items():
        for prompt in prompts:
            text, due = arm.greedy[tuple(prompt.tokens)], plain[tuple(prompt.tokens)]
            if text != due:
                yield _parted(name, prompt, text, due, target)


def _parted(arm: str, prompt: Prompt, text: Text, due: Text, target: Target) -> Parted:
    at = next((i for i, (a, b) in enumerate(zip(text, due, strict=False)) if a != b), min(len(text), len(due)))
    emitted, expected = (one[at] if at < len(one) else -1 for one in (text, due))  # -1: it has ended
    logits, noise = _twice(target, prompt.tokens, due[:at])
    margin = float((logits[emitted] - logits[expected]).abs()) if min(emitted, expected) >= 0 else float("inf")
    told = {"emitted": emitted, "expected": expected, "margin": margin, "noise": BOTH_ERR * noise}
    return Parted(arm=arm, prompt=prompt.id, at=at, **told)


def _twice(target: Target, prompt: Sequence[int], new: Text) -> tuple[Tensor, float]:
    """Logits [V] of what follows a text, its new tokens one pass each; and how far those of a single pass are from them, over
    the 8 likeliest tokens of every position."""
    cache = target.cache()
    steps = [target.prefill([cache], [prompt])[0].logits]
    for token in new:
        steps.append(target.verify([cache], [DraftTree.root_only(token)])[0].logits)
        target.commit(cache, [])
    slowly = torch.cat(steps).double()
    if not new:
        return slowly[-1], 0.0
    cache = target.cache()
    target.prefill([cache], [prompt])
    chain = DraftTree.of(list(new), list(range(-1, len(new) - 1)))
    at_once = target.verify([cache], [chain])[0].logits.double()
    likeliest = slowly[1:].topk(min(8, slowly.shape[-1]), dim=-1).indices
    return slowly[-1], float((at_once - slowly[1:]).gather(-1, likeliest).abs().max())
