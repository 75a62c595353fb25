"""Record the passes of a reference decoder while it runs, for the chapters that check trees and caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.eagle_base import EagleBase
from eagle2_ref.drafters.eagle_head import Eagle3Config
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput, causal
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as DecodedSequence
from eagle2_ref.tree import Tree
from harness.implementations.reference import between


@dataclass(frozen=True)
class Pass:
    """One verification: the text with its root, the tree, its logits [m + 1, V], and the positions and mask of the pass."""

    text: tuple[int, ...]
    tree: Tree
    logits: Tensor
    positions: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Step:
    """An emitted block, the text that ends with it, the pass that produced it (None for the prompt's), and the sequence."""

    block: Block
    text: tuple[int, ...]
    verification: Pass | None
    sequence: DecodedSequence


def steps(decoder: Decoder, prompt: Sequence[int], params: dict[str, Any], seed: int) -> Iterator[Step]:
    """Decode, and yield after each block. Until the next step is requested, the caches are as the block left them."""
    passes: list[tuple[Tree, Tensor, Tensor, Tensor]] = []
    arguments: dict[str, Any] = {}
    original, network = decoder.target.verify, decoder.target.network

    def forward(tokens: Tensor, positions: Tensor, seen: Tensor | None, cache: Any, last: bool = False) -> ModelOutput:
        columns = cache.length + tokens.shape[1]
        mask = causal(tokens.shape[1], columns, tokens.device) if seen is None else seen[0]
        arguments.update(positions=positions[0], mask=mask)
        return network(tokens, positions, seen, cache, last)

    def verify(caches: Sequence[KVCache], trees: Sequence[Tree]) -> list[ModelOutput]:
        (output,) = original(caches, trees)
        passes.append((trees[0], output.logits, arguments["positions"], arguments["mask"]))
        return [output]

    decoder.target.network = between(network, forward)
    decoder.target.verify = verify  # type: ignore[method-assign]
    text = tuple(prompt)
    try:
        sequence = decoder.start(prompt, SamplingParams.of(params), SeededCoins(seed))
        for block in decoder.blocks(sequence):
            verification = Pass(text, *passes[-1]) if passes else None
            text += tuple(block.tokens)
            yield Step(block, text, verification, sequence)
    finally:
        decoder.target.verify = original  # type: ignore[method-assign]
        decoder.target.network = network


def rounding(model: PreTrainedModel) -> float:
    """Difference of logits, or of cache entries, between two orders of float64 arithmetic.

    The norms of transformers are float32 even in float64 models. A difference in the last bit that crosses a rounding boundary of
    float32, in about one pass of a thousand, becomes 1e-6 in a narrow model. A wide model has more of them, and they add up: 8e-6
    was measured at a width of 576.
    """
    width: int = model.config.get_text_config(decoder=True).hidden_size
    return 1e-5 * max(1.0, width / 128)


def leaves(tree: Tree) -> list[int]:
    """Nodes without children; the root of an empty tree."""
    return [node for node in range(len(tree)) if not tree.children(node)]


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; infinite if shapes differ or a value is NaN."""
    distance = float((a - b).abs().max()) if a.shape == b.shape else float("nan")
    return distance if distance == distance else float("inf")


@torch.inference_mode()
def head_inputs(drafter: EagleBase, model: PreTrainedModel, text: Sequence[int]) -> Tensor:
    """What an EAGLE head must read at each position of a text, [1, n, H], of the target in transformers.

    An EAGLE-1/2 head reads the output of the last norm. An EAGLE-3 head reads the states before the layers of its config.json,
    the state before the last norm counting as one more layer, through its `fc`.
    """
    tokens = torch.tensor([list(text)], device=model.device)
    config = drafter.head.config
    if not isinstance(config, Eagle3Config):
        features: Tensor = model.base_model(tokens).last_hidden_state
        return features
    last: list[Tensor] = []
    hook = model.base_model.norm.register_forward_pre_hook(lambda _module, inputs: last.append(inputs[0]))
    states = model.base_model(tokens, output_hidden_states=True).hidden_states[:-1]
    hook.remove()
    return torch.cat([(*states, *last)[layer] for layer in config.layers], dim=-1) @ drafter.head.fc


@torch.inference_mode()
def logits_after(model: PreTrainedModel, text: Sequence[int], paths: Sequence[Sequence[int]]) -> list[Tensor]:
    """The target's logits [1 + n, V] after a text and after each of the n tokens of every path, by plain passes.

    One pass over the text, and one over all paths, each with its own copy of the text's cache; shorter paths are padded on the
    right. The attention mask is the model's own.
    """
    cache = DynamicCache()
    first = model(torch.tensor([list(text)], device=model.device), past_key_values=cache, use_cache=True).logits[0, -1:]
    longest = max(map(len, paths))
    if not longest:
        return [first] * len(paths)
    cache.batch_repeat_interleave(len(paths))
    tokens = torch.tensor([[*path, *[0] * (longest - len(path))] for path in paths], device=model.device)
    logits = model(tokens, past_key_values=cache, use_cache=True).logits
    return [torch.cat([first, row[: len(path)]]) for row, path in zip(logits, paths, strict=True)]
