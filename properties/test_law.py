"""Chapter LAW: what is emitted is distributed as the target's own text: exactly, coupled, and sampled."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from eagle2_ref.coins import KeyedCoins, Unrepeatable, executions, unfold
from eagle2_ref.rules import Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.evidence import LawPicture
from harness.implementations.engine import AdapterError, Engine
from harness.laws.exact import Law, most_different, target_law, total_variation
from harness.laws.induction import departure
from harness.laws.teacher import Divergence, Teacher
from harness.pairs import Prompt, shipped
from harness.plugin import Judge
from harness.statistics.chisquare import ChiSquare, chi_square
from properties.cells import COUPLED, EXACT, SAMPLED, Cell, parametrize
from properties.strategies import trees_with_laws
from properties.subject import Subject

ROUNDING = 1e-12
"""Total variation that float64 may leave between two ways of adding up the same law."""

FIRST, SECOND = 1e-3, 1e-6
"""A sampled check is a fault if p < FIRST, and then p < SECOND on four times as many fresh samples.

A correct decoder meets both once in 1e9 checks.
"""


@parametrize(EXACT)
def test_whole_continuations(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-1: Over all coins, whole continuations of depth + 2 tokens are distributed as the target's, to rounding (1e-12).

    Every execution of the decoder is run, from the prompt to the last token; their weights add up to its exact law.
    """
    subject.impl.require("coins", "budget")
    options: dict[str, Any] = {**cell.budget, "dtype": "float64"}
    if "rules" in subject.impl.capabilities:
        options["rule"] = cell.rule
    pair, prompt = shipped(cell.pair), [2, 3, 2]
    params = {**cell.params, "max_new_tokens": cell.depth + 2}
    engine = subject.open(pair, **options)
    observed: Law = {}
    runs = 0
    try:
        for output, weight in executions(lambda coins: engine.decode(prompt, params, coins)):
            for text, share in unfold(output.tokens):
                observed[text] = observed.get(text, 0.0) + weight * share
            runs += 1
    except Unrepeatable as error:
        judge("fault", f"the same coins gave another text: {error}; something is left over from the text before")
    expected = target_law(subject.plain(pair, "float64"), prompt, SamplingParams.of(params))
    distance = total_variation(observed, expected)
    worst = most_different(observed, expected)
    measured = {"total variation": distance, "executions": runs, "continuations": len(expected)}
    picture = _picture(f"{cell.id}: exact law", expected, observed)
    if distance <= ROUNDING:
        judge("pass", f"{runs} executions add up to the target's law, to {distance:.1e}", measured=measured, pictures=(picture,))
    else:
        p, q = expected.get(worst, 0.0), observed.get(worst, 0.0)
        judge(
            "fault",
            f"total variation {distance:.3g}; {worst} has probability {q:.6g}, the target gives {p:.6g}",
            measured=measured,
            pictures=(picture,),
        )


def test_every_tree_and_every_law(judge: Judge, subject: Subject) -> None:
    """LAW-2: For any tree and any p, over all coins: wherever the rule gets to, the next token is distributed as p there.

    An induction over nodes, for the rule alone; Hypothesis draws the instances, with ties, zeros and near-certainties.
    """
    subject.impl.require("accept")
    options: dict[str, Any] = {"k": 2, "depth": 2, "m": 4} if "budget" in subject.impl.capabilities else {}
    rule: Rule = subject.open(shipped("coin4"), dtype="float64", **options).raw.rule
    worst, instances = (0.0, ""), 0

    @hypothesis_settings(max_examples=300, report_multiple_bugs=False)
    @given(trees_with_laws())
    def check(instance: tuple[DraftTree, torch.Tensor]) -> None:
        nonlocal worst, instances
        tree, p = instance
        instances += 1
        found, node = departure(rule, tree, p)
        if found > worst[0]:
            worst = (
                found,
                f"tokens {tree.tokens.tolist()}, parents {tree.parents.tolist()}, after node {node}: p = {p[node].tolist()}",
            )
        assert found <= ROUNDING

    try:
        check()
    except Exception:
        if worst[0] <= ROUNDING:
            raise
        told = f"the next token departs from p by a total variation of {worst[0]:.3g}: {worst[1]}"
        judge("fault", told, measured={"total variation": worst[0]})
    measured = {"instances": instances, "total variation": worst[0]}
    judge("pass", f"{instances} instances, at most {worst[0]:.1e} from p at any node", measured=measured)


