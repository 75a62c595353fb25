"""Arms: what is timed. The reference decoder, its fixed-shape variant, transformers' `generate`, and any implementation.

All use of the reference decoder by the timed runs is in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from eagle2_ref.coins import KeyedCoins, SeededCoins
from eagle2_ref.decode import Decoder, Generation
from eagle2_ref.drafters.eagle2 import Eagle2, TreeBudget
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.rules import Rule, walk
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.record import Counts
from harness.benchmark.timing import Clock
from harness.implementations.engine import Engine, Output
from harness.pairs import Prompt

# Names of arms, as they appear in records.
SPECULATIVE, PAPER, TUNED, VANILLA, TRANSFORMERS = "speculative", "tuned as published", "tuned", "vanilla", "transformers"
STATIC, STATIC_VANILLA = "static", "static vanilla"
OURS = (SPECULATIVE, PAPER, TUNED, STATIC)
"""Arms of the reference decoder with a drafter."""

MOST_PREFILL = 0.9
"""Largest share of a text's time that a separately timed call of one token, the estimate of the prompt's pass, can have."""

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
    """The reference decoder or its fixed-shape variant. ends: tokens that end a text."""

    decoder: Decoder
    clock: Clock
    ends: tuple[int, ...] = ()

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        params = SamplingParams(temperature=temperature, max_new_tokens=tokens, eos_token_id=self.ends or None)
        started = self.clock()
        sequence = self.decoder.start(prompt, params, SeededCoins(seed))
        blocks = self.decoder.blocks(sequence)
        first = next(blocks)  # the block of the pass over the prompt
        prefilled = self.clock()
        list(blocks)  # decode to the end
        ended = self.clock()
        result = sequence.generation()
        return TimedText(
            seconds=ended - started,
            prefill=prefilled - started,
            tokens=len(result.tokens),
            first=len(first.tokens),
            counts=Counts.of_text(result),
            text=tuple(map(int, result.tokens)),
            ended=result.finish != "length",
        )


@dataclass
class TunedArm:
    """The reference decoder with a budget of its own for each temperature."""

    by_temperature: dict[float, ReferenceArm]

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        return self.by_temperature[temperature].run(prompt, temperature, tokens, seed)


def reference_decoder(arm: Arm, temperature: float) -> Decoder | None:
    """The decoder of an arm that runs the ordinary loop at a temperature; None for other arms."""
    found = arm.by_temperature[temperature] if isinstance(arm, TunedArm) else arm
    decoder = found.decoder if isinstance(found, ReferenceArm) else None
    return None if isinstance(decoder, FixedShapeDecoder) else decoder


@dataclass
class RecordingArm:
    """An arm that stores its greedy texts, by the tokens of their prompts."""

    arm: Arm
    greedy: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        timed = self.arm.run(prompt, temperature, tokens, seed)
        if temperature == 0:
            self.greedy[tuple(prompt)] = timed.text
        return timed


@dataclass
class TransformersArm:
    """transformers' `generate`: its own loop and default cache, with the same sampling parameters.

    ends: tokens that end a text. counted: count its passes, one for each token.
    """

    model: PreTrainedModel
    clock: Clock
    ends: tuple[int, ...] = ()
    counted: bool = False

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        torch.manual_seed(seed)
        # No default of the checkpoint.
        self.model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=list(self.ends) or None)
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        streamer = FirstTokenTime(self.clock)
        started = self.clock()
        text = torch.tensor([list(prompt)], device=self.model.device)
        model: Any = self.model
        out = model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=tokens, streamer=streamer, **sampling)
        emitted = tuple(out[0, len(prompt) :].tolist())
        ended = self.clock()
        counts = Counts.of([(1, 0)] * (len(emitted) - 1), len(emitted), 0) if self.counted else None
        stopped = emitted[-1] in self.ends
        return TimedText(ended - started, streamer.at - started, len(emitted), 1, counts, emitted, stopped)


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
    """Any implementation, possibly in another process. Only whole calls can be timed, the pass over the prompt included.

    ends: tokens that end a text. separate: time a call of one token before each text. Its time is taken for that of the pass
    over the prompt, so that decoding alone can be compared with that of other arms.
    """

    engine: Engine
    clock: Clock
    ends: tuple[int, ...] = ()
    separate: bool = False

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
        params: dict[str, Any] = {"temperature": temperature, "max_new_tokens": tokens}
        if self.ends:
            params["eos_token_id"] = list(self.ends)
        prefill = self._call(prompt, {**params, "max_new_tokens": 1}, seed)[0] if self.separate else None
        seconds, output = self._call(prompt, params, seed)
        blocks, counts, first = output.blocks, None, 1
        if blocks is not None:
            if self.separate and blocks[0].tokens:  # drafts that were verified together with the prompt
                first, blocks = min(blocks[0].accepted + 1, len(output.tokens)), blocks[1:]
            passes = [(len(block.tokens), block.accepted) for block in blocks if block.tokens]
            counts = Counts.of(passes, len(output.blocks or ()), None)
        if prefill is not None:
            prefill = min(prefill, MOST_PREFILL * seconds)
        stopped = bool(output.tokens) and output.tokens[-1] in self.ends
        return TimedText(seconds, prefill, len(output.tokens), first, counts, tuple(output.tokens), stopped)

    def _call(self, prompt: Sequence[int], params: dict[str, Any], seed: int) -> tuple[float, Output]:
        started = self.clock()
        (output,) = self.engine.generate([prompt], [params], [seed])
        return self.clock() - started, output


def keyed_texts(
    decoder: Decoder, prompts: Sequence[Prompt], temperature: float, tokens: int, ends: tuple[int, ...] = ()
) -> list[Generation]:
    """Decode prompts with coins keyed by position, so that all budgets emit the same texts under the rule `walk`.

    ends: tokens that end a text.
    """
    params = SamplingParams(temperature=temperature, max_new_tokens=tokens, eos_token_id=ends or None)
    return [decoder.generate(prompt.tokens, params, KeyedCoins(seed)) for seed, prompt in enumerate(prompts)]


def copy_decoder(decoder: Decoder) -> Decoder:
    """A decoder on the same networks, whose methods and options may be replaced. (A decoder has no state.)"""
    return Decoder(copy(decoder.target), copy(decoder.drafter), decoder.rule)


def with_budget(decoder: Decoder, budget: TreeBudget | None, rule: Rule = walk) -> Decoder:
    """A copy with another budget and rule; without a budget, ordinary decoding."""
    other = copy_decoder(decoder)
    other.rule = rule
    if budget is None:
        other.drafter = None
    else:
        assert isinstance(other.drafter, Eagle2)
        other.drafter.budget = budget
    return other
