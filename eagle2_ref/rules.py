"""Acceptance rules: how the target's probabilities and the coins turn a draft tree into emitted tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.tree import ROOT, DraftTree, SampledTree, Tree


@dataclass(frozen=True)
class Accepted:
    """What a rule decided: the accepted path (nodes below the root, top down), and the one more token it drew."""

    path: list[int]
    token: int

    def tokens(self, tree: Tree) -> list[int]:
        """The emitted tokens: those of the path, then the recovered or bonus token."""
        return [*(tree.token(node) for node in self.path), self.token]


Rule = Callable[[Any, Tensor, Coins], Accepted]
"""(tree, p [m + 1, V], coins): each rule says which trees it takes. Row i of p is the target's law after node i."""


def walk(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """Sample the target, and follow the tree for as long as it goes the same way.

    Law: every emitted token is a draw from p, so the text is distributed as the target's, whatever the tree; the tree
    decides only how many draws one target pass can serve.
    """
    path: list[int] = []
    node = ROOT
    while True:
        token = coins.categorical(p[node])
        child = tree.child(node, token)
        if child is None:
            return Accepted(path, token)
        path.append(child)
        node = child


def reject(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """EAGLE-2's published rule: offer the children one by one, each as a proposal of probability one.

    Law: that of `walk`. A chain of coins "this one? else, of what remains, this one?" is one categorical draw taken in
    pieces. (The paper writes min(1, p/q); its code, like this, has q = 1: the tree is chosen, not sampled.)
    """
    path: list[int] = []
    node = ROOT
    while True:
        r = p[node]  # what remains of the target's law
        for child in tree.children(node):
            x = tree.token(child)
            if coins.uniform() < r[x]:  # strict: a coin of 0 must not accept a token of probability 0 (sglang issue 35771)
                break
            r = exclude(r, x)
        else:
            return Accepted(path, coins.categorical(r))
        path.append(child)
        node = child


def sampled(tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
    """The rule of drafts that were drawn from q: keep x with probability min(1, p/q), or else draw from (p - q)+.

    Law: that of `walk`, over the draws of the drafts too. Whatever q is, min(p, q) is what x is drafted and kept with, and
    (p - q)+ is what p lacks then (Leviathan et al., arXiv 2211.17192, appendix A.1). Of several children each is judged by what
    is left of p, and of q, after its earlier siblings (EAGLE, section 3.3; SpecInfer, arXiv 2305.09781, section 4.3).
    """
    path: list[int] = []
    node = ROOT
    while True:
        r, q = p[node], tree.q[node]
        for child in tree.children(node):
            x = tree.token(child)
            if coins.uniform() < r[x] / q[x]:
                break
            r, q = residual(r, q), exclude(q, x)
        else:
            return Accepted(path, coins.categorical(r))
        path.append(child)
        node = child


def rule_for(tree: DraftTree | SampledTree, p: Tensor, coins: Coins) -> Accepted:
    """`sampled` for a tree that was drawn, `reject` for one that was chosen: of a drafter that does one or the other."""
    return sampled(tree, p, coins) if isinstance(tree, SampledTree) else reject(tree, p, coins)


def typical(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """Medusa's typical acceptance, which is LOSSY: keep whatever the target finds likely enough, and of all paths the longest.

    A child is kept with p(x) > min(0.09, 0.3 exp(-H(p))), H the entropy after its parent; of paths of one length the likelier
    one counts (Medusa, arXiv 2401.10774, section 2.3.1). No coin is asked for a draft: what the drafter likes comes too often.
    At temperature 0 p is certain, and so is what is kept: greedy decoding.
    """
    least = torch.exp(torch.special.entr(p).sum(-1)).reciprocal().mul(0.3).clamp(max=0.09)
    likelihood = {ROOT: 1.0}  # of each node that is kept
    for node in range(1, len(tree)):
        parent, x = tree.parent(node), tree.token(node)
        if parent in likelihood and p[parent, x] > least[parent]:
            likelihood[node] = likelihood[parent] * float(p[parent, x])
    last = max(likelihood, key=lambda node: (tree.depths[node], likelihood[node]))
    return Accepted(tree.path(last), coins.categorical(p[last]))


def residual(r: Tensor, q: Tensor) -> Tensor:
    """(r - q)+, renormalised. Where nothing is left r is q, and what was refused was refused by rounding."""
    rest = (r - q).clamp(min=0)
    total = rest.sum()
    return rest / total if total > 0 else r


def exclude(r: Tensor, x: int) -> Tensor:
    """The law r, given that the draw is not x. A rejected x had probability below 1, so that something remains."""
    r = r.clone()
    r[x] = 0
    return r / r.sum()


RULES: dict[str, Rule] = {"reject": reject, "walk": walk}
"""The lossless rules of any tree."""
