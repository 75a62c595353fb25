"""Chapter THEORY: as much is accepted as the papers prove: no less, and no more than any lossless rule can accept."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import given
from scipy.optimize import linprog
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins
from eagle2_ref.rules import Accepted, Rule, exclude
from eagle2_ref.tree import ROOT, DraftTree, SampledTree
from harness.case import Case, by_id
from harness.catalogue import check
from harness.context import Context
from harness.enumeration.coins import executions, unfold
from harness.implementations.engine import BlockTrace
from harness.pairs import Pair, shipped
from harness.record.model import Result
from properties import strategies
from properties.strategies import pairs_of_laws, trees_with_laws

ROUNDING = 1e-12
SOLVER = 1e-9
"""Precision of a linear program."""

INSTANCES = 150

GROWING = [Case("dice8", {"temperature": 1.0}, 3, 4, 2), Case("dice8", {"temperature": 0.7}, 4, 4, 3)]
PROMPTS = 48
STEPS = (1, 2, 3, 5, 8)
"""Numbers of nodes by which a tree grows, and depths of a chain."""


# --- acceptance of a rule ------------------------------------------------------------------------------------------


@check("THEORY-1")
def acceptance_of_chosen_trees(context: Context) -> Result:
    """A node of a deterministic draft tree is accepted with the product of p along its path, which no lossless rule exceeds: a
    pass emits 1 plus the sum of these products.

    EAGLE-2, section 4.1: the target's own text goes that way as often, so that values which are true probabilities are what to
    choose nodes by. Random trees and laws. Not required of rules from outside: one that accepts less is slower, but lossless.
    """
    context.implementation.require("accept", "deterministic", "tau")
    rule, instances, worst = _rule(context), 0, 0.0

    @hypothesis.seed(1)
    @strategies.instances(INSTANCES)
    @given(trees_with_laws())
    def compare(instance: tuple[DraftTree, Tensor]) -> None:
        nonlocal instances, worst
        instances += 1
        tree, p = instance
        expected, accepted_with = path_probabilities(tree, p), torch.zeros(len(tree), dtype=torch.float64)
        for accepted, weight in executions(lambda coins: rule(tree, p.clone(), coins)):
            accepted_with[accepted.path] += float(weight)
        worst = max(worst, float((accepted_with - expected)[1:].abs().max()) if len(tree) > 1 else 0.0)
        assert worst <= ROUNDING

    try:
        compare()
    except Exception:
        if worst <= ROUNDING:
            raise
        reason = f"the probability that a node is accepted, the product of p along its path, is off by {worst:.3g}"
        return context.result("fault", reason, effect=(worst, "probability"))
    return context.result(
        "pass",
        f"{instances} trees, every node within {worst:.1e}",
        measured={"instances": instances, "difference": worst},
        work=(instances, "instances"),
        effect=(worst, "probability"),
        detectable=(ROUNDING, "probability"),
    )


def path_probabilities(tree: DraftTree, p: Tensor) -> Tensor:
    """Probability [m + 1] that the target's own text goes to each node: the product of p along its path."""
    found = torch.ones(len(tree), dtype=torch.float64)
    for node in range(1, len(tree)):
        found[node] = found[tree.parent(node)] * p[tree.parent(node), tree.token(node)]
    return found


LAW, ACCEPTANCE, ABOVE_OPTIMUM, FEWER = "the law", "acceptance", "what the optimum does not allow", "fewer with more drafts"


