"""EAGLE-2's dynamic draft tree: expansion by value, then reranking (EAGLE-2, sections 4.1 and 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.drafters.eagle_base import Headed, head_for
from eagle2_ref.drafters.eagle_head import EagleHead, LeanHead
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import beside
from eagle2_ref.model.llama import additive
from eagle2_ref.model.network import causal
from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree


@dataclass(frozen=True)
class Budget:
    """k: nodes expanded a layer, and children looked at a node. depth: layers. m: draft tokens kept, the root not counted.

    The rest is ours, and off by default; the law of the text is the same. head_temperature: of the softmax that gives
    confidences; below 1 they are sharper. Where confidences are true probabilities, exp(value) is how many tokens a node is
    expected to bring: `node` is the least for which it is kept, `layer` the least, of a layer's k best in sum, for the next
    one to be grown.
    """

    k: int = 8
    depth: int = 6
    m: int = 25
    head_temperature: float = 1.0
    node: float = 0.0
    layer: float = 0.0

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> Eagle2:
        return Eagle2(*head_for(target, draft), self)

    @property
    def pool(self) -> int:
        """Number of candidates that m is chosen from: k in the first layer, k squared in every further one."""
        return self.k + (self.depth - 1) * self.k**2

    @property
    def least(self) -> float:
        """The least value of a node that is kept. (Where a layer may be left out its candidates have the value -inf.)"""
        if self.node:
            return math.log(self.node)
        return torch.finfo(torch.float32).min if self.layer else -math.inf

    def check(self, vocab_size: int) -> None:
        """Raise BadInput for a budget that cannot be met."""
        for name, value in (("k", self.k), ("depth", self.depth), ("m", self.m)):
            if not isinstance(value, int) or value < 1:
                raise BadInput(f"budget: {name} is {value}", f"{name} must be a whole number of 1 or more")
        if self.k > vocab_size:
            raise BadInput(
                f"budget: k is {self.k}, but the vocabulary has {vocab_size} tokens", f"give a k of at most {vocab_size}"
            )
        allowed = {
            "head_temperature": (self.head_temperature > 0, "above 0; 1 is the paper's"),
            "node": (0 <= self.node <= 1, "in [0, 1]; 0 keeps every node"),
            "layer": (self.layer >= 0, "0 or more; 0 grows every layer"),
        }
        for name, (holds, what) in allowed.items():
            if not holds:
                raise BadInput(f"budget: {name} is {getattr(self, name)}", f"{name} must be {what}")
        if self.m > self.pool:
            raise BadInput(
                f"budget: m is {self.m}, but k = {self.k} and depth = {self.depth} give a pool of {self.pool} candidates",
                f"give an m of at most {self.pool}, or a larger k or depth",
            )


class Eagle2(Headed):
    """The drafter of EAGLE-2: one head, asked layer by layer for the most promising continuations."""

    def __init__(self, head: EagleHead | LeanHead, lm_head: Callable[[Tensor], Tensor], budget: Budget) -> None:
        budget.check(head.config.vocab_size)
        super().__init__(head, lm_head)
        self.budget = budget

    @torch.inference_mode()
    def propose(self, depth: int) -> DraftTree:
        depth = min(depth, self.budget.depth)
        root = int(self._tokens[-1])
        if depth < 1:
            return DraftTree.bare(root)
        pool, _ = self._expand(self._catch_up(), depth)
        return self.choose(root, pool.of(0))

    def choose(self, root: int, pool: Pool) -> DraftTree:
        """The tree that is made of the candidates of one text."""
        return rerank(root, pool, self.budget.m, self.budget.least)

    def _expand(self, feature: Tensor, depth: int) -> tuple[Pool, Tensor]:
        """Layers 1 to `depth`: all children of the k best nodes of the layer above; and how many layers were grown [texts].

        feature is the root's, [texts, 1, H]; the caches of several texts stand side by side, and are left as they were found.
        """
        k, texts, device = self.budget.k, len(feature), feature.device
        layer = self._children(feature, torch.zeros(texts, 1, device=device), torch.full((texts, 1), -1, device=device))
        layers, before = [layer], 0  # before: candidates in the layers above
        mask = additive(self.cache.holds(), feature.dtype)[:, None]
        kept, root = self.cache.length, (self.cache.lengths - 1)[:, None]
        growing, grown = torch.ones(texts, dtype=torch.bool, device=device), torch.ones(texts, dtype=torch.long, device=device)
        for level in range(1, depth):
            beam = best(layer.values, k)
            values = layer.values.gather(1, beam)
            if self.budget.layer:
                growing = growing & (values.exp().sum(-1) >= self.budget.layer)
                if not growing.any():
                    break
            grown += growing
            parent, n = beam.div(k, rounding_mode="floor"), beam.shape[1]  # which of the nodes expanded in the layer above it is
            mask = torch.cat([_of(mask, parent), _itself(n, mask.dtype, device).expand(texts, n, n)], dim=-1)
            tokens, positions = layer.tokens.gather(1, beam), (root + level).expand(texts, n)
            feature = self._pass(tokens, _of(feature, parent), positions, mask)
            self.cache.length += n
            layer = self._children(feature, values, beam + before)
            before += layers[-1].values.shape[1]
            if self.budget.layer:
                layer = replace(layer, values=layer.values.masked_fill(~growing[:, None], -math.inf))
            layers.append(layer)
        self.cache.length = self.cache.end = kept
        return Pool.join(layers), grown

    def _children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        """The k most confident continuations of each expanded node: n of them make a layer of n * k candidates."""
        logits = self.lm_head(features)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        confidences = (wide if self.budget.head_temperature == 1 else wide / self.budget.head_temperature).log_softmax(-1)
        top, tokens = confidences.topk(self.budget.k, dim=-1)
        return Pool(tokens.flatten(1), parents[..., None].expand(tokens.shape).flatten(1), (values[..., None] + top).flatten(1))


@torch.inference_mode()
def propose_together(drafters: Sequence[Eagle2], depths: Sequence[int]) -> list[DraftTree]:
    """`propose` of several texts with one head: every pass of it serves all of them.

    Layers are made from the top down, so that the tree of a text that must end soon needs but the upper ones.
    """
    roots = [int(drafter._tokens[-1]) for drafter in drafters]
    depths = [min(depth, drafter.budget.depth) for drafter, depth in zip(drafters, depths, strict=True)]
    if max(depths, default=0) < 1:
        return [DraftTree.bare(root) for root in roots]
    features = _catch_up_together(drafters)  # also of texts whose tree stays bare: one that is left out would lose its row
    joint = copy(drafters[0])
    joint.cache = beside([drafter.cache for drafter in drafters])
    pool, grown = joint._expand(features, max(depths))
    trees = []
    for text, (root, drafter, depth) in enumerate(zip(roots, drafters, depths, strict=True)):
        candidates = pool.of(text, replace(drafter.budget, depth=depth).pool)
        trees.append(drafter.choose(root, candidates) if depth >= 1 else DraftTree.bare(root))
        drafter.passes += max(0, min(depth, int(grown[text])))
    return trees


def _catch_up_together(drafters: Sequence[Eagle2]) -> Tensor:
    """`_catch_up` of several texts: the roots' features [texts, 1, H]. Prompts have a pass of their own, or all that others
    have to catch up with would be padded to the length of a prompt."""
    prompts = [row for row, drafter in enumerate(drafters) if not drafter.cache.length]
    others = [row for row, drafter in enumerate(drafters) if drafter.cache.length]
    passes = [_one_catch_up([drafters[row] for row in rows]) for rows in (prompts, others) if rows]
    return torch.cat(passes)[torch.tensor([*prompts, *others], device=passes[0].device).argsort()]


def _one_catch_up(drafters: Sequence[Eagle2]) -> Tensor:
    """One pass of it. Of texts that have less to catch up with the new tokens stand to the right, so that all roots are in the
    last column."""
    joint, device = copy(drafters[0]), drafters[0].head.fc.device
    joint.cache = cache = beside([drafter.cache for drafter in drafters])
    news = [len(drafter._tokens) for drafter in drafters]
    observed = [torch.tensor([int(token) for token in drafter._tokens], device=device) for drafter in drafters]
    tokens = pad_sequence(observed, True, padding_side="left")
    features = pad_sequence([torch.cat(drafter._features) for drafter in drafters], True, padding_side="left")
    columns = torch.arange(tokens.shape[1], device=device)
    first = tokens.shape[1] - torch.tensor(news, device=device)[:, None]
    positions = (cache.lengths[:, None] + columns - first).clamp(min=0)
    new = (columns >= first)[:, None]
    own = causal(len(columns), len(columns), device) & new | torch.eye(len(columns), dtype=torch.bool, device=device)
    text = cache.holds()[:, None].expand(-1, len(columns), -1)
    out = joint._pass(tokens, features, positions, additive(torch.cat([text, own], dim=-1), features.dtype))
    for drafter, n in zip(drafters, news, strict=True):
        drafter.cache.keep(range(len(columns) - n, len(columns)))
        drafter._tokens, drafter._features = [], []
    return out[:, -1:]


@dataclass(frozen=True)
class Pool:
    """Candidates, layer by layer: parents come before their children. Each field is [texts, n], or [n] for one text.

    parents: index of the parent in the pool, -1 for the root.
    """

    tokens: Tensor
    parents: Tensor
    values: Tensor

    @classmethod
    def join(cls, layers: list[Pool]) -> Pool:
        fields = zip(*((x.tokens, x.parents, x.values) for x in layers), strict=True)
        return cls(*(torch.cat(parts, dim=-1) for parts in fields))

    def of(self, text: int, n: int | None = None) -> Pool:
        """The first n candidates of one text; all without n."""
        return Pool(self.tokens[text, :n], self.parents[text, :n], self.values[text, :n])

    def checked(self) -> Pool:
        """On the host. Raises BadInput where values are not numbers."""
        pool = Pool(self.tokens.cpu(), self.parents.cpu(), self.values.cpu())
        if np.isnan(pool.values.numpy()).any():  # which counts as higher than any number
            raise BadInput(
                "the head's confidences are not numbers", "its weights are damaged, or overflow in this dtype: try float32"
            )
        return pool


def rerank(root: int, pool: Pool, m: int, least: float = -math.inf) -> DraftTree:
    """Keep the m candidates of highest value, of these the ones whose value is `least` or more.

    Values never rise along a path, and of equals the shallower and then the earlier is kept: a kept node's parent is
    kept too. (With a sort that breaks ties arbitrarily a child can stay without its parent, and the text loses a token.)
    """
    pool = pool.checked()
    values = pool.values.numpy()
    kept = np.sort(np.argsort(-values, kind="stable")[:m])
    kept = kept[values[kept] >= least]
    return subtree(root, pool, torch.from_numpy(kept))


def subtree(root: int, pool: Pool, kept: Tensor) -> DraftTree:
    """The tree of the kept candidates of a pool on the host: indices, ascending, that have the parents of all among them."""
    nodes = kept.numpy()
    tokens, parents, values = (field.numpy() for field in (pool.tokens, pool.parents, pool.values))
    place = np.zeros(len(values) + 1, dtype=np.int64)
    place[nodes] = np.arange(1, len(nodes) + 1)  # node 0 is the root; index -1 stays 0
    return DraftTree(
        torch.from_numpy(np.concatenate([[root], tokens[nodes]])),
        torch.from_numpy(np.concatenate([[-1], place[parents[nodes]]])),
        torch.from_numpy(np.concatenate([np.zeros(1, values.dtype), values[nodes]])),
    )


def _of(rows: Tensor, chosen: Tensor) -> Tensor:
    """The chosen rows [texts, k] of each text's [texts, n, …]."""
    texts, n = rows.shape[:2]
    if texts > 1:
        chosen = chosen + n * torch.arange(texts, device=rows.device)[:, None]
    return rows.flatten(0, 1).index_select(0, chosen.flatten()).view(texts, -1, rows.shape[-1])


@lru_cache
def _itself(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The mask of n nodes that see themselves alone."""
    with torch.inference_mode(False):
        return additive(torch.eye(n, dtype=torch.bool, device=device), dtype)


def best(values: Tensor, n: int) -> Tensor:
    """Indices of the n highest values [..., c], in ascending order of index; of equal values the earlier is kept."""
    return values.sort(descending=True, stable=True).indices[..., :n].sort().values
