"""Chapter BATCH: texts that share the passes of a target do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from eagle2_ref.sampling import SamplingParams
from harness.implementations.engine import Engine, Output
from harness.pytest_plugin import Judge
from harness.record.model import Verdict
from properties.subject import Subject

SIZE = 5  # texts that share a pass: fewer than there are, so that some take the place of finished ones
TEMPERATURES = (0.0, 1.0, 0.0, 0.7, 1.3, 0.0, 1.0)
LENGTHS = (12, 16, 5, 9, 1, 14, 7)


@pytest.mark.parametrize("lengths", [(12,), LENGTHS], ids=["texts of one length", "texts of several lengths"])
def test_rows_of_a_call(lengths: tuple[int, ...], judge: Judge, subject: Subject) -> None:
    """BATCH-1: In a call of several prompts, of different lengths and temperatures, each row is what it is alone.

    Token for token where the implementation says so of its seeds; otherwise at temperature 0, where a row that differs is
    judged by the target's margin: the sampled rows of such an implementation are a matter of law.
    """
    exact = "batch" in subject.impl.capabilities
    together, alone = _engines(subject)
    asked = _asked(judge, subject, lengths)
    rows = [row for row, params in enumerate(asked[1]) if exact or params["temperature"] == 0]
    outputs = together.generate(*asked)
    singly = {row: _alone(alone, asked, row) for row in rows}
    wrong = [row for row in rows if singly[row].tokens != outputs[row].tokens]
    measured = {"rows": len(rows), "different": len(wrong)}
    if not wrong:
        judge("pass", f"{len(rows)} rows of a call of {len(outputs)} are what they are alone", measured=measured)
        return
    ties = [row for row in wrong if _is_tie(subject, asked, row, outputs[row], singly[row])]
    first = next((row for row in wrong if row not in ties), wrong[0])
    verdict: Verdict = "tie" if len(ties) == len(wrong) else "fault"
    summary = (
        f"{len(wrong)} of {len(rows)} rows are not what they are alone: {_where(asked, first, outputs[first], singly[first])}"
    )
    judge(verdict, summary, measured=measured | {"ties": len(ties)})


def test_blocks_of_a_call(judge: Judge, subject: Subject) -> None:
    """BATCH-2: What a row costs is what it costs alone: the same draft trees, and of each as many tokens accepted."""
    subject.impl.require("batch", "blocks")
    together, alone = _engines(subject)
    asked = _asked(judge, subject, LENGTHS)
    outputs = together.generate(*asked)
    singly = [_alone(alone, asked, row) for row in range(len(outputs))]
    wrong = [row for row, output in enumerate(singly) if output.blocks != outputs[row].blocks]
    passes = [sum(len(output.blocks or ()) for output in arm) for arm in (outputs, singly)]
    measured = {"rows": len(outputs), "different": len(wrong), "blocks together": passes[0], "blocks alone": passes[1]}
    if wrong:
        judge("fault", f"row {wrong[0]} comes in other blocks than alone; {len(wrong)} rows do", measured=measured)
    judge("pass", f"{len(outputs)} rows come in the blocks that they come in alone", measured=measured)


Asked = tuple[list[list[int]], list[dict[str, Any]], list[int]]
"""Prompts, parameters and seeds of a call."""


def _engines(subject: Subject) -> tuple[Engine, Engine]:
    """Who answers a call whose rows share passes, and who answers alone.

    In float64 where it can be had, so that a pass of another shape rounds to the same tokens.
    """
    if "batch" not in subject.impl.capabilities:
        return (subject.open(subject.pair),) * 2
    options: dict[str, Any] = {"dtype": "float64"} if subject.impl.takes("dtype") else {}
    if not subject.impl.takes("batch"):
        return (subject.open(subject.pair, **options),) * 2
    return subject.open(subject.pair, batch=SIZE, **options), subject.open(subject.pair, batch=1, **options)


def _asked(judge: Judge, subject: Subject, lengths: Sequence[int]) -> Asked:
    """14 rows: prompts from one token to whole ones, all temperatures, every third row with a penalty."""
    prompts, params = [], []
    for row, text in enumerate(subject.texts[:14]):
        prompts.append(text.tokens[: (1, 3, 1000, 7)[row % 4]])
        params.append({"temperature": TEMPERATURES[row % 7], "max_new_tokens": lengths[row % len(lengths)]})
        if row % 3 == 1 and "repetition_penalty" in subject.impl.capabilities:
            params[-1]["repetition_penalty"] = 1.3
    return prompts, params, [judge.seed(row) for row in range(len(prompts))]


def _alone(engine: Engine, asked: Asked, row: int) -> Output:
    prompts, params, seeds = asked
    return engine.generate([prompts[row]], [params[row]], [seeds[row]])[0]


def _is_tie(subject: Subject, asked: Asked, row: int, *outputs: Output) -> bool:
    """Whether a greedy row, together and alone, departs from the target only where rounding decides."""
    prompt, params = asked[0][row], asked[1][row]
    if params["temperature"] > 0:
        return False
    truth, law = subject.scorer(subject.pair), SamplingParams.of(params)
    tolerance = subject.noise(subject.pair, subject.asked.dtype).tolerance
    found = truth.greedy_divergences([prompt] * len(outputs), [output.tokens for output in outputs], law)
    margins = [divergence.margin for text in found for divergence in text]
    return bool(margins) and max(margins) <= tolerance


def _where(asked: Asked, row: int, together: Output, alone: Output) -> str:
    pairs = enumerate(zip(together.tokens, alone.tokens, strict=False))
    first = next((at for at, (one, other) in pairs if one != other), min(len(together.tokens), len(alone.tokens)))
    return f"row {row}, {len(asked[0][row])} tokens at temperature {asked[1][row]['temperature']:g}, from its token {first} on"
