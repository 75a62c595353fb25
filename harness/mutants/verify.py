"""Faults of the verification pass: positions, masks, and rows of logits that belong to other nodes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Block
from eagle2_ref.sampling import target_distribution
from eagle2_ref.tree import ROOT
from harness.mutants import mutant
from harness.mutants.cases import COUPLED, GREEDY_COUNT, GREEDY_TREE, ONE_DRAFT, STREAM, TOP_K, TWO_LAYERS
from harness.mutants.planting import Asked, PlantedBlock, PlantedPass, PlantedRows

TENSORRT_TREES = "NVIDIA/TensorRT-LLM PR 15842"

GROSS = {
    "TREE-2": "",
    "GREEDY-1": "plain",
    "GREEDY-3": "one token",
    "LAW-3": COUPLED,
    "LAW-7": STREAM,
    "COUNT-2": GREEDY_COUNT,
}
"""Where hardly a token is right there is hardly a property that does not see it."""


@mutant("M36", part="rows", source="ROCm/aiter issue 2720", killers=GROSS)
class RowsAlike(PlantedRows):
    """The verification kernel gives every row the root's logits."""

    def logits(self, logits: Tensor) -> Tensor:
        return logits[:1].expand_as(logits)


@mutant("M37", part="rows", source="huggingface/transformers PR 28166", killers={"TREE-2": "", "GREEDY-1": "plain"})
class RowsShifted(PlantedRows):
    """Indices are off by one: each node is judged by the row of the next."""

    def logits(self, logits: Tensor) -> Tensor:
        return logits.roll(-1, dims=0)


@mutant("M38", part="rows", source="vllm-project/vllm-ascend issue 15329", killers={"LAW-1": ONE_DRAFT})
class RowsFlattened(PlantedRows):
    """With two rows the logits come back flattened in the wrong order."""

    def logits(self, logits: Tensor) -> Tensor:
        return logits.T.reshape(logits.shape) if len(logits) == 2 else logits


@mutant(
    "M17",
    part="numerics",
    source="Avarok-Cybersecurity/atlas issue 435",
    killers={"TREE-5": "", "TREE-2": "", "LAW-1": TWO_LAYERS},
)
class CoarseArithmetic(PlantedRows):
    """Verification runs in coarser arithmetic than decoding does: logits are whole numbers and quarters."""

    def logits(self, logits: Tensor) -> Tensor:
        return (4 * logits).round() / 4 if len(logits) > 1 else logits


@mutant("M39", part="positions", source="intel/ipex-llm PR 10141", killers={"TREE-3": "", "GREEDY-2": GREEDY_TREE})
class PositionsAlike(PlantedPass):
    """All nodes have the root's position."""

    def positions(self, positions: Tensor) -> Tensor:
        return positions[:1].expand_as(positions)


@mutant("M40", part="positions", source="intel/ipex-llm PR 10141", killers={"TREE-3": "", "TREE-5": "", "LAW-1": TOP_K})
class PositionsLag(PlantedPass):
    """Below depth 1 a node's position is one too low."""

    def positions(self, positions: Tensor) -> Tensor:
        return torch.where(positions > positions[0] + 1, positions - 1, positions)


@mutant("M41", part="masks", source=TENSORRT_TREES, killers={"TREE-3": "", "TREE-2": "", "LAW-1": TOP_K})
class SeesSiblings(PlantedPass):
    """A node sees every node before it, as in a chain."""

    def seen(self, ancestors: Tensor) -> Tensor:
        return torch.ones_like(ancestors).tril()


@mutant("M42", part="masks", source=TENSORRT_TREES, killers={"TREE-3": "", "TREE-2": ""})
class SeesNoAncestors(PlantedPass):
    """A node sees the text and itself, but not its path."""

    def seen(self, ancestors: Tensor) -> Tensor:
        return torch.eye(len(ancestors), dtype=torch.bool, device=ancestors.device)


@mutant("M43", part="rows", source="SafeAILab/EAGLE commit b09a256", killers={"LAW-1": TWO_LAYERS})
class PaddingMatches(PlantedBlock):
    """Short paths are padded with token 0: a draw of 0 behind a leaf counts as an accepted draft, and the last row follows."""

    def block(self, block: Block, asked: Asked, coins: Coins) -> Block:
        tree, leaf = asked.tree, block.path[-1] if block.path else ROOT
        padded = not tree.children(leaf) and tree.depths[leaf] < max(tree.depths)
        if not padded or len(block.tokens) == len(block.path) or block.tokens[-1] != 0 or asked.params.ends(0):
            return block
        bonus = coins.categorical(target_distribution(asked.logits, tree, asked.text, asked.params)[-1])
        path = [*block.path, len(tree) - 1]
        return replace(block, tokens=[*block.tokens, bonus], accepted=len(path), path=path)
