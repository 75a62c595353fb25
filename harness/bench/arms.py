"""What is timed: the reference with and without its head, transformers' own `generate`, and any implementation beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as Text
from harness.bench.clock import Clock
from harness.bench.counting import counted
from harness.bench.record import Counts
from harness.implementations.engine import Engine

SPECULATIVE, PAPER, TUNED, VANILLA, TRANSFORMERS = "speculative", "tuned as published", "tuned", "vanilla", "transformers"
STATIC, STATIC_VANILLA = "static", "static vanilla"
OURS = (SPECULATIVE, PAPER, TUNED, STATIC)


@dataclass(frozen=True)
class Timed:
    """One text: seconds of the whole, and to its first token (None: not told apart), which `first` tokens came with.

    text: the new tokens themselves, where they are told. ended: it stopped of its own accord.
    """

    seconds: float
    prefill: float | None
    tokens: int
    first: int
    counts: Counts | None
    text: tuple[int, ...] = ()
    ended: bool = False


class Arm(Protocol):
    """A way to continue a prompt by so many tokens."""

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        """Continue it, and time that."""


@dataclass
class Ours:
    """A decoder of the reference. ends: tokens that end a text."""

    decoder: Decoder
    clock: Clock
    ends: tuple[int, ...] = ()

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        params = SamplingParams(temperature=temperature, max_new_tokens=tokens, eos_token_id=self.ends or None)
        started: list[Text] = []

        def stream() -> Iterator[Block]:
            started.append(self.decoder.start(prompt, params, SeededCoins(seed)))
            yield from self.decoder.blocks(started[0])

        made = _timed(stream(), self.clock, lambda _: started[0].generation().draft_passes)
        return replace(made, ended=started[0].finish != "length")


@dataclass
class Fixed:
    """The loop in fixed shapes: on CUDA a graph a step. Its rule is `walk`, and every tree of a text is as large as the first."""

    static: FixedShapeDecoder
    clock: Clock

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        params = SamplingParams(temperature=temperature, max_new_tokens=tokens)
        stream = self.static.stream(prompt, params, SeededCoins(seed))
        return _timed(stream, self.clock, lambda steps: self.static.depth * steps)


def _timed(stream: Iterator[Block], clock: Clock, head_passes: Callable[[int], int]) -> Timed:
    """Blocks come as they are made: the first is the prompt's pass, a step each makes the others. head_passes: by steps."""
    begun = clock()
    first = next(stream)
    prefilled = clock()
    blocks = list(stream)
    ended = clock()
    trees = [(len(block.tree), len(block.tokens) - 1) for block in blocks]
    text = tuple(int(token) for block in (first, *blocks) for token in block.tokens)
    counts = counted(trees, 1 + len(blocks), head_passes(len(blocks)))
    return Timed(ended - begun, prefilled - begun, len(text), len(first.tokens), counts, text)


@dataclass
class ByTemperature:
    """Our decoder with a budget of its own for each temperature."""

    ours: dict[float, Ours]

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        return self.ours[temperature].run(prompt, temperature, tokens, seed)


def ours_at(arm: Arm, temperature: float) -> Ours | None:
    """The decoder of the reference that an arm has for a temperature; None where it has none."""
    found = arm.ours[temperature] if isinstance(arm, ByTemperature) else arm
    return found if isinstance(found, Ours) else None


@dataclass
class Transformers:
    """`generate` as it is: its own loop, its default cache, the same sampling parameters."""

    model: PreTrainedModel
    clock: Clock

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        torch.manual_seed(seed)
        self.model.generation_config = GenerationConfig(pad_token_id=0)  # what is not asked for is off, end of text too
        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        heard = FirstToken(self.clock)
        begun = self.clock()
        text = torch.tensor([list(prompt)], device=self.model.device)
        told: Any = self.model
        out = told.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=tokens, streamer=heard, **(drawn if temperature else {})
        )
        emitted = out[0, len(prompt) :].tolist()
        ended = self.clock()
        return Timed(ended - begun, heard.at - begun, len(emitted), 1, None)


class FirstToken(BaseStreamer):  # type: ignore[misc]
    """Hears when the first new token is there. The prompt is told first, then each token."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._told, self.at = clock, 0, -1.0

    def put(self, _value: Any) -> None:
        self._told += 1
        if self._told == 2:
            self.at = self._clock()

    def end(self) -> None:
        pass


@dataclass
class Beside:
    """Any implementation, in whatever process it runs: whole calls are timed, the prompt's pass with the rest."""

    engine: Engine
    clock: Clock

    def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
        params = {"temperature": temperature, "max_new_tokens": tokens}
        begun = self.clock()
        (output,) = self.engine.generate([prompt], [params], [seed])
        ended = self.clock()
        told = None if output.blocks is None else [(len(b.tokens), b.accepted) for b in output.blocks if b.tokens]
        counts = None if told is None else counted(told, len(output.blocks or ()), None)
        return Timed(ended - begun, None, len(output.tokens), 1, counts)
