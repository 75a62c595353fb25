"""Choose a budget for a pair, a machine and a temperature: what a pass costs here, against what the head's confidences promise.

A node is worth its row where the tokens it is expected to bring, exp(value), would take longer otherwise; a layer where its k
best nodes together are worth a pass of the head. So both thresholds are a cost times a price: tokens per millisecond, of which
the best that was found is the next one's price. What counts and costs expect most of is then timed against decoding without
drafts, prompt by prompt. The law of the text is the same whatever is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.bench.arms import Ours
from harness.bench.budgets import with_budget
from harness.bench.clock import Clock
from harness.bench.costs import costs
from harness.bench.record import Cost, Steps, Tried, Tuned
from harness.bench.steps import steps, twin
from harness.pairs import FIXTURES, Prompt

PROMPTS = FIXTURES / "prompts" / "tuning.jsonl"
"""Other prompts than those that are timed."""

TOKENS = 64
DEEPEST, LARGEST = 16, 32
WIDTHS = (1, 2, 3, 4, 6, 8)
ROUNDS = 2
MARGIN = 1.03
"""By how much drafting must win."""
FINALISTS, HEATS = 8, 2
"""How many budgets are timed, and how often each prompt."""
FEW = 3
SHAPES = ((1, 3, 3), (1, 6, 6), (2, 3, 5), (2, 6, 8), (2, 6, 10), (3, 3, 8), (4, 6, 12), (4, 6, 16))
"""k, depth and m of small budgets as the paper has them, of which the best few are timed too."""
SCALES = (0.25, 0.5, 2.0)
"""By which the thresholds are tried lower and higher: values are no exact probabilities."""

Hear = Callable[[str], None]


@dataclass(frozen=True)
class Prices:
    """What a step is made of, in milliseconds: passes by their rows, and what goes with a step, and with a layer of the tree."""

    target: dict[int, float]
    head: dict[int, float]
    step: float
    layer: float

    @classmethod
    def of(cls, costs: Sequence[Cost], steps: Steps, budget: Budget) -> Prices:
        """From measured costs, and the parts of a step of a decoder with that budget.

        A pass that is made again and again finds its weights and its text at hand; within a step it is slower. So the curves are
        raised to what the step's passes took.
        """
        target, head = ({cost.rows: cost.median for cost in costs if cost.what == what} for what in ("target", "head"))
        parts = steps.milliseconds
        step = sum(parts.get(part, 0.0) for part in ("rule", "cache commit", "rest"))
        plain = cls(target, head, step, parts.get("tree building", 0.0) / budget.depth)
        raised = (
            parts["target pass"] / plain.verify(budget.m + 1),
            parts["head passes"] / budget.depth / (plain.grow(budget.k) - plain.layer),
        )
        target, head = ({rows: ms * by for rows, ms in curve.items()} for curve, by in zip((target, head), raised, strict=True))
        return replace(plain, target=target, head=head)

    def verify(self, rows: float) -> float:
        return float(np.interp(rows, list(self.target), list(self.target.values())))

    def grow(self, k: int) -> float:
        """A layer of the tree."""
        return float(np.interp(k, list(self.head), list(self.head.values()))) + self.layer

    @property
    def row(self) -> float:
        """One more row of a target pass, on average up to the largest tree."""
        return (self.verify(LARGEST) - self.verify(1)) / (LARGEST - 1)


def tune(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    temperature: float,
    of_head: Sequence[float],
    clock: Clock,
    hear: Hear,
) -> Tuned:
    """The best budget that was found, and all that were tried, best first. of_head: the head's temperatures to choose from."""
    spare = twin(decoder)
    assert isinstance(spare.drafter, Eagle2)
    params = SamplingParams(temperature=temperature, max_new_tokens=TOKENS)
    measured = steps(spare, "tuning", prompts, params, 0, clock)
    prices = Prices.of(list(costs(decoder, prompts[0].tokens, clock, times=20)), measured, spare.drafter.budget)
    alone = steps(Decoder(spare.target, None, walk), "tuning", prompts[:1], params, 0, clock)
    spare, bare, tried = twin(decoder), 1 / sum(alone.milliseconds.values()), dict[Budget, Tried]()
    spare.rule = walk

    def worth(budget: Budget) -> float:
        if budget not in tried:
            hear(f"tuning at temperature {temperature:g}: budget {len(tried) + 1}")
            tried[budget] = _try(spare, budget, prompts, params, prices)
        return tried[budget].rate

    best = max((Budget(*shape) for shape in SHAPES), key=worth)
    for _ in range(ROUNDS):
        price = max(worth(best), bare)
        best = max([best, *(priced(price, prices, k, best.head_temperature) for k in WIDTHS)], key=worth)
        best = max([best, *(priced(price, prices, best.k, t) for t in of_head)], key=worth)
        for field in ("layer", "node"):
            best = max([best, *(_scaled(best, field, scale) for scale in SCALES)], key=worth)
    ranked = sorted(tried.values(), key=lambda one: -one.rate)
    hear(f"tuning at temperature {temperature:g}: the best by the clock")
    timed = race(decoder, finalists(ranked), prompts, params, clock)
    rest = [one for one in ranked if one.budget not in {winner.budget for winner in timed}]
    won = [one for one in timed if (one.timed or 0) > MARGIN]
    paper = next((one for one in won if one.published), None)
    return Tuned(temperature=temperature, chosen=next(iter(won), None), paper=paper, vanilla=bare, tried=(*timed, *rest))


