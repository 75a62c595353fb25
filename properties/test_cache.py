"""Chapter CACHE: after every block the caches equal those of a fresh pass over the text; nothing rejected stays in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle_base import EagleBase
from harness.catalogue import check
from harness.context import Context
from harness.record.model import Result
from properties.trace_decoder import head_inputs, largest_difference, rounding, steps

PARAMS = {"temperature": 1.0, "max_new_tokens": 32}


@check("CACHE-1")
def target_cache_equals_fresh_prefill(context: Context) -> Result:
    """After every block the target's cache equals that of a fresh prefill of the text without its newest token."""
    context.implementation.require("decoder")
    decoder = context.open(context.pair, dtype="float64").raw.decoder
    model = context.target_model(context.pair, "float64")
    worst, blocks = 0.0, 0
    for i, prompt in enumerate(context.prompts[: context.scaled(3)]):
        found = [
            (step.text, [layer[:, 0].clone() for layer in step.sequence.cache.entries()])
            for step in steps(decoder, prompt.tokens, PARAMS, context.seed(i))
        ]
        fresh = _fresh_cache(model, found[-1][0])
        for text, cached in found:
            expected = [layer[:, :, : len(text) - 1] for layer in fresh]
            worst = max(worst, *(largest_difference(*layers) for layers in zip(cached, expected, strict=True)))
        blocks += len(found)
    return _compared(context, worst, blocks, rounding(model))


@check("CACHE-2")
def head_cache_equals_fresh_pass(context: Context) -> Result:
    """After every block the head's cache is computed from the target's own features; nothing of a tree's expansion stays."""
    context.implementation.require("decoder", "head")
    decoder = context.open(context.pair, dtype="float64").raw.decoder
    model = context.target_model(context.pair, "float64")
    worst, blocks = 0.0, 0
    for i, prompt in enumerate(context.prompts[: context.scaled(3)]):
        for cached, expected in _head_caches(decoder, model, prompt.tokens, context.seed(i)):
            worst = max(worst, largest_difference(cached, expected))
            blocks += 1
    return _compared(context, worst, blocks, rounding(model))


def _compared(context: Context, worst: float, blocks: int, limit: float) -> Result:
    return context.result(
        "pass" if worst <= limit else "fault",
        f"{blocks} blocks, entries differ by at most {worst:.1e} from those of a fresh pass",
        measured={"blocks": blocks, "difference": worst},
        work=(blocks, "blocks"),
        effect=(worst, "largest difference of cache entries"),
    )


def _head_caches(decoder: Decoder, model: PreTrainedModel, prompt: Sequence[int], seed: int) -> list[tuple[Tensor, Tensor]]:
    """The head's cache after each block, and as many entries of one fresh pass over the target's features."""
    found = []
    for step in steps(decoder, prompt, PARAMS, seed):
        cached: Tensor = step.sequence.draft.cache.entries()
        if cached.numel():
            found.append((step.text, cached.clone()))
    fresh = _fresh_head_cache(decoder, model, step.text)
    # An entry needs a feature and the token after it; a cache with more entries than that differs in shape.
    return [(cached, fresh[..., : min(cached.shape[-2], len(text) - 1), :]) for text, cached in found]


@torch.inference_mode()
def _fresh_cache(model: PreTrainedModel, text: Sequence[int]) -> list[Tensor]:
    """Keys and values [2, kv_heads, n, dim] of every layer. Attention is causal, so a prefix of it is the cache of a prefix."""
    cache = DynamicCache()
    model(torch.tensor([list(text)], device=model.device), past_key_values=cache, use_cache=True)
    return [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]


@torch.inference_mode()
def _fresh_head_cache(decoder: Decoder, model: PreTrainedModel, text: Sequence[int]) -> Tensor:
    assert isinstance(decoder.drafter, EagleBase)
    head = decoder.drafter.head
    tokens, cache, n = torch.tensor([list(text)], device=model.device), head.cache(), len(text) - 1
    features = head_inputs(decoder.drafter, model, text[:n])
    head(tokens[:, 1:], features, torch.arange(n, device=model.device), None, cache)
    cache.keep(range(n))
    entries: Tensor = cache.entries()
    return entries
