"""The law of a rule alone, node by node: if it is right at every node, it is right for any number of blocks."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from eagle2_ref.rules import Accepted, Rule
from eagle2_ref.tree import ROOT, DraftTree
from harness.enumeration.coins import EnumeratedCoins, LazyToken, executions, undecided


class Departure(NamedTuple):
    """The largest total variation at any node; the node, and the token that comes too often there: with probability q."""

    distance: float
    node: int
    token: int
    q: float


def departure(rule: Rule, tree: DraftTree, p: Tensor) -> Departure:
    """The largest total variation, over the nodes a rule can reach, between its next token and p there.

    Over all coins: Q(reaches node v, then emits x) must be Q(reaches v) p[v, x], where "emits x" is either the acceptance
    of a child that carries x or the last token drawn at v. An execution is counted once at every node of its path; the last
    token's law is added whole, so that a rule which does not look at it costs one execution a node it can stop at.
    """
    joint: dict[int, Tensor] = defaultdict(lambda: torch.zeros(p.shape[1], dtype=torch.float64))
    given = p.clone()
    untouched = given._version

    def run(coins: EnumeratedCoins) -> Accepted:
        nonlocal given, untouched
        if given._version != untouched:  # a rule that writes into p must not spoil the next execution
            given = p.clone()
            untouched = given._version
        return rule(tree, given, coins)

    for accepted, weight in executions(run):
        for node, child in zip([ROOT, *accepted.path], accepted.path, strict=False):
            joint[node][tree.token(child)] += weight
        last = accepted.path[-1] if accepted.path else ROOT
        token: object = accepted.token
        if isinstance(token, LazyToken) and undecided(token):
            joint[last] += float(weight) * token.law.double()
        else:
            joint[last][accepted.token] += weight
    # A node's own probability is common to both sides, so the distance is not divided by it: a rare node weighs little.
    distances = {node: float((q - q.sum() * p[node].double()).abs().sum()) / 2 for node, q in joint.items()}
    worst = max(distances, key=lambda node: distances[node])
    q = joint[worst] / joint[worst].sum()
    token = int((q - p[worst].double()).argmax())
    return Departure(distances[worst], worst, token, float(q[token]))
