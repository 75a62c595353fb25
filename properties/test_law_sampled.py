"""Chapter LAW, sampled: black boxes, by the tokens they emit. Every pass says what it would have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.sampling import SamplingParams
from harness.distributions.campaign import Plan, SequentialTest, short_prompts
from harness.distributions.exact import Law, target_law
from harness.distributions.scoring import TargetScorer
from harness.implementations.engine import AdapterError, Engine
from harness.pairs import Pair, shipped
from harness.pytest_plugin import Judge
from harness.record.ledger import Ledger
from harness.record.model import Witness
from harness.statistics.bounds import chi_square_bound, dkw_bound, edge_distance
from harness.statistics.budget import E_PROCESS_SHARE, REPLICATES, TWO_STAGES, confirm, false_alarm
from harness.statistics.chisquare import ChiSquare, chi_square
from harness.statistics.diagnostics import diagnose
from harness.statistics.eprocess import WIDTHS, Counts, Evidence, detectable_deviation
from harness.statistics.mmd import PermutationTest, first_tokens_test, prefix_mmd
from properties.cells import CAMPAIGNS, JOINING, SAMPLED, SETTINGS, TOY, Campaign, Cell, needs, parametrize
from properties.pictures import law_picture
from properties.subject import Subject

FIRST, SECOND = (stage.level for stage in TWO_STAGES)
"""A joint chi-square is a fault if p < FIRST, and then p < SECOND on four times as many fresh samples."""


@parametrize([*SAMPLED, *SETTINGS, JOINING])
def test_first_tokens_of_samples(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-4: The first depth + 2 tokens of independent samples, taken jointly, fit the target's law (chi-square)."""
    subject.impl.require(*needs(cell.params))
    chosen = "budget" in subject.impl.capabilities
    pair, prompt = _pair(subject, judge, cell), list(cell.prompt)
    options = subject.sampling(pair, **(cell.budget if chosen else {}))
    depth = cell.depth if chosen else int((subject.impl.budget or subject.impl.options).get("depth", 3))
    engine = subject.open(pair, **options)
    _must_open(engine, judge)
    params = {**cell.params, "max_new_tokens": min(depth + 2, cell.window, 5 if pair.vocab_size > 6 else 8)}
    expected = target_law(subject.plain(pair, "float64"), prompt, SamplingParams.of(params))
    n = (10 if subject.asked.tier == "full" else 1) * (800 if cell.pair in (TOY, "dice8") else 2_000)
    counts = _sample(engine, prompt, params, n, judge.seed())
    first = chi_square(counts, expected)
    second = None
    if subject.impl.lossy:
        second = first  # no false alarm is to be feared: a fault is known, and its effect size is wanted
    elif not first.impossible and first.p < FIRST:
        second = chi_square(_sample(engine, prompt, params, 4 * n, judge.seed(1)), expected)

    def against_control() -> float | None:
        control = _sample(subject.open(pair, speculate=False, **options), prompt, params, 4 * n, judge.seed(2))
        engine_texts, control_texts = (
            [list(arm.elements())] for arm in (_sample(engine, prompt, params, 4 * n, judge.seed(3)), control)
        )
        return first_tokens_test(engine_texts, control_texts, params["max_new_tokens"])

    _fit(judge, cell, expected, counts, first, second, against_control if subject.rough else None)


def _sample(engine: Engine, prompt: list[int], params: dict[str, Any], n: int, seed: int) -> Counter[tuple[int, ...]]:
    counts: Counter[tuple[int, ...]] = Counter()
    for start in range(0, n, 500):
        size = min(500, n - start)
        outputs = engine.generate([prompt] * size, [params] * size, range(seed + start, seed + start + size))
        counts.update(output.tokens for output in outputs)
    return counts


