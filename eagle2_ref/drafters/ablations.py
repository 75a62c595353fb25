"""EAGLE-2 without one of its two ideas at a time (EAGLE-2, section 5.3).

No code of these variants is published. They are read from section 4.2: the value ranks nodes in the expansion and in the
reranking, and without reranking the draft consists of the nodes that were expanded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.drafters.eagle2 import Budget, Eagle2, Pool, best, subtree
from eagle2_ref.drafters.eagle_base import load_head_for
from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree


@dataclass(frozen=True)
class WithoutValue:
    """Options of EAGLE-2 without value: k, depth and m of its budget."""

    k: int = 8
    depth: int = 6
    m: int = 25

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> ByConfidence:
        return ByConfidence(*load_head_for(target, draft), Budget(self.k, self.depth, self.m))


class ByConfidence(Eagle2):
    """Ranks a node by its own confidence, not by the product of confidences from the root.

    That alone would keep nodes without their parents. To keep the most confident node whose parent is kept, again and again, is
    to rank nodes by the lowest confidence on their paths, which is what the reranking does here.
    """

    def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        return super().children(features, torch.zeros_like(values), parents)

    def choose(self, root: int, pool: Pool) -> DraftTree:
        pool = pool.checked()  # its values are confidences of single nodes
        weakest, products = pool.values.tolist(), pool.values.tolist()
        for node, parent in enumerate(pool.parents.tolist()):
            if parent >= 0:
                weakest[node] = min(weakest[node], weakest[parent])
                products[node] += products[parent]
        kept = best(torch.tensor(weakest), self.budget.m)
        return subtree(root, replace(pool, values=torch.tensor(products)), kept)


@dataclass(frozen=True)
class WithoutReranking:
    """Options of EAGLE-2 without reranking: k and depth of its budget, and the most nodes m of the k * depth expanded ones."""

    k: int = 4
    depth: int = 6
    m: int = 24

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> Expanded:
        return Expanded(*load_head_for(target, draft), Budget(self.k, self.depth, self.m))


class Expanded(Eagle2):
    """Drafts the nodes that were expanded: of each layer the k of highest value.

    With the paper's k = 10 and depth 6 these are 60 nodes, as many as its m. Candidates have expanded parents, so that the tree
    is connected.
    """

    def choose(self, root: int, pool: Pool) -> DraftTree:
        pool, k = pool.checked(), self.budget.k
        starts = [0, *range(k, len(pool.values), k * k)]
        layers = zip(starts, [*starts[1:], len(pool.values)], strict=True)
        kept = torch.cat([start + best(pool.values[start:end], k) for start, end in layers])
        return subtree(root, pool, kept[: self.budget.m])
