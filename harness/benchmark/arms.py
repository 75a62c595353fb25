"""Arms: what is timed. The reference decoder, its fixed-shape variant, transformers' `generate`, and any implementation.

All use of the reference decoder by the timed runs is in this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.fixed_shape import Static
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Rule, walk
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.record import Counts
from harness.benchmark.timing import Clock
from harness.implementations.engine import Engine

# Names of arms, as they appear in records.
SPECULATIVE, PAPER, TUNED, VANILLA, TRANSFORMERS = "speculative", "tuned as published", "tuned", "vanilla", "transformers"
STATIC, STATIC_VANILLA = "static", "static vanilla"
OURS = (SPECULATIVE, PAPER, TUNED, STATIC)
"""Arms of the reference decoder with a drafter."""

OFF = ", speculation off"
"""Appended to the name of an implementation for its control: the same implementation without speculation."""


@dataclass(frozen=True)
class TimedText:
    """One timed text.

    seconds: of the whole text. prefill: seconds until the first token, None if it cannot be observed.
    tokens: number of new tokens. first: number of tokens that came with the first.
    text: the new tokens, if the arm reports them. ended: the text ended before its full length, at an end token.
    """

    seconds: float
    prefill: float | None
    tokens: int
    first: int
    counts: Counts | None
    text: tuple[int, ...] = ()
    ended: bool = False


class Arm(Protocol):
    """One way to continue a prompt."""

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        """Continue a prompt by at most `tokens` tokens, and time it."""


@dataclass
class ReferenceArm:
    """The reference decoder. ends: tokens that end a text."""

    decoder: Decoder
    clock: Clock
    ends: tuple[int, ...] = ()

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        params = SamplingParams(temperature=temperature, max_new_tokens=tokens, eos_token_id=self.ends or None)
        stream, drafter = self.decoder.stream(prompt, params, SeededCoins(seed)), self.decoder.drafter
        timed = _time_stream(stream, self.clock, lambda _: drafter.passes if drafter else 0)
        return replace(timed, ended=self.decoder.finish != "length")


@dataclass
class FixedShapeArm:
    """The fixed-shape decoder, whose step is one graph on CUDA. Its rule is `walk`; all trees of a text are equally large."""

    static: Static
    clock: Clock

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        params = SamplingParams(temperature=temperature, max_new_tokens=tokens)
        stream = self.static.stream(prompt, params, SeededCoins(seed))
        return _time_stream(stream, self.clock, lambda steps: self.static.depth * steps)


def _time_stream(stream: Iterator[Block], clock: Clock, head_passes: Callable[[int], int]) -> TimedText:
    """Time a stream of blocks. The first block is that of the pass over the prompt.

    Args:
        stream: the blocks, each emitted as soon as it is decoded.
        clock: the clock.
        head_passes: number of passes of the drafter, from the number of steps.
    """
    begun = clock()
    first = next(stream)
    prefilled = clock()
    blocks = list(stream)
    ended = clock()
    passes = [(len(block.tree), len(block.tokens) - 1) for block in blocks]
    text = tuple(int(token) for block in (first, *blocks) for token in block.tokens)
    counts = Counts.of(passes, 1 + len(blocks), head_passes(len(blocks)))
    return TimedText(ended - begun, prefilled - begun, len(text), len(first.tokens), counts, text)


@dataclass
class TunedArm:
    """The reference decoder with a budget of its own for each temperature."""

    by_temperature: dict[float, ReferenceArm]

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        return self.by_temperature[temperature].run(prompt, temperature, tokens, seed)


def reference_decoder(arm: Arm, temperature: float) -> Decoder | None:
    """The reference decoder of an arm at a temperature; None for an arm without one."""
    found = arm.by_temperature[temperature] if isinstance(arm, TunedArm) else arm
    return found.decoder if isinstance(found, ReferenceArm) else None


@dataclass
class RecordingArm:
    """An arm that stores its greedy texts, by the tokens of their prompts."""

    arm: ReferenceArm
    greedy: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        timed = self.arm.run(prompt, temperature, tokens, seed)
        if temperature == 0:
            self.greedy[tuple(prompt)] = timed.text
        return timed


@dataclass
class TransformersArm:
    """transformers' `generate`: its own loop and default cache, with the same sampling parameters."""

    model: PreTrainedModel
    clock: Clock

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        torch.manual_seed(seed)
        self.model.generation_config = GenerationConfig(pad_token_id=0)  # no default of the checkpoint, no end token
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        streamer = FirstTokenTime(self.clock)
        begun = self.clock()
        text = torch.tensor([list(prompt)], device=self.model.device)
        model: Any = self.model
        out = model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=tokens, streamer=streamer, **sampling)
        emitted = out[0, len(prompt) :].tolist()
        ended = self.clock()
        return TimedText(ended - begun, streamer.at - begun, len(emitted), 1, None)


class FirstTokenTime(BaseStreamer):  # type: ignore[misc]
    """Notes when the first new token is there. `generate` streams the prompt first, then each token."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._puts, self.at = clock, 0, -1.0

    def put(self, _value: Any) -> None:
        self._puts += 1
        if self._puts == 2:
            self.at = self._clock()

    def end(self) -> None:
        pass


@dataclass
class EngineArm:
    """Any implementation, possibly in another process. Only whole calls can be timed, the pass over the prompt included."""

    engine: Engine
    clock: Clock

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        params = {"temperature": temperature, "max_new_tokens": tokens}
        begun = self.clock()
        (output,) = self.engine.generate([prompt], [params], [seed])
        ended = self.clock()
        counts = None
        if output.blocks is not None:
            passes = [(len(block.tokens), block.accepted) for block in output.blocks if block.tokens]
            counts = Counts.of(passes, len(output.blocks), None)
        return TimedText(ended - begun, None, len(output.tokens), 1, counts)


def independent_copy(decoder: Decoder) -> Decoder:
    """A decoder with the same networks and its own state, which may be changed. A drafter other than EAGLE-2 is left out."""
    target, drafter = Target(decoder.target.network, decoder.target.name), decoder.drafter
    own = Eagle2(drafter.head, drafter.lm_head, drafter.budget) if isinstance(drafter, Eagle2) else None
    return Decoder(target, own, decoder.rule)


def shallow_copy(decoder: Decoder) -> Decoder:
    """A decoder whose methods may be replaced. It works with any drafter; it shares caches with the original until it begins."""
    return Decoder(copy(decoder.target), copy(decoder.drafter), decoder.rule)


def with_budget(decoder: Decoder, budget: Budget | None, rule: Rule = walk) -> Decoder:
    """An independent copy with another budget and rule; without a budget, ordinary decoding."""
    other = independent_copy(decoder)
    other.rule = rule
    if budget is None:
        other.drafter = None
    else:
        assert isinstance(other.drafter, Eagle2)
        other.drafter.budget = budget
    return other
