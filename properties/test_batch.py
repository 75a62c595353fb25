"""Chapter BATCH: texts that share target passes do not affect each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from eagle2_ref.sampling import SamplingParams
from harness.catalogue import check
from harness.context import Context
from harness.implementations.engine import Engine, Output
from harness.record.model import Result, Verdict

SIZE = 5  # texts that share a pass: fewer than there are texts, so that some replace finished ones
TEMPERATURES = (0.0, 1.0, 0.0, 0.7, 1.3, 0.0, 1.0)
LENGTHS = (12, 16, 5, 9, 1, 14, 7)


class Call(NamedTuple):
    """One call of `generate`."""

    prompts: list[list[int]]
    params: list[dict[str, Any]]
    seeds: list[int]


@check("BATCH-1", cases={"texts of one length": (12,), "texts of several lengths": LENGTHS})
def rows_equal_single_texts(context: Context, lengths: tuple[int, ...]) -> Result:
    """In a call of several prompts, of different lengths and temperatures, each text equals the text decoded alone.

    Token for token if the implementation declares that its seeds belong to texts (capability `batch`). Otherwise only at
    temperature 0, where a different text is judged by the target's margin: sampled texts are a matter of chapter LAW.
    """
    per_text_seeds = "batch" in context.implementation.capabilities
    together, alone = _engines(context)
    call = _call(context, lengths)
    rows = [row for row, params in enumerate(call.params) if per_text_seeds or params["temperature"] == 0]
    outputs = together.generate(*call)
    single = {row: _single(alone, call, row) for row in rows}
    different = [row for row in rows if single[row].tokens != outputs[row].tokens]
    measured, work = {"rows": len(rows), "different": len(different)}, (len(rows), "texts")
    if not different:
        reason = f"{len(rows)} texts of a call of {len(outputs)} are what they are in calls of their own"
        return context.result("pass", reason, measured=measured, work=work)
    ties = [row for row in different if _is_tie(context, call, row, outputs[row], single[row])]
    first = next((row for row in different if row not in ties), different[0])
    verdict: Verdict = "tie" if len(ties) == len(different) else "fault"
    where = _first_difference(call, first, outputs[first], single[first])
    reason = f"{len(different)} of {len(rows)} texts differ from those of calls of their own: {where}"
    return context.result(verdict, reason, measured=measured | {"ties": len(ties)}, work=work)


@check("BATCH-2")
def blocks_equal_single_texts(context: Context) -> Result:
    """A text costs the same in a batch as alone: the same draft trees, with the same number of tokens accepted."""
    context.implementation.require("batch", "blocks")
    together, alone = _engines(context)
    call = _call(context, LENGTHS)
    outputs = together.generate(*call)
    single = [_single(alone, call, row) for row in range(len(outputs))]
    different = [row for row, output in enumerate(single) if output.blocks != outputs[row].blocks]
    blocks = [sum(len(output.blocks or ()) for output in arm) for arm in (outputs, single)]
    measured = {"rows": len(outputs), "different": len(different), "blocks together": blocks[0], "blocks alone": blocks[1]}
    if different:
        reason = f"text {different[0]} has other blocks than decoded alone; {len(different)} texts have"
        return context.result("fault", reason, measured=measured, work=(sum(blocks), "blocks"))
    reason = f"{len(outputs)} texts have the blocks that they have in calls of their own"
    return context.result("pass", reason, measured=measured, work=(sum(blocks), "blocks"))


def _engines(context: Context) -> tuple[Engine, Engine]:
    """An engine whose texts share passes, and one whose texts do not.

    In float64 where the implementation offers it, so that passes of different shapes round to the same tokens.
    """
    if "batch" not in context.implementation.capabilities:
        return (context.open(context.pair),) * 2
    options: dict[str, Any] = {"dtype": "float64"} if context.implementation.takes("dtype") else {}
    if not context.implementation.takes("batch"):
        return (context.open(context.pair, **options),) * 2
    return context.open(context.pair, batch=SIZE, **options), context.open(context.pair, batch=1, **options)


def _call(context: Context, lengths: Sequence[int]) -> Call:
    """14 texts: prompts from one token to whole ones, all temperatures, every third text with a penalty.

    With a large target they are fewer, but more than share a pass.
    """
    prompts, params = [], []
    for row, prompt in enumerate(context.prompts[: context.scaled(14, least=SIZE + 2)]):
        prompts.append(prompt.tokens[: (1, 3, 1000, 7)[row % 4]])
        params.append({"temperature": TEMPERATURES[row % 7], "max_new_tokens": lengths[row % len(lengths)]})
        if row % 3 == 1 and "repetition_penalty" in context.implementation.capabilities:
            params[-1]["repetition_penalty"] = 1.3
    return Call(prompts, params, [context.seed(row) for row in range(len(prompts))])


def _single(engine: Engine, call: Call, row: int) -> Output:
    return engine.generate([call.prompts[row]], [call.params[row]], [call.seeds[row]])[0]


def _is_tie(context: Context, call: Call, row: int, *outputs: Output) -> bool:
    """Whether a greedy text, in both calls, departs from the target only where rounding decides."""
    if call.params[row]["temperature"] > 0:
        return False
    scorer, params = context.scorer(context.pair), SamplingParams.of(call.params[row])
    tolerance = context.noise(context.pair, context.settings.dtype).tolerance
    prompts, texts = [call.prompts[row]] * len(outputs), [output.tokens for output in outputs]
    margins = [divergence.margin for text in scorer.greedy_divergences(prompts, texts, params) for divergence in text]
    return bool(margins) and max(margins) <= tolerance


def _first_difference(call: Call, row: int, together: Output, alone: Output) -> str:
    pairs = enumerate(zip(together.tokens, alone.tokens, strict=False))
    first = next((at for at, (one, other) in pairs if one != other), min(len(together.tokens), len(alone.tokens)))
    length, temperature = len(call.prompts[row]), call.params[row]["temperature"]
    return f"text {row}, with a prompt of {length} tokens at temperature {temperature:g}, from its token {first} on"
