"""EAGLE-2's dynamic draft tree: expansion by value, then reranking (EAGLE-2, sections 4.1 and 4.2)."""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from eagle2_ref.drafters.base import Checkpoint, require_whole
from eagle2_ref.drafters.draft_vocabulary import load_ranking
from eagle2_ref.drafters.eagle_base import EagleBase, load_head_for
from eagle2_ref.drafters.eagle_head import EagleHead, FusedHead
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import StackedKVCache, batch_caches
from eagle2_ref.model.llama import additive
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import damage, widen
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import DraftTree, Tree


@dataclass(frozen=True)
class TreeBudget:
    """The size of a dynamic draft tree. The paper has k, depth and m; the other options are ours, and off by default.

    If confidences are true probabilities, exp(value) is the probability that a node is accepted, the number of tokens that it
    is expected to add. None of the options changes the distribution of the text.

    Attributes:
        k: number of nodes expanded in a layer, and of children of each.
        depth: number of layers.
        m: number of nodes kept by the reranking, the root not counted.
        head_temperature: of the softmax that gives confidences, above 0; below 1 they are sharper.
        node: leave out nodes with an expected number of tokens below this, in [0, 1].
        layer: stop growing when the k best nodes of a layer have a smaller expected number of tokens in sum; 0 or more.
    """

    k: int = 8
    depth: int = 6
    m: int = 25
    head_temperature: float = 1.0
    node: float = 0.0
    layer: float = 0.0

    @property
    def pool(self) -> int:
        """Number of candidates for the reranking: k in the first layer, k squared in each further one."""
        return self.k + (self.depth - 1) * self.k**2

    @property
    def least(self) -> float:
        """The least value of a node that is kept. Candidates of a layer that was not grown have the value -inf."""
        if self.node:
            return math.log(self.node)
        return torch.finfo(torch.float32).min if self.layer else -math.inf

    def within(self, n: int) -> Self:
        """The budget for n draft tokens: no node has more children, and m is at most the candidates that are then left."""
        cut = replace(self, k=min(self.k, n))
        return replace(cut, m=min(cut.m, cut.pool))

    def check(self, vocab_size: int) -> None:
        """Raise BadInput for a value that is out of range, or that the vocabulary or the other values do not allow."""
        for name, value in (("k", self.k), ("depth", self.depth), ("m", self.m)):
            if not isinstance(value, int) or value < 1:
                raise BadInput(f"{name} must be a whole number of 1 or more, not {value}")
        if self.k > vocab_size:
            raise BadInput(f"k is {self.k}, but the vocabulary has {vocab_size} tokens", f"give a k of at most {vocab_size}")
        allowed = {
            "head_temperature": (self.head_temperature > 0, "above 0"),
            "node": (0 <= self.node <= 1, "in [0, 1]"),
            "layer": (self.layer >= 0, "0 or more"),
        }
        for name, (holds, what) in allowed.items():
            if not holds:
                raise BadInput(f"{name} must be {what}, not {getattr(self, name)}")
        if self.m > self.pool:
            raise BadInput(
                f"m is {self.m}, but k = {self.k} and depth = {self.depth} give a pool of {self.pool} candidates",
                f"give an m of at most {self.pool}, or a larger k or depth",
            )


@dataclass(frozen=True)
class Budget(TreeBudget):
    """Options of EAGLE-2: the budget of its trees, and how many tokens it can propose.

    Attributes:
        draft_vocab: propose only so many tokens, the most frequent of the ranking next to the head; 0 for all (FR-Spec, arXiv
            2502.14856). The head's logits then cost less.
    """

    draft_vocab: int = 0

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> Eagle2:
        require_whole(self, draft_vocab=0)
        head, lm_head = load_head_for(target, draft)
        if not self.draft_vocab:
            return Eagle2(head, lm_head, self)
        vocabulary = load_ranking(draft, target.vocab_size, self.draft_vocab)
        return Eagle2(head, target.network.lm_head_of(vocabulary), self, vocabulary)


