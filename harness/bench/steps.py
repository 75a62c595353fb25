"""Where a step's time goes: a decoder with clocks between its parts. Clocks cost time, so that no ratio is taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.bench.clock import Clock
from harness.bench.record import Steps
from harness.pairs import Prompt

PARTS = ("target pass", "head passes", "tree building", "rule", "cache commit", "rest")
"""The head's first step has a pass over the whole prompt in it."""


class Stopwatch:
    """Seconds by part. What a part calls that is a part itself is counted there alone."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spent: dict[str, float] = {}
        self._inside: list[float] = []

    def stand_at(self, owner: object, name: str, part: str) -> None:
        """Time every call of a method of this one object."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = self.clock()
            self._inside.append(0.0)
            try:
                return method(*args, **kwargs)
            finally:
                spent = self.clock() - begun
                self.spent[part] = self.spent.get(part, 0.0) + spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        setattr(owner, name, timed)


def steps(decoder: Decoder, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int, clock: Clock) -> Steps:
    """Decode once more, in parts."""
    watched = twin(decoder)
    return stepped(watched, watching(watched, clock), arm, prompts, params, seed)


def stepped(watched: Decoder, watch: Stopwatch, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int) -> Steps:
    """A step is all that lies between two blocks; the prompt's pass is not one. What no clock stood at is the rest."""
    n, total = 0, 0.0
    for prompt in prompts:
        stream = watched.stream(prompt.tokens, params, SeededCoins(seed))
        before = dict(watch.spent)
        next(stream)
        watch.spent = before
        begun = watch.clock()
        n += sum(1 for _ in stream)
        total += watch.clock() - begun
    spent = {**watch.spent, "rest": total - sum(watch.spent.values())}
    parts = {part: 1000 * seconds / n for part, seconds in spent.items()}
    return Steps(arm=arm, temperature=params.temperature, steps=n, milliseconds=parts)


def watching(decoder: Decoder, clock: Clock) -> Stopwatch:
    """Clocks at every part of a decoder."""
    watch = Stopwatch(clock)
    parts: list[tuple[str, object, str]] = [
        ("target pass", decoder.target, "verify"),
        ("cache commit", decoder.target, "commit"),
        ("rule", decoder, "accept"),
    ]
    if decoder.drafter:
        heads = [("head passes", decoder.drafter, name) for name in ("run_head", "lm_head")]
        parts += [*heads, ("tree building", decoder, "propose")]
    for part, owner, name in parts:
        watch.stand_at(owner, name, part)
    return watch


def twin(decoder: Decoder) -> Decoder:
    """A decoder with the same networks and nothing else in common, which may be taken apart."""
    target = Target(decoder.target.network, decoder.target.name)
    ours = decoder.drafter
    drafter = Eagle2(ours.head, ours.lm_head, ours.budget) if isinstance(ours, Eagle2) else None
    return Decoder(target, drafter, decoder.rule)
