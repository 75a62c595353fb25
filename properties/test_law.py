"""Chapter LAW, enumerated and coupled: emitted text is distributed as the target's own text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis
from hypothesis import given
from torch import Tensor

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.methods import METHODS
from eagle2_ref.rules import Accepted, Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree
from harness.case import Case, by_id
from harness.catalogue import check
from harness.context import Context
from harness.distributions.exact import first_deviation, target_law, total_variation
from harness.enumeration.boundary import BoundaryCoins
from harness.enumeration.coins import Unrepeatable, executions
from harness.enumeration.emitted_law import TooManyExecutions, emitted_law
from harness.enumeration.induction import RuleDeviation, rule_deviation
from harness.pairs import shipped
from harness.record.model import Result, Witness
from harness.record.pictures import divergence_witness, law_picture
from properties import strategies
from properties.cases import COUPLED, EXACT
from properties.strategies import trees_with_laws

ROUNDING = 1e-12
"""Total variation between two ways to add up the same law in float64."""

MOST_EXECUTIONS = 1_000
"""Executions for drafters that sample: every random draft multiplies their number."""

INSTANCES = 300
"""Random trees and laws for a rule; half as many where every random number takes three values."""


@check("LAW-1", cases=by_id(EXACT))
def whole_continuations(context: Context, case: Case) -> Result:
    """Over all random numbers, whole continuations of depth + 2 tokens are distributed as the target's, to rounding (1e-12).

    Every execution of the decoder is run, from the prompt to the last token; their weights add up to its exact law.
    """
    implementation = context.implementation
    implementation.require("coins", "budget")
    method = METHODS.get(implementation.method)
    sampled_drafts = method is not None and not method.deterministic
    if sampled_drafts and case.rule == "walk":
        return context.result("n/a", "its rule is the one for sampled drafts: the same case with `reject` covers it")
    options: dict[str, Any] = {**case.budget, "dtype": "float64"}
    if "rules" in implementation.capabilities:
        options["rule"] = case.rule
    pair, prompt = shipped(case.pair), [2, 3, 2]
    params = {**case.params, "max_new_tokens": case.depth + 2}
    try:
        emitted, executed = emitted_law(
            context.open(pair, **options), prompt, params, MOST_EXECUTIONS if sampled_drafts else None
        )
    except TooManyExecutions:
        reason = f"its drafts are sampled, and the case has more than {MOST_EXECUTIONS} executions: smaller cases cover it"
        return context.result("n/a", reason)
    except Unrepeatable as error:
        return context.result("n/a", f"it cannot be enumerated: {error}")
    expected = target_law(context.target_model(pair, "float64"), prompt, SamplingParams.of(params))
    distance = total_variation(emitted, expected)
    evidence: dict[str, Any] = {
        "measured": {"total variation": distance, "executions": len(executed), "continuations": len(expected)},
        "work": (len(executed), "executions"),
        "effect": (distance, "total variation"),
        "detectable": (ROUNDING, "total variation"),
        "pictures": (law_picture(f"{case.id}: exact law", expected, emitted),),
    }
    if distance <= ROUNDING:
        reason = f"{len(executed)} executions add up to the target's law, to {distance:.1e}"
        return context.result("pass", reason, **evidence)
    first = first_deviation(emitted, expected)
    text = (*first.prefix, first.token)
    witness = Witness(
        options=options,
        pair=case.pair,
        prompt=tuple(prompt),
        params=params,
        choices=next(choices for begun, choices in executed if begun[: len(text)] == text[: len(begun)]),
        position=len(first.prefix),
        emitted=first.token,
        p=first.p,
        q=first.q,
    )
    where = f"after {list(first.prefix)} token {first.token} has probability {first.q:.6g}, the target gives {first.p:.6g}"
    return context.result("fault", f"total variation {distance:.3g}; {where}", witness=witness, **evidence)


@check("LAW-2")
def rule_on_any_tree(context: Context) -> Result:
    """For any tree and any p, over all random numbers: after every node that the rule reaches, the next token is distributed as
    p at that node.

    An induction over nodes, for the rule alone, on random instances with ties, zeros and near-certainties.
    """
    rule, instances = _rule(context), 0
    worst = Worst()

    @hypothesis.seed(2)
    @strategies.instances(INSTANCES // context.reduction.instances)
    @given(trees_with_laws())
    def compare(instance: tuple[DraftTree, Tensor]) -> None:
        nonlocal instances
        instances += 1
        found = rule_deviation(rule, *instance)
        worst.update(found, *instance)
        assert found.distance <= ROUNDING

    try:
        compare()
    except Exception:
        if worst.distance <= ROUNDING:
            raise
        return context.result(
            "fault",
            f"the next token departs from p by a total variation of {worst.distance:.3g}: {worst.describe()}",
            measured={"total variation": worst.distance},
            effect=(worst.distance, "total variation"),
            witness=worst.witness(),
        )
    return context.result(
        "pass",
        f"{instances} instances, at most {worst.distance:.1e} from p at any node",
        measured={"instances": instances, "total variation": worst.distance},
        work=(instances, "instances"),
        effect=(worst.distance, "total variation"),
        detectable=(ROUNDING, "total variation"),
    )


@check("LAW-5")
def rule_at_boundary_numbers(context: Context) -> Result:
    """For any random numbers, including 0, the largest number below 1, and exact thresholds: the accepted path is a path of the
    tree, and no token of probability zero is emitted."""
    rule, instances, runs = _rule(context), 0, 0
    found: list[tuple[str, Witness]] = []

    @hypothesis.seed(5)
    @strategies.instances(INSTANCES // 2)
    @given(trees_with_laws(most=4))
    def accept(instance: tuple[DraftTree, Tensor]) -> None:
        nonlocal instances, runs
        (tree, p), instances = instance, instances + 1
        for accepted, _ in executions(lambda coins: rule(tree, p.clone(), BoundaryCoins(coins))):
            runs += 1
            if impossible := _impossible(tree, p, accepted):
                node, token, reason = impossible
                found.append((f"{reason}: {_describe(tree, p, node)}", _rule_witness(tree, p, node, token)))
                raise AssertionError(reason)

    try:
        accept()
    except Exception as error:
        reason, witness = found[-1] if found else (f"the rule raised {type(error).__name__}: {error}", None)
        return context.result("fault", reason, witness=witness)
    return context.result(
        "pass",
        f"{instances} instances with {runs} sequences of random numbers",
        measured={"instances": instances, "executions": runs},
        work=(runs, "executions"),
    )


@check("LAW-3", cases=by_id(COUPLED))
def coupled_with_ordinary_sampling(context: Context, case: Case) -> Result:
    """With random numbers keyed by position, the rule `walk` emits the text of ordinary sampling, token for token, for every
    tree."""
    context.implementation.require("coins", "rules", "budget")
    options = context.batched(context.pair, rule="walk", dtype="float64", **case.budget)
    engine, scorer = context.open(context.pair, **options), context.scorer(context.pair)
    prompts = [prompt.tokens for prompt in context.some_prompts(6)]
    params = {**case.params, "max_new_tokens": context.scaled(48, least=24)}
    seeds = [context.seed(i) for i in range(len(prompts))]
    texts = [output.tokens for output in engine.decode_all(prompts, params, [KeyedCoins(seed) for seed in seeds])]
    divergences = scorer.coupled_divergences(prompts, texts, SamplingParams.of(params), seeds)
    tolerance, tokens = context.noise(context.pair, "float64").tolerance, sum(map(len, texts))
    found = [(i, d) for i, text in enumerate(divergences) for d in text]
    faults = [(i, d) for i, d in found if d.margin > tolerance]
    evidence: dict[str, Any] = {
        "measured": {
            "tokens": tokens,
            "prompts": len(prompts),
            "ties": len(found) - len(faults),
            "faults": len(faults),
            "tolerance": tolerance,
        },
        "work": (tokens, "tokens"),
    }
    if faults:
        i, first = faults[0]
        where = (
            f"token {first.emitted} at position {first.position} where {first.expected} is due by a margin of {first.margin:.3g}"
        )
        return context.result(
            "fault",
            f"{len(faults)} of {tokens} tokens differ: {where} (noise allows {tolerance:.1g})",
            witness=divergence_witness(first, context.pair.name, options, prompts[i], params, seeds[i], keyed=True),
            **evidence,
        )
    if found:
        reason = f"{len(found)} of {tokens} tokens differ, all within the noise of {tolerance:.1g}"
        return context.result("tie", reason, **evidence)
    return context.result("pass", f"{tokens} tokens of {len(prompts)} prompts, all equal", **evidence)


# --- instances of a rule -------------------------------------------------------------------------------------------


def _rule(context: Context) -> Rule:
    context.implementation.require("accept")
    options: dict[str, Any] = {"k": 2, "depth": 2, "m": 4} if "budget" in context.implementation.capabilities else {}
    rule: Rule = context.open(shipped("coin4"), dtype="float64", **options).raw.rule
    return rule


def _impossible(tree: DraftTree, p: Tensor, accepted: Accepted) -> tuple[int, int, str] | None:
    """The first node after which an impossible token was emitted, that token, and the reason; None if there is none."""
    node = ROOT
    for child, token in zip([*accepted.path, None], accepted.tokens(tree), strict=True):
        if p[node, token] <= 0:
            return node, token, f"token {token} of probability 0 was emitted"
        if child is not None and tree.parent(child) != node:
            return node, token, f"node {child} was accepted after node {node}, but is not a child of it"
        node = node if child is None else child
    return None


@dataclass
class Worst:
    """The instance with the largest departure so far."""

    distance: float = 0.0
    found: RuleDeviation | None = None
    instance: tuple[DraftTree, Tensor] | None = None

    def update(self, found: RuleDeviation, tree: DraftTree, p: Tensor) -> None:
        if found.distance > self.distance:
            self.distance, self.found, self.instance = found.distance, found, (tree, p)

    def describe(self) -> str:
        assert self.found is not None and self.instance is not None
        return _describe(*self.instance, self.found.node)

    def witness(self) -> Witness:
        assert self.found is not None and self.instance is not None
        return _rule_witness(*self.instance, self.found.node, self.found.token, self.found.q)


def _describe(tree: DraftTree, p: Tensor, node: int) -> str:
    return f"tokens {tree.tokens.tolist()}, parents {tree.parents.tolist()}, after node {node}: p = {p[node].tolist()}"


def _rule_witness(tree: DraftTree, p: Tensor, node: int, token: int, q: float | None = None) -> Witness:
    return Witness(
        tokens=tuple(tree.tokens.tolist()),
        parents=tuple(tree.parents.tolist()),
        law=tuple(tuple(row) for row in p.tolist()),
        node=node,
        emitted=token,
        p=float(p[node, token]),
        q=q,
    )
