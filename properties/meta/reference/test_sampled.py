"""The rules `sampled`, over draws and coins together, and `typical`, which is lossy: node by node, on trees drawn here."""

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
    """A law behind every path, of a few that Hypothesis draws: flat, peaked, with ties and zeros."""
    drawn = [torch.tensor(draw(laws(vocab_size)), dtype=torch.float64) for _ in range(3)]
    return lambda path: drawn[sum((i + 1) * (x + 1) for i, x in enumerate(path)) % len(drawn)]


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[Choice], Law, Law]:
    """A shape, and p and q behind every path; the wider shapes with three tokens, so that executions stay few."""
    shape = draw(st.sampled_from(SHAPES))
    vocab_size = draw(st.integers(2, 3 if len(shape) > 4 else 4))
    return choices(shape), draw(laws_of_paths(vocab_size)), draw(laws_of_paths(vocab_size))


def drawn(shape: list[Choice], q: Law, coins: Coins) -> tuple[SampledTree, list[tuple[int, ...]]]:
    """A tree of this shape, slot by slot: a child is a draw from q without its earlier siblings; and the path of every node.

    Where q has no further token, the slot stays empty, and what is below it.
    """
    paths: dict[Choice, tuple[int, ...]] = {(): ()}
    for *above, rank in shape:
        parent = tuple(above)
        if parent not in paths or (rank and (*parent, rank - 1) not in paths):
            continue
        left = q(paths[parent]).clone()
        left[[paths[(*parent, earlier)][-1] for earlier in range(rank)]] = 0
        if left.sum() > 0:
            paths[(*parent, rank)] = (*paths[parent], int(coins.categorical(left / left.sum())))
    place = {slot: node for node, slot in enumerate(paths)}
    tokens = [0, *(path[-1] for path in paths.values() if path)]
    parents = [-1, *(place[slot[:-1]] for slot in paths if slot)]
    laws = torch.stack([q(path) for path in paths.values()])
    return SampledTree(torch.tensor(tokens), torch.tensor(parents), laws), list(paths.values())


def run(shape: list[Choice], p: Law, q: Law, coins: Coins, rule: Rule = sampled) -> tuple[Accepted, SampledTree]:
    tree, paths = drawn(shape, q, coins)
    return rule(tree, torch.stack([p(path) for path in paths]), coins), tree


@given(instances(), st.sampled_from([sampled, reject, walk]))
def test_over_draws_and_coins_the_next_token_is_one_from_p(instance: tuple[list[Choice], Law, Law], rule: Rule) -> None:
    """Wherever a block gets to: Q(emits a path, then x) = Q(emits the path, then anything) p(x), for every path and x.

    Also by the rules that do not look at q: a draft that was drawn is, once it is there, a proposal like any other.
    """
    shape, p, q = instance
    joint: dict[tuple[int, ...], Tensor] = defaultdict(lambda: torch.zeros_like(p(())))
    for (accepted, tree), weight in executions(lambda coins: run(shape, p, q, coins, rule)):
        for tokens, share in unfold(accepted.tokens(tree)):
            for i, token in enumerate(tokens):
                joint[tokens[:i]][token] += weight * share
    assert float(joint[()].sum()) == pytest.approx(1, abs=1e-12)
    assert all((emitted - emitted.sum() * p(path)).abs().sum() <= 1e-12 for path, emitted in joint.items())


@given(instances())
def test_a_drafter_that_knows_p_is_never_refused(instance: tuple[list[Choice], Law, Law]) -> None:
    """q = p: the first child of every node is accepted, down to a leaf."""
    shape, p, _ = instance
    for (accepted, tree), _weight in executions(lambda coins: run(shape, p, p, coins)):
        node = ROOT
        while tree.children(node):
            node = tree.children(node)[0]
        assert accepted.path == tree.path(node)


def test_disjoint_supports_accept_nothing() -> None:
    """What p gives to no draft: none is kept, and the one token is a draw from p itself."""
    p, q = row(0.25, 0.75, 0, 0), row(0, 0, 0.5, 0.5)
    found = torch.zeros(4, dtype=torch.float64)
    for (accepted, _), weight in executions(lambda coins: run(choices("0 1 00"), lambda _: p, lambda _: q, coins)):
        assert not accepted.path
        for (token,), share in unfold([accepted.token]):
            found[token] += weight * share
    assert torch.allclose(found, p, atol=1e-15)


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
def test_a_draft_is_kept_below_p_over_q(coins: list[float], path: list[int], token: int) -> None:
    """One coin a child, strictly below; then one draw, from p behind a kept child and from (p - q)+ behind a refused one."""
    script = ScriptedCoins(coins)
    assert sampled(ONE, P, script) == Accepted(path, token)
    with pytest.raises(StopIteration):
        script.uniform()


@pytest.mark.parametrize("coin", [0.0, LAST])
def test_a_certain_draft_is_compared(coin: float) -> None:
    """At temperature 0, where p and q are point masses, a draft is kept if and only if it is the target's token."""
    q = torch.stack([row(1, 0, 0, 0), row(0, 0, 0, 0)])
    tree = SampledTree(torch.tensor([3, 0]), torch.tensor([-1, 0]), q)
    for best in range(4):
        p = torch.nn.functional.one_hot(torch.tensor([best, 2]), 4).double()
        assert sampled(tree, p, ScriptedCoins([coin, coin])) == (Accepted([1], 2) if best == 0 else Accepted([], best))