class Eagle2(EagleBase):
    """The drafter of EAGLE-2. The head runs once for each layer of the trees, for all sequences at once."""

    def __init__(
        self,
        head: EagleHead | FusedHead,
        lm_head: Callable[[Tensor], Tensor],
        budget: TreeBudget,
        vocabulary: Tensor | None = None,
    ) -> None:
        """Args:
        head: the draft head.
        lm_head: maps features [..., H] to logits [..., V], or to [..., D] of a draft vocabulary.
        budget: the size of the trees.
        vocabulary: the target token of each of D draft tokens, [D]; None if they are all tokens of the target.
        """
        budget.check(head.config.vocab_size)
        super().__init__(head, lm_head)
        self.budget = budget if vocabulary is None else budget.within(len(vocabulary))
        self.vocabulary = None if vocabulary is None else vocabulary.to(self.head.fc.device)

    @torch.inference_mode()
    def propose(self, sequences: abc.Sequence[Sequence]) -> list[Tree]:
        roots = [sequence.tokens[-1] for sequence in sequences]
        depths = [min(sequence.max_depth, self.budget.depth) for sequence in sequences]
        if max(depths, default=0) < 1:
            return [DraftTree.root_only(root) for root in roots]
        # Sequences without room for a draft take part too: left out, they would lose their rows of the shared cache.
        features = self.catch_up(sequences)
        pools, grown = self.expand(batch_caches([sequence.draft.cache for sequence in sequences]), features, max(depths))
        trees: list[Tree] = []
        for row, (sequence, root, depth) in enumerate(zip(sequences, roots, depths, strict=True)):
            # Layers come one after the other: the upper ones alone are the pool of a shallower tree.
            pool = pools.row(row, replace(self.budget, depth=depth).pool)
            trees.append(self.choose(root, pool) if depth >= 1 else DraftTree.root_only(root))
            sequence.draft.passes += max(0, min(depth, grown[row]))
        return trees

    def choose(self, root: int, pool: Pool) -> DraftTree:
        """The tree that is made of the candidates of one sequence (EAGLE-2, section 4.2: reranking)."""
        return rerank(root, pool, self.budget.m, self.budget.least)

    def expand(self, cache: StackedKVCache, feature: Tensor, depth: int) -> tuple[Pool, list[int]]:
        """Grow layers 1 to `depth` (EAGLE-2, section 4.1: expansion).

        Args:
            cache: the head's cache of the sequences, which is left unchanged.
            feature: the head's estimate of the feature at each root, [B, 1, H].
            depth: number of layers.

        Returns:
            The candidates of all layers, and for each sequence how many layers were grown.
        """
        k, batch, device = self.budget.k, len(feature), feature.device
        layer = self.children(feature, torch.zeros(batch, 1, device=device), torch.full((batch, 1), -1, device=device))
        layers, before = [layer], 0  # before: number of candidates in the layers above
        mask = additive(cache.valid_mask(), feature.dtype)[:, None]
        length, root = cache.length, (cache.lengths - 1)[:, None]
        growing, grown = torch.ones(batch, dtype=torch.bool, device=device), torch.ones(batch, dtype=torch.long, device=device)
        for level in range(1, depth):
            beam = best(layer.values, k)
            values = layer.values.gather(1, beam)
            if self.budget.layer:
                growing = growing & (values.exp().sum(-1) >= self.budget.layer)
                if not growing.any():
                    break
            grown += growing
            parent, n = beam.div(k, rounding_mode="floor"), beam.shape[1]  # index among the nodes expanded in the layer above
            mask = torch.cat([select(mask, parent), own_column(n, mask.dtype, device).expand(batch, n, n)], dim=-1)
            tokens, positions = layer.tokens.gather(1, beam), (root + level).expand(batch, n)
            feature = self.run_head(cache, tokens, select(feature, parent), positions, mask)
            cache.length += n
            layer = self.children(feature, values, beam + before)
            before += layers[-1].values.shape[1]
            if self.budget.layer:
                layer = replace(layer, values=layer.values.masked_fill(~growing[:, None], -math.inf))
            layers.append(layer)
        cache.length = cache.pass_end = length
        return Pool.join(layers), grown.tolist()

    def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        """The k most confident continuations of each expanded node.

        Args:
            features: estimates of the features at n nodes, [B, n, H].
            values: their values, [B, n].
            parents: their indices in the pool, [B, n].

        Returns:
            n k candidates for each sequence.
        """
        logits = widen(self.lm_head(features))
        confidences = (logits if self.budget.head_temperature == 1 else logits / self.budget.head_temperature).log_softmax(-1)
        top, tokens = confidences.topk(self.budget.k, dim=-1)
        if self.vocabulary is not None:
            tokens = self.vocabulary[tokens]  # from draft tokens to those of the target
        # The value of a node is the product of confidences on its path; here as a sum of logarithms.
        return Pool(tokens.flatten(1), parents[..., None].expand(tokens.shape).flatten(1), (values[..., None] + top).flatten(1))


