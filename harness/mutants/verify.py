"""Faults of the verification pass: positions, masks, and logits that belong to other nodes."""

from __future__ import annotations

from collections import abc
from dataclasses import replace

import torch
from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.model.target import Target
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import ROOT, Tree
from harness.mutants import mutant
from harness.mutants.cases import COUPLED, GREEDY_COUNT, GREEDY_TREE, ONE_DRAFT, STREAM, TOP_K, TWO_LAYERS
from harness.mutants.planting import Fault

TENSORRT_TREES = "NVIDIA/TensorRT-LLM PR 15842"

GROSS = {
    "TREE-2": "",
    "GREEDY-1": "plain",
    "GREEDY-3": "one token",
    "LAW-3": COUPLED,
    "LAW-7": STREAM,
    "COUNT-2": GREEDY_COUNT,
}
"""Killers of a fault after which hardly any token is right."""


class WrongLogits(Target):
    """A target that changes the logits [m + 1, V] of every verified tree."""

    def change(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def verify(self, caches: abc.Sequence[KVCache], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
        return [replace(output, logits=self.change(output.logits)) for output in super().verify(caches, trees)]


@mutant("M36", part="rows", source="ROCm/aiter issue 2720", killers=GROSS)
class RowsAlike(Fault):
    """The verification kernel gives every node the root's logits."""

    class FaultyTarget(WrongLogits):
        def change(self, logits: Tensor) -> Tensor:
            return logits[:1].expand_as(logits)


@mutant("M37", part="rows", source="huggingface/transformers PR 28166", killers={"TREE-2": "", "GREEDY-1": "plain"})
class RowsShifted(Fault):
    """Indices are off by one: each node is judged by the logits of the next node."""

    class FaultyTarget(WrongLogits):
        def change(self, logits: Tensor) -> Tensor:
            return logits.roll(-1, dims=0)


@mutant("M38", part="rows", source="vllm-project/vllm-ascend issue 15329", killers={"LAW-1": ONE_DRAFT})
class RowsFlattened(Fault):
    """With exactly two nodes, the logits are flattened in the wrong order."""

    class FaultyTarget(WrongLogits):
        def change(self, logits: Tensor) -> Tensor:
            return logits.T.reshape(logits.shape) if len(logits) == 2 else logits


@mutant(
    "M17",
    part="numerics",
    source="Avarok-Cybersecurity/atlas issue 435",
    killers={"TREE-5": "", "TREE-2": "", "LAW-1": TWO_LAYERS},
)
class CoarseArithmetic(Fault):
    """Verification has lower precision than decoding: logits are rounded to multiples of a quarter."""

    class FaultyTarget(WrongLogits):
        def change(self, logits: Tensor) -> Tensor:
            return (4 * logits).round() / 4 if len(logits) > 1 else logits


@mutant("M39", part="positions", source="intel/ipex-llm PR 10141", killers={"TREE-3": "", "GREEDY-2": GREEDY_TREE})
class PositionsAlike(Fault):
    """All nodes have the root's position."""

    class FaultyTarget(Target):
        def positions(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor:
            positions = super().positions(cache, trees)
            return positions[:, :1].expand_as(positions)


@mutant("M40", part="positions", source="intel/ipex-llm PR 10141", killers={"TREE-3": "", "TREE-5": "", "LAW-1": TOP_K})
class PositionsLag(Fault):
    """The positions of nodes below depth 1 are one too low."""

    class FaultyTarget(Target):
        def positions(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor:
            positions = super().positions(cache, trees)
            return torch.where(positions > positions[:, :1] + 1, positions - 1, positions)


@mutant("M41", part="masks", source=TENSORRT_TREES, killers={"TREE-3": "", "TREE-2": "", "LAW-1": TOP_K})
class SiblingsAttended(Fault):
    """A node attends to all earlier nodes, siblings included, as in a chain."""

    class FaultyTarget(Target):
        def mask(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor | None:
            mask, n = super().mask(cache, trees), len(trees[0])
            if mask is not None:
                mask[..., -n:] = torch.ones(n, n).tril()
            return mask


@mutant("M42", part="masks", source=TENSORRT_TREES, killers={"TREE-3": "", "TREE-2": ""})
class AncestorsNotAttended(Fault):
    """A node attends to the text and to itself, but not to its ancestors."""

    class FaultyTarget(Target):
        def mask(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor | None:
            mask, n = super().mask(cache, trees), len(trees[0])
            if mask is not None:
                mask[..., -n:] = torch.eye(n)
            return mask


@mutant("M43", part="rows", source="SafeAILab/EAGLE commit b09a256", killers={"LAW-1": TWO_LAYERS})
class PaddingMatches(Fault):
    """Short paths are padded with token 0: if 0 is sampled after a leaf, it counts as accepted, and the last node follows."""

    class FaultyDecoder(Decoder):
        def accept(self, sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
            block = super().accept(sequence, tree, logits)
            leaf = block.path[-1] if block.path else ROOT
            padded = not tree.children(leaf) and tree.depths[leaf] < max(tree.depths)
            if not padded or block.tokens[-1] != 0 or sequence.params.ends(0):
                return block
            p, _ = self.target_distribution(sequence, tree, logits)
            path = [*block.path, len(tree) - 1]
            return replace(block, tokens=[*block.tokens, sequence.coins.categorical(p[-1])], accepted=len(path), path=path)
