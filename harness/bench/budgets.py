"""What more draft tokens bring: tokens per pass by m, at the k and depth that were asked for. Counts alone, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.rules import Rule, walk
from eagle2_ref.sampling import SamplingParams
from harness.bench.record import Drawn, Point
from harness.bench.steps import twin
from harness.pairs import Prompt

NODES = (1, 2, 4, 8, 16, 25, 40, 60)
TOKENS = 48


def points(decoder: Decoder, prompts: Sequence[Prompt], temperatures: Sequence[float], budget: Budget) -> Iterator[Point]:
    """One prompt a kind; coins keyed by position, so that all budgets emit the same texts and differ in passes alone."""
    for temperature in temperatures:
        for m in sorted({m for m in NODES if m <= budget.pool} | {budget.m}):
            yield point(with_budget(decoder, replace(budget, m=m)), prompts, temperature, m)


def point(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    temperature: float,
    m: int,
    tree: Drawn = "dynamic",
) -> Point:
    """What a decoder comes to that drafts trees of m tokens."""
    params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
    made = [decoder.generate(one.tokens, params, KeyedCoins(seed)) for seed, one in enumerate(one_a_kind(prompts))]
    blocks = [block for one in made for block in one.blocks[1:]]
    return Point(
        tree=tree,
        temperature=temperature,
        m=m,
        passes=len(blocks),
        tokens=sum(len(block.tokens) for block in blocks),
        rows=sum(len(block.tree) for block in blocks),
    )


def one_a_kind(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each kind."""
    return list({prompt.kind: prompt for prompt in reversed(prompts)}.values())


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
