"""Chapter GREEDY: at temperature 0 the text is the target's greedy text, token for token; every divergence is classified."""

from __future__ import annotations

from typing import Any

import pytest

from eagle2_ref.sampling import SamplingParams
from harness.distributions.scoring import Divergence, TargetScorer
from harness.implementations.engine import Engine
from harness.pairs import Pair, shipped
from harness.pytest_plugin import Judge
from harness.record.model import Verdict
from properties.cells import Cell, needs, parametrize
from properties.pictures import diverged
from properties.subject import Subject

NEW = 96

CROWD = 1e-9
"""p-value below which so many ties, each of them excusable, are none."""

COIN = [
    Cell("coin6", {"temperature": 0.0}, 1, 1, 1),
    Cell("coin6", {"temperature": 0.0}, 3, 3, 10),
    Cell("coin6", {"temperature": 0.0, "repetition_penalty": 1.3}, 6, 2, 12),
    Cell("coin6", {"temperature": 0.0}, 2, 6, 9),
]


@pytest.mark.parametrize("penalty", [None, 1.3], ids=["plain", "repetition penalty 1.3"])
def test_prompts_of_code(penalty: float | None, judge: Judge, subject: Subject) -> None:
    """GREEDY-1: At temperature 0 every token is the target's most likely one, given the text before it.

    Each position is judged on the text's own past, so that one divergence does not hide the next. A divergence within the
    measured noise of the arithmetic is a tie; one beyond it is a fault, unless the control arm shows the same.
    """
    prompts = [prompt.tokens for prompt in subject.some(8)]
    params = {"temperature": 0.0, "max_new_tokens": NEW}
    if penalty:
        subject.impl.require("repetition_penalty")
        prompts = [_beginning(prompt, subject.pair.vocab_size) for prompt in prompts]
        params["repetition_penalty"] = penalty
    _judge_greedy(judge, subject, subject.pair, prompts, params, dtype=subject.asked.dtype)


@parametrize(COIN)
def test_exact_ties(cell: Cell, judge: Judge, subject: Subject) -> None:
    """GREEDY-2: The same holds where two tokens are exactly equally likely, from every start, with any budget; if another than
    the first of them is taken, that is told as a tie."""
    subject.impl.require("budget", *needs(cell.params))
    params = {**cell.params, "max_new_tokens": 12}
    starts = [[a] for a in range(6)] + [[a, b, 3] for a in range(6) for b in range(6)]
    _judge_greedy(judge, subject, shipped("coin6"), starts, params, dtype="float64", **cell.budget)


