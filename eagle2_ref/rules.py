"""Acceptance rules: how the target's probabilities and the coins turn a draft tree into emitted tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.tree import ROOT, DraftTree


@dataclass(frozen=True)
class Accepted:
    """What a rule decided: the accepted path (nodes below the root, top down), and the one more token it drew."""

    path: list[int]
    token: int

    def tokens(self, tree: DraftTree) -> list[int]:
        """The emitted tokens: those of the path, then the recovered or bonus token."""
        return [*(tree.token(node) for node in self.path), self.token]


Rule = Callable[[DraftTree, Tensor, Coins], Accepted]


def walk(tree: DraftTree, p: Tensor, coins: Coins) -> Accepted:
    """Sample the target, and follow the tree for as long as it goes the same way.

    Law: every emitted token is a draw from p, so the text is distributed as the target's, whatever the tree; the tree
    decides only how many draws one target pass can serve. p is [m + 1, V]: row i is the target's law after node i.
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


def reject(tree: DraftTree, p: Tensor, coins: Coins) -> Accepted:
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
            r = without(r, x)
        else:
            return Accepted(path, coins.categorical(r))
        path.append(child)
        node = child


def without(r: Tensor, x: int) -> Tensor:
    """The law r, given that the draw is not x. A rejected x had probability below 1, so that something remains."""
    r = r.clone()
    r[x] = 0
    return r / r.sum()


RULES: dict[str, Rule] = {"reject": reject, "walk": walk}
