"""The temperature of the head at which its confidences are what the target does, and what it would be of each layer of a tree.

The head is asked along the target's own text: behind each root the first layer foretells the next token, from the target's
feature; every further layer the token behind, from the head's. Fitted is the temperature under which the tokens that came are
likeliest. Counts then tell what it brings, beside a few round ones, on prompts that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.sampling import SamplingParams
from harness.bench.budgets import with_budget
from harness.bench.record import Calibrated
from harness.bench.reliability import binned, nodes
from harness.bench.steps import twin
from harness.pairs import Prompt

DEPTH, TOKENS = 8, 64
BUDGET = Budget(4, 8, 12)
"""Deep and narrow: where flat confidences starve the deep nodes."""
FAMILY = (1.0, 0.7, 0.5, 0.35)
BOUNDS = (0.1, 3.0)
"""Between which a temperature is looked for."""


def fitted(decoder: Decoder, prompts: Sequence[Prompt], temperature: float) -> tuple[float, tuple[float, ...]]:
    """The likeliest temperature for all layers together, and the likeliest of each."""
    asked = [foretold(decoder, prompt, temperature, seed) for seed, prompt in enumerate(prompts)]
    layers = [[torch.cat(parts) for parts in zip(*(told[layer] for told in asked), strict=True)] for layer in range(DEPTH)]
    logits, tokens = (torch.cat(parts) for parts in zip(*layers, strict=True))
    return likeliest(logits, tokens), tuple(likeliest(*layer) for layer in layers)


@torch.inference_mode()
def foretold(decoder: Decoder, prompt: Prompt, temperature: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """For each layer the head's logits [n, V] at the nodes of the target's own text, and the tokens [n] that came."""
    target, drafter = (spare := twin(decoder)).target, spare.drafter
    assert isinstance(drafter, Eagle2)
    params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
    came = Decoder(target).generate(prompt.tokens, params, KeyedCoins(seed)).tokens
    sequence = spare.start(prompt.tokens, params, KeyedCoins(seed))
    (output,) = target.prefill([sequence.cache], [[*prompt.tokens, *came]])
    features, text = output.features, torch.tensor(came, device=target.device)
    drafter.observe(sequence, [*prompt.tokens[1:], came[0]], features[: len(prompt.tokens)])
    cache = sequence.draft.cache
    found: list[list[Tensor]] = [[] for _ in range(DEPTH)]
    for root in range(len(came) - DEPTH):
        feature, kept = drafter.catch_up([sequence]), cache.length
        for layer in range(DEPTH):
            found[layer].append(drafter.lm_head(feature)[0])
            token, position = text[root + layer + 1].view(1, 1), torch.full((1, 1), kept + layer, device=text.device)
            feature = drafter.run_head(cache, token, feature, position, None)
            cache.length += 1
        cache.truncate(kept)
        drafter.observe(sequence, came[root + 1 : root + 2], features[len(prompt.tokens) + root][None])
    return [(torch.cat(logits), text[layer + 1 : layer + 1 + len(logits)]) for layer, logits in enumerate(found)]


def likeliest(logits: Tensor, tokens: Tensor) -> float:
    """The temperature under which tokens [n] are likeliest by logits [n, V], to two digits."""

    def unlikely(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits.double() / temperature, tokens))

    return round(float(minimize_scalar(unlikely, bounds=BOUNDS, method="bounded").x), 2)


def calibrated(
    decoder: Decoder, prompts: Sequence[Prompt], temperature: float, fit: float, layers: tuple[float, ...]
) -> Iterator[Calibrated]:
    """What each brings with one budget: all emit the same texts and differ in passes alone. fit, layers: as `fitted` has them."""
    params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
    for head_temperature in dict.fromkeys((*FAMILY, fit)):
        sized = with_budget(decoder, replace(BUDGET, head_temperature=head_temperature))
        made = [sized.generate(prompt.tokens, params, KeyedCoins(seed)) for seed, prompt in enumerate(prompts)]
        blocks = [block for one in made for block in one.blocks[1:]]
        seen = np.array([node for one in made for block in one.blocks[1:-1] for node in nodes(block)])
        yield Calibrated(
            temperature=temperature,
            head_temperature=head_temperature,
            layers=layers if head_temperature == fit else (),
            k=BUDGET.k,
            depth=BUDGET.depth,
            m=BUDGET.m,
            prompts=len(prompts),
            passes=len(blocks),
            tokens=sum(len(block.tokens) for block in blocks),
            error=binned(seen[:, 0], seen[:, 1], temperature, head_temperature).error,
        )