@check("THEORY-2")
def acceptance_of_sampled_drafts(context: Context) -> Result:
    """One draft token sampled from q is accepted with probability 1 - TV(p, q), and over its sampling the emitted token has the
    law p.

    Leviathan et al. 2023, section 3 and appendix A.1. Of several drafts, sampled without replacement, one is accepted the more
    often the more there are, and never more often than optimal transport allows (Sun et al. 2023, arXiv 2310.15141), which is
    a linear program over sets of drafts and tokens. Random p and q, with zeros, ties and near-certainties.
    """
    context.implementation.require("sampled")
    rule, instances, gaps = _rule(context), 0, [0.0]
    worst = dict.fromkeys((LAW, ACCEPTANCE, ABOVE_OPTIMUM, FEWER), 0.0)

    @hypothesis.seed(2)
    @strategies.instances(INSTANCES)
    @given(pairs_of_laws())
    def compare(laws: tuple[Tensor, Tensor]) -> None:
        nonlocal instances
        instances += 1
        p, q = laws
        rates = []
        for drafts in range(1, min(3, int((q > 0).sum())) + 1):
            emitted, rate = one_layer(rule, p, q, drafts)
            best = optimum(p, q, drafts)
            rates.append(rate)
            gaps.append(best - rate)
            worst[LAW] = max(worst[LAW], float((emitted - p).abs().sum()) / 2)
            worst[ABOVE_OPTIMUM] = max(worst[ABOVE_OPTIMUM], rate - best - SOLVER)
        worst[ACCEPTANCE] = max(worst[ACCEPTANCE], abs(rates[0] - float(torch.minimum(p, q).sum())))
        worst[FEWER] = max(worst[FEWER], *(a - b for a, b in pairwise(rates)), 0.0)
        assert max(worst.values()) <= ROUNDING

    try:
        compare()
    except Exception:
        name = max(worst, key=lambda name: worst[name])
        if worst[name] <= ROUNDING:
            raise
        return context.result("fault", f"{name} is off by {worst[name]:.3g}", effect=(worst[name], "probability"))
    return context.result(
        "pass",
        f"{instances} laws: acceptance is 1 - TV to {worst[ACCEPTANCE]:.1e}, and at most {max(gaps):.2f} below the optimum",
        measured={"instances": instances, **worst, "largest gap to the optimum": max(gaps), "mean gap": float(np.mean(gaps))},
        work=(instances, "instances"),
        effect=(max(worst.values()), "probability"),
        detectable=(ROUNDING, "probability"),
    )


def one_layer(rule: Rule, p: Tensor, q: Tensor, drafts: int) -> tuple[Tensor, float]:
    """Over all drafts and random numbers: the law of the first token [V], and the probability that it was a draft."""
    emitted, accepted = torch.zeros_like(p), 0.0
    for (tokens, is_draft), weight in executions(lambda coins: _sample_one_layer(rule, p, q, drafts, coins)):
        accepted += float(weight) * is_draft
        for text, share in unfold(tokens[:1]):
            emitted[text[0]] += float(weight) * share
    return emitted, accepted


def _sample_one_layer(rule: Rule, p: Tensor, q: Tensor, drafts: int, coins: Coins) -> tuple[list[int], bool]:
    left, tokens = q, [0]
    for _ in range(drafts):
        tokens.append(int(coins.categorical(left)))
        left = exclude(left, tokens[-1])
    tree = SampledTree(torch.tensor(tokens), torch.tensor([-1, *[ROOT] * drafts]), q.expand(drafts + 1, -1))
    accepted = rule(tree, p.expand(drafts + 1, -1), coins)
    return accepted.tokens(tree), bool(accepted.path)


def optimum(p: Tensor, q: Tensor, drafts: int) -> float:
    """Largest probability with which a lossless rule can emit one of `drafts` tokens sampled from q without replacement.

    A linear program: mass moves from sets of drafts S, which have probability Q(S), to tokens of S, each of which receives at
    most p(x).
    """
    sets: dict[frozenset[int], float] = {}
    for order in permutations([x for x in range(len(q)) if q[x] > 0], drafts):
        left, probability = 1.0, 1.0
        for x in order:
            probability *= float(q[x]) / left
            left -= float(q[x])
        sets[frozenset(order)] = sets.get(frozenset(order), 0.0) + probability
    moves = [(row, x) for row, each in enumerate(sets) for x in sorted(each)]
    limits = np.zeros((len(sets) + len(p), len(moves)))
    for column, (row, x) in enumerate(moves):
        limits[row, column] = limits[len(sets) + x, column] = 1
    solved = linprog(-np.ones(len(moves)), limits, [*sets.values(), *p.tolist()])
    assert solved.success, solved.message
    return float(-solved.fun)


@check("THEORY-3")
def tokens_of_sampled_chains(context: Context) -> Result:
    """A chain of n sampled drafts, each accepted with probability a, emits (1 - a^(n + 1)) / (1 - a) tokens a pass.

    Leviathan et al. 2023, equation 1: p and q are the same after every token, so that acceptances are independent.
    """
    context.implementation.require("sampled")
    rule, worst, chains = _rule(context), 0.0, 0
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for q in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]):
        law = torch.tensor(q, dtype=torch.float64)
        a = float(torch.minimum(p, law).sum())
        for n in range(1, 5):
            runs = executions(lambda coins: _sample_chain(rule, p, law, n, coins))  # noqa: B023
            tokens = sum(float(weight) * (len(accepted.path) + 1) for accepted, weight in runs)
            worst, chains = max(worst, abs(tokens - sum(a**i for i in range(n + 1)))), chains + 1
    effect = (worst, "tokens per pass")
    if worst > ROUNDING:
        reason = f"tokens per pass are {worst:.3g} from the number for independent acceptances"
        return context.result("fault", reason, effect=effect)
    return context.result(
        "pass",
        f"{chains} chains, tokens per pass correct to {worst:.1e}",
        measured={"chains": chains, "difference": worst},
        work=(chains, "chains"),
        effect=effect,
    )