@dataclass(frozen=True)
class Pool:
    """The candidates of a tree, layer by layer, so that parents come before their children.

    Attributes:
        tokens: tokens, [B, n], or [n] for one sequence.
        parents: index of the parent in the pool, of the same shape; -1 for children of the root.
        values: values, of the same shape.
    """

    tokens: Tensor
    parents: Tensor
    values: Tensor

    @classmethod
    def join(cls, layers: list[Pool]) -> Pool:
        """All layers of a pool as one."""
        fields = zip(*((layer.tokens, layer.parents, layer.values) for layer in layers), strict=True)
        return cls(*(torch.cat(parts, dim=-1) for parts in fields))

    def row(self, row: int, n: int | None = None) -> Pool:
        """The first n candidates of one sequence of a batch; all of them without n."""
        return Pool(self.tokens[row, :n], self.parents[row, :n], self.values[row, :n])

    def checked(self) -> Pool:
        """The pool on the CPU. Raises BadInput if a value is NaN, which would sort above every number."""
        pool = Pool(self.tokens.cpu(), self.parents.cpu(), self.values.cpu())
        if np.isnan(pool.values.numpy()).any():
            raise BadInput("the head's confidences are not numbers", damage(self.values.dtype))
        return pool


def rerank(root: int, pool: Pool, m: int, least: float = -math.inf) -> DraftTree:
    """Keep the m candidates of highest value (EAGLE-2, section 4.2).

    Values never rise along a path, and of equal values the shallower node and then the earlier is kept. Therefore the parent of
    a kept node is kept too. A sort that breaks ties arbitrarily can keep a child without its parent; the published code then
    loses the root's token from the text.

    Args:
        root: token of the root.
        pool: the candidates of one sequence.
        m: number of nodes to keep.
        least: leave out nodes of lower value.
    """
    pool = pool.checked()
    values = pool.values.numpy()
    kept = np.sort(np.argsort(-values, kind="stable")[:m])
    kept = kept[values[kept] >= least]
    return subtree(root, pool, torch.from_numpy(kept))


def subtree(root: int, pool: Pool, kept: Tensor) -> DraftTree:
    """The tree of some candidates.

    Args:
        root: token of the root.
        pool: the candidates of one sequence, on the CPU.
        kept: indices in the pool, ascending. The parent of each is among them.
    """
    nodes = kept.numpy()
    tokens, parents, values = (field.numpy() for field in (pool.tokens, pool.parents, pool.values))
    place = np.zeros(len(values) + 1, dtype=np.int64)
    place[nodes] = np.arange(1, len(nodes) + 1)  # node 0 is the root, which is at index -1 of the pool: place[-1] stays 0
    return DraftTree(
        torch.from_numpy(np.concatenate([[root], tokens[nodes]])),
        torch.from_numpy(np.concatenate([[-1], place[parents[nodes]]])),
        torch.from_numpy(np.concatenate([np.zeros(1, values.dtype), values[nodes]])),
    )


def select(rows: Tensor, chosen: Tensor) -> Tensor:
    """The chosen rows [B, k] of each sequence's rows [B, n, d], as [B, k, d]."""
    batch, n = rows.shape[:2]
    if batch > 1:
        chosen = chosen + n * torch.arange(batch, device=rows.device)[:, None]
    return rows.flatten(0, 1).index_select(0, chosen.flatten()).view(batch, -1, rows.shape[-1])


@lru_cache
def own_column(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask [n, n] of the n nodes of a layer, each of which sees itself but no other."""
    with torch.inference_mode(False):
        return additive(torch.eye(n, dtype=torch.bool, device=device), dtype)


def best(values: Tensor, n: int) -> Tensor:
    """Indices of the n highest values [..., c], in ascending order; of equal values the earlier is kept."""
    return values.sort(descending=True, stable=True).indices[..., :n].sort().values