@pytest.mark.parametrize("length", ["one token", "long"])
def test_short_and_long_prompts(length: str, judge: Judge, subject: Subject) -> None:
    """GREEDY-3: The same holds for prompts of one token, and for a long one."""
    long = [token for prompt in subject.texts for token in prompt.tokens][: min(1200, subject.pair.context // 2)]
    chosen = [[prompt.tokens[0]] for prompt in subject.texts[:3]] if length == "one token" else [long]
    params = {"temperature": 0.0, "max_new_tokens": 48}
    _judge_greedy(judge, subject, subject.pair, chosen, params, dtype=subject.asked.dtype)


def test_mixed_calls(judge: Judge, subject: Subject) -> None:
    """GREEDY-4: In a call that mixes temperatures and lengths, a row of temperature 0 is what it is alone."""
    prompts = [prompt.tokens for prompt in subject.texts[:6]]
    params = [
        {"temperature": t, "max_new_tokens": n} for t, n in ((1.0, 24), (0.0, 16), (0.7, 8), (0.0, 24), (1.3, 16), (0.0, 8))
    ]
    engine = subject.open(subject.pair)
    together = engine.generate(prompts, params, range(6))
    rows = [row for row in range(6) if params[row]["temperature"] == 0]
    alone = [engine.generate([prompts[row]], [params[row]], [row])[0] for row in rows]
    wrong = [row for row, output in zip(rows, alone, strict=True) if output.tokens != together[row].tokens]
    measured = {"rows": len(rows), "different": len(wrong)}
    if not wrong:
        judge("pass", f"{len(rows)} greedy rows among sampled ones are what they are alone", measured=measured)
        return
    truth = subject.scorer(subject.pair)
    tolerance = subject.noise(subject.pair, subject.asked.dtype).tolerance
    law = SamplingParams(temperature=0.0)
    found = truth.greedy_divergences([prompts[row] for row in wrong], [together[row].tokens for row in wrong], law)
    margins = [divergence.margin for divergences in found for divergence in divergences]
    verdict: Verdict = "fault" if not margins or max(margins) > tolerance else "tie"
    judge(verdict, f"row {wrong[0]} differs from what it is alone, by {max(margins, default=0.0):.3g} logits", measured=measured)


def _beginning(prompt: list[int], vocab_size: int) -> list[int]:
    """As much of a prompt as has half of the vocabulary at most: of tokens that have all been seen, a penalty keeps the order."""
    return next((prompt[:end] for end in range(1, len(prompt)) if 2 * len(set(prompt[: end + 1])) > vocab_size), prompt)


def _judge_greedy(
    judge: Judge, subject: Subject, pair: Pair, prompts: list[list[int]], params: dict[str, Any], dtype: str, **budget: int
) -> None:
    options: dict[str, Any] = subject.sampling(pair, **budget, dtype=dtype) if budget else {}
    truth = subject.scorer(pair)
    noise = subject.noise(pair, dtype)
    found, tokens = _divergences(subject.open(pair, **options), truth, prompts, params)
    faults = [(i, d) for i, d in found if d.margin > noise.tolerance]
    ties = len(found) - len(faults)
    crowd = noise.too_many(sum(0 < d.margin <= noise.tolerance for _, d in found), tokens)  # exact ties are anybody's
    measured = {
        "tokens": tokens,
        "prompts": len(prompts),
        "ties": ties,
        "faults": len(faults),
        "tolerance": noise.tolerance,
        "flips in calibration": noise.flips / noise.positions,
    }
    evidence: dict[str, Any] = {"measured": measured, "false_alarm": CROWD}
    if not found:
        judge("pass", f"{tokens} tokens of {len(prompts)} prompts, all equal", **evidence)
    elif not faults and crowd >= CROWD:
        told = f"{ties} of {tokens} tokens differ, all within the noise of {noise.tolerance:.1g} logits"
        judge("tie", told, **evidence)
    else:
        control, _ = _divergences(subject.open(pair, speculate=False, **options), truth, prompts, params)
        excused = sum(d.margin > noise.tolerance for _, d in control)
        i, first = (faults or found)[0]
        seen = f"token {first.emitted} at position {first.position} where {first.expected} leads by {first.margin:.3g} logits"
        many = f"{len(faults)} of {tokens} tokens differ beyond the noise of {noise.tolerance:.1g}: {seen}"
        few = f"{ties} of {tokens} tokens differ: each within the noise, but p = {crowd:.1g} for so many"
        verdict: Verdict = "inconclusive" if excused else "fault"
        control_arm = (
            f"; so do {excused} of the control arm: its target is not this target" if excused else "; the control arm has none"
        )
        witness = diverged(first, pair.name, options, prompts[i], params, i)
        told = (many if faults else few) + control_arm
        judge(verdict, told, witness=witness, **evidence | {"measured": measured | {"control faults": excused}})


def _divergences(
    engine: Engine, truth: TargetScorer, prompts: list[list[int]], params: dict[str, Any]
) -> tuple[list[tuple[int, Divergence]], int]:
    """Every divergence with the number of its prompt, which is its seed too; and how many tokens there were."""
    outputs = engine.generate(prompts, [params] * len(prompts), range(len(prompts)))
    found = truth.greedy_divergences(prompts, [output.tokens for output in outputs], SamplingParams.of(params))
    return [(i, d) for i, text in enumerate(found) for d in text], sum(len(output.tokens) for output in outputs)
