"""Chapter LAW: what is emitted is distributed as the target's own text: exactly, coupled, and sampled."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from torch import Tensor

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.methods import METHODS
from eagle2_ref.rules import Accepted, Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree
from harness.distributions.exact import Law, first_departure, target_law, total_variation
from harness.distributions.induction import Departure, departure
from harness.distributions.teacher import Divergence
from harness.enumeration.boundary import BoundaryCoins
from harness.enumeration.coins import EnumeratedCoins, Unrepeatable, executions, undecided, unfold
from harness.implementations.engine import Engine, Output
from harness.pairs import shipped
from harness.pytest_plugin import Judge
from harness.record.model import Witness
from properties.cells import COUPLED, EXACT, Cell, parametrize
from properties.pictures import diverged, law_picture
from properties.strategies import trees_with_laws
from properties.subject import Subject

ROUNDING = 1e-12
"""Total variation that float64 may leave between two ways of adding up the same law."""


OF_DRAWS = 1_000
"""Executions that a law may take where drafts are drawn, and every draw multiplies them."""

INSTANCES = 300
"""Trees and laws that Hypothesis draws for a rule; half as many where every coin takes three values."""


class TooManyError(Exception):
    """The law would take more executions than were allowed."""


@parametrize(EXACT)
def test_whole_continuations(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-1: Over all coins, whole continuations of depth + 2 tokens are distributed as the target's, to rounding (1e-12).

    Every execution of the decoder is run, from the prompt to the last token; their weights add up to its exact law.
    """
    subject.impl.require("coins", "budget")
    method = METHODS.get(subject.impl.method)
    drawn = method is not None and not method.deterministic
    if drawn and cell.rule == "walk":
        judge("n/a", "its rule is that of drafts that were drawn: the same case with `reject` judges it")
    options: dict[str, Any] = {**cell.budget, "dtype": "float64"}
    if "rules" in subject.impl.capabilities:
        options["rule"] = cell.rule
    pair, prompt = shipped(cell.pair), [2, 3, 2]
    params = {**cell.params, "max_new_tokens": cell.depth + 2}
    try:
        emitted, choices = emitted_law(subject.open(pair, **options), prompt, params, OF_DRAWS if drawn else None)
    except TooManyError:
        judge("n/a", f"its drafts are drawn, and the case has more than {OF_DRAWS} executions: others judge it")
    except Unrepeatable as error:
        judge("n/a", f"it cannot be enumerated: {error}")
    expected = target_law(subject.plain(pair, "float64"), prompt, SamplingParams.of(params))
    distance = total_variation(emitted, expected)
    measured = {"total variation": distance, "executions": len(choices), "continuations": len(expected)}
    evidence: dict[str, Any] = {
        "measured": measured,
        "pictures": (law_picture(f"{cell.id}: exact law", expected, emitted),),
    }
    if distance <= ROUNDING:
        judge("pass", f"{len(choices)} executions add up to the target's law, to {distance:.1e}", **evidence)
        return
    first = first_departure(emitted, expected)
    text = (*first.prefix, first.token)
    witness = Witness(
        options=options,
        pair=cell.pair,
        prompt=tuple(prompt),
        params=params,
        choices=next(taken for begun, taken in choices if begun[: len(text)] == text[: len(begun)]),
        position=len(first.prefix),
        emitted=first.token,
        p=first.p,
        q=first.q,
    )
    seen = f"after {list(first.prefix)} token {first.token} has probability {first.q:.6g}, the target gives {first.p:.6g}"
    judge("fault", f"total variation {distance:.3g}; {seen}", witness=witness, **evidence)


