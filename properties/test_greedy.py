"""Chapter GREEDY: at temperature 0 the text is the target's greedy text, token for token; every divergence is classified."""

from __future__ import annotations

from typing import Any

from eagle2_ref.sampling import SamplingParams
from harness.case import Case, by_id, capabilities_for
from harness.catalogue import check
from harness.context import Context
from harness.distributions.scoring import Divergence, TargetScorer
from harness.implementations.engine import Engine
from harness.pairs import Pair, shipped
from harness.record.model import Result, Verdict
from harness.record.pictures import divergence_witness

NEW_TOKENS = 96

TOO_MANY_TIES = 1e-9
"""p-value below which there are too many ties, although rounding could explain each of them."""

COIN = [
    Case("coin6", {"temperature": 0.0}, 1, 1, 1),
    Case("coin6", {"temperature": 0.0}, 3, 3, 10),
    Case("coin6", {"temperature": 0.0, "repetition_penalty": 1.3}, 6, 2, 12),
    Case("coin6", {"temperature": 0.0}, 2, 6, 9),
]


@check("GREEDY-1", cases={"plain": None, "repetition penalty 1.3": 1.3})
def greedy_on_code(context: Context, penalty: float | None) -> Result:
    """At temperature 0 every token is the target's most likely one, given the text before it.

    Each position is judged given the emitted text, so that one divergence does not hide the next. A divergence within the
    measured rounding noise is a tie; a larger one is a fault, unless the control arm shows the same.
    """
    prompts = [prompt.tokens for prompt in context.some_prompts(8)]
    params = {"temperature": 0.0, "max_new_tokens": NEW_TOKENS}
    if penalty:
        context.implementation.require("repetition_penalty")
        prompts = [_prefix_with_unseen_tokens(prompt, context.pair.vocab_size) for prompt in prompts]
        params["repetition_penalty"] = penalty
    return _compare_with_target(context, context.pair, prompts, params, context.settings.dtype)


@check("GREEDY-2", cases=by_id(COIN))
def greedy_with_exact_ties(context: Context, case: Case) -> Result:
    """The same holds where two tokens are exactly equally likely, for every start and any budget; choosing another than the
    first of them is reported as a tie."""
    context.implementation.require("budget", *capabilities_for(case.params))
    params = {**case.params, "max_new_tokens": 12}
    starts = [[a] for a in range(6)] + [[a, b, 3] for a in range(6) for b in range(6)]
    return _compare_with_target(context, shipped("coin6"), starts, params, "float64", **case.budget)


