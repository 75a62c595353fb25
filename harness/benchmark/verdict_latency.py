"""Time until a verdict: sampling campaigns until a correct decoder has passed and a faulty one is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.benchmark.record import VerdictLatency
from harness.benchmark.settings import BenchSettings
from harness.benchmark.timing import Clock, Stopwatch
from harness.distributions.campaign import TEXTS_PER_CALL, Plan, SequentialTest, sample_shard, short_prompts
from harness.distributions.scoring import TargetScorer, load_target
from harness.implementations import connect
from harness.pairs import Pair, Prompt, shipped

DECODERS = ("ref", "mutant:M13")
"""A correct decoder, and one with a fault of medium size: a rejected sibling stays in the residual distribution."""


@dataclass(frozen=True)
class CampaignPlan:
    """What the check LAW-7 asks for on a pair in the quick tier, at temperature 1.

    tokens: number of tokens after which a correct decoder passes. budget: options of the decoder.
    """

    pair: Pair
    plan: Plan
    tokens: int
    budget: dict[str, int]

    @classmethod
    def of(cls, pair: Pair, prompts: Sequence[Sequence[int]], new: int, tokens: int, **budget: int) -> CampaignPlan:
        return cls(pair, Plan.of(prompts, [{"temperature": 1.0, "max_new_tokens": new}]), tokens, budget)


def verdict_latencies(settings: BenchSettings, pair: Pair, prompts: Sequence[Prompt], clock: Clock) -> Iterator[VerdictLatency]:
    """Every decoder, on the pair of the run and on a toy pair."""
    toy, texts = shipped("dice8"), [prompt.tokens for prompt in prompts]
    own = CampaignPlan.of(pair, texts, new=48, tokens=1_500, k=settings.k, depth=settings.depth, m=settings.m)
    for plan in (own, CampaignPlan.of(toy, short_prompts(toy.vocab_size), new=20, tokens=4_000, k=3, depth=4, m=10)):
        for decoder in DECODERS:
            yield verdict_latency(decoder, plan, settings, clock)


def verdict_latency(decoder: str, plan: CampaignPlan, settings: BenchSettings, clock: Clock) -> VerdictLatency:
    """Time one campaign until its verdict. Loading and the first text are not included."""
    scorer = TargetScorer(load_target(plan.pair, "float64", settings.device))
    options: dict[str, Any] = {"dtype": settings.dtype, "device": settings.device, "batch": TEXTS_PER_CALL, **plan.budget}
    engine = connect(decoder).open(plan.pair, **options)
    sample_shard(engine, scorer, plan.plan, settings.seed, range(1))
    watch, test = Stopwatch(clock), SequentialTest(scorer, plan.plan, settings.seed, plan.tokens)
    watch.time(engine.raw, "generate", "decoding")
    watch.time(scorer, "logits", "scoring")
    started = clock()
    found = test.run(engine)
    return VerdictLatency(
        decoder=decoder,
        pair=plan.pair.name,
        verdict="fault" if found.fault else "inconclusive" if found.extend else "pass",
        texts=int(test.counts.sequences),
        tokens=found.tokens,
        seconds=clock() - started,
        **watch.seconds,
    )
