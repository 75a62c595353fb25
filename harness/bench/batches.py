"""Texts that share passes: how fast they are decoded, with drafts and without, by how many they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.errors import BadInput
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as Text
from harness.bench.arms import SPECULATIVE, TUNED, VANILLA, Arm, ours_at
from harness.bench.clock import Clock
from harness.bench.record import Together
from harness.bench.settings import Settings, spread
from harness.pairs import Prompt

ARMS = (SPECULATIVE, TUNED, VANILLA)
WARM = 8
"""New tokens of texts whose time is not looked at."""


def enough(settings: Settings, prompts: Sequence[Prompt]) -> None:
    """Raise BadInput for batches that the prompts do not fill."""
    if max(settings.batch, default=0) > len(prompts):
        raise BadInput(
            f"--batch has {max(settings.batch)}, but there are {len(prompts)} prompts", "give smaller sizes, or more prompts"
        )


def batches(
    settings: Settings, prompts: Sequence[Prompt], arms: dict[str, Arm], clock: Clock, report: Callable[[str, int, int], None]
) -> Iterator[Together]:
    """The same prompts in groups of every size; the arms do a group one after the other, each first in turn."""
    chosen = spread(prompts, max(settings.batch))
    names = [name for name in ARMS if name in arms]
    rounds = [
        (repeat, temperature, size)
        for repeat in range(settings.repeats)
        for temperature in settings.temperatures
        for size in settings.batch
    ]
    for name in names:
        report(f"warm-up: {name}, batches", 0, 0)
        for temperature in settings.temperatures:
            _timed(arms, name, chosen, temperature, 0, settings.model_copy(update={"tokens": WARM}), clock)
    for done, (repeat, temperature, size) in enumerate(rounds):
        report("timed batches", done, len(rounds))
        for number, group in enumerate(_groups(chosen, size)):
            first = (repeat + number) % len(names)
            for name in names[first:] + names[:first]:
                yield _timed(arms, name, group, temperature, repeat, settings, clock)


def _groups(prompts: Sequence[Prompt], size: int) -> list[Sequence[Prompt]]:
    """Prompts that do not fill a group are left out."""
    return [prompts[i : i + size] for i in range(0, len(prompts) - size + 1, size)]


def _timed(
    arms: dict[str, Arm], name: str, group: Sequence[Prompt], temperature: float, repeat: int, settings: Settings, clock: Clock
) -> Together:
    ours = ours_at(arms[name], temperature)
    assert ours, f"{name} is no decoder of ours"
    batch = Heard(ours.decoder, clock)
    params = [SamplingParams(temperature=temperature, max_new_tokens=settings.tokens) for _ in group]
    begun = clock()
    coins = [SeededCoins(settings.seed + repeat) for _ in group]
    made = batch.generate_batch([prompt.tokens for prompt in group], params, coins, len(group))
    ended = clock()
    blocks = [block for text in made for block in text.blocks[1:]]
    return Together(
        arm=name,
        temperature=temperature,
        prompts=tuple(prompt.id for prompt in group),
        repeat=repeat,
        seconds=ended - begun,
        prefill=batch.prefilled - begun,
        tokens=sum(len(text.tokens) for text in made),
        passes=max(text.target_passes for text in made) - 1,
        rows=sum(len(block.tree) for block in blocks),
    )


class Heard(Decoder):
    """A decoder that notes when all of its sequences have their first token: at their first step."""

    def __init__(self, decoder: Decoder, clock: Clock) -> None:
        super().__init__(decoder.target, decoder.drafter, decoder.rule)
        self.clock, self.prefilled = clock, 0.0

    def step(self, sequences: Sequence[Text]) -> None:
        self.prefilled = self.prefilled or self.clock()
        super().step(sequences)
