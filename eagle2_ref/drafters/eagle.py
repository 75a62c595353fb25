"""EAGLE's static draft tree: the head of EAGLE-2, and a tree whose shape is fixed in advance (EAGLE, arXiv 2401.15077)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Checkpoint, whole
from eagle2_ref.drafters.eagle_base import Headed, head_for
from eagle2_ref.drafters.eagle_head import EagleHead, LeanHead
from eagle2_ref.drafters.tree_choices import Slot, cut, slots
from eagle2_ref.model.target import Target
from eagle2_ref.rules import without
from eagle2_ref.sampling import SamplingParams, behind
from eagle2_ref.tree import ROOT, DraftTree, SampledTree, Tree

PUBLISHED = slots("0 1 2 3  00 01 02 10 11 20 21 30  000 001 002 010 011 020 021 100  0000 0001 0002  00000 00001")
"""The 25 nodes of `mc_sim_7b_63` in SafeAILab/EAGLE, branch v1, model/choices.py."""


@dataclass(frozen=True)
class Eagle:
    """What is taken of the published tree: k children a node, `depth` layers, the first m nodes. As it is here, all of it."""

    k: int = 4
    depth: int = 5
    m: int = 25

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> EagleDrafter:
        whole(self, k=1, depth=1, m=1)
        return EagleDrafter(*head_for(target, draft), self)


class EagleDrafter(Headed):
    """At temperature 0 the children of a node are the head's likeliest tokens; above, they are drawn from its law q.

    They are drawn without replacement, the law under the text's own sampling parameters, and fill their slots as they come: which
    of them has children of its own is settled before any is drawn. (So does the published code.)
    """

    trees = SampledTree

    def __init__(self, head: EagleHead | LeanHead, lm_head: Callable[[Tensor], Tensor], method: Eagle) -> None:
        super().__init__(head, lm_head)
        self.slots = cut(PUBLISHED, method.k, method.depth, method.m)

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:
        super().begin(prompt, params, coins)
        self._params, self._coins, self._text = params, coins.aside(), [int(prompt[0])]

    def observe(self, tokens: Sequence[int], features: Tensor) -> None:
        super().observe(tokens, features)
        self._text += tokens

    @torch.inference_mode()
    def propose(self, depth: int) -> DraftTree | SampledTree:
        self._text[-1] = root = int(self._text[-1])
        room = Counter(slot[:-1] for slot in self.slots if len(slot) <= depth)
        if not room:
            return SampledTree.bare(root)
        tree, places = Tree(torch.tensor([root]), torch.tensor([-1])), list[Slot]([()])
        laws, layer = dict[int, Tensor](), [ROOT]
        features, kept = {ROOT: self._catch_up()[0, 0]}, self.cache.length
        while layer:
            if layer != [ROOT]:
                features |= self._expand(tree, layer, features, kept)
            laws |= self._laws(tree, layer, features)
            drafted = {node: self._children(laws[node], room[places[node]]) for node in layer}
            end, tree = len(tree), grown(tree, drafted)
            places += [(*places[node], rank) for node, tokens in drafted.items() for rank in range(len(tokens))]
            layer = [node for node in range(end, len(tree)) if room[places[node]]]
        self.cache.cut(kept)
        return chosen(tree, laws) if self._params.temperature == 0 else drawn(tree, laws)

    def _expand(self, tree: Tree, layer: list[int], features: dict[int, Tensor], kept: int) -> dict[int, Tensor]:
        """The features [H] of a layer's nodes: one pass of the head, in which each sees the text, its ancestors and itself.

        `features` are those of the nodes of the layers above, and stand in the cache behind the kept text, but for the root's.
        """
        device = self.head.fc.device
        own = tree.ancestors()[layer][:, [*features, *layer][1:]]
        seen = torch.cat([own.new_ones(len(layer), kept), own], dim=1).to(device)
        above = torch.stack([features[tree.parent(node)] for node in layer])
        positions = torch.tensor([[kept - 1 + tree.depths[node] for node in layer]], device=device)
        out = self._pass(tree.tokens[layer][None].to(device), above[None], positions, seen[None])
        self.cache.length += len(layer)
        return dict(zip(layer, out[0], strict=True))

    def _laws(self, tree: Tree, layer: list[int], features: dict[int, Tensor]) -> dict[int, Tensor]:
        """The head's law [V] behind each node of a layer, after the processors; before any temperature where that is 0."""
        texts = [[*self._text, *(tree.token(node) for node in tree.path(last))] for last in layer]
        logits = self.lm_head(torch.stack([features[node] for node in layer]))
        return dict(zip(layer, behind(logits, texts, self._params).softmax(-1), strict=True))

    def _children(self, q: Tensor, n: int) -> list[int]:
        """n tokens that differ, fewer where no more have any probability."""
        if self._params.temperature == 0:
            best: list[int] = q.topk(min(n, len(q))).indices.tolist()
            return best
        tokens: list[int] = []
        for _ in range(min(n, int((q > 0).sum()))):
            tokens.append(int(self._coins.categorical(q)))
            q = without(q, tokens[-1])
        return tokens


def grown(tree: Tree, children: Mapping[int, Sequence[int]]) -> Tree:
    """A tree with further children, given by their tokens."""
    tokens = [token for drafted in children.values() for token in drafted]
    parents = [node for node, drafted in children.items() for _ in drafted]
    return Tree(torch.cat([tree.tokens, torch.tensor(tokens).long()]), torch.cat([tree.parents, torch.tensor(parents).long()]))


def chosen(tree: Tree, laws: Mapping[int, Tensor]) -> DraftTree:
    """As a tree of likeliest tokens, with the laws [V] that they are likely by."""
    values = [0.0]
    for node in range(1, len(tree)):
        values.append(values[tree.parent(node)] + float(laws[tree.parent(node)][tree.token(node)].log()))
    return DraftTree(tree.tokens, tree.parents, torch.tensor(values))


def drawn(tree: Tree, laws: Mapping[int, Tensor]) -> SampledTree:
    """As a tree of draws, with the laws [V] that were drawn from."""
    nothing = torch.zeros_like(laws[ROOT])
    return SampledTree(tree.tokens, tree.parents, torch.stack([laws.get(node, nothing) for node in range(len(tree))]))
