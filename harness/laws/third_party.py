"""Other people's decoders, enumerated as they are: what transformers' ways of generating emit, against the target's law."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.laws.enumeration import enumerate_law, rule_departure
from harness.laws.exact import target_law, total_variation

PROMPT = (2, 3, 2)
SHAPE = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
SIZES = ((8, 10), (64, 16), (32_000, 59))
NO_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@dataclass(frozen=True)
class Mode:
    """A way of transformers.generate, and whether its documentation promises the target's law."""

    name: str
    lossless: bool
    assistant: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


MODES = (
    Mode("ordinary sampling", lossless=True),
    Mode("assisted generation", lossless=True, assistant=True),
    Mode("prompt lookup", lossless=True, options={"prompt_lookup_num_tokens": 2}),
    Mode("assisted generation, assistant_ensemble_weight=0.5", False, assistant=True, options={"assistant_ensemble_weight": 0.5}),
)


@dataclass(frozen=True)
class Seen:
    """What the enumeration of a mode found: the total variation between what it emits and the target's law.

    unfinished is the probability of what was not run; the distance is then only known up to it.
    """

    mode: str
    lossless: bool
    executions: int
    seconds: float
    distance: float
    unfinished: float


def seen(
    modes: tuple[Mode, ...] = MODES,
    *,
    new_tokens: int = 2,
    most: int = 10_000,
    progress: Callable[[int, float], None] | None = None,
) -> Iterator[Seen]:
    """Enumerate modes on a model of four tokens, in float32, which transformers' assisted generation computes in."""
    target, assistant = tiny(seed=5), tiny(seed=6)
    expected = target_law(target, PROMPT, SamplingParams(max_new_tokens=new_tokens))
    for mode in modes:
        options = {**mode.options, **({"assistant_model": assistant} if mode.assistant else {})}
        start = time.perf_counter()
        found = enumerate_law(generation(target, new_tokens, **options), window=new_tokens, most=most, progress=progress)
        seconds = time.perf_counter() - start
        distance = total_variation(found.law, expected)
        yield Seen(mode.name, mode.lossless, found.executions, seconds, distance, found.unfinished)


def seen_rule(
    name: str, accept: Callable[[DraftTree, Tensor], tuple[Sequence[int], Any]], sizes: Sequence[tuple[int, int]] = SIZES
) -> Iterator[Seen]:
    """An acceptance rule that draws for itself, on a tree of m nodes with random laws of V tokens, for each (V, m)."""
    generator = torch.Generator().manual_seed(0)
    for vocab_size, m in sizes:
        tree = DraftTree.of(
            [0, *(node % vocab_size for node in range(1, m + 1))], [-1, *((node - 1) // 3 for node in range(1, m + 1))]
        )
        p = (2 * torch.randn(m + 1, vocab_size, generator=generator, dtype=torch.float64)).softmax(-1)
        start = time.perf_counter()
        found = rule_departure(accept, tree, p)
        seconds = time.perf_counter() - start
        yield Seen(f"{name}, V = {vocab_size}, m = {m}", True, found.executions, seconds, found.distance, found.unfinished)


def generation(
    target: PreTrainedModel, new_tokens: int, prompt: tuple[int, ...] = PROMPT, **options: Any
) -> Callable[[], list[int]]:
    """transformers' own `generate`, as a function of nothing but what it draws."""

    def run() -> list[int]:
        text = target.generate(torch.tensor([prompt]), do_sample=True, top_k=0, max_new_tokens=new_tokens, **options)
        continuation: list[int] = text[0, len(prompt) :].tolist()
        return continuation

    return run


def tiny(seed: int, vocab_size: int = 4) -> PreTrainedModel:
    """A random Llama whose weights are large enough for laws that are far from flat."""
    config = AutoConfig.for_model("llama", vocab_size=vocab_size, tie_word_embeddings=False, **SHAPE, **NO_ENDS)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if weight.ndim == 1 else 0.5 * noise)
    return model.float().eval()
