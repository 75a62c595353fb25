"""Tests of THEORY-1 to THEORY-5: a fault for rules that accept too little or too much, and for trees that shrink."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.eagle2 import Eagle2, TreeBudget
from eagle2_ref.rules import Accepted, Rule, exclude, reject, sampled, walk
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.case import Case
from harness.catalogue import Check
from harness.implementations import Implementation
from harness.implementations.reference import Engine
from harness.mutants.planting import Fault, faulty_sampled
from harness.record.model import Result
from properties.meta.helpers.checks import result_of
from properties.test_theory import (
    GROWING,
    ROUNDING,
    acceptance_of_chosen_trees,
    acceptance_of_sampled_drafts,
    chains_grow_with_depth,
    optimum,
    path_probabilities,
    tokens_of_sampled_chains,
    trees_grow_with_m,
)


def result_of_rule(check: Check, rule: Rule) -> Result:
    """The result of a check on an acceptance rule alone."""
    capabilities = frozenset({"sampled", "accept", "deterministic", "tau", "budget"})
    make: Callable[..., Any] = lambda target, draft=None, **_: SimpleNamespace(rule=rule)  # noqa: ARG005, E731
    return result_of(check, Implementation("a rule", make, capabilities=capabilities))


# --- chosen trees --------------------------------------------------------------------------------------------------


def one_layer_only(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    """A lossless rule that accepts at most one node."""
    path = walk(tree, p, coins).path[:1]
    return Accepted(path, coins.categorical(p[path[-1] if path else ROOT]))


@pytest.mark.parametrize("rule", [walk, reject])
def test_reference_rules_accept_as_much_as_possible(rule: Rule) -> None:
    assert result_of_rule(acceptance_of_chosen_trees, rule).verdict == "pass"


def test_rule_that_accepts_too_little_is_a_fault() -> None:
    result = result_of_rule(acceptance_of_chosen_trees, one_layer_only)
    assert result.verdict == "fault" and result.effect and result.effect.value > ROUNDING


def test_path_probability_is_a_product() -> None:
    tree = DraftTree.of([9, 0, 1, 0], [-1, 0, 0, 2])
    p = torch.tensor([[0.5, 0.25, 0.25], [1, 0, 0], [0.1, 0.2, 0.7], [0, 0, 1]], dtype=torch.float64)
    assert path_probabilities(tree, p).tolist() == pytest.approx([1, 0.5, 0.25, 0.025])


# --- sampled drafts ------------------------------------------------------------------------------------------------


RIGHT = [sampled, faulty_sampled()]
WRONG = {
    "a rejected token can be sampled again": faulty_sampled(rest=lambda r, _q, _x: r),
    "later siblings count as sampled with replacement": faulty_sampled(then=lambda q, _x: q),
    "a draft is accepted as if q were 1": faulty_sampled(accepts=lambda r, _q, x: r[x], rest=lambda r, _q, x: exclude(r, x)),
    "nothing is accepted": faulty_sampled(accepts=lambda _r, _q, _x: 0.0, rest=lambda r, _q, _x: r),
    "everything is accepted": faulty_sampled(accepts=lambda _r, _q, _x: 1.0),
}


@pytest.mark.parametrize("check", [acceptance_of_sampled_drafts, tokens_of_sampled_chains], ids=lambda check: check.id)
@pytest.mark.parametrize("rule", RIGHT)
def test_correct_rule_for_sampled_drafts_passes(rule: Rule, check: Check) -> None:
    result = result_of_rule(check, rule)
    assert result.verdict == "pass", result.summary


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_rule_for_sampled_drafts_is_a_fault(fault: str) -> None:
    result = result_of_rule(acceptance_of_sampled_drafts, WRONG[fault])
    assert result.verdict == "fault", result.summary


@pytest.mark.parametrize("fault", ["a draft is accepted as if q were 1", "nothing is accepted", "everything is accepted"])
def test_wrong_rule_changes_the_tokens_of_a_chain(fault: str) -> None:
    assert result_of_rule(tokens_of_sampled_chains, WRONG[fault]).verdict == "fault"


def test_optimum_of_small_examples() -> None:
    """One draft: the overlap of p and q. Two drafts of two tokens: all of p. Disjoint laws: 0."""
    p, q = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.4, 0.6], dtype=torch.float64)
    assert optimum(p, q, 1) == pytest.approx(0.7) and optimum(p, q, 2) == pytest.approx(1.0)
    assert optimum(torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0.5]), 2) == pytest.approx(0.0)


# --- trees that grow -----------------------------------------------------------------------------------------------


class Fewer(Fault):
    """With a larger budget the head proposes its least likely tokens: no tree is part of a larger one."""

    class FaultyDrafter(Eagle2):
        def __init__(
            self, head: Any, lm_head: Callable[[Tensor], Tensor], budget: TreeBudget, vocabulary: Tensor | None = None
        ) -> None:
            super().__init__(head, (lambda features: -lm_head(features)) if budget.m > 5 else lm_head, budget, vocabulary)


@pytest.mark.parametrize("check", [trees_grow_with_m, chains_grow_with_depth], ids=lambda check: check.id)
@pytest.mark.parametrize("case", GROWING, ids=str)
def test_trees_that_do_not_grow_are_a_fault(check: Check, case: Case) -> None:
    found = result_of(check, Implementation("fewer", Fewer, capabilities=Fewer.capabilities), case)
    assert found.verdict == "fault" and "was drafted with the smaller budget" in found.summary
    correct = result_of(check, Implementation("ref", Engine, capabilities=Engine.capabilities), case)
    assert correct.verdict == "pass" and int(correct.measured["accepted more"]) > 0
