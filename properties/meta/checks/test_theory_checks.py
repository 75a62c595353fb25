"""The checks THEORY-1 to THEORY-5 themselves: red for rules that accept too little or too much, and for trees that shrink."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.rules import Accepted, Rule, exclude, reject, residual, sampled, walk
from eagle2_ref.tree import ROOT, DraftTree, SampledTree, Tree
from harness.implementations import Implementation
from harness.implementations.reference import Engine
from harness.mutants.planting import PlantedChildren
from harness.record.model import Result
from properties.cells import Cell
from properties.meta.helpers.run_check import heard
from properties.test_theory import GROWING, optimum, reached


def judged(claim: str, rule: Rule, **options: Any) -> Result:
    """A bare rule, of whatever trees, heard on a claim."""
    able = frozenset({"sampled", "accept", "deterministic", "tau", "budget"})
    make: Callable[..., Any] = lambda target, draft=None, **_: SimpleNamespace(rule=rule)  # noqa: ARG005, E731
    return heard(claim, Implementation("a rule", make, capabilities=able), **options)


# --- chosen trees --------------------------------------------------------------------------------------------------


def one_layer_only(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """Lossless, but never goes deeper than one node."""
    path = walk(tree, p, coins).path[:1]
    return Accepted(path, coins.categorical(p[path[-1] if path else ROOT]))


@pytest.mark.parametrize("rule", [walk, reject])
def test_our_rules_accept_all_there_is(rule: Rule) -> None:
    assert judged("THEORY-1", rule).verdict == "pass"


def test_a_wasteful_rule_is_seen() -> None:
    result = judged("THEORY-1", one_layer_only)
    assert result.verdict == "fault" and "the product of p along its path" in result.summary


def test_reached_is_the_product_of_a_path() -> None:
    tree = DraftTree.of([9, 0, 1, 0], [-1, 0, 0, 2])
    p = torch.tensor([[0.5, 0.25, 0.25], [1, 0, 0], [0.1, 0.2, 0.7], [0, 0, 1]], dtype=torch.float64)
    assert reached(tree, p).tolist() == pytest.approx([1, 0.5, 0.25, 0.025])


# --- drawn ones ----------------------------------------------------------------------------------------------------


def altered(
    accepts: Callable[[Tensor, Tensor, int], Any] = lambda r, q, x: r[x] / q[x],
    rest: Callable[[Tensor, Tensor, int], Tensor] = lambda r, q, _x: residual(r, q),
    then: Callable[[Tensor, int], Tensor] = exclude,
) -> Rule:
    """`sampled`, with a part of it changed."""

    def rule(tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        path: list[int] = []
        node = ROOT
        while True:
            r, q = p[node], tree.q[node]
            for child in tree.children(node):
                x = tree.token(child)
                if coins.uniform() < accepts(r, q, x):
                    break
                r, q = rest(r, q, x), then(q, x)
            else:
                return Accepted(path, coins.categorical(r))
            path.append(child)
            node = child

    return rule


RIGHT = [sampled, altered()]
WRONG = {
    "what is refused is drawn from p again": altered(rest=lambda r, _q, _x: r),
    "later siblings are judged as if drawn with replacement": altered(then=lambda q, _x: q),
    "a draft is kept as if it had been certain": altered(accepts=lambda r, _q, x: r[x], rest=lambda r, _q, x: exclude(r, x)),
    "nothing is kept": altered(accepts=lambda _r, _q, _x: 0.0, rest=lambda r, _q, _x: r),
    "everything is kept": altered(accepts=lambda _r, _q, _x: 1.0),
}


@pytest.mark.parametrize("claim", ["THEORY-2", "THEORY-3"])
@pytest.mark.parametrize("rule", RIGHT)
def test_the_rule_of_drawn_trees_accepts_as_much_as_is_proved(rule: Rule, claim: str) -> None:
    result = judged(claim, rule)
    assert result.verdict == "pass", result.summary


@pytest.mark.parametrize("fault", WRONG)
def test_a_rule_that_is_off_is_seen(fault: str) -> None:
    result = judged("THEORY-2", WRONG[fault])
    assert result.verdict == "fault", result.summary


@pytest.mark.parametrize("fault", ["a draft is kept as if it had been certain", "nothing is kept", "everything is kept"])
def test_tokens_of_a_chain_are_counted(fault: str) -> None:
    assert judged("THEORY-3", WRONG[fault]).verdict == "fault"


def test_the_optimum_by_hand() -> None:
    """One draft: the overlap of p and q. Two of two tokens: all of p, for both are offered. Disjoint: nothing."""
    p, q = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.4, 0.6], dtype=torch.float64)
    assert optimum(p, q, 1) == pytest.approx(0.7) and optimum(p, q, 2) == pytest.approx(1.0)
    assert optimum(torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0.5]), 2) == pytest.approx(0.0)


# --- trees that grow -----------------------------------------------------------------------------------------------


class Fewer(PlantedChildren):
    """With a larger budget the head is asked for its least likely tokens: no tree is part of a larger one."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        drafter = self.decoder.drafter
        assert isinstance(drafter, Eagle2)
        lm_head, budget = drafter.lm_head, drafter.budget
        drafter.lm_head = (lambda features: -lm_head(features)) if budget.m > 5 else lm_head
        try:
            return grow(features, values, parents)
        finally:
            drafter.lm_head = lm_head


@pytest.mark.parametrize("claim", ["THEORY-4", "THEORY-5"])
@pytest.mark.parametrize("cell", GROWING, ids=str)
def test_trees_that_do_not_grow_are_seen(claim: str, cell: Cell) -> None:
    found = heard(claim, Implementation("fewer", Fewer, capabilities=Fewer.capabilities), cell=cell)
    assert found.verdict == "fault" and "was drafted with the smaller budget" in found.summary
    right = heard(claim, Implementation("ref", Engine, capabilities=Engine.capabilities), cell=cell)
    assert right.verdict == "pass" and int(right.measured["accepted more"]) > 0
