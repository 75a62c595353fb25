"""Chapter TOLD: what an implementation tells beside its texts, log-probabilities and counters, is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import pytest

from eagle2_ref.sampling import SamplingParams
from harness.distributions.logprobs import KINDS, LogprobComparison, compare_logprobs
from harness.implementations.engine import AdapterError, Counters, Engine, Output
from harness.pytest_plugin import Judge
from harness.record.model import Verdict
from properties.cells import needs
from properties.subject import Subject

COARSE = 0.05
"""Nats by which an engine's own arithmetic (a cache in half precision, fast exponentials) may be off, in both of its arms."""


@dataclass(frozen=True)
class Call:
    """What several texts are asked for in one call; they take the params in turn. full: they fill the context."""

    id: str
    params: tuple[dict[str, Any], ...]
    full: bool = False

    @property
    def needs(self) -> set[str]:
        return needs(name for params in self.params for name in params) | ({"context"} if self.full else set())

    def asked(self, subject: Subject) -> tuple[list[list[int]], list[dict[str, Any]]]:
        """Prompts and params: 6 texts of 48 tokens, or 2 that are begun 12 tokens before the end of the context."""
        if self.full:
            text = [token for prompt in subject.texts for token in prompt.tokens]
            begun = subject.pair.context - 12
            prompts, new = [list(islice(cycle(text[start:]), begun)) for start in (0, 1)], 99
        else:
            prompts, new = [prompt.tokens for prompt in subject.some(6)], 48
        return prompts, [{**params, "max_new_tokens": new} for params in islice(cycle(self.params), len(prompts))]