def test_what_is_lacking() -> None:
    """(p - q)+ renormalised; where rounding alone has refused a draft nothing is lacking, and p stays."""
    assert residual(row(0.5, 0.25, 0.25), row(0.25, 0.5, 0.25)).tolist() == [1, 0, 0]
    assert residual(row(0.5, 0.5, 0), row(0, 0.25, 0.75)).tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert residual(row(0.5, 0.5), row(0.5, 0.5)).tolist() == [0.5, 0.5]


# --- the kinds of trees ----------------------------------------------------------------------------------------------


def test_trees_that_were_chosen_are_none_that_were_drawn() -> None:
    """To no rule: what is reranked is chosen, and what is chosen has no q to be judged by. Nor to a type checker: mypy, which is
    strict here, would call the comment below needless if it let the call pass."""
    assert not issubclass(DraftTree, SampledTree) and not issubclass(SampledTree, DraftTree)
    assert get_type_hints(rerank)["return"] is DraftTree and get_type_hints(sampled)["tree"] is SampledTree
    assert not hasattr(SampledTree, "down_to"), "nothing of a drawn tree is left out"
    with pytest.raises(AttributeError, match="'DraftTree' object has no attribute 'q'"):
        sampled(DraftTree.of([0, 1], [-1, 0]), torch.full((2, 4), 0.25), ScriptedCoins([0, 0]))  # type: ignore[arg-type]


def test_each_kind_by_its_rule() -> None:
    """A drawn tree by p/q, a chosen one as if each node had been certain: coin for coin."""
    chosen = DraftTree(ONE.tokens, ONE.parents, torch.zeros(2))
    for coin in (0.1, 0.3, 0.6):  # kept below p / q = 1/2, or below p = 1/4
        assert rule_for(ONE, P, ScriptedCoins([coin, 0.7])) == sampled(ONE, P, ScriptedCoins([coin, 0.7]))
        assert rule_for(chosen, P, ScriptedCoins([coin, 0.7])) == reject(chosen, P, ScriptedCoins([coin, 0.7]))
    assert rule_for(ONE, P, ScriptedCoins([0.3, 0.0])).path != rule_for(chosen, P, ScriptedCoins([0.3, 0.0])).path


def test_rules_say_what_trees_they_take() -> None:
    """Those that need no q take every tree."""
    takes = {rule.__name__: inspect.signature(rule).parameters["tree"].annotation for rule in (walk, reject, sampled, typical)}
    assert takes == {"walk": "Tree", "reject": "Tree", "sampled": "SampledTree", "typical": "Tree"}


# --- typical acceptance ----------------------------------------------------------------------------------------------

# Root: tokens 0 (node 1) and 1 (node 2); node 1: token 2 (node 3); node 2: tokens 3 (node 4) and 0 (node 5).
TREE = DraftTree.of([9, 0, 1, 2, 3, 0], [-1, 0, 0, 1, 2, 2])
FLAT = row(0.25, 0.25, 0.25, 0.25)


def kept(*rows: Tensor, coin: float = 0.0) -> Accepted:
    """With laws behind the root and nodes 1, 2; flat behind the leaves."""
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
def test_typical_keeps_the_longest_of_what_is_likely_enough(root: Tensor, one: Tensor, two: Tensor, path: list[int]) -> None:
    assert kept(root, one, two).path == path


def test_typical_asks_less_of_a_law_that_is_uncertain() -> None:
    """Of 100 equally likely tokens 0.3 exp(-H) = 0.003 is asked, of one that is nearly certain 0.09: 0.01 passes there alone."""
    tree, wide = DraftTree.of([0, 7], [-1, 0]), torch.full((2, 100), 0.01, dtype=torch.float64)
    assert typical(tree, wide, ScriptedCoins([0.0])).path == [1]
    sure = torch.zeros(2, 100, dtype=torch.float64)
    sure[:, 0], sure[:, 7] = 0.99, 0.01
    assert typical(tree, sure, ScriptedCoins([0.0])).path == []


@pytest.mark.parametrize(("share", "path"), [(0.08, []), (0.085, [1])])
def test_typical_asks_three_tenths_of_the_inverse_perplexity(share: float, path: list[int]) -> None:
    """Beside three others of equal share: 0.3 exp(-H) is 0.0827 for the one, and 0.0821 for the other."""
    p = row(share, *[(1 - share) / 3] * 3)
    assert typical(DraftTree.of([1, 0], [-1, 0]), torch.stack([p, FLAT]), ScriptedCoins([0.0])).path == path


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, LAST]))
def test_typical_at_temperature_0_is_greedy(a: int, b: int, c: int, coin: float) -> None:
    """Of point masses exactly the target's own path is kept, then its own token."""
    p = torch.nn.functional.one_hot(torch.tensor([a, b, c, a, b, c]), 4).double()
    assert typical(TREE, p, ScriptedCoins([coin])) == walk(TREE, p, ScriptedCoins([coin] * 3))


def test_typical_is_lossy() -> None:
    """A drafted token of probability 1/4 comes for certain: the law is off by a total variation of 3/4."""
    tree = DraftTree.of([9, 2], [-1, 0])
    found = rule_deviation(typical, tree, torch.stack([FLAT, FLAT]))
    assert (found.node, found.token) == (ROOT, 2)
    assert (found.distance, found.q) == pytest.approx((0.75, 1.0))
    assert rule_deviation(walk, tree, torch.stack([FLAT, FLAT])).distance <= 1e-12
