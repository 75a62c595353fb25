"""Speed of batches: texts that share passes, with and without drafts, by batch size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.errors import BadInput
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as TextSequence
from harness.benchmark.arms import SPECULATIVE, TUNED, VANILLA, Arm, reference_decoder
from harness.benchmark.prompts import spread
from harness.benchmark.record import BatchCall
from harness.benchmark.runner import Progress
from harness.benchmark.settings import BenchSettings
from harness.benchmark.timing import Clock
from harness.pairs import Prompt

ARMS = (SPECULATIVE, TUNED, VANILLA)
WARM_UP_TOKENS = 8


def check_batch_sizes(settings: BenchSettings, prompts: Sequence[Prompt]) -> None:
    """Raise BadInput for a batch that the prompts do not fill."""
    if max(settings.batch, default=0) > len(prompts):
        raise BadInput(
            f"--batch has {max(settings.batch)}, but there are {len(prompts)} prompts", "give smaller sizes, or more prompts"
        )


def time_batches(
    settings: BenchSettings, prompts: Sequence[Prompt], arms: Mapping[str, Arm], clock: Clock, progress: Progress
) -> Iterator[BatchCall]:
    """Time the same prompts in groups of every size. All arms decode a group before the next group, each first in turn."""
    chosen = spread(prompts, max(settings.batch))
    names = [name for name in ARMS if name in arms]
    rounds = [
        (repeat, temperature, size)
        for repeat in range(settings.repeats)
        for temperature in settings.temperatures
        for size in settings.batch
    ]
    for name in names:
        progress(f"warm-up: {name}, batches", 0, 0)
        for temperature in settings.temperatures:
            _timed(arms, name, chosen, temperature, 0, settings.model_copy(update={"tokens": WARM_UP_TOKENS}), clock)
    for done, (repeat, temperature, size) in enumerate(rounds):
        progress("timed batches", done, len(rounds))
        groups = [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]  # a last, smaller group is left out
        for number, group in enumerate(groups):
            first = (repeat + number) % len(names)
            for name in names[first:] + names[:first]:
                yield _timed(arms, name, group, temperature, repeat, settings, clock)


def _timed(
    arms: Mapping[str, Arm],
    name: str,
    group: Sequence[Prompt],
    temperature: float,
    repeat: int,
    settings: BenchSettings,
    clock: Clock,
) -> BatchCall:
    decoder = reference_decoder(arms[name], temperature)
    assert decoder, f"{name} has no reference decoder"
    timed = TimedDecoder(decoder, clock)
    prompts = [prompt.tokens for prompt in group]
    coins = [SeededCoins(settings.seed + repeat) for _ in group]
    params = [SamplingParams(temperature=temperature, max_new_tokens=settings.tokens) for _ in group]
    started = clock()
    texts = timed.generate_batch(prompts, params, coins, size=len(group))
    ended = clock()
    blocks = [block for text in texts for block in text.blocks[1:]]
    return BatchCall(
        arm=name,
        temperature=temperature,
        prompts=tuple(prompt.id for prompt in group),
        repeat=repeat,
        seconds=ended - started,
        prefill=timed.prefilled - started,
        tokens=sum(len(text.tokens) for text in texts),
        passes=max(text.target_passes for text in texts) - 1,
        rows=sum(len(block.tree) for block in blocks),
    )


class TimedDecoder(Decoder):
    """A decoder that notes when every text of a batch has its first token, which is when the first step begins."""

    def __init__(self, decoder: Decoder, clock: Clock) -> None:
        super().__init__(decoder.target, decoder.drafter, decoder.rule)
        self.clock, self.prefilled = clock, 0.0

    def step(self, sequences: Sequence[TextSequence]) -> None:
        self.prefilled = self.prefilled or self.clock()
        super().step(sequences)
