"""The rules: what each random number decides, boundaries included, and their distribution in exact arithmetic."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins, ScriptedCoins, SeededCoins
from eagle2_ref.rules import RULES, Accepted, Rule, exclude, reject, walk
from eagle2_ref.tree import DraftTree
from harness.enumeration.coins import executions, unfold
from harness.enumeration.induction import rule_deviation
from properties.strategies import trees_with_laws

LAST = math.nextafter(1.0, 0.0)
# The root has children 1 and 2 (tokens 3 and 1); node 1 has child 3 (token 0).
TREE = DraftTree.of([2, 3, 1, 0], [-1, 0, 0, 1])


def rows(*laws: list[float]) -> Tensor:
    return torch.tensor(laws, dtype=torch.float64)


P = rows([0.125, 0.25, 0.125, 0.5], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    ("rule", "coins", "path", "token"),
    [
        (reject, [0.0, 0.0, 0.0], [1, 3], 0),  # both accepted; bonus drawn after node 3
        (reject, [math.nextafter(0.5, 0), math.nextafter(0.5, 0), LAST], [1, 3], 3),
        (reject, [0.0, 0.5, 0.0], [1], 1),  # 0.5 is not below p = 0.5: token 0 is rejected, and the rest of node 1 is token 1
        (reject, [0.5, 0.0, 0.0], [2], 2),  # token 3 rejected, token 1 accepted; node 2 is a leaf
        (reject, [0.5, 0.5, 0.0], [], 0),  # both rejected; of {0: 1/8, 2: 1/8} the first
        (reject, [LAST, LAST, LAST], [], 2),
        (reject, [0.5, math.nextafter(0.5, 0), 0.0], [2], 2),  # what remains after token 3: token 1 has 0.25 / 0.5
        (walk, [0.0], [], 0),
        (walk, [0.125, 0.0], [2], 2),
        (walk, [0.5, 0.0, 0.0], [1, 3], 0),
        (walk, [LAST, LAST], [1], 1),
        (walk, [LAST, 0.0, LAST], [1, 3], 3),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_each_number_decides_one_thing(rule: Rule, coins: list[float], path: list[int], token: int) -> None:
    """`reject`: a child is accepted if its number is strictly below the residual probability; then one more token is sampled.
    `walk`: one token is sampled for each node."""
    script = ScriptedCoins(coins)
    assert rule(TREE, P, script) == Accepted(path, token)
    with pytest.raises(StopIteration):
        script.uniform()


@pytest.mark.parametrize("coin", [0.0, LAST])
def test_a_child_of_probability_zero_is_never_accepted(coin: float) -> None:
    """Not with u = 0 either; a child of probability 1 is always accepted."""
    p = rows([0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0])
    assert reject(DraftTree.of([2, 0], [-1, 0]), p, ScriptedCoins([coin, coin])) == Accepted([], 3)
    assert reject(DraftTree.of([2, 3], [-1, 0]), p, ScriptedCoins([coin, coin])) == Accepted([1], 1)


@given(trees_with_laws(), st.integers(0, 1000), st.sampled_from(sorted(RULES)), st.sampled_from([SeededCoins, KeyedCoins]))
def test_emitted_tokens_have_positive_probability(
    instance: tuple[DraftTree, Tensor], seed: int, name: str, make: type[SeededCoins]
) -> None:
    """The path is a path of the tree, and p is not modified."""
    tree, p = instance
    before = p.clone()
    accepted = RULES[name](tree, p, make(seed))
    assert accepted.path == tree.path(([0, *accepted.path])[-1])
    for node, token in zip([0, *accepted.path], accepted.tokens(tree), strict=True):
        assert p[node, token] > 0
    if name == "walk":
        assert tree.child([0, *accepted.path][-1], accepted.token) is None
    assert torch.equal(p, before)


@given(trees_with_laws())
def test_walk_with_keyed_coins_gives_the_token_of_each_position(instance: tuple[DraftTree, Tensor]) -> None:
    tree, p = instance
    coins = KeyedCoins(4)
    coins.seek(20)
    accepted = walk(tree, p, coins)
    for depth, (node, token) in enumerate(zip([0, *accepted.path], accepted.tokens(tree), strict=True)):
        alone = KeyedCoins(4)
        alone.seek(20 + depth)
        assert alone.categorical(p[node]) == token


def test_exclude_conditions_on_another_token() -> None:
    r = P[0].clone()
    assert exclude(r, 3).tolist() == [0.25, 0.5, 0.25, 0.0]
    assert exclude(exclude(r, 3), 1).tolist() == [0.5, 0.0, 0.5, 0.0]
    assert torch.equal(r, P[0])


class Shares(list[Any]):
    """A distribution in Fractions, with the tensor methods that a rule uses."""

    def clone(self) -> Shares:
        return Shares(self)

    def sum(self) -> Fraction:
        return sum(self, Fraction(0))

    def tolist(self) -> list[Any]:
        return list(self)

    def __truediv__(self, whole: Fraction) -> Shares:
        return Shares(share / whole for share in self)


@pytest.mark.parametrize("name", RULES)
def test_the_distribution_in_fractions_is_exactly_p(name: str) -> None:
    """At every node Q(reaches it, then emits x) = Q(reaches it) p(x), without rounding."""
    tree = DraftTree.of([0, 3, 2, 1, 1, 0, 3], [-1, 0, 0, 0, 1, 1, 4])
    counts = [[1, 2, 0, 4], [3, 1, 0, 1], [1, 1, 1, 1], [0, 0, 5, 0], [2, 3, 5, 7], [1, 0, 0, 0], [9, 1, 1, 2]]
    p = [Shares(Fraction(n, sum(row)) for n in row) for row in counts]
    joint: dict[int, list[Fraction]] = defaultdict(lambda: [Fraction(0)] * 4)
    for accepted, weight in executions(lambda coins: RULES[name](tree, cast(Tensor, p), coins)):
        for tokens, share in unfold(accepted.tokens(tree)):
            for node, token in zip([0, *accepted.path], tokens, strict=True):
                joint[node][token] += weight * share
    assert len(joint) == 6  # node 2 is refused for certain, for p(2) = 0 at the root
    assert all(emitted == [sum(emitted) * share for share in p[node]] for node, emitted in joint.items())
    assert sum(joint[0]) == 1


@pytest.mark.parametrize("name", RULES)
def test_induction_costs_one_execution_for_each_node(name: str) -> None:
    """For a vocabulary of 32,000 and EAGLE-2's largest tree."""
    generator = torch.Generator().manual_seed(3)
    parents = [-1, *(int(torch.randint(max(0, i - 12), i + 1, (), generator=generator)) for i in range(59))]
    p = torch.randn(60, 32_000, generator=generator, dtype=torch.float64).mul(4).softmax(-1)
    tokens = [7, *(int(p[parent].topk(40).indices[i % 40]) for i, parent in enumerate(parents[1:]))]
    runs = 0

    def counted(tree: DraftTree, p: Tensor, coins: Coins) -> Accepted:
        nonlocal runs
        runs += 1
        return RULES[name](tree, p, coins)

    assert rule_deviation(counted, DraftTree.of(tokens, parents), p).distance <= 1e-12 and runs == 60