CALLS = (
    Call("T=0", ({"temperature": 0.0},)),
    Call("T=0.7 top_p=0.9", ({"temperature": 0.7, "top_p": 0.9},)),
    Call("T=1", ({"temperature": 1.0},)),
    Call("mixed temperatures", ({"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 0.6}, {"temperature": 1.4})),
    Call("T=1, to the end of the context", ({"temperature": 1.0},), full=True),
)


@pytest.mark.parametrize("call", [pytest.param(call, id=call.id) for call in CALLS])
def test_log_probabilities(call: Call, judge: Judge, subject: Subject) -> None:
    """TOLD-1: The log-probability that is told of a token is the target's, given the text before it, up to arithmetic.

    Of the law after sampling parameters, or of the model before them: the implementation says which. A fault is one whether or
    not speculation is to blame; the control arm tells. Where both arms are off by little, the engine's arithmetic is another.
    """
    subject.impl.require("logprobs", *sorted(call.needs))
    told = _told(call, subject)
    kind, off = KINDS[subject.impl.logprobs], told.errors
    measured = {"tokens": told.tokens, "off": len(off), "largest": told.largest, "allowed": told.tolerance}
    if not off and not told.point_masses:
        same = f"{told.tokens} log-probabilities are those of {kind}"
        judge("pass", same, measured=measured, sensitivity=f"a log-probability off by {told.tolerance:.1g} nats")
        return
    control = _told(call, subject, speculate=False)
    if not off and control.point_masses:
        judge("n/a", "at temperature 0 it tells the point mass that greedy decoding is: there is nothing to compare")
        return
    slight = bool(control.errors) and max(told.largest, control.largest) < COARSE
    whose = f"{len(control.errors)} of the control arm's are off too, by up to {control.largest:.2g} nats"
    whose += ": arithmetic of another kind may do as much" if slight else ": it is not speculation"
    verdict: Verdict = "n/a" if slight else "fault"
    seen = f"{len(off) or told.tokens} of {told.tokens} log-probabilities are not those of {kind}: {told.first_error()}"
    judge(verdict, f"{seen}; {whose if control.errors else 'the control arm tells otherwise'}", measured=measured)


def _told(call: Call, subject: Subject, speculate: bool = True) -> LogprobComparison:
    """What one arm of the implementation tells in a call."""
    prompts, params = call.asked(subject)
    outputs = subject.open(subject.pair, speculate).generate(prompts, params, range(len(prompts)))
    if silent := [row for row, output in enumerate(outputs) if output.logprobs is None]:
        raise AdapterError(f"the capability 'logprobs' is declared, but of text {silent[0]} none were told")
    dtype, kind = subject.asked.dtype, subject.impl.logprobs
    logits = subject.scorer(subject.pair).logits(prompts, [output.tokens for output in outputs])
    noise, rows = subject.noise(subject.pair, dtype), zip(prompts, outputs, params, logits, strict=True)
    return LogprobComparison(
        [compare_logprobs(noise, prompt, output, SamplingParams.of(p), kind, along) for prompt, output, p, along in rows]
    )


# --- counters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["T=0", "T=1"])
def test_counters(temperature: float, judge: Judge, subject: Subject) -> None:
    """TOLD-2: Counters add up to the texts that they were counted over: passes over drafts, tokens drafted, and accepted.

    A pass emits what it accepted and one token more; where the text ends, some may be cut. Engines differ in whether a pass
    without drafts is counted, and whether the prompt's pass is one over drafts: what is asked holds in every case, unless
    blocks are told too, whose drafted and accepted tokens the counters must then be.
    """
    subject.impl.require("counters")
    engine, budget = subject.open(subject.pair), subject.impl.shape
    params, prompts = {"temperature": temperature, "max_new_tokens": 64}, [prompt.tokens for prompt in subject.texts[:8]]
    start, outputs = _counters(engine), list[Output]()
    for some in (prompts[:4], prompts[4:]):
        before = _counters(engine)
        told = engine.generate(some, [params] * len(some), range(len(some)))
        counted = _counters(engine) - before
        blocks = "blocks" in subject.impl.capabilities
        if wrong := _miscounted(counted, told, budget) or (_unlike_blocks(counted, told) if blocks else ""):
            judge("fault", wrong, measured=vars(counted))
        outputs += told
    counted, tokens = _counters(engine) - start, sum(len(output.tokens) for output in outputs)
    measured = vars(counted) | {"tokens": tokens}
    if not counted.passes:
        judge("inconclusive", f"no pass over drafts was counted, in {len(outputs)} texts of {tokens} tokens", measured=measured)
    summary = f"{counted.passes} passes that accepted {counted.accepted} of {counted.drafted} drafted tokens fit {tokens} tokens"
    judge("pass", f"{summary} of {len(outputs)} texts", measured=measured)


def _counters(engine: Engine) -> Counters:
    counted = engine.counters()
    assert counted is not None, "the capability is declared"
    return counted


def _miscounted(counted: Counters, outputs: Sequence[Output], budget: dict[str, int]) -> str:
    """What cannot be in the counters of a call, or nothing."""
    passes, drafted, accepted = counted.passes, counted.drafted, counted.accepted
    tokens = sum(len(output.tokens) for output in outputs)
    if min(passes, drafted, accepted) < 0:
        return f"counters went back in a call: by {counted}"
    if accepted > drafted:
        return f"{accepted} tokens were accepted, but only {drafted} drafted"
    if passes > tokens or (drafted and not passes):
        return f"{passes} passes over {drafted} drafted tokens were counted, for {tokens} tokens"
    if "m" in budget and drafted > passes * budget["m"]:
        return f"{drafted} tokens were drafted in {passes} passes, of {budget['m']} at most"
    # Of a text's last block no more than its accepted path can be cut.
    if "depth" in budget and passes + accepted > tokens + len(outputs) * budget["depth"]:
        return f"{passes} passes that accepted {accepted} tokens emit {passes + accepted}, but the texts have {tokens}"
    return ""


def _unlike_blocks(counted: Counters, outputs: Sequence[Output]) -> str:
    """Where the counters are not those of the blocks that are told with the texts, or nothing."""
    blocks = [block for output in outputs for block in output.blocks or ()]
    drafted, accepted = (sum(len(block.parents) - 1 for block in blocks if block.parents), sum(b.accepted for b in blocks))
    over = drafted if sum(block.accepted + 1 for block in blocks) > sum(len(output.tokens) for output in outputs) else 0
    if counted.drafted != drafted or not accepted <= counted.accepted <= accepted + over:
        return f"{counted.accepted} of {counted.drafted} drafted tokens were accepted; by the blocks, {accepted} of {drafted}"
    if not sum(len(block.parents) > 1 for block in blocks) <= counted.passes <= len(blocks):
        return f"{counted.passes} passes were counted, and {len(blocks)} blocks told"
    return ""
