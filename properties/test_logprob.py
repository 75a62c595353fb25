"""Chapter TOLD: what an implementation reports with its texts, log-probabilities and counters, is correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from eagle2_ref.sampling import SamplingParams
from harness.acceptance import doubt_of_checkpoint
from harness.case import by_id, capabilities_for
from harness.catalogue import check
from harness.context import Context
from harness.distributions.logprobs import KINDS, LogprobComparison, compare_logprobs
from harness.implementations.engine import AdapterError, Counters, Engine, Output
from harness.pairs import Pair
from harness.record.model import Result

LONGEST = 4096
"""Longest context in tokens that is filled: a pass over more takes a minute on a CPU."""

COARSE = 0.05
"""Nats by which an engine's own arithmetic (a cache in half precision, fast exponentials) may be off, in both of its arms."""


# --- log-probabilities ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogprobCase:
    """Sampling parameters of a call of several texts, which take them in turn. fills_context: texts end at the context limit."""

    id: str
    params: tuple[dict[str, Any], ...]
    fills_context: bool = False

    @property
    def needs(self) -> set[str]:
        needed = capabilities_for(name for params in self.params for name in params)
        return needed | ({"context"} if self.fills_context else set())

    def pair(self, context: Context) -> Pair:
        """The pair of the run, or a toy pair where a text that fills its context is long: the limit is the implementation's."""
        return context.toy() if self.fills_context and context.pair.context > LONGEST else context.pair

    def call(self, context: Context) -> tuple[list[list[int]], list[dict[str, Any]]]:
        """Prompts and parameters: 6 texts of 48 tokens, or 2 texts that begin 12 tokens before the end of the context."""
        if self.fills_context:
            pair = self.pair(context)
            text = [token % pair.vocab_size for prompt in context.prompts for token in prompt.tokens]
            length = pair.context - 12
            prompts, new = [list(islice(cycle(text[start:]), length)) for start in (0, 1)], 99
        else:
            texts = context.some_prompts(6, least=len(self.params))
            prompts, new = [prompt.tokens for prompt in texts], context.scaled(48, least=24)
        return prompts, [{**params, "max_new_tokens": new} for params in islice(cycle(self.params), len(prompts))]


