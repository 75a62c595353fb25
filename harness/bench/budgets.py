"""What more draft tokens bring: tokens per pass by m, at the k and depth that were asked for. Counts alone, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.rules import Rule, walk
from eagle2_ref.sampling import SamplingParams
from harness.bench.record import Point
from harness.bench.steps import twin
from harness.pairs import Prompt

NODES = (1, 2, 4, 8, 16, 25, 40, 60)
TOKENS = 48


def points(decoder: Decoder, prompts: Sequence[Prompt], temperatures: Sequence[float], budget: Budget) -> Iterator[Point]:
    """One prompt a kind; coins keyed by position, so that all budgets emit the same texts and differ in passes alone."""
    asked = list({prompt.kind: prompt for prompt in reversed(prompts)}.values())
    for temperature in temperatures:
        params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
        for m in sorted({m for m in NODES if m <= budget.pool} | {budget.m}):
            sized = with_budget(decoder, replace(budget, m=m))
            made = [sized.generate(prompt.tokens, params, KeyedCoins(seed)) for seed, prompt in enumerate(asked)]
            blocks = [block for one in made for block in one.blocks[1:]]
            yield Point(
                temperature=temperature,
                m=m,
                passes=len(blocks),
                tokens=sum(len(block.tokens) for block in blocks),
                rows=sum(len(block.tree) for block in blocks),
            )


def with_budget(decoder: Decoder, budget: Budget | None, rule: Rule = walk) -> Decoder:
    """The same networks with another budget; without one, ordinary decoding."""
    other = twin(decoder)
    other.rule = rule
    if budget is None:
        other.drafter = None
    else:
        assert isinstance(other.drafter, Eagle2)
        other.drafter.budget = budget
    return other
