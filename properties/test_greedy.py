"""Chapter GREEDY: at temperature 0 the text is the target's greedy text, token for token; every divergence is classified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eagle2_ref.sampling import SamplingParams
from harness.evidence import Verdict
from harness.implementations import Implementation
from harness.implementations.engine import Engine
from harness.laws.teacher import Divergence, Teacher
from harness.pairs import Pair, Prompt
from harness.plugin import Judge
from harness.settings import Settings
from properties.cells import Cell, parametrize

NEW = 96

COIN = [
    Cell("coin6", {"temperature": 0.0}, 1, 1, 1),
    Cell("coin6", {"temperature": 0.0}, 3, 3, 10),
    Cell("coin6", {"temperature": 0.0, "repetition_penalty": 1.3}, 6, 2, 12),
    Cell("coin6", {"temperature": 0.0}, 2, 6, 9),
]


@pytest.mark.parametrize("penalty", [None, 1.3], ids=["plain", "repetition penalty 1.3"])
def test_prompts_of_code(
    penalty: float | None,
    judge: Judge,
    impl: Implementation,
    open_engine: Callable[..., Engine],
    teacher: Callable[[Pair, str], Teacher],
    pair: Pair,
    texts: list[Prompt],
    asked: Settings,
) -> None:
    """GREEDY-1: At temperature 0 every token is the target's most likely one, given the text before it.

    Each position is judged on the text's own past, so that one divergence does not hide the next. A divergence within the
    measured noise of the arithmetic is a tie; one beyond it is a fault, unless the control arm shows the same.
    """
    if penalty:
        impl.require("repetition_penalty")
    chosen = texts if asked.tier == "full" else texts[:: len(texts) // 10 or 1][:10]
    params = {"temperature": 0.0, "max_new_tokens": NEW} | ({"repetition_penalty": penalty} if penalty else {})
    _judge_greedy(judge, open_engine, teacher(pair, asked.dtype), pair, [p.tokens for p in chosen], params)


@parametrize(COIN)
def test_exact_ties(
    cell: Cell,
    judge: Judge,
    impl: Implementation,
    open_engine: Callable[..., Engine],
    teacher: Callable[[Pair, str], Teacher],
    coins6: Pair,
) -> None:
    """GREEDY-2: The same holds where two tokens are exactly equally likely, from every start, with any budget; if another than
    the first of them is taken, that is told as a tie."""
    impl.require("budget")
    params = {**cell.params, "max_new_tokens": 12}
    starts = [[a] for a in range(6)] + [[a, b, 3] for a in range(6) for b in range(6)]
    _judge_greedy(judge, open_engine, teacher(coins6, "float64"), coins6, starts, params, dtype="float64", **cell.budget)


@pytest.mark.parametrize("length", ["one token", "long"])
def test_short_and_long_prompts(
    length: str,
    judge: Judge,
    open_engine: Callable[..., Engine],
    teacher: Callable[[Pair, str], Teacher],
    pair: Pair,
    texts: list[Prompt],
    asked: Settings,
) -> None:
    """GREEDY-3: The same holds for prompts of one token, and for a long one."""
    long = [token for prompt in texts for token in prompt.tokens][: min(1200, pair.context // 2)]
    chosen = [[prompt.tokens[0]] for prompt in texts[:3]] if length == "one token" else [long]
    _judge_greedy(judge, open_engine, teacher(pair, asked.dtype), pair, chosen, {"temperature": 0.0, "max_new_tokens": 48})


def _judge_greedy(
    judge: Judge,
    open_engine: Callable[..., Engine],
    truth: Teacher,
    pair: Pair,
    prompts: list[list[int]],
    params: dict[str, Any],
    **options: Any,
) -> None:
    tolerance = 3 * truth.noise([[*prompt, *prompt][:160] for prompt in prompts[:3]])
    found, tokens = _divergences(open_engine(pair, **options), truth, prompts, params)
    faults = [d for d in found if d.margin > tolerance]
    measured = {
        "tokens": tokens,
        "prompts": len(prompts),
        "ties": len(found) - len(faults),
        "faults": len(faults),
        "tolerance": tolerance,
    }
    if not found:
        judge("pass", f"{tokens} tokens of {len(prompts)} prompts, all equal", measured=measured)
    elif not faults:
        judge("tie", f"{len(found)} of {tokens} tokens differ, all within the noise of {tolerance:.1g} logits", measured=measured)
    else:
        control, _ = _divergences(open_engine(pair, speculate=False, **options), truth, prompts, params)
        excused = sum(d.margin > tolerance for d in control)
        first = faults[0]
        seen = f"token {first.emitted} at position {first.position} where {first.expected} leads by {first.margin:.3g} logits"
        summary = f"{len(faults)} of {tokens} tokens differ beyond the noise of {tolerance:.1g}: {seen}"
        verdict: Verdict = "inconclusive" if excused else "fault"
        aside = (
            f"; but so do {excused} of the control arm: its target is not this target"
            if excused
            else "; the control arm has none"
        )
        judge(verdict, summary + aside, measured=measured | {"control faults": excused})


def _divergences(
    engine: Engine, truth: Teacher, prompts: list[list[int]], params: dict[str, Any]
) -> tuple[list[Divergence], int]:
    outputs = engine.generate(prompts, [params] * len(prompts), range(len(prompts)))
    law = SamplingParams.of(params)
    found = [
        d for prompt, output in zip(prompts, outputs, strict=True) for d in truth.greedy_divergences(prompt, output.tokens, law)
    ]
    return found, sum(len(output.tokens) for output in outputs)