def finalists(ranked: Sequence[Tried]) -> list[Tried]:
    """The best, the best of every k, as what is expected is not so sure that one shape should fill all places, and the best few
    that the paper knows."""
    of_each = list({one.k: one for one in reversed(ranked)}.values())
    others = [one for one in ranked if one not in of_each]
    published = [one for one in ranked if one.published][:FEW]
    chosen = [*of_each, *others[: max(0, FINALISTS - len(of_each))]]
    return sorted([*chosen, *(one for one in published if one not in chosen)], key=lambda one: -one.rate)


def race(
    decoder: Decoder, entered: Sequence[Tried], prompts: Sequence[Prompt], params: SamplingParams, clock: Clock
) -> list[Tried]:
    """Timed in turns, each in its turn first; by the geometric mean over prompts of the ratio to vanilla, the fastest first."""
    runners = [with_budget(decoder, budget, decoder.rule) for budget in (None, *(one.budget for one in entered))]
    spent = np.zeros((HEATS, len(prompts), len(runners)))
    for heat, at in np.ndindex(*spent.shape[:2]):
        for i in range(len(runners)):
            place = (heat * len(prompts) + at + i) % len(runners)
            made = Ours(runners[place], clock).run(prompts[at].tokens, params.temperature, params.max_new_tokens, heat)
            spent[heat, at, place] = (made.seconds - (made.prefill or 0)) / (made.tokens - made.first)
    by_prompt = np.median(spent, axis=0)
    ratios = np.exp(np.log(by_prompt[:, :1] / by_prompt).mean(0))
    told = [one.model_copy(update={"timed": float(ratio)}) for one, ratio in zip(entered, ratios[1:], strict=True)]
    return sorted(told, key=lambda one: -(one.timed or 0))


def priced(price: float, prices: Prices, k: int, head_temperature: float) -> Budget:
    """With the thresholds that a price tells, in tokens per millisecond."""
    node, layer = min(1.0, round(price * prices.row, 4)), round(price * prices.grow(k), 4)
    return Budget(k, DEEPEST, min(LARGEST, Budget(k, DEEPEST).pool), head_temperature, node, layer)


def _scaled(budget: Budget, field: str, scale: float) -> Budget:
    return replace(budget, **{field: min(1.0 if field == "node" else math.inf, round(getattr(budget, field) * scale, 4))})


def _try(decoder: Decoder, budget: Budget, prompts: Sequence[Prompt], params: SamplingParams, prices: Prices) -> Tried:
    """Decode with a budget, and say from counts what that costs: no clock is asked, and all budgets emit the same texts."""
    assert isinstance(decoder.drafter, Eagle2)
    decoder.drafter.budget = budget
    tokens, spent, passes, rows, layers = 0, 0.0, 0, 0, 0
    for seed, prompt in enumerate(prompts):
        made = decoder.generate(prompt.tokens, params, KeyedCoins(seed))
        for block in made.blocks[1:]:
            tokens, passes, rows = tokens + len(block.tokens), passes + 1, rows + len(block.tree)
            spent += prices.verify(len(block.tree)) + prices.step
        layers += made.draft_passes
    spent += layers * prices.grow(budget.k)
    return Tried(
        k=budget.k,
        depth=budget.depth,
        m=budget.m,
        head_temperature=budget.head_temperature,
        node=budget.node,
        layer=budget.layer,
        rate=tokens / spent,
        tau=tokens / passes,
        rows=rows / passes,
        layers=layers / passes,
    )