LOGPROB_CASES = (
    LogprobCase("T=0", ({"temperature": 0.0},)),
    LogprobCase("T=0.7 top_p=0.9", ({"temperature": 0.7, "top_p": 0.9},)),
    LogprobCase("T=1", ({"temperature": 1.0},)),
    LogprobCase("mixed temperatures", ({"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 0.6}, {"temperature": 1.4})),
    LogprobCase("T=1, to the end of the context", ({"temperature": 1.0},), fills_context=True),
)


@check("TOLD-1", cases=by_id(LOGPROB_CASES))
def reported_logprobs(context: Context, case: LogprobCase) -> Result:
    """The reported log-probability of a token is the target's, given the text before it, up to rounding.

    The implementation declares whether it reports the law after the sampling parameters or before them. A wrong number is a
    fault whether or not speculation causes it; the control arm shows which. If both arms are off by little, the engine uses
    another arithmetic.
    """
    context.implementation.require("logprobs", *sorted(case.needs))
    arm = _reported(case, context)
    kind, off = KINDS[context.implementation.logprobs], arm.errors
    evidence: dict[str, Any] = {
        "measured": {"tokens": arm.tokens, "off": len(off), "largest": arm.largest, "allowed": arm.tolerance},
        "work": (arm.tokens, "tokens"),
        "effect": (arm.largest, "nats"),
        "detectable": (arm.tolerance, "nats"),
    }
    if not off and not arm.point_masses:
        sensitivity = f"a log-probability off by {arm.tolerance:.1g} nats"
        pair = case.pair(context)
        where = "" if pair == context.pair else f", on {pair.name}, as the context of {context.pair.name} is long"
        reason = f"{arm.tokens} log-probabilities are those of {kind}{where}"
        return context.result("pass", reason, sensitivity=sensitivity, **evidence)
    control = _reported(case, context, speculate=False)
    if not off and control.point_masses:
        reason = "at temperature 0 it reports the point mass of greedy decoding: there is nothing to compare"
        return context.result("n/a", reason)
    slight = bool(control.errors) and max(arm.largest, control.largest) < COARSE
    whose = f"{len(control.errors)} of the control arm's are off too, by up to {control.largest:.2g} nats"
    whose += ": another arithmetic may cause as much" if slight else ": speculation is not the cause"
    reason = f"{len(off) or arm.tokens} of {arm.tokens} log-probabilities are not those of {kind}: {arm.first_error()}"
    reason = f"{reason}; {whose if control.errors else 'the control arm reports other numbers'}"
    return context.result("n/a" if slight else "fault", reason, **evidence)


def _reported(case: LogprobCase, context: Context, speculate: bool = True) -> LogprobComparison:
    """The log-probabilities that one arm of the implementation reports in a call."""
    (prompts, params), pair = case.call(context), case.pair(context)
    outputs = context.open(pair, speculate).generate(prompts, params, range(len(prompts)))
    if silent := [row for row, output in enumerate(outputs) if output.logprobs is None]:
        raise AdapterError(f"the capability 'logprobs' is declared, but text {silent[0]} came without log-probabilities")
    dtype, kind = context.settings.dtype, context.implementation.logprobs
    logits = context.scorer(pair).logits(prompts, [output.tokens for output in outputs])
    noise, rows = context.noise(pair, dtype), zip(prompts, outputs, params, logits, strict=True)
    return LogprobComparison(
        [compare_logprobs(noise, prompt, output, SamplingParams.of(p), kind, along) for prompt, output, p, along in rows]
    )


# --- counters ------------------------------------------------------------------------------------------------------


@check("TOLD-2", cases={"T=0": 0.0, "T=1": 1.0})
def reported_counters(context: Context, temperature: float) -> Result:
    """Counters add up to the texts that they were counted over: passes over drafts, tokens drafted, and tokens accepted.

    A pass emits what it accepted and one token more; at the end of a text some may be cut. Engines differ in whether a pass
    without drafts is counted, and whether the prompt's pass is one over drafts: the check allows each convention. Where
    blocks are reported too, the counters must be those of the blocks.
    """
    implementation = context.implementation
    implementation.require("counters")
    engine, budget = context.open(context.pair), implementation.shape
    params = {"temperature": temperature, "max_new_tokens": context.scaled(64, least=32)}
    each = context.scaled(4)
    prompts = [prompt.tokens for prompt in context.prompts[: 2 * each]]
    start, outputs = _counters(engine), list[Output]()
    for half in (prompts[:each], prompts[each:]):
        before = _counters(engine)
        new = engine.generate(half, [params] * len(half), range(len(half)))
        counted = _counters(engine) - before
        wrong = _impossible_counters(counted, new, budget)
        if not wrong and "blocks" in implementation.capabilities:
            wrong = _counters_unlike_blocks(counted, new)
        if wrong:
            return context.result("fault", wrong, measured=vars(counted))
        outputs += new
    counted, tokens = _counters(engine) - start, sum(len(output.tokens) for output in outputs)
    evidence: dict[str, Any] = {"measured": vars(counted) | {"tokens": tokens}, "work": (tokens, "tokens")}
    if not counted.passes:
        reason = f"no pass over drafts was counted, in {len(outputs)} texts of {tokens} tokens"
        return context.result("inconclusive", reason, **evidence)
    reason = f"{counted.passes} passes that accepted {counted.accepted} of {counted.drafted} drafted tokens fit {tokens} tokens"
    note = doubt_of_checkpoint(implementation, counted.passes, counted.accepted)
    return context.result("pass", f"{reason} of {len(outputs)} texts", note=note, **evidence)


def _counters(engine: Engine) -> Counters:
    counted = engine.counters()
    assert counted is not None, "the capability is declared"
    return counted


def _impossible_counters(counted: Counters, outputs: Sequence[Output], budget: dict[str, int]) -> str:
    """Why the counters of a call are impossible, or ""."""
    passes, drafted, accepted = counted.passes, counted.drafted, counted.accepted
    tokens = sum(len(output.tokens) for output in outputs)
    if min(passes, drafted, accepted) < 0:
        return f"counters decreased in a call: by {counted}"
    if accepted > drafted:
        return f"{accepted} tokens were accepted, but only {drafted} drafted"
    if passes > tokens or (drafted and not passes):
        return f"{passes} passes over {drafted} drafted tokens were counted, for {tokens} tokens"
    if "m" in budget and drafted > passes * budget["m"]:
        return f"{drafted} tokens were drafted in {passes} passes, of {budget['m']} at most"
    # The end of a text can cut at most the accepted path of its last block.
    if "depth" in budget and passes + accepted > tokens + len(outputs) * budget["depth"]:
        return f"{passes} passes that accepted {accepted} tokens emit {passes + accepted}, but the texts have {tokens}"
    return ""


def _counters_unlike_blocks(counted: Counters, outputs: Sequence[Output]) -> str:
    """How the counters contradict the blocks that are reported with the texts, or ""."""
    blocks = [block for output in outputs for block in output.blocks or ()]
    drafted, accepted = (sum(len(block.parents) - 1 for block in blocks if block.parents), sum(b.accepted for b in blocks))
    cut = drafted if sum(block.accepted + 1 for block in blocks) > sum(len(output.tokens) for output in outputs) else 0
    if counted.drafted != drafted or not accepted <= counted.accepted <= accepted + cut:
        return f"{counted.accepted} of {counted.drafted} drafted tokens were accepted; by the blocks, {accepted} of {drafted}"
    if not sum(len(block.parents) > 1 for block in blocks) <= counted.passes <= len(blocks):
        return f"{counted.passes} passes were counted, and {len(blocks)} blocks reported"
    return ""
