"""The exact law of whole continuations, by asking the target after every possible prefix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from transformers import PreTrainedModel

from eagle2_ref.sampling import SamplingParams

Law: TypeAlias = dict[tuple[int, ...], float]
"""Probabilities of continuations; those of probability zero are left out."""


@torch.inference_mode()
def target_law(model: PreTrainedModel, prompt: Sequence[int], params: SamplingParams) -> Law:
    """The law of the next `max_new_tokens` tokens under ordinary sampling, ended early by an end-of-text token.

    All texts of one length make one batch: a full forward pass, no cache.
    """
    finished: Law = {}
    open_texts: Law = {(): 1.0}
    for _ in range(params.max_new_tokens):
        texts = torch.tensor([[*prompt, *text] for text in open_texts], device=model.device)
        p = next_token_law(model, texts, params).tolist()
        grown = {
            (*text, x): weight * px
            for (text, weight), row in zip(open_texts.items(), p, strict=True)
            for x, px in enumerate(row)
            if px > 0
        }
        finished |= {text: weight for text, weight in grown.items() if text[-1] in params.eos}
        open_texts = {text: weight for text, weight in grown.items() if text[-1] not in params.eos}
        if not open_texts:
            break
    return finished | open_texts


def next_token_law(model: PreTrainedModel, texts: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """p [texts, V] after texts [texts, n] of one length, as `transformers.generate` would sample it."""
    logits = model(texts).logits[:, -1]
    scores = params.process(texts, logits if logits.dtype == torch.float64 else logits.float())
    if params.temperature == 0:
        return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)
    return scores.softmax(-1)


def total_variation(a: Mapping[tuple[int, ...], float], b: Mapping[tuple[int, ...], float]) -> float:
    """Half the sum of absolute differences."""
    return sum(abs(a.get(key, 0.0) - b.get(key, 0.0)) for key in {*a, *b}) / 2


@dataclass(frozen=True)
class Departure:
    """The first place at which an emitted law leaves the target's: after `prefix`, `token` comes out with q instead of p."""

    prefix: tuple[int, ...]
    token: int
    p: float
    q: float


def first_departure(emitted: Law, target: Law) -> Departure:
    """Of the shortest prefixes after which two laws differ, the one where it weighs most, and a token that comes too often there.

    An excess of less than half of the largest counts as rounding, or as the wake of an earlier one.
    """
    excess: dict[tuple[int, ...], float] = {}
    emitted_mass, target_mass = _prefixes(emitted), _prefixes(target)
    for text, q in emitted_mass.items():
        if text:
            before = text[:-1]
            p = target_mass.get(text, 0.0) / target_mass[before] if target_mass.get(before) else 0.0
            excess[text] = q - emitted_mass[before] * p
    largest = max(excess.values())
    text = min((text for text in excess if excess[text] >= largest / 2), key=lambda text: (len(text), -excess[text]))
    before = text[:-1]
    p = target_mass.get(text, 0.0) / target_mass[before] if target_mass.get(before) else 0.0
    return Departure(before, text[-1], p, emitted_mass[text] / emitted_mass[before])


def _prefixes(law: Law) -> Law:
    """The probability that a text begins so, for every beginning."""
    mass: Law = defaultdict(float)
    for text, weight in law.items():
        for n in range(len(text) + 1):
            mass[text[:n]] += weight
    return mass
