"""Fit the temperature of the head at which its confidences are calibrated, for all layers of a tree together and for each alone.

The head runs along the target's own text. After each root, the first layer predicts the next token from the target's feature,
and every further layer predicts one more token from the head's own feature. The fitted temperature is the one with the largest
likelihood of the target's tokens. Then τ is counted at this and a few round temperatures, on prompts outside the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.arms import copy_decoder, keyed_texts, with_budget
from harness.benchmark.record import HeadTemperature
from harness.benchmark.reliability import binned, examined_nodes
from harness.pairs import Prompt

DEPTH, TOKENS = 8, 64
BUDGET = Budget(4, 8, 12)
"""A deep and narrow tree, in which flat confidences leave few deep nodes."""
ROUND_TEMPERATURES = (1.0, 0.7, 0.5, 0.35)
BOUNDS = (0.1, 3.0)
"""Range in which the temperature is fitted."""
ROWS = 256
"""Rows of logits that are converted to float64 at once."""


def fit_head_temperature(decoder: Decoder, prompts: Sequence[Prompt], temperature: float) -> tuple[float, tuple[float, ...]]:
    """The maximum-likelihood temperature for all layers together, and for each layer alone."""
    texts = [head_logits(decoder, prompt, temperature, seed) for seed, prompt in enumerate(prompts)]
    layers = [[torch.cat(parts) for parts in zip(*(text[layer] for text in texts), strict=True)] for layer in range(DEPTH)]
    logits, tokens = (torch.cat(parts) for parts in zip(*layers, strict=True))
    return likeliest_temperature(logits, tokens), tuple(likeliest_temperature(*layer) for layer in layers)


@torch.inference_mode()
def head_logits(decoder: Decoder, prompt: Prompt, temperature: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """For each layer the head's logits [n, V] along the target's own text, and the tokens [n] that followed."""
    target, drafter = (spare := copy_decoder(decoder)).target, spare.drafter
    assert isinstance(drafter, Eagle2)
    params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
    new = Decoder(target).generate(prompt.tokens, params, KeyedCoins(seed)).tokens
    sequence = spare.start(prompt.tokens, params, KeyedCoins(seed))
    (output,) = target.prefill([sequence.cache], [[*prompt.tokens, *new]])
    features, text = output.features, torch.tensor(new, device=target.device)
    drafter.observe(sequence, [*prompt.tokens[1:], new[0]], features[: len(prompt.tokens)])
    cache = sequence.draft.cache
    logits: list[list[Tensor]] = [[] for _ in range(DEPTH)]
    for root in range(len(new) - DEPTH):
        feature, length = drafter.catch_up([sequence]), cache.length
        for layer in range(DEPTH):
            logits[layer].append(drafter.lm_head(feature)[0])
            token, position = text[root + layer + 1].view(1, 1), torch.full((1, 1), length + layer, device=text.device)
            feature = drafter.run_head(cache, token, feature, position, None)
            cache.length += 1
        cache.truncate(length)  # forget the tokens after the root
        drafter.observe(sequence, new[root + 1 : root + 2], features[len(prompt.tokens) + root][None])
    return [(torch.cat(found), text[layer + 1 : layer + 1 + len(found)]) for layer, found in enumerate(logits)]


def likeliest_temperature(logits: Tensor, tokens: Tensor) -> float:
    """The temperature with the largest likelihood of tokens [n] under logits [n, V], to two decimals."""

    def loss(temperature: float) -> float:
        # In parts: in float64 the logits of a large vocabulary take gigabytes.
        parts = ((logits[i : i + ROWS], tokens[i : i + ROWS]) for i in range(0, len(tokens), ROWS))
        total = sum(float(cross_entropy(rows.double() / temperature, part, reduction="sum")) for rows, part in parts)
        return total / len(tokens)

    return round(float(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x), 2)


def tau_by_head_temperature(
    decoder: Decoder, prompts: Sequence[Prompt], temperature: float, fit: float, layers: tuple[float, ...]
) -> Iterator[HeadTemperature]:
    """Tokens per pass with one budget at each head temperature. All emit the same texts and differ only in passes.

    Args:
        decoder: decoder with an EAGLE-2 head.
        prompts: prompts outside the fit.
        temperature: temperature of the texts.
        fit: the fitted temperature of the head.
        layers: the temperatures fitted to each layer, recorded with the fitted one.
    """
    for head_temperature in dict.fromkeys((*ROUND_TEMPERATURES, fit)):
        tempered = with_budget(decoder, replace(BUDGET, head_temperature=head_temperature))
        texts = keyed_texts(tempered, prompts, temperature, TOKENS)
        blocks = [block for text in texts for block in text.blocks[1:]]
        yield HeadTemperature(
            temperature=temperature,
            head_temperature=head_temperature,
            layers=layers if head_temperature == fit else (),
            k=BUDGET.k,
            depth=BUDGET.depth,
            m=BUDGET.m,
            prompts=len(prompts),
            passes=len(blocks),
            tokens=sum(len(block.tokens) for block in blocks),
            error=binned(*examined_nodes(texts), temperature, head_temperature).error,
        )