@check("GREEDY-3", cases={"one token": "one token", "long": "long"})
def greedy_on_short_and_long_prompts(context: Context, length: str) -> Result:
    """The same holds for prompts of one token, and for a long one."""
    long = [token for prompt in context.prompts for token in prompt.tokens][: min(1200, context.pair.context // 2)]
    prompts = (
        [[prompt.tokens[0]] for prompt in context.prompts[: context.scaled(3, least=2)]] if length == "one token" else [long]
    )
    params = {"temperature": 0.0, "max_new_tokens": context.scaled(48, least=32)}
    return _compare_with_target(context, context.pair, prompts, params, context.settings.dtype)


@check("GREEDY-4")
def greedy_rows_of_mixed_calls(context: Context) -> Result:
    """In a call that mixes temperatures and lengths, a text of temperature 0 equals the text decoded alone."""
    prompts = [prompt.tokens for prompt in context.prompts[:6]]
    params = [
        {"temperature": t, "max_new_tokens": n} for t, n in ((1.0, 24), (0.0, 16), (0.7, 8), (0.0, 24), (1.3, 16), (0.0, 8))
    ]
    engine = context.open(context.pair)
    together = engine.generate(prompts, params, range(6))
    rows = [row for row in range(6) if params[row]["temperature"] == 0]
    alone = [engine.generate([prompts[row]], [params[row]], [row])[0] for row in rows]
    different = [row for row, output in zip(rows, alone, strict=True) if output.tokens != together[row].tokens]
    evidence: dict[str, Any] = {"measured": {"rows": len(rows), "different": len(different)}, "work": (len(rows), "texts")}
    if not different:
        reason = f"{len(rows)} greedy texts among sampled ones are what they are in calls of their own"
        return context.result("pass", reason, **evidence)
    scorer = context.scorer(context.pair)
    tolerance = context.noise(context.pair, context.settings.dtype).tolerance
    texts = [together[row].tokens for row in different]
    found = scorer.greedy_divergences([prompts[row] for row in different], texts, SamplingParams(temperature=0.0))
    margins = [divergence.margin for divergences in found for divergence in divergences]
    verdict: Verdict = "fault" if not margins or max(margins) > tolerance else "tie"
    reason = f"text {different[0]} differs from the text decoded alone, by {max(margins, default=0.0):.3g} logits"
    return context.result(verdict, reason, effect=(max(margins, default=0.0), "logits"), **evidence)


def _prefix_with_unseen_tokens(prompt: list[int], vocab_size: int) -> list[int]:
    """The longest prefix that holds at most half of the vocabulary: a penalty on all tokens would not change their order."""
    return next((prompt[:end] for end in range(1, len(prompt)) if 2 * len(set(prompt[: end + 1])) > vocab_size), prompt)


def _compare_with_target(
    context: Context, pair: Pair, prompts: list[list[int]], params: dict[str, Any], dtype: str, **budget: int
) -> Result:
    options: dict[str, Any] = context.batched(pair, **budget, dtype=dtype) if budget else {}
    scorer, noise = context.scorer(pair), context.noise(pair, dtype)
    found, tokens = _divergences(context.open(pair, **options), scorer, prompts, params)
    faults = [(i, d) for i, d in found if d.margin > noise.tolerance]
    ties = len(found) - len(faults)
    # Exact ties, of margin 0, are no evidence: any token may be chosen.
    ties_p = noise.too_many(sum(0 < d.margin <= noise.tolerance for _, d in found), tokens)
    measured = {
        "tokens": tokens,
        "prompts": len(prompts),
        "ties": ties,
        "faults": len(faults),
        "tolerance": noise.tolerance,
        "flips in calibration": noise.flips / noise.positions,
    }
    evidence: dict[str, Any] = {
        "false_alarm": TOO_MANY_TIES,
        "work": (tokens, "tokens"),
        "effect": (max((d.margin for _, d in found), default=0.0), "logits"),
        "detectable": (noise.tolerance, "logits"),
    }
    if not found:
        return context.result("pass", f"{tokens} tokens of {len(prompts)} prompts, all equal", measured=measured, **evidence)
    if not faults and ties_p >= TOO_MANY_TIES:
        reason = f"{ties} of {tokens} tokens differ, all within the noise of {noise.tolerance:.1g} logits"
        return context.result("tie", reason, measured=measured, **evidence)
    control, _ = _divergences(context.open(pair, speculate=False, **options), scorer, prompts, params)
    control_faults = sum(d.margin > noise.tolerance for _, d in control)
    i, first = (faults or found)[0]
    if faults:
        where = f"token {first.emitted} at position {first.position} where {first.expected} leads by {first.margin:.3g} logits"
        reason = f"{len(faults)} of {tokens} tokens differ beyond the noise of {noise.tolerance:.1g}: {where}"
    else:
        reason = f"{ties} of {tokens} tokens differ: each within the noise, but p = {ties_p:.1g} for so many"
    arm = (
        f"so do {control_faults} of the control arm: its target is another one" if control_faults else "the control arm has none"
    )
    return context.result(
        "inconclusive" if control_faults else "fault",
        f"{reason}; {arm}",
        witness=divergence_witness(first, pair.name, options, prompts[i], params, i),
        measured=measured | {"control faults": control_faults},
        **evidence,
    )


def _divergences(
    engine: Engine, scorer: TargetScorer, prompts: list[list[int]], params: dict[str, Any]
) -> tuple[list[tuple[int, Divergence]], int]:
    """Every divergence with the index of its prompt, which is its seed too; and the number of tokens."""
    outputs = engine.generate(prompts, [params] * len(prompts), range(len(prompts)))
    found = scorer.greedy_divergences(prompts, [output.tokens for output in outputs], SamplingParams.of(params))
    return [(i, d) for i, text in enumerate(found) for d in text], sum(len(output.tokens) for output in outputs)
