"""EAGLE-2 without one of its two ideas at a time (EAGLE-2, section 5.3).

No code of these is published; what they are is read off section 4.2: by value nodes are ranked in the expansion and in the
reranking, and without reranking the draft is what was selected in the expansion.
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
    """The budget of EAGLE-2."""

    k: int = 8
    depth: int = 6
    m: int = 25

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> ByConfidence:
        return ByConfidence(*load_head_for(target, draft), Budget(self.k, self.depth, self.m))


class ByConfidence(Eagle2):
    """A node is ranked by its own confidence, not by the product of confidences from the root.

    That alone would leave nodes without their parents. Whoever takes the most confident node whose parent is taken, again and
    again, ranks nodes by the weakest confidence on their paths: so does the reranking.
    """

    def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        return super().children(features, torch.zeros_like(values), parents)

    def choose(self, root: int, pool: Pool) -> DraftTree:
        pool = pool.checked()
        weakest, products = pool.values.tolist(), pool.values.tolist()
        for node, parent in enumerate(pool.parents.tolist()):
            if parent >= 0:
                weakest[node] = min(weakest[node], weakest[parent])
                products[node] += products[parent]
        kept = best(torch.tensor(weakest), self.budget.m)
        return subtree(root, replace(pool, values=torch.tensor(products)), kept)


@dataclass(frozen=True)
class WithoutReranking:
    """k and depth of EAGLE-2. m: at most so many of the k * depth nodes that it expands, in their order."""

    k: int = 4
    depth: int = 6
    m: int = 24

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> Expanded:
        return Expanded(*load_head_for(target, draft), Budget(self.k, self.depth, self.m))


class Expanded(Eagle2):
    """The nodes that were chosen to be expanded are the draft: of each layer the k of highest value, and no others.

    (With the paper's k = 10 and depth 6 these are 60, as many as its m.) Only below such a node there are candidates, so that
    parents are never lacking.
    """

    def choose(self, root: int, pool: Pool) -> DraftTree:
        pool, k = pool.checked(), self.budget.k
        starts = [0, *range(k, len(pool.values), k * k)]
        layers = zip(starts, [*starts[1:], len(pool.values)], strict=True)
        kept = torch.cat([start + best(pool.values[start:end], k) for start, end in layers])
        return subtree(root, pool, kept[: self.budget.m])