def _sample_chain(rule: Rule, p: Tensor, q: Tensor, n: int, coins: Coins) -> Accepted:
    tokens = [0, *(int(coins.categorical(q)) for _ in range(n))]
    tree = SampledTree(torch.tensor(tokens), torch.arange(-1, n), q.expand(n + 1, -1))
    return rule(tree, p.expand(n + 1, -1), coins)


def _rule(context: Context) -> Rule:
    rule: Rule = context.open(shipped("coin4"), dtype="float64", k=2, depth=2, m=4).raw.rule
    return rule


# --- trees that grow -----------------------------------------------------------------------------------------------


@check("THEORY-4", cases=by_id(GROWING))
def trees_grow_with_m(context: Context, case: Case) -> Result:
    """For the same text, k and depth, the tree of m nodes is part of the tree of more nodes; with the same random numbers its
    accepted path is the beginning of the larger tree's, so that a larger m never accepts less in a pass.

    EAGLE-2, section 4.2: the m candidates of highest value are selected, and values never rise along a path.
    """
    candidates = case.k + (case.depth - 1) * case.k**2
    sizes = [m for step in STEPS if (m := case.m + step) <= candidates]
    return _compare_budgets(context, case, [{**case.budget, "m": m} for m in sizes])


@check("THEORY-5", cases=by_id(GROWING))
def chains_grow_with_depth(context: Context, case: Case) -> Result:
    """For the same text, a chain is the beginning of every longer one; with the same random numbers it never accepts more."""
    return _compare_budgets(context, case, [{"k": 1, "depth": depth, "m": depth} for depth in STEPS])


def _compare_budgets(context: Context, case: Case, budgets: list[dict[str, int]]) -> Result:
    context.implementation.require("coins", "rules", "blocks", "budget", "dynamic")
    pair, trees, grew = shipped(case.pair), 0, 0
    prompts = [[start % pair.vocab_size, 2, start // pair.vocab_size % pair.vocab_size] for start in range(PROMPTS)]
    seeds = [context.seed(row) for row in range(PROMPTS)]
    params = {**case.params, "max_new_tokens": 2 + max(budget["depth"] for budget in budgets)}
    found = [_first_trees(context, pair, {**budget, "rule": "walk"}, prompts, params, seeds) for budget in budgets]
    for prompt, *grown in zip(prompts, *found, strict=True):
        for (smaller, few), (larger, many) in pairwise(grown):
            if lost := _paths(smaller) - _paths(larger):
                reason = f"after {prompt}: {min(lost)} was drafted with the smaller budget, but not with the larger one"
                return context.result("fault", reason)
            if many[: len(few)] != few:
                reason = f"after {prompt}: {few} was accepted with the smaller budget, {many} with the larger one"
                return context.result("fault", reason)
            trees, grew = trees + 1, grew + (len(many) > len(few))
    return context.result(
        "pass",
        f"{trees} trees are part of larger ones, of which {grew} accepted more, and none less",
        measured={"trees": trees, "accepted more": grew},
        work=(trees, "trees"),
    )


def _first_trees(
    context: Context, pair: Pair, options: dict[str, Any], prompts: list[list[int]], params: dict[str, Any], seeds: list[int]
) -> list[tuple[BlockTrace, tuple[int, ...]]]:
    """The first tree of each text, and its accepted drafts. The prompt's own pass, which has no tree, comes before it."""
    engine = context.open(pair, **context.batched(pair, dtype="float64", **options))
    trees = []
    for output in engine.decode_all(prompts, params, [KeyedCoins(seed) for seed in seeds]):
        assert output.blocks is not None
        block = output.blocks[1]
        trees.append((block, output.tokens[1 : 1 + block.accepted]))
    return trees


def _paths(block: BlockTrace) -> set[tuple[int, ...]]:
    """The drafted paths of a tree, as tokens."""
    tree = DraftTree.of(list(block.tokens), list(block.parents))
    return {tuple(tree.token(i) for i in tree.path(node)) for node in range(1, len(tree))}
