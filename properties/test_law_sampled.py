"""Chapter LAW, sampled: implementations are judged by the tokens they emit. Every pass says what it would have detected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eagle2_ref.sampling import SamplingParams
from harness.case import Case, by_id, capabilities_for
from harness.catalogue import check
from harness.context import Context
from harness.distributions.campaign import MAX_PROMPT, TEXTS_PER_CALL, TEXTS_PER_LOOK, Plan, SequentialTest, short_prompts
from harness.distributions.exact import Law, target_law
from harness.distributions.scoring import TargetScorer
from harness.equivalence import DKW_BOUND, LOG10_E, PIT_BOUND
from harness.implementations.engine import AdapterError, Engine, NotApplicable
from harness.pairs import Pair, shipped
from harness.record.ledger import Ledger
from harness.record.model import Result, Witness
from harness.record.pictures import law_picture
from harness.statistics.bounds import chi_square_bound, dkw_bound, edge_distance
from harness.statistics.budget import E_PROCESS_SHARE, REPLICATES, TWO_STAGES, confirm, false_alarm
from harness.statistics.chisquare import ChiSquare, chi_square
from harness.statistics.diagnostics import diagnose
from harness.statistics.eprocess import WIDTHS, Counts, Evidence, detectable_deviation
from harness.statistics.mmd import PermutationTest, first_tokens_test, prefix_mmd
from properties.cases import JOINING, SAMPLED, SETTINGS, STREAMS, TOY, StreamCase

FIRST, SECOND = (stage.level for stage in TWO_STAGES)
"""A joint chi-square is a fault if p < FIRST, and then p < SECOND on four times as many fresh samples."""

PER_CALL = 500
"""Samples in one call."""

OTHER_TARGET = "so have those on the control arm: its target, in its arithmetic, is not this target; LAW-8 compares the two arms"


# --- LAW-4: first tokens of many samples ---------------------------------------------------------------------------


@check("LAW-4", cases=by_id([*SAMPLED, *SETTINGS, JOINING]))
def first_tokens_of_samples(context: Context, case: Case) -> Result:
    """The first depth + 2 tokens of independent samples, taken jointly, fit the target's law (chi-square)."""
    implementation = context.implementation
    implementation.require(*capabilities_for(case.params))
    has_budget = "budget" in implementation.capabilities
    pair, prompt = _pair(context, case), list(case.prompt)
    options = context.batched(pair, **(case.budget if has_budget else {}))
    depth = case.depth if has_budget else int((implementation.budget or implementation.options).get("depth", 3))
    engine = context.open(pair, **options)
    if reason := _cannot_load(engine):
        return context.result("inconclusive", reason)
    params = {**case.params, "max_new_tokens": min(depth + 2, case.window, 5 if pair.vocab_size > 6 else 8)}
    expected = target_law(context.target_model(pair, "float64"), prompt, SamplingParams.of(params))
    n = (10 if context.settings.tier == "full" else 1) * (800 if case.pair in (TOY, "dice8") else 2_000)

    def sample(arm: Engine, size: int, salt: int) -> Counter[tuple[int, ...]]:
        return _sample(arm, prompt, params, size // context.reduction.samples, context.seed(salt))

    counts = sample(engine, n, 0)
    first, second = chi_square(counts, expected), None
    if implementation.lossy:
        second = first  # the fault is documented, so that only its effect size is of interest
    elif not first.impossible and first.p < FIRST:
        second = chi_square(sample(engine, 4 * n, 1), expected)

    def against_control() -> float | None:
        control = sample(context.open(pair, speculate=False, **options), 4 * n, 2)
        texts, control_texts = ([list(arm.elements())] for arm in (sample(engine, 4 * n, 3), control))
        return first_tokens_test(texts, control_texts, params["max_new_tokens"])

    return _judge_fit(context, case, expected, counts, first, second, against_control if context.low_precision else None)


def _sample(engine: Engine, prompt: list[int], params: dict[str, Any], n: int, seed: int) -> Counter[tuple[int, ...]]:
    counts: Counter[tuple[int, ...]] = Counter()
    for start in range(0, n, PER_CALL):
        size = min(PER_CALL, n - start)
        outputs = engine.generate([prompt] * size, [params] * size, range(seed + start, seed + start + size))
        counts.update(output.tokens for output in outputs)
    return counts


def _judge_fit(
    context: Context,
    case: Case,
    expected: Law,
    counts: Counter[tuple[int, ...]],
    first: ChiSquare,
    second: ChiSquare | None,
    against_control: Callable[[], float | None] | None,
) -> Result:
    observed, detectable = {text: count / first.n for text, count in counts.items()}, first.detectable_deviation(FIRST)
    evidence: dict[str, Any] = {
        "p_value": first.p,
        "false_alarm": false_alarm(TWO_STAGES),
        "sensitivity": f"total variation of {detectable:.3f} or more on {first.df + 1} cells (power 0.9)",
        "measured": {
            "chi-square": first.statistic,
            "degrees of freedom": first.df,
            "samples": first.n,
            "impossible": first.impossible,
            "total variation": first.distance,
            "total variation of a right one": first.expected_distance,
        },
        "work": (first.n, "samples"),
        "effect": (first.distance, "total variation"),
        "detectable": (detectable, "total variation"),
        "pictures": (law_picture(f"{case.id}: {first.n} samples", expected, observed, first.n),),
    }
    if first.impossible:
        reason = f"{first.impossible} of {first.n} samples have probability zero under the target"
    elif second:
        reason = f"p = {first.p:.2g}, and {second.p:.2g} on {second.n} fresh samples"
    else:
        reason = f"p = {first.p:.2g}"
    if not first.impossible and (second is None or second.p >= SECOND):
        return context.result("pass", reason if second else f"{reason}: {first.n} samples fit the target's law", **evidence)
    if against_control and (p := against_control()) is not None and p >= SECOND:
        return context.result("n/a", f"{reason}; but p = {p:.2g} against its control arm: its arithmetic departs", **evidence)
    return context.result("fault", reason, **evidence)


# --- LAW-8: speculation against its control ------------------------------------------------------------------------


@check("LAW-8", cases={"6 tokens": 6})
def speculation_against_control(context: Context, window: int) -> Result:
    """With and without speculation the implementation samples alike: prefixes of texts, by a permutation test (MMD).

    No probabilities of a target are needed, and its arithmetic cancels; but the test detects less than LAW-7 does with as many
    tokens.
    """
    many = context.scaled(400 if context.settings.tier == "full" else 40, least=20)
    prompts = [prompt.tokens[:24] for prompt in context.some_prompts(4)[:4]]
    params = {"temperature": 1.0, "max_new_tokens": window}
    options = context.batched(context.pair)
    arms = [context.open(context.pair, speculate=speculate, **options) for speculate in (True, False)]
    found: list[PermutationTest] = []

    def p_of(stage: int, size: int) -> float:
        # Each arm has seeds of its own: with shared seeds the texts would be equal because they are coupled.
        texts, control_texts = (
            [
                _texts(arm, prompt, params, many * size, context.seed(1000 * k + 10 * stage + i))
                for i, prompt in enumerate(prompts)
            ]
            for k, arm in enumerate(arms)
        )
        found.append(prefix_mmd(texts, control_texts, window, context.seed(stage)))
        return found[-1].p

    stages = confirm(p_of, REPLICATES)
    tokens = 2 * many * len(prompts) * window
    evidence: dict[str, Any] = {
        "p_value": stages.p_values[0],
        "false_alarm": false_alarm(REPLICATES),
        "measured": {"texts an arm": many * len(prompts), "tokens": tokens, "MMD^2": found[0].statistic},
        "work": (tokens, "tokens"),
        "effect": (found[0].statistic, "MMD^2"),
        "sensitivity": "gross faults only: it takes about ten times the tokens of LAW-7",
    }
    p_values = ", ".join(f"{p:.3g}" for p in stages.p_values)
    if stages.fault:
        reason = f"its texts differ from those of its control arm: p = {p_values} on fresh samples each"
        return context.result("fault", reason, **evidence)
    reason = f"p = {p_values}: {many * len(prompts)} texts an arm, of {window} tokens each, are exchangeable"
    return context.result("pass", reason, **evidence)


def _texts(engine: Engine, prompt: Sequence[int], params: dict[str, Any], n: int, seed: int) -> list[tuple[int, ...]]:
    return [output.tokens for output in engine.generate([prompt] * n, [params] * n, range(seed, seed + n))]


# --- LAW-7: long streams -------------------------------------------------------------------------------------------


@check("LAW-7", cases=by_id(STREAMS))
def streams_of_tokens(context: Context, case: StreamCase) -> Result:
    """Along texts of any prompts and parameters, several in a call, the emitted tokens are independent samples of the target's
    law: no bet on their ranks, blocks, neighbours or children wins (PIT e-processes)."""
    settings, implementation = context.settings, context.implementation
    implementation.require(*case.needs)
    if case.pair == "dice8" and settings.tier == "quick" and context.toy().name != "dice8":
        return context.result("n/a", "the quick tier judges its streams on coin4 and coin6, which it can load")
    pair = shipped(case.pair) if case.pair else context.pair
    options = context.batched(pair, **(case.budget if "budget" in implementation.capabilities else {}))
    engine, plan = context.open(pair, **options), _plan(context, pair, case)
    if reason := _cannot_load(engine):
        return context.result("inconclusive", reason)
    scorer = TargetScorer(context.target_model(pair, settings.oracle), context.noise(pair, settings.dtype).tolerance / 2)
    tokens = case.tokens if case.pair else context.scaled(case.tokens)
    budget = tokens // context.reduction.tokens * (10 if settings.tier == "full" else 1)
    test = SequentialTest(scorer, plan, context.seed(), budget)
    with _ledger(context, pair, case) as ledger:
        found = test.run(engine, ledger.read())
        ledger.write(test.counts)
    fields = _stream_evidence(test, found)
    if found.fault:
        if found.impossible:
            reason = f"{found.impossible} of {found.tokens} tokens have probability zero"
        else:
            won = found.components[found.largest]
            reason = f"the bet on {found.largest} has won 10^{won:.1f} after {found.tokens} tokens"
        control = SequentialTest(scorer, plan, test.seed, found.tokens).run(context.open(pair, speculate=False, **options))
        if control.fault:
            return context.result("n/a" if context.low_precision else "inconclusive", f"{reason}; {OTHER_TARGET}", **fields)
        reason += f"; all bets on the control arm together have won 10^{control.log10:.1f}"
        return context.result("fault", reason, witness=_witness(engine, test, options), **fields)
    if found.extend:
        won = found.components[found.largest]
        reason = f"the bet on {found.largest} has won 10^{won:.1f} after {found.tokens} tokens"
        reason += ": too much for a pass, too little for a fault; --tier full takes more tokens"
        return context.result("inconclusive", reason, **fields)
    return context.result("pass", f"{found.tokens} tokens: all bets together have won 10^{found.log10:.1f}", **fields)


def _ledger(context: Context, pair: Pair, case: StreamCase) -> Ledger:
    """Counts of earlier runs of the same code and settings. A trace has no further tokens, so that its runs do not add up."""
    settings = context.settings
    accumulates = settings.evidence and not context.implementation.name.startswith("trace:")
    key: dict[str, Any] = {name: getattr(settings, name) for name in ("dtype", "oracle", "seed")}
    key |= {"campaign": case.id, "params": case.params, "pair": pair.checksums()}
    return Ledger(Path(settings.evidence) if accumulates else None, context.implementation, key)


def _witness(engine: Engine, test: SequentialTest, options: dict[str, Any]) -> Witness | None:
    """A token of probability zero if there is one, else the least likely token of the text on which the bets won most."""
    if test.counts.examples:
        text, position = test.counts.examples[0]
    else:
        best = max(range(len(test.sequences)), key=lambda i: Evidence.of(Counts.of([test.sequences[i]])).log10)
        text = int(test.counts.sequences) - len(test.sequences) + best
        position = int(test.sequences[best].p.argmin())
    prompt, params = test.plan.request(text)
    (output,) = engine.generate([prompt], [params], [test.seed + text])
    if position >= len(output.tokens):
        return None  # decoded alone, the text is another one
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


def _stream_evidence(test: SequentialTest, found: Evidence) -> dict[str, Any]:
    """Fields of the result: what was measured, and what would have been detected."""
    ranks = test.counts.histogram
    detectable = detectable_deviation(found.tokens).value
    cdf, tv = dkw_bound(edge_distance(ranks, WIDTHS), found.tokens), chi_square_bound(ranks, WIDTHS)
    return {
        "false_alarm": E_PROCESS_SHARE,
        "diagnostics": diagnose(test.sequences),
        "sensitivity": f"a total variation of {detectable:.3f} or more of tokens' ranks from uniform (power 0.9, asymptotic)",
        "measured": {
            "tokens": found.tokens,
            LOG10_E: found.log10,
            DKW_BOUND: cdf.value,
            PIT_BOUND: tv.value,
            **{f"{LOG10_E}, {name}": value for name, value in found.components.items()},
        },
        "work": (found.tokens, "tokens"),
        "detectable": (detectable, "total variation of ranks"),
    }


def _plan(context: Context, pair: Pair, case: StreamCase) -> Plan:
    """The prompts of the run, or every short prompt of a toy."""
    if case.pair:
        return Plan.of(short_prompts(pair.vocab_size), case.params)
    sizes = (context.scaled(size) for size in (MAX_PROMPT, TEXTS_PER_CALL, TEXTS_PER_LOOK))
    return Plan.of([prompt.tokens for prompt in context.prompts], case.params, *sizes)


# --- pairs ---------------------------------------------------------------------------------------------------------


def _pair(context: Context, case: Case) -> Pair:
    """The pair of a case. An implementation whose trees can be chosen is judged on the coins in the quick tier."""
    if case.pair != TOY:
        return shipped(case.pair)
    on_coins = "budget" in context.implementation.capabilities and shipped("coin4").drafter(context.implementation.checkpoint)
    if on_coins and context.settings.tier == "quick":
        raise NotApplicable("the quick tier judges its sampled law with trees that can be chosen")
    return context.toy()


def _cannot_load(engine: Engine) -> str:
    """Why an engine cannot load a pair, or "". An engine that works on its own pair is not broken because of a toy."""
    try:
        engine.raw  # noqa: B018
    except AdapterError as error:
        return f"its sampled law was not judged: it could not be opened on the pair {engine.pair.name}: {error}"
    return ""