@parametrize(COUPLED)
def test_coupled_with_ordinary_sampling(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-3: With coins keyed by position, the `walk` rule emits ordinary sampling's text, token for token, whatever the tree."""
    subject.impl.require("coins", "rules", "budget")
    engine = subject.open(subject.pair, rule="walk", dtype="float64", **cell.budget)
    truth = subject.teacher(subject.pair, "float64")
    chosen = subject.some(6)
    params = {**cell.params, "max_new_tokens": 48}
    tokens, found = 0, []
    for i, prompt in enumerate(chosen):
        seed = judge.seed(i)
        output = engine.decode(prompt.tokens, params, KeyedCoins(seed))
        tokens += len(output.tokens)
        found += truth.coupled_divergences(prompt.tokens, output.tokens, SamplingParams.of(params), seed)
    _token_for_token(judge, found, tokens, len(chosen), _tolerance(truth, chosen))


@parametrize(SAMPLED)
def test_first_tokens_of_samples(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-4: The first depth + 2 tokens of independent samples, taken jointly, fit the target's law (chi-square)."""
    for need in set(cell.params) - {"temperature"}:
        subject.impl.require(need)
    options: dict[str, Any] = {**cell.budget} if "budget" in subject.impl.capabilities else {}
    depth = cell.depth if options else int(subject.impl.options.get("depth", 4))
    pair, prompt = shipped(cell.pair), [2, 3, 2]
    engine = subject.open(pair, **options)
    try:
        engine.raw  # noqa: B018  opened here, so that an engine that is sound but cannot load a toy is not called broken
    except AdapterError as error:
        judge("inconclusive", f"its sampled law was not judged: it could not be opened on the pair {pair.name}: {error}")
    params = {**cell.params, "max_new_tokens": min(depth + 2, 8)}
    expected = target_law(subject.plain(pair, "float64"), prompt, SamplingParams.of(params))
    n = 20_000 if subject.asked.tier == "full" else 2_000
    counts = _sample(engine, prompt, params, n, judge.seed())
    first = chi_square(counts, expected)
    second = None
    if not first.impossible and first.p < FIRST:
        second = chi_square(_sample(engine, prompt, params, 4 * n, judge.seed(1)), expected)
    _fit(judge, cell, expected, counts, first, second)


def _sample(engine: Engine, prompt: list[int], params: dict[str, Any], n: int, seed: int) -> Counter[tuple[int, ...]]:
    counts: Counter[tuple[int, ...]] = Counter()
    for start in range(0, n, 500):
        size = min(500, n - start)
        outputs = engine.generate([prompt] * size, [params] * size, range(seed + start, seed + start + size))
        counts.update(output.tokens for output in outputs)
    return counts


def _fit(
    judge: Judge, cell: Cell, expected: Law, counts: Counter[tuple[int, ...]], first: ChiSquare, second: ChiSquare | None
) -> None:
    observed = {text: count / first.n for text, count in counts.items()}
    evidence: dict[str, Any] = {
        "p_value": first.p,
        "sensitivity": f"total variation of {first.visible(FIRST):.3f} or more on {first.df + 1} cells (power 0.9)",
        "measured": {
            "chi-square": first.statistic,
            "degrees of freedom": first.df,
            "samples": first.n,
            "impossible": first.impossible,
        },
        "pictures": (_picture(f"{cell.id}: {first.n} samples", expected, observed, first.n),),
    }
    if first.impossible:
        judge("fault", f"{first.impossible} of {first.n} samples have probability zero under the target", **evidence)
    elif second is not None and second.p < SECOND:
        judge("fault", f"p = {first.p:.2g}, and {second.p:.2g} on {second.n} fresh samples", **evidence)
    elif second is not None:
        judge("pass", f"p = {first.p:.2g}, but {second.p:.2g} on {second.n} fresh samples", **evidence)
    else:
        judge("pass", f"p = {first.p:.2g}: {first.n} samples fit the target's law", **evidence)


def _tolerance(truth: Teacher, chosen: list[Prompt]) -> float:
    """Twice the noise, for two sides may err, and half as much again."""
    return 3 * truth.noise([prompt.tokens for prompt in chosen[:4]])


def _token_for_token(judge: Judge, found: list[Divergence], tokens: int, prompts: int, tolerance: float) -> None:
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
        judge("fault", f"{len(faults)} of {tokens} tokens differ: {seen} (noise allows {tolerance:.1g})", measured=measured)
    elif found:
        judge("tie", f"{len(found)} of {tokens} tokens differ, all within the noise of {tolerance:.1g}", measured=measured)
    else:
        judge("pass", f"{tokens} tokens of {prompts} prompts, all equal", measured=measured)


def _picture(title: str, expected: Law, observed: Law, n: int = 0) -> LawPicture:
    """The 40 likeliest continuations."""
    shown = sorted({*expected, *observed}, key=lambda text: -expected.get(text, 0.0))[:40]
    return LawPicture(
        title=title,
        outcomes=tuple(" ".join(map(str, text)) for text in shown),
        expected=tuple(expected.get(text, 0.0) for text in shown),
        observed=tuple(observed.get(text, 0.0) for text in shown),
        n=n,
    )
