"""EAGLE's static draft tree: the head of EAGLE-2, and a tree whose shape is fixed in advance (EAGLE, arXiv 2401.15077)."""

from __future__ import annotations

from collections import Counter, abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Checkpoint, require_whole
from eagle2_ref.drafters.eagle_base import EagleBase, EagleState, load_head_for
from eagle2_ref.drafters.eagle_head import EagleHead, FusedHead
from eagle2_ref.drafters.tree_choices import Choice, choices, prune
from eagle2_ref.model.cache import StackedKVCache
from eagle2_ref.model.target import Target
from eagle2_ref.rules import exclude
from eagle2_ref.sampling import draft_scores
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, SampledTree, Tree

PUBLISHED = choices("0 1 2 3  00 01 02 10 11 20 21 30  000 001 002 010 011 020 021 100  0000 0001 0002  00000 00001")
"""The 25 nodes of `mc_sim_7b_63` in SafeAILab/EAGLE, branch v1, model/choices.py."""


@dataclass(frozen=True)
class Eagle:
    """Options of EAGLE: how much of the published tree is used. The defaults use all of it.

    k: children of a node. depth: layers. m: nodes, the root not counted.
    """

    k: int = 4
    depth: int = 5
    m: int = 25

    checkpoint: ClassVar[Checkpoint] = "draft"

    def drafter(self, target: Target, draft: Path | str) -> EagleDrafter:
        require_whole(self, k=1, depth=1, m=1)
        return EagleDrafter(*load_head_for(target, draft), self)


class SamplingState(EagleState):
    """The state of EAGLE for one sequence: the head's cache, and coins of its own to sample drafts with."""

    def __init__(self, cache: StackedKVCache, coins: Coins) -> None:
        super().__init__(cache)
        self.coins = coins


class EagleDrafter(EagleBase):
    """At temperature 0 the children of a node are the head's most likely tokens; above, they are sampled from its distribution q.

    They are sampled without replacement, under the sampling parameters of the request. Which nodes have children is fixed
    before any token is sampled: to drop a node for the token it got would change q. (The published code does the same.)
    """

    tree_type = SampledTree

    def __init__(self, head: EagleHead | FusedHead, lm_head: Callable[[Tensor], Tensor], method: Eagle) -> None:
        super().__init__(head, lm_head)
        self.choices = prune(PUBLISHED, method.k, method.depth, method.m)

    def start(self, sequence: Sequence) -> SamplingState:
        return SamplingState(self.head.cache(), sequence.coins.split())

    @torch.inference_mode()
    def propose_one(self, sequence: Sequence) -> DraftTree | SampledTree:
        root, state = sequence.tokens[-1], sequence.draft
        n_children = Counter(choice[:-1] for choice in self.choices if len(choice) <= sequence.max_depth)
        if not n_children:
            return SampledTree.root_only(root)
        tree, places = Tree(torch.tensor([root]), torch.tensor([-1])), list[Choice]([()])
        distributions, layer = dict[int, Tensor](), [ROOT]
        features, length = {ROOT: self.catch_up([sequence])[0, 0]}, state.cache.length
        state.passes += 1
        while layer:
            if layer != [ROOT]:
                features |= self.features(state, tree, layer, features, length)
            distributions |= self.distributions(sequence, tree, layer, features)
            drafted = {node: self.children(sequence, distributions[node], n_children[places[node]]) for node in layer}
            end, tree = len(tree), extended(tree, drafted)
            places += [(*places[node], rank) for node, tokens in drafted.items() for rank in range(len(tokens))]
            layer = [node for node in range(end, len(tree)) if n_children[places[node]]]
        state.cache.truncate(length)
        return (chosen if sequence.params.temperature == 0 else sampled)(tree, distributions)

    def features(
        self, state: EagleState, tree: Tree, layer: list[int], above: dict[int, Tensor], length: int
    ) -> dict[int, Tensor]:
        """Run the head on one layer of the tree.

        Args:
            state: the head's state; the cache holds the text and all expanded nodes above but the root.
            tree: the tree so far.
            layer: its last layer.
            above: the features [H] of the expanded nodes above, by node.
            length: number of cache entries that are text.

        Returns:
            The features [H] of the nodes of the layer, by node.
        """
        device = self.head.fc.device
        own = tree.ancestors()[layer][:, [*above, *layer][1:]]
        mask = torch.cat([own.new_ones(len(layer), length), own], dim=1).to(device)
        parents = torch.stack([above[tree.parent(node)] for node in layer])
        positions = torch.tensor([[length - 1 + tree.depths[node] for node in layer]], device=device)
        out = self.run_head(state.cache, tree.tokens[layer][None].to(device), parents[None], positions, mask[None])
        state.passes += 1
        state.cache.length += len(layer)
        return dict(zip(layer, out[0], strict=True))

    def distributions(self, sequence: Sequence, tree: Tree, layer: list[int], features: dict[int, Tensor]) -> dict[int, Tensor]:
        """The head's distribution q [V] after each node of a layer; at temperature 0 that of temperature 1."""
        texts = [[*sequence.tokens, *(tree.token(node) for node in tree.path(last))] for last in layer]
        logits = self.lm_head(torch.stack([features[node] for node in layer]))
        return dict(zip(layer, draft_scores(logits, texts, sequence.params).softmax(-1), strict=True))

    def children(self, sequence: Sequence, q: Tensor, n: int) -> list[int]:
        """n different tokens from q [V]; fewer if fewer have any probability."""
        if sequence.params.temperature == 0:
            best: list[int] = q.topk(min(n, len(q))).indices.tolist()
            return best
        tokens: list[int] = []
        for _ in range(min(n, int((q > 0).sum()))):
            tokens.append(int(sequence.draft.coins.categorical(q)))
            q = exclude(q, tokens[-1])
        return tokens


def extended(tree: Tree, children: Mapping[int, abc.Sequence[int]]) -> Tree:
    """The tree with further children, which are given as tokens by node."""
    tokens = [token for drafted in children.values() for token in drafted]
    parents = [node for node, drafted in children.items() for _ in drafted]
    return Tree(torch.cat([tree.tokens, torch.tensor(tokens).long()]), torch.cat([tree.parents, torch.tensor(parents).long()]))


def chosen(tree: Tree, distributions: Mapping[int, Tensor]) -> DraftTree:
    """The tree as one of most likely tokens, with their values under the distributions [V] of their parents."""
    values = [0.0]
    for node in range(1, len(tree)):
        parent = tree.parent(node)
        values.append(values[parent] + float(distributions[parent][tree.token(node)].log()))
    return DraftTree(tree.tokens, tree.parents, torch.tensor(values))


def sampled(tree: Tree, distributions: Mapping[int, Tensor]) -> SampledTree:
    """The tree as one of sampled tokens, with the distributions [V] that they were sampled from."""
    nothing = torch.zeros_like(distributions[ROOT])
    q = torch.stack([distributions.get(node, nothing) for node in range(len(tree))])
    return SampledTree(tree.tokens, tree.parents, q)
