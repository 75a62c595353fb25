"""What judging costs: sampling campaigns, timed until a right decoder has passed and a wrong one is convicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.bench.clock import Clock
from harness.bench.record import Campaign
from harness.bench.settings import Settings
from harness.bench.steps import Stopwatch
from harness.distributions.campaign import TEXTS_PER_CALL, Plan, SequentialTest, sample_shard, short_prompts
from harness.distributions.scoring import TargetScorer, load_target
from harness.implementations import connect
from harness.pairs import Pair, Prompt, shipped

DECODERS = ("ref", "mutant:M13")
"""A right one, and one whose fault is neither gross nor faint: a refused sibling counts again."""


@dataclass(frozen=True)
class Asked:
    """What LAW-7 asks for on a pair, in the quick tier; at temperature 1. tokens: that a right decoder emits to pass."""

    pair: Pair
    plan: Plan
    tokens: int
    budget: dict[str, int]

    @classmethod
    def behind(cls, pair: Pair, prompts: Sequence[Sequence[int]], new: int, tokens: int, **budget: int) -> Asked:
        return cls(pair, Plan.of(prompts, [{"temperature": 1.0, "max_new_tokens": new}]), tokens, budget)


def campaigns(settings: Settings, pair: Pair, prompts: Sequence[Prompt], clock: Clock) -> Iterator[Campaign]:
    """Every decoder on the run's pair, and on a toy."""
    toy, texts = shipped("dice8"), [prompt.tokens for prompt in prompts]
    own = Asked.behind(pair, texts, new=48, tokens=1_500, k=settings.k, depth=settings.depth, m=settings.m)
    for asked in (own, Asked.behind(toy, short_prompts(toy.vocab_size), new=20, tokens=4_000, k=3, depth=4, m=10)):
        for decoder in DECODERS:
            yield campaign(decoder, asked, settings, clock)


def campaign(decoder: str, asked: Asked, settings: Settings, clock: Clock) -> Campaign:
    """One of them, until its verdict. What is loaded, and the first text, are not in its time."""
    scorer = TargetScorer(load_target(asked.pair, "float64", settings.device))
    options: dict[str, Any] = {"dtype": settings.dtype, "device": settings.device, "batch": TEXTS_PER_CALL, **asked.budget}
    engine = connect(decoder).open(asked.pair, **options)
    sample_shard(engine, scorer, asked.plan, settings.seed, range(1))
    watch, test = Stopwatch(clock), SequentialTest(scorer, asked.plan, settings.seed, asked.tokens)
    watch.stand_at(engine.raw, "generate", "decoding")
    watch.stand_at(scorer, "logits", "scoring")
    begun = clock()
    found = test.run(engine)
    return Campaign(
        decoder=decoder,
        pair=asked.pair.name,
        verdict="fault" if found.fault else "inconclusive" if found.extend else "pass",
        texts=int(test.counts.sequences),
        tokens=found.tokens,
        seconds=clock() - begun,
        **watch.spent,
    )
