"""Chapter CACHE: after every block the caches are those of a fresh pass over the text; nothing rejected stays behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.decode import Decoder
from harness.pytest_plugin import Judge
from harness.record.model import Verdict
from properties.subject import Subject
from properties.watch import farthest, steps

ROUNDING = 1e-5
"""As TREE-2 has it."""

PARAMS = {"temperature": 1.0, "max_new_tokens": 32}


def test_the_targets_cache(judge: Judge, subject: Subject) -> None:
    """CACHE-1: After every block the target's cache equals that of a fresh prefill of the text without its newest token."""
    subject.impl.require("decoder")
    decoder, model = subject.open(subject.pair, dtype="float64").raw.decoder, subject.plain(subject.pair, "float64")
    worst, blocks = 0.0, 0
    for i, prompt in enumerate(subject.texts[:3]):
        found = [
            (step.text, [layer[:, 0].clone() for layer in step.sequence.cache.entries()])
            for step in steps(decoder, prompt.tokens, PARAMS, judge.seed(i))
        ]
        fresh = _fresh(model, found[-1][0])
        for text, kept in found:
            due = [layer[:, :, : len(text) - 1] for layer in fresh]
            worst = max(worst, *(farthest(*layers) for layers in zip(kept, due, strict=True)))
        blocks += len(found)
    _equal(judge, worst, blocks)


def test_the_heads_cache(judge: Judge, subject: Subject) -> None:
    """CACHE-2: What the head keeps is what it computes from the target's own features; nothing of a tree's expansion stays."""
    subject.impl.require("decoder", "head")
    decoder, model = subject.open(subject.pair, dtype="float64").raw.decoder, subject.plain(subject.pair, "float64")
    worst, blocks = 0.0, 0
    for i, prompt in enumerate(subject.texts[:3]):
        for step in list_steps_with_head(decoder, model, prompt.tokens, judge.seed(i)):
            worst = max(worst, farthest(*step))
            blocks += 1
    _equal(judge, worst, blocks)


def list_steps_with_head(
    decoder: Decoder, model: PreTrainedModel, prompt: Sequence[int], seed: int
) -> list[tuple[Tensor, Tensor]]:
    """The head's cache after each block, and as much of what one fresh pass over target features makes."""
    found = []
    for step in steps(decoder, prompt, PARAMS, seed):
        kept: Tensor = step.sequence.draft.cache.entries()
        if kept.numel():
            found.append((step.text, kept.clone()))
    fresh = _fresh_head(decoder, model, step.text)
    # No more entries can be right than there are features with a token after them; shapes then differ.
    return [(kept, fresh[..., : min(kept.shape[-2], len(text) - 1), :]) for text, kept in found]


@torch.inference_mode()
def _fresh(model: PreTrainedModel, text: Sequence[int]) -> list[Tensor]:
    """Keys and values [2, kv_heads, n, dim] of every layer: of its first tokens too, which see nothing of what follows."""
    cache = DynamicCache()
    model(torch.tensor([list(text)], device=model.device), past_key_values=cache, use_cache=True)
    return [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]


@torch.inference_mode()
def _fresh_head(decoder: Decoder, model: PreTrainedModel, text: Sequence[int]) -> Tensor:
    head = decoder.drafter.head  # type: ignore[union-attr]
    tokens, cache, n = torch.tensor([list(text)], device=model.device), head.cache(), len(text) - 1
    features = model.base_model(tokens[:, :n]).last_hidden_state
    head(tokens[:, 1:], features, torch.arange(n, device=model.device), None, cache)
    cache.keep(range(n))
    kept: Tensor = cache.entries()
    return kept


def _equal(judge: Judge, worst: float, blocks: int) -> None:
    verdict: Verdict = "pass" if worst <= ROUNDING else "fault"
    judge(
        verdict,
        f"{blocks} blocks, entries at most {worst:.1e} from those of a fresh pass",
        measured={"blocks": blocks, "difference": worst},
    )
