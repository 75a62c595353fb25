"""Exactness of an acceptance rule alone, by induction over the nodes of one draft tree.

If the next token is right at every node that the rule reaches, then it is right after every block, for any number of blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eagle2_ref.rules import Accepted, Rule
from eagle2_ref.tree import ROOT, DraftTree
from harness.enumeration.coins import EnumeratedCoins, SymbolicToken, executions, is_symbolic


@dataclass(frozen=True)
class RuleDeviation:
    """The node at which the next token of a rule deviates most from p.

    Attributes:
        distance: total variation at that node, not divided by the probability of reaching it: a rare node weighs little.
        node: the node.
        token: the token with the largest excess there.
        q: probability of that token after the node.
        executions: executions that were run; unfinished: probability of those that were not.
    """

    distance: float
    node: int
    token: int
    q: float
    executions: int
    unfinished: float = 0.0


class NextTokens:
    """Q(reaches node v, then emits x), for every node v of a tree, summed over executions of a rule.

    "Emits x" is either the acceptance of a child with token x or the last token, sampled at v. Over all executions it must
    equal Q(reaches v) p[v, x].
    """

    def __init__(self, tree: DraftTree, p: Tensor) -> None:
        self._tree, self._p = tree, p
        self._joint: dict[int, Tensor] = defaultdict(lambda: torch.zeros(p.shape[1], dtype=torch.float64))

    def add(self, path: Sequence[int], last: int | Tensor, weight: float) -> None:
        """Add an execution of probability `weight`, at every node of its path.

        Args:
            path: accepted nodes.
            last: the token after them, or its distribution [V] if the rule never looked at it.
            weight: probability of the execution.
        """
        for node, child in zip([ROOT, *path], path, strict=False):
            self._joint[node][self._tree.token(child)] += weight
        end = self._joint[path[-1] if path else ROOT]
        if isinstance(last, Tensor):
            end += weight * last.double()
        else:
            end[last] += weight

    def largest_deviation(self, executions: int, unfinished: float = 0.0) -> RuleDeviation:
        """Compare with p at every node reached."""
        p = self._p.double()
        distances = {node: float((q - q.sum() * p[node]).abs().sum()) / 2 for node, q in self._joint.items()}
        worst = max(distances, key=lambda node: distances[node])
        q = self._joint[worst] / self._joint[worst].sum()
        token = int((q - p[worst]).argmax())
        return RuleDeviation(distances[worst], worst, token, float(q[token]), executions, unfinished)


def protected(p: Tensor) -> Callable[[], Tensor]:
    """A function that returns a copy of p, and a new one whenever the last was written to."""
    copy = p.clone()
    version = copy._version

    def current() -> Tensor:
        nonlocal copy, version
        if copy._version != version:
            copy = p.clone()
            version = copy._version
        return copy

    return current


def rule_deviation(rule: Rule, tree: DraftTree, p: Tensor) -> RuleDeviation:
    """The largest deviation of a rule that takes its randomness from coins, over all coins.

    The distribution of the last token is added whole, so a rule that does not look at it costs one execution for each node at
    which it can stop, for any size of the vocabulary.

    Args:
        rule: acceptance rule.
        tree: draft tree of m proposals.
        p: target distribution after every node, [m + 1, V].
    """
    current, sums, count = protected(p), NextTokens(tree, p), 0

    def run(coins: EnumeratedCoins) -> Accepted:
        return rule(tree, current(), coins)

    for accepted, weight in executions(run):
        token: object = accepted.token
        last = token.law if isinstance(token, SymbolicToken) and is_symbolic(token) else int(accepted.token)
        sums.add(accepted.path, last, float(weight))
        count += 1
    return sums.largest_deviation(count)