def _fit(
    judge: Judge,
    cell: Cell,
    expected: Law,
    counts: Counter[tuple[int, ...]],
    first: ChiSquare,
    second: ChiSquare | None,
    against_control: Callable[[], float | None] | None,
) -> None:
    observed = {text: count / first.n for text, count in counts.items()}
    evidence: dict[str, Any] = {
        "p_value": first.p,
        "false_alarm": false_alarm(TWO_STAGES),
        "sensitivity": f"total variation of {first.detectable_deviation(FIRST):.3f} or more on {first.df + 1} cells (power 0.9)",
        "measured": {
            "chi-square": first.statistic,
            "degrees of freedom": first.df,
            "samples": first.n,
            "impossible": first.impossible,
            "total variation": first.distance,
            "total variation of a right one": first.expected_distance,
        },
        "pictures": (law_picture(f"{cell.id}: {first.n} samples", expected, observed, first.n),),
    }
    fault = first.impossible or (second is not None and second.p < SECOND)
    fresh = f"p = {first.p:.2g}, and {second.p:.2g} on {second.n} fresh samples" if second else f"p = {first.p:.2g}"
    told = f"{first.impossible} of {first.n} samples have probability zero under the target" if first.impossible else fresh
    if fault and against_control and (p := against_control()) is not None and p >= SECOND:
        judge("n/a", f"{told}; but p = {p:.2g} against its control arm: it is the arithmetic that departs", **evidence)
    elif fault:
        judge("fault", told, **evidence)
    else:
        judge("pass", f"{told}: {first.n} samples fit the target's law" if not second else told, **evidence)


@pytest.mark.parametrize("window", [pytest.param(6, id="6 tokens")])
def test_speculation_against_its_control(window: int, judge: Judge, subject: Subject) -> None:
    """LAW-8: With and without speculation the implementation samples alike: prefixes of texts, by permutation (MMD).

    No probabilities of a target are needed, and its arithmetic cancels; but it sees less than LAW-7 with as many tokens.
    """
    many = 400 if subject.asked.tier == "full" else 40
    chosen = [prompt.tokens[:24] for prompt in subject.some(4)[:4]]
    params = {"temperature": 1.0, "max_new_tokens": window}
    options = subject.sampling(subject.pair)
    arms = [subject.open(subject.pair, speculate=speculate, **options) for speculate in (True, False)]
    found: list[PermutationTest] = []

    def p_of(stage: int, size: int) -> float:
        # The arms have seeds of their own: coupled ones would be alike for another reason.
        ours, controls = (
            [_texts(arm, text, params, many * size, judge.seed(1000 * k + 10 * stage + i)) for i, text in enumerate(chosen)]
            for k, arm in enumerate(arms)
        )
        found.append(prefix_mmd(ours, controls, window, judge.seed(stage)))
        return found[-1].p

    stages = confirm(p_of, REPLICATES)
    evidence: dict[str, Any] = {
        "p_value": stages.p_values[0],
        "false_alarm": false_alarm(REPLICATES),
        "measured": {"texts an arm": many * len(chosen), "tokens": 2 * many * len(chosen) * window, "MMD^2": found[0].statistic},
        "sensitivity": "gross faults only: it takes about ten times the tokens of LAW-7",
    }
    told = ", ".join(f"{p:.3g}" for p in stages.p_values)
    if stages.fault:
        judge("fault", f"its texts are told from those of its control: p = {told} on fresh samples each", **evidence)
    judge("pass", f"p = {told}: {many * len(chosen)} texts an arm, of {window} tokens each, may be swapped", **evidence)


def _texts(engine: Engine, prompt: Sequence[int], params: dict[str, Any], n: int, seed: int) -> list[tuple[int, ...]]:
    return [output.tokens for output in engine.generate([prompt] * n, [params] * n, range(seed, seed + n))]


@pytest.mark.parametrize("campaign", [pytest.param(c, id=c.name, marks=pytest.mark.full if c.full else ()) for c in CAMPAIGNS])
def test_streams_of_tokens(campaign: Campaign, judge: Judge, subject: Subject) -> None:
    """LAW-7: Along texts of any prompts and parameters, several in a call, the emitted tokens are independent draws from the
    target's law: no bet on their ranks, their blocks, their neighbours or their children can be won (PIT e-processes)."""
    subject.impl.require(*campaign.needs)
    if campaign.pair == "dice8" and subject.asked.tier == "quick" and subject.toy().name != "dice8":
        judge("n/a", "the quick tier judges its streams on coin4 and coin6, which it can load")
    pair = shipped(campaign.pair) if campaign.pair else subject.pair
    options = subject.sampling(pair, **(campaign.budget if "budget" in subject.impl.capabilities else {}))
    engine, plan = subject.open(pair, **options), _plan(subject, pair, campaign)
    _must_open(engine, judge)
    scorer = TargetScorer(subject.plain(pair, subject.asked.oracle), subject.noise(pair, subject.asked.dtype).tolerance / 2)
    going_on = subject.asked.evidence and not subject.impl.name.startswith("trace:")  # a trace tells the same again
    folder = Path(subject.asked.evidence) if going_on else None
    asked = {name: getattr(subject.asked, name) for name in ("dtype", "oracle", "seed")}
    asked |= {"campaign": campaign.name, "params": campaign.params, "pair": pair.checksums()}
    ledger = Ledger(folder, subject.impl, asked)
    budget = campaign.tokens * (10 if subject.asked.tier == "full" else 1)
    test = SequentialTest(scorer, plan, judge.seed(), budget)
    found = test.run(engine, ledger.read())
    ledger.write(test.counts)
    told = f"the bet on {found.largest} has won 10^{found.components[found.largest]:.1f} after {found.tokens} tokens"
    if found.impossible:
        told = f"{found.impossible} of {found.tokens} tokens have probability zero"
    if found.fault:
        control = SequentialTest(scorer, plan, test.seed, found.tokens).run(subject.open(pair, speculate=False, **options))
        if control.fault:
            judge("n/a" if subject.rough else "inconclusive", f"{told}; {_NOT_THIS_TARGET}", **_evidence(test, found))
        arm = f"{told}; all bets on the control arm together have won 10^{control.log10:.1f}"
        judge("fault", arm, witness=_witness(engine, test, options), **_evidence(test, found))
    elif found.extend:
        judge("inconclusive", f"{told}: between a pass and a fault; --tier full takes more", **_evidence(test, found))
    else:
        judge("pass", f"{found.tokens} tokens: all bets together have won 10^{found.log10:.1f}", **_evidence(test, found))


