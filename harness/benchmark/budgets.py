"""Tokens per target pass by the number of draft tokens, m. Counts only, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import TreeBudget
from harness.benchmark.arms import keyed_texts, with_budget
from harness.benchmark.prompts import one_per_kind
from harness.benchmark.record import BudgetPoint, TreeShape
from harness.pairs import Prompt

NODES = (1, 2, 4, 8, 16, 25, 40, 60)
TOKENS = 48


def points_by_m(
    decoder: Decoder, prompts: Sequence[Prompt], temperatures: Sequence[float], budget: TreeBudget
) -> Iterator[BudgetPoint]:
    """Points for several m at the given k and depth."""
    for temperature in temperatures:
        for m in sorted({m for m in NODES if m <= budget.pool} | {budget.m}):
            yield budget_point(with_budget(decoder, replace(budget, m=m)), prompts, temperature, m)


def budget_point(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    temperature: float,
    m: int,
    tree: TreeShape = "dynamic",
    ends: tuple[int, ...] = (),
) -> BudgetPoint:
    """Decode the first prompt of each kind with a decoder whose trees have m draft tokens. ends: tokens that end a text."""
    texts = keyed_texts(decoder, one_per_kind(prompts), temperature, TOKENS, ends)
    blocks = [block for text in texts for block in text.blocks[1:]]
    return BudgetPoint(
        tree=tree,
        temperature=temperature,
        m=m,
        passes=len(blocks),
        tokens=sum(len(block.tokens) for block in blocks),
        rows=sum(len(block.tree) for block in blocks),
    )
