"""The rule `sampled`, over samples and coins together, and the lossy rule `typical`, node by node."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable
from typing import get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eagle2_ref.coins import Coins, ScriptedCoins
from eagle2_ref.drafters.eagle2 import rerank
from eagle2_ref.drafters.tree_choices import Choice, choices
from eagle2_ref.rules import Accepted, Rule, reject, residual, rule_for, sampled, typical, walk
from eagle2_ref.tree import ROOT, DraftTree, SampledTree
from harness.enumeration.coins import executions, unfold
from harness.enumeration.induction import rule_deviation
from properties.strategies import laws

LAST = math.nextafter(1.0, 0.0)
SHAPES = ("0", "0 00", "0 00 000", "0 1", "0 1 2", "0 1 00", "0 1 10", "0 1 00 10", "0 1 00 01")
Law = Callable[[tuple[int, ...]], Tensor]
"""Of the token that follows a path of tokens."""


def row(*shares: float) -> Tensor:
    return torch.tensor(shares, dtype=torch.float64)


@st.composite
def laws_of_paths(draw: st.DrawFn, vocab_size: int) -> Law:
    """A distribution after every path: flat, peaked, with ties and zeros."""
    drawn = [torch.tensor(draw(laws(vocab_size)), dtype=torch.float64) for _ in range(3)]
    return lambda path: drawn[sum((i + 1) * (x + 1) for i, x in enumerate(path)) % len(drawn)]


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[Choice], Law, Law]:
    """A shape, and p and q after every path. Wide shapes have three tokens, so that executions are few."""
    shape = draw(st.sampled_from(SHAPES))
    vocab_size = draw(st.integers(2, 3 if len(shape) > 4 else 4))
    return choices(shape), draw(laws_of_paths(vocab_size)), draw(laws_of_paths(vocab_size))


def sampled_tree(shape: list[Choice], q: Law, coins: Coins) -> tuple[SampledTree, list[tuple[int, ...]]]:
    """A tree of this shape, sampled from q without replacement, and the path of every node. Places stay empty where q has no
    further token."""
    paths: dict[Choice, tuple[int, ...]] = {(): ()}
    for *above, rank in shape:
        parent = tuple(above)
        if parent not in paths or (rank and (*parent, rank - 1) not in paths):
            continue
        left = q(paths[parent]).clone()
        left[[paths[(*parent, earlier)][-1] for earlier in range(rank)]] = 0
        if left.sum() > 0:
            paths[(*parent, rank)] = (*paths[parent], int(coins.categorical(left / left.sum())))
    place = {choice: node for node, choice in enumerate(paths)}
    tokens = [0, *(path[-1] for path in paths.values() if path)]
    parents = [-1, *(place[choice[:-1]] for choice in paths if choice)]
    laws = torch.stack([q(path) for path in paths.values()])
    return SampledTree(torch.tensor(tokens), torch.tensor(parents), laws), list(paths.values())


def run(shape: list[Choice], p: Law, q: Law, coins: Coins, rule: Rule = sampled) -> tuple[Accepted, SampledTree]:
    tree, paths = sampled_tree(shape, q, coins)
    return rule(tree, torch.stack([p(path) for path in paths]), coins), tree


@given(instances(), st.sampled_from([sampled, reject, walk]))
def test_over_all_samples_the_next_token_has_distribution_p(instance: tuple[list[Choice], Law, Law], rule: Rule) -> None:
    """Q(emits a path, then x) = Q(emits the path, then anything) p(x). Also for the rules that do not use q."""
    shape, p, q = instance
    joint: dict[tuple[int, ...], Tensor] = defaultdict(lambda: torch.zeros_like(p(())))
    for (accepted, tree), weight in executions(lambda coins: run(shape, p, q, coins, rule)):
        for tokens, share in unfold(accepted.tokens(tree)):
            for i, token in enumerate(tokens):
                joint[tokens[:i]][token] += weight * share
    assert float(joint[()].sum()) == pytest.approx(1, abs=1e-12)
    assert all((emitted - emitted.sum() * p(path)).abs().sum() <= 1e-12 for path, emitted in joint.items())


@given(instances())
def test_with_q_equal_to_p_the_first_child_is_always_accepted(instance: tuple[list[Choice], Law, Law]) -> None:
    shape, p, _ = instance
    for (accepted, tree), _weight in executions(lambda coins: run(shape, p, p, coins)):
        node = ROOT
        while tree.children(node):
            node = tree.children(node)[0]
        assert accepted.path == tree.path(node)


# One child, token 0, of p = 1/4 and q = 1/2: kept below 1/2. What p lacks then is {1: 1/4, 2: 1/4, 3: 0} / (1/2).
ONE = SampledTree(torch.tensor([3, 0]), torch.tensor([-1, 0]), torch.stack([row(0.5, 0.25, 0, 0.25), row(0, 0, 0, 0)]))
P = torch.stack([row(0.25, 0.5, 0.25, 0), row(0, 0, 0.5, 0.5)])


@pytest.mark.parametrize(
    ("coins", "path", "token"),
    [
        ([0.0, 0.0], [1], 2),
        ([math.nextafter(0.5, 0), LAST], [1], 3),
        ([0.5, 0.0], [], 1),
        ([0.5, math.nextafter(0.5, 0)], [], 1),
        ([LAST, 0.5], [], 2),
        ([LAST, LAST], [], 2),
    ],
    ids=str,
)
def test_a_token_is_accepted_strictly_below_p_over_q(coins: list[float], path: list[int], token: int) -> None:
    """One number for each child; then one token, from p after an accepted child, from (p - q)+ after a rejected one."""
    script = ScriptedCoins(coins)
    assert sampled(ONE, P, script) == Accepted(path, token)
    with pytest.raises(StopIteration):
        script.uniform()


@pytest.mark.parametrize("coin", [0.0, LAST])
def test_at_temperature_0_a_token_is_accepted_if_it_is_the_targets(coin: float) -> None:
    q = torch.stack([row(1, 0, 0, 0), row(0, 0, 0, 0)])
    tree = SampledTree(torch.tensor([3, 0]), torch.tensor([-1, 0]), q)
    for best in range(4):
        p = torch.nn.functional.one_hot(torch.tensor([best, 2]), 4).double()
        assert sampled(tree, p, ScriptedCoins([coin, coin])) == (Accepted([1], 2) if best == 0 else Accepted([], best))


def test_residual_is_the_positive_part_renormalised() -> None:
    """After a rejection by rounding error p is returned."""
    assert residual(row(0.5, 0.25, 0.25), row(0.25, 0.5, 0.25)).tolist() == [1, 0, 0]
    assert residual(row(0.5, 0.5, 0), row(0, 0.25, 0.75)).tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert residual(row(0.5, 0.5), row(0.5, 0.5)).tolist() == [0.5, 0.5]


# --- the kinds of trees ----------------------------------------------------------------------------------------------


def test_tree_kinds_are_not_interchangeable() -> None:
    """Not for a type checker either: mypy would report an unused comment below if it accepted the call."""
    assert not issubclass(DraftTree, SampledTree) and not issubclass(SampledTree, DraftTree)
    assert get_type_hints(rerank)["return"] is DraftTree and get_type_hints(sampled)["tree"] is SampledTree
    assert hasattr(DraftTree, "truncate") and not hasattr(SampledTree, "truncate"), "no sampled node may be left out"
    with pytest.raises(AttributeError, match="'DraftTree' object has no attribute 'q'"):
        sampled(DraftTree.of([0, 1], [-1, 0]), torch.full((2, 4), 0.25), ScriptedCoins([0, 0]))  # type: ignore[arg-type]


def test_rule_for_applies_the_rule_of_the_kind() -> None:
    chosen = DraftTree(ONE.tokens, ONE.parents, torch.zeros(2))
    for coin in (0.1, 0.3, 0.6):  # kept below p / q = 1/2, or below p = 1/4
        assert rule_for(ONE, P, ScriptedCoins([coin, 0.7])) == sampled(ONE, P, ScriptedCoins([coin, 0.7]))
        assert rule_for(chosen, P, ScriptedCoins([coin, 0.7])) == reject(chosen, P, ScriptedCoins([coin, 0.7]))
    assert rule_for(ONE, P, ScriptedCoins([0.3, 0.0])).path != rule_for(chosen, P, ScriptedCoins([0.3, 0.0])).path


def test_rules_declare_the_trees_they_take() -> None:
    takes = {rule.__name__: inspect.signature(rule).parameters["tree"].annotation for rule in (walk, reject, sampled, typical)}
    assert takes == {"walk": "Tree", "reject": "Tree", "sampled": "SampledTree", "typical": "Tree"}


# --- typical acceptance ----------------------------------------------------------------------------------------------

# Root: tokens 0 (node 1) and 1 (node 2); node 1: token 2 (node 3); node 2: tokens 3 (node 4) and 0 (node 5).
TREE = DraftTree.of([9, 0, 1, 2, 3, 0], [-1, 0, 0, 1, 2, 2])
FLAT = row(0.25, 0.25, 0.25, 0.25)


def kept(*rows: Tensor, coin: float = 0.0) -> Accepted:
    """The path accepted by `typical`, with distributions after the root and nodes 1 and 2; flat after the leaves."""
    return typical(TREE, torch.stack([*rows, FLAT, FLAT, FLAT]), ScriptedCoins([coin]))


@pytest.mark.parametrize(
    ("root", "one", "two", "path"),
    [
        (FLAT, FLAT, FLAT, [1, 3]),  # of equally long and likely paths the first
        (row(0.25, 0.75, 0, 0), FLAT, FLAT, [2, 4]),  # the likelier
        (row(0.1, 0.9, 0, 0), FLAT, row(1, 0, 0, 0), [2, 5]),
        (row(0.1, 0.9, 0, 0), FLAT, row(0, 1, 0, 0), [1, 3]),  # the longer, though less likely
        (row(0.09, 0.91, 0, 0), FLAT, row(0, 1, 0, 0), [2]),  # 0.09 is not above 0.09
        (row(0.0, 0.0, 0.5, 0.5), FLAT, FLAT, []),  # likely leaves under refused nodes are not reached
    ],
)
def test_typical_accepts_the_longest_likely_path(root: Tensor, one: Tensor, two: Tensor, path: list[int]) -> None:
    assert kept(root, one, two).path == path


def test_typical_has_a_lower_threshold_at_high_entropy() -> None:
    tree, wide = DraftTree.of([0, 7], [-1, 0]), torch.full((2, 100), 0.01, dtype=torch.float64)
    assert typical(tree, wide, ScriptedCoins([0.0])).path == [1]
    sure = torch.zeros(2, 100, dtype=torch.float64)
    sure[:, 0], sure[:, 7] = 0.99, 0.01
    assert typical(tree, sure, ScriptedCoins([0.0])).path == []


@pytest.mark.parametrize(("share", "path"), [(0.08, []), (0.085, [1])])
def test_typical_threshold_is_three_tenths_of_inverse_perplexity(share: float, path: list[int]) -> None:
    p = row(share, *[(1 - share) / 3] * 3)
    assert typical(DraftTree.of([1, 0], [-1, 0]), torch.stack([p, FLAT]), ScriptedCoins([0.0])).path == path


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, LAST]))
def test_typical_at_temperature_0_is_greedy(a: int, b: int, c: int, coin: float) -> None:
    p = torch.nn.functional.one_hot(torch.tensor([a, b, c, a, b, c]), 4).double()
    assert typical(TREE, p, ScriptedCoins([coin])) == walk(TREE, p, ScriptedCoins([coin] * 3))


def test_typical_is_lossy() -> None:
    """A token of probability 1/4 is accepted for certain: total variation 3/4."""
    tree = DraftTree.of([9, 2], [-1, 0])
    found = rule_deviation(typical, tree, torch.stack([FLAT, FLAT]))
    assert (found.node, found.token) == (ROOT, 2)
    assert (found.distance, found.q) == pytest.approx((0.75, 1.0))
    assert rule_deviation(walk, tree, torch.stack([FLAT, FLAT])).distance <= 1e-12
