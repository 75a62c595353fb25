"""Acceptance rules: how the target distribution and random numbers turn a draft tree into emitted tokens."""

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
    """The decision of a rule.

    Attributes:
        path: accepted nodes below the root, top down.
        token: one more token, sampled after the last node of the path: the recovered token after a rejection, the bonus token
            after a path that was accepted to its leaf.
    """

    path: list[int]
    token: int

    def tokens(self, tree: Tree) -> list[int]:
        """The emitted tokens: those of the path, and the one more."""
        return [*(tree.token(node) for node in self.path), self.token]


Rule = Callable[[Any, Tensor, Coins], Accepted]
"""(tree, p [m + 1, V], coins) -> Accepted. Row i of p is the target distribution after node i. Some take one kind of tree."""


def walk(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """Sample from the target, and follow the tree while it has the sampled tokens.

    Every emitted token is a sample from p, so the text has the target's distribution for any tree. The tree decides only how
    many tokens come from one target pass.
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
    """Recursive rejection sampling over a draft tree, as published (EAGLE-2, section 2, with q = 1).

    The children of a node are offered one after another; a rejected token is removed from the residual distribution. That is
    one categorical sample taken in pieces ("this token? of the rest, this one?"), so the tokens are distributed as those of
    `walk`. The paper writes min(1, p/q); its code, like this, has q = 1, since tokens of the tree are chosen, not sampled.
    """
    path: list[int] = []
    node = ROOT
    while True:
        r = p[node]  # the residual distribution
        for child in tree.children(node):
            x = tree.token(child)
            if coins.uniform() < r[x]:  # strict: u = 0 must not accept a token of probability 0 (sglang issue 35771)
                break
            r = exclude(r, x)
        else:
            return Accepted(path, coins.categorical(r))
        path.append(child)
        node = child


def sampled(tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
    """Speculative sampling over a tree of sampled tokens: accept x with probability min(1, p/q), else sample from (p - q)+.

    Token x is proposed and accepted with probability min(p, q), and (p - q)+ is what p has more, so that the emitted token is a
    sample from p, over the samples of the drafter too (Leviathan et al., arXiv 2211.17192, appendix A.1). With several
    children, each is judged by the residuals of p and of q after its earlier siblings (EAGLE, section 3.3; SpecInfer, arXiv
    2305.09781, section 4.3).
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
    """The lossless rule for either kind of tree: `sampled` for sampled tokens, `reject` for chosen ones."""
    return sampled(tree, p, coins) if isinstance(tree, SampledTree) else reject(tree, p, coins)


def typical(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """Typical acceptance, which is LOSSY: accept every token that is likely enough, and of all paths the longest.

    A token is accepted if p(x) > min(0.09, 0.3 exp(-H(p))), with the entropy H of p after its parent. Of several longest paths
    the most likely is taken (Medusa, arXiv 2401.10774, section 2.3.1). No random number is used for a draft, so the drafter's
    favourites come too often. At temperature 0 p is a point mass, and the rule is greedy decoding.
    """
    threshold = torch.exp(torch.special.entr(p).sum(-1)).reciprocal().mul(0.3).clamp(max=0.09)
    likelihood = {ROOT: 1.0}  # of each accepted node
    for node in range(1, len(tree)):
        parent, x = tree.parent(node), tree.token(node)
        if parent in likelihood and p[parent, x] > threshold[parent]:
            likelihood[node] = likelihood[parent] * float(p[parent, x])
    last = max(likelihood, key=lambda node: (tree.depths[node], likelihood[node]))
    return Accepted(tree.path(last), coins.categorical(p[last]))


def residual(r: Tensor, q: Tensor) -> Tensor:
    """(r - q)+, renormalised, [V]. If it is 0, then r = q and the token was rejected by a rounding error: r is returned."""
    rest = (r - q).clamp(min=0)
    total = rest.sum()
    return rest / total if total > 0 else r


def exclude(r: Tensor, x: int) -> Tensor:
    """The distribution r [V] given that the token is not x. A rejected x has probability below 1: something remains."""
    r = r.clone()
    r[x] = 0
    return r / r.sum()


RULES: dict[str, Rule] = {"reject": reject, "walk": walk}
"""The lossless rules for any tree."""