_NOT_THIS_TARGET = "so have those on the control arm: its target, in its arithmetic, is not this target; LAW-8 compares the arms"


def _witness(engine: Engine, test: SequentialTest, options: dict[str, Any]) -> Witness | None:
    """A token of probability zero if there is one; else the least likely token of the text in which the bets won most."""
    if test.counts.examples:
        text, position = test.counts.examples[0]
    else:
        best = max(range(len(test.sequences)), key=lambda i: Evidence.of(Counts.of([test.sequences[i]])).log10)
        text = int(test.counts.sequences) - len(test.sequences) + best
        position = int(test.sequences[best].p.argmin())
    prompt, params = test.plan.request(text)
    (output,) = engine.generate([prompt], [params], [test.seed + text])
    if position >= len(output.tokens):
        return None  # alone it does not emit what it emitted among others
    (p,) = test.scorer.laws([prompt], [output.tokens], [SamplingParams.of(params)])
    emitted = output.tokens[position]
    return Witness(
        options=options,
        pair=engine.pair.name,
        prompt=tuple(prompt),
        params=params,
        seed=test.seed + text,
        position=position,
        emitted=emitted,
        p=float(p[position, emitted]),
    )


def _evidence(test: SequentialTest, found: Evidence) -> dict[str, Any]:
    """The fields of a result that tell what was measured and what would have been seen."""
    ranks = test.counts.histogram
    smallest = detectable_deviation(found.tokens).value
    cdf, tv = dkw_bound(edge_distance(ranks, WIDTHS), found.tokens), chi_square_bound(ranks, WIDTHS)
    return {
        "false_alarm": E_PROCESS_SHARE,
        "diagnostics": diagnose(test.sequences),
        "sensitivity": f"a total variation of {smallest:.3f} or more of tokens' ranks from uniform (power 0.9, asymptotic)",
        "measured": {
            "tokens": found.tokens,
            "log10 E": found.log10,
            "dkw bound": cdf.value,
            "pit tv": tv.value,
            **{f"log10 E, {name}": value for name, value in found.components.items()},
        },
    }


def _plan(subject: Subject, pair: Pair, campaign: Campaign) -> Plan:
    """The run's own prompts; of a toy, every start."""
    prompts = short_prompts(pair.vocab_size) if campaign.pair else [prompt.tokens for prompt in subject.texts]
    return Plan.of(prompts, campaign.params)


def _pair(subject: Subject, judge: Judge, cell: Cell) -> Pair:
    """The pair of a cell. Where trees can be chosen, the cells with pairs of their own do in the quick tier."""
    if cell.pair != TOY:
        return shipped(cell.pair)
    on_coins = "budget" in subject.impl.capabilities and shipped("coin4").drafter(subject.impl.checkpoint)
    if on_coins and subject.asked.tier == "quick":
        judge("n/a", "the quick tier judges its sampled law with trees that it lets us choose")
    return subject.toy()


def _must_open(engine: Engine, judge: Judge) -> None:
    """An engine that is sound but cannot load a toy is not called broken."""
    try:
        engine.raw  # noqa: B018
    except AdapterError as error:
        judge("inconclusive", f"its sampled law was not judged: it could not be opened on the pair {engine.pair.name}: {error}")
