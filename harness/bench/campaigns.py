"""What judging costs: sampling campaigns, timed until a right decoder has passed and a wrong one is convicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.bench.clock import Clock
from harness.bench.record import Campaign
from harness.bench.settings import Settings
from harness.bench.steps import Stopwatch
from harness.implementations import connect
from harness.laws.campaign import PER_CALL, Bet, Plan, shard, starts
from harness.laws.oracle import Oracle
from harness.laws.teacher import load_plain
from harness.pairs import Pair, Prompt, shipped

DECODERS = ("ref", "mutant:M13")
"""A right one, and one whose fault is neither gross nor faint: a refused sibling counts again."""

TOY = "dice8"

TOKENS = 4_000
"""That a right decoder must emit to pass."""

LONG, SHORT = 48, 20
"""New tokens of a text: behind prompts of the run's pair, and of the toy's."""


def campaigns(settings: Settings, pair: Pair, prompts: Sequence[Prompt], clock: Clock) -> Iterator[Campaign]:
    """Every decoder on the run's pair and on a toy, by the bets of LAW-7 at temperature 1."""
    toy = shipped(TOY)
    for where, begun, new in ((pair, [prompt.tokens for prompt in prompts], LONG), (toy, starts(toy.vocab_size), SHORT)):
        plan = Plan.of(begun, [{"temperature": 1.0, "max_new_tokens": new}])
        for decoder in DECODERS:
            yield campaign(decoder, where, plan, settings, clock)


def campaign(decoder: str, pair: Pair, plan: Plan, settings: Settings, clock: Clock) -> Campaign:
    """One of them, until its verdict. What is loaded, and the first text, are not in its time."""
    implementation, oracle = connect(decoder), Oracle(load_plain(pair, "float64", settings.device), noise=0.0)
    options: dict[str, Any] = {"dtype": settings.dtype, "device": settings.device, "batch": PER_CALL}
    engine = implementation.open(pair, **{name: value for name, value in options.items() if implementation.takes(name)})
    shard(engine, oracle, plan, settings.seed, range(1))
    watch, bet = Stopwatch(clock), Bet(oracle, plan, settings.seed, TOKENS)
    watch.stand_at(engine.raw, "generate", "decoding")
    watch.stand_at(oracle, "logits", "scoring")
    begun = clock()
    found = bet.sample(engine)
    return Campaign(
        decoder=decoder,
        pair=pair.name,
        verdict="fault" if found.fault else "inconclusive" if found.extend else "pass",
        texts=int(bet.sums.sequences),
        tokens=found.tokens,
        seconds=clock() - begun,
        **watch.spent,
    )
