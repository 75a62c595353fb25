"""The exact distribution of whole continuations, from the target's distribution after every possible prefix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from transformers import PreTrainedModel

from eagle2_ref.sampling import SamplingParams

Law: TypeAlias = dict[tuple[int, ...], float]
"""Probability by continuation; continuations of probability zero are left out."""


@torch.inference_mode()
def target_law(model: PreTrainedModel, prompt: Sequence[int], params: SamplingParams) -> Law:
    """The distribution of the next `max_new_tokens` tokens under ordinary sampling, ended early by an end-of-text token.

    All prefixes of one length make one batch: a full forward pass without a cache.
    """
    finished: Law = {}
    unfinished: Law = {(): 1.0}
    for _ in range(params.max_new_tokens):
        texts = torch.tensor([[*prompt, *text] for text in unfinished], device=model.device)
        p = next_token_law(model, texts, params).tolist()
        extended = {
            (*text, x): weight * px
            for (text, weight), row in zip(unfinished.items(), p, strict=True)
            for x, px in enumerate(row)
            if px > 0
        }
        finished |= {text: weight for text, weight in extended.items() if text[-1] in params.eos}
        unfinished = {text: weight for text, weight in extended.items() if text[-1] not in params.eos}
        if not unfinished:
            break
    return finished | unfinished


def next_token_law(model: PreTrainedModel, texts: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """p [texts, V] after texts [texts, n] of one length, as `transformers.generate` would sample from it."""
    logits = model(texts).logits[:, -1]
    return probabilities(params.process(texts, logits if logits.dtype == torch.float64 else logits.float()), params)


def probabilities(scores: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """p [n, V] of processed scores [n, V]; a point mass at temperature 0."""
    if params.temperature == 0:
        return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)
    return scores.softmax(-1)


def total_variation(a: Mapping[tuple[int, ...], float], b: Mapping[tuple[int, ...], float]) -> float:
    """Half the sum of absolute differences."""
    return sum(abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in {*a, *b}) / 2


@dataclass(frozen=True)
class Deviation:
    """The first place where an emitted law deviates from the target's: after `prefix`, `token` has probability q, not p."""

    prefix: tuple[int, ...]
    token: int
    p: float
    q: float


def first_deviation(emitted: Law, target: Law) -> Deviation:
    """The largest excess at the shortest prefixes after which two laws differ.

    An excess below half of the largest counts as rounding, or as a consequence of an earlier one.
    """
    emitted_mass, target_mass = _prefix_masses(emitted), _prefix_masses(target)

    def conditional(text: tuple[int, ...]) -> float:
        before = target_mass.get(text[:-1])
        return target_mass.get(text, 0.0) / before if before else 0.0

    excess = {text: q - emitted_mass[text[:-1]] * conditional(text) for text, q in emitted_mass.items() if text}
    largest = max(excess.values())
    text = min((text for text in excess if excess[text] >= largest / 2), key=lambda text: (len(text), -excess[text]))
    return Deviation(text[:-1], text[-1], conditional(text), emitted_mass[text] / emitted_mass[text[:-1]])


def first_surplus(part: Law, target: Law) -> tuple[tuple[int, ...], float, float]:
    """The shortest prefix whose probability in a part of a law exceeds that under the target by at least half of the most.

    Returns:
        The prefix, its probability in the part, which is a lower bound of that in the whole law, and that under the target.
    """
    masses, target_masses = _prefix_masses(part), _prefix_masses(target)
    surplus = {text: q - target_masses.get(text, 0.0) for text, q in masses.items()}
    largest = max(surplus.values())
    text = min((text for text in surplus if surplus[text] >= largest / 2), key=lambda text: (len(text), -surplus[text]))
    return text, masses[text], target_masses.get(text, 0.0)


def _prefix_masses(law: Law) -> Law:
    """The probability that a text begins with each prefix."""
    mass: Law = defaultdict(float)
    for text, weight in law.items():
        for n in range(len(text) + 1):
            mass[text[:n]] += weight
    return mass
