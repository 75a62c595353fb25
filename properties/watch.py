"""Look over the shoulder of a reference decoder while it works: for the chapters that judge trees and caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree


@dataclass(frozen=True)
class Pass:
    """One verification: the text with its root, the tree, the logits [m + 1, V], and what the model was given."""

    text: tuple[int, ...]
    tree: DraftTree
    logits: Tensor
    positions: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Step:
    """A block as it was emitted, the text with it, and the pass that made it (None for the prompt's)."""

    block: Block
    text: tuple[int, ...]
    seen: Pass | None


def steps(decoder: Decoder, prompt: Sequence[int], params: dict[str, Any], seed: int) -> Iterator[Step]:
    """Decode, and yield after each block, while the caches stand as the block left them."""
    passes: list[tuple[DraftTree, Tensor, Tensor, Tensor]] = []
    given: dict[str, Any] = {}
    original = decoder.target.verify

    def verify(tree: DraftTree) -> Any:
        rows = original(tree)
        mask = given["attention_mask"]
        mask = next(iter(mask.values())) if isinstance(mask, dict) else mask
        passes.append((tree, rows.logits, given["position_ids"][0], mask[0, 0] == 0))
        return rows

    hook = decoder.target.model.register_forward_pre_hook(lambda _m, _a, kwargs: given.update(kwargs), with_kwargs=True)
    decoder.target.verify = verify  # type: ignore[method-assign]
    text = tuple(prompt)
    try:
        for block in decoder.stream(prompt, SamplingParams.of(params), SeededCoins(seed)):
            seen = Pass(text, *passes[-1]) if passes else None
            text += tuple(block.tokens)
            yield Step(block, text, seen)
    finally:
        decoder.target.verify = original  # type: ignore[method-assign]
        hook.remove()


def leaves(tree: DraftTree) -> list[int]:
    """Nodes without children; the root itself if the tree is bare."""
    return [node for node in range(len(tree)) if not tree.children(node)]


def farthest(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; infinite where shapes differ, or where there is a NaN."""
    distance = float((a - b).abs().max()) if a.shape == b.shape else float("nan")
    return distance if distance == distance else float("inf")


@torch.inference_mode()
def logits_after(model: Any, text: Sequence[int]) -> Tensor:
    """The target's logits [n, V] by one plain pass over a text."""
    out: Tensor = model(torch.tensor([list(text)], device=model.device)).logits[0]
    return out