def emitted_law(
    engine: Engine, prompt: list[int], params: dict[str, Any], most: int | None = None
) -> tuple[Law, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The law of all executions together; and of each the text, without a last token left open, with the choices it took."""
    law: Law = defaultdict(float)
    executed: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def run(coins: EnumeratedCoins) -> tuple[Output, EnumeratedCoins]:
        return engine.decode(prompt, params, coins), coins

    for (output, coins), weight in executions(run):
        if len(executed) == most:
            raise TooManyError
        executed.append((tuple(int(token) for token in output.tokens if not undecided(token)), coins.choices))
        for text, share in unfold(output.tokens):
            law[text] += weight * share
    return law, executed


def test_every_tree_and_every_law(judge: Judge, subject: Subject) -> None:
    """LAW-2: For any tree and any p, over all coins: wherever the rule gets to, the next token is distributed as p there.

    An induction over nodes, for the rule alone; Hypothesis draws the instances, with ties, zeros and near-certainties.
    """
    rule, instances = _rule(subject), 0
    worst = Worst()

    @hypothesis_settings(max_examples=INSTANCES, report_multiple_bugs=False)
    @given(trees_with_laws())
    def check(instance: tuple[DraftTree, Tensor]) -> None:
        nonlocal instances
        instances += 1
        found = departure(rule, *instance)
        worst.note(found, *instance)
        assert found.distance <= ROUNDING

    try:
        check()
    except Exception:
        if worst.distance <= ROUNDING:
            raise
        told = f"the next token departs from p by a total variation of {worst.distance:.3g}: {worst.told()}"
        judge("fault", told, measured={"total variation": worst.distance}, witness=worst.witness())
    measured = {"instances": instances, "total variation": worst.distance}
    judge("pass", f"{instances} instances, at most {worst.distance:.1e} from p at any node", measured=measured)


def test_boundary_coins(judge: Judge, subject: Subject) -> None:
    """LAW-5: Whatever the coins, be they 0, the largest number below 1, or exactly a threshold: the path is a path of the
    tree, and no token of probability zero is emitted."""
    rule, instances, runs = _rule(subject), 0, 0
    found: list[tuple[str, Witness]] = []

    @hypothesis_settings(max_examples=INSTANCES // 2, report_multiple_bugs=False)
    @given(trees_with_laws(most=4))
    def check(instance: tuple[DraftTree, Tensor]) -> None:
        nonlocal instances, runs
        (tree, p), instances = instance, instances + 1
        for accepted, _ in executions(lambda coins: rule(tree, p.clone(), BoundaryCoins(coins))):
            runs += 1
            if wrong := _impossible(tree, p, accepted):
                node, token, told = wrong
                found.append((f"{told}: {_spelled(tree, p, node)}", _instance(tree, p, node, token)))
                raise AssertionError(told)

    try:
        check()
    except Exception as error:
        told, witness = found[-1] if found else (f"the rule raised {type(error).__name__}: {error}", None)
        judge("fault", told, witness=witness)
    judge("pass", f"{instances} instances with {runs} scripts of coins", measured={"instances": instances, "executions": runs})


def _rule(subject: Subject) -> Rule:
    subject.impl.require("accept")
    options: dict[str, Any] = {"k": 2, "depth": 2, "m": 4} if "budget" in subject.impl.capabilities else {}
    rule: Rule = subject.open(shipped("coin4"), dtype="float64", **options).raw.rule
    return rule


def _impossible(tree: DraftTree, p: Tensor, accepted: Accepted) -> tuple[int, int, str] | None:
    """The first node after which something came that cannot come: node, token, and what is wrong; or nothing."""
    node = ROOT
    for child, token in zip([*accepted.path, None], accepted.tokens(tree), strict=True):
        if p[node, token] <= 0:
            return node, token, f"token {token} of probability 0 was emitted"
        if child is not None and tree.parent(child) != node:
            return node, token, f"node {child} was accepted after node {node}, of which it is no child"
        node = node if child is None else child
    return None


@dataclass
class Worst:
    """The instance that departs most of those that were tried."""

    distance: float = 0.0
    found: Departure | None = None
    instance: tuple[DraftTree, Tensor] | None = None

    def note(self, found: Departure, tree: DraftTree, p: Tensor) -> None:
        if found.distance > self.distance:
            self.distance, self.found, self.instance = found.distance, found, (tree, p)

    def told(self) -> str:
        assert self.found is not None and self.instance is not None
        return _spelled(*self.instance, self.found.node)

    def witness(self) -> Witness:
        assert self.found is not None and self.instance is not None
        return _instance(*self.instance, self.found.node, self.found.token, self.found.q)


def _spelled(tree: DraftTree, p: Tensor, node: int) -> str:
    return f"tokens {tree.tokens.tolist()}, parents {tree.parents.tolist()}, after node {node}: p = {p[node].tolist()}"


def _instance(tree: DraftTree, p: Tensor, node: int, token: int, q: float | None = None) -> Witness:
    return Witness(
        tokens=tuple(tree.tokens.tolist()),
        parents=tuple(tree.parents.tolist()),
        law=tuple(tuple(row) for row in p.tolist()),
        node=node,
        emitted=token,
        p=float(p[node, token]),
        q=q,
    )


@parametrize(COUPLED)
def test_coupled_with_ordinary_sampling(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-3: With coins keyed by position, the `walk` rule emits ordinary sampling's text, token for token, whatever the tree."""
    subject.impl.require("coins", "rules", "budget")
    options = subject.sampling(subject.pair, rule="walk", dtype="float64", **cell.budget)
    engine, truth = subject.open(subject.pair, **options), subject.teacher(subject.pair, "float64")
    prompts = [prompt.tokens for prompt in subject.some(6)]
    params = {**cell.params, "max_new_tokens": 48}
    seeds = [judge.seed(i) for i in range(len(prompts))]
    texts = [output.tokens for output in engine.decode_all(prompts, params, [KeyedCoins(seed) for seed in seeds])]
    departures = truth.coupled_divergences(prompts, texts, SamplingParams.of(params), seeds)
    tolerance, witness = subject.noise(subject.pair, "float64").tolerance, None
    for prompt, seed, found in zip(prompts, seeds, departures, strict=True):
        if witness is None and (first := next((d for d in found if d.margin > tolerance), None)):
            witness = diverged(first, subject.pair.name, options, prompt, params, seed, keyed=True)
    tokens = sum(map(len, texts))
    _token_for_token(judge, [d for found in departures for d in found], tokens, len(prompts), tolerance, witness)


def _token_for_token(
    judge: Judge, found: list[Divergence], tokens: int, prompts: int, tolerance: float, witness: Witness | None
) -> None:
    faults = [d for d in found if d.margin > tolerance]
    measured = {
        "tokens": tokens,
        "prompts": prompts,
        "ties": len(found) - len(faults),
        "faults": len(faults),
        "tolerance": tolerance,
    }
    if faults:
        first = faults[0]
        seen = (
            f"token {first.emitted} at position {first.position} where {first.expected} was due by a margin of {first.margin:.3g}"
        )
        told = f"{len(faults)} of {tokens} tokens differ: {seen} (noise allows {tolerance:.1g})"
        judge("fault", told, measured=measured, witness=witness)
    elif found:
        judge("tie", f"{len(found)} of {tokens} tokens differ, all within the noise of {tolerance:.1g}", measured=measured)
    else:
        judge("pass", f"{tokens} tokens of {prompts} prompts, all equal", measured=measured)
