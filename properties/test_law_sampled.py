"""Chapter LAW, sampled: black boxes, by the tokens they emit. Every pass says what it would have seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

from eagle2_ref.sampling import SamplingParams
from harness.implementations.engine import AdapterError, Engine
from harness.laws.exact import Law, target_law
from harness.pairs import shipped
from harness.plugin import Judge
from harness.statistics.chisquare import ChiSquare, chi_square
from properties.cells import SAMPLED, Cell, parametrize
from properties.pictures import law_picture
from properties.subject import Subject

FIRST, SECOND = 1e-3, 1e-6
"""A joint chi-square is a fault if p < FIRST, and then p < SECOND on four times as many fresh samples.

A correct decoder meets both once in 1e9 checks.
"""


@parametrize(SAMPLED)
def test_first_tokens_of_samples(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-4: The first depth + 2 tokens of independent samples, taken jointly, fit the target's law (chi-square)."""
    for need in set(cell.params) - {"temperature"}:
        subject.impl.require(need)
    options: dict[str, Any] = {**cell.budget} if "budget" in subject.impl.capabilities else {}
    depth = cell.depth if options else int(subject.impl.options.get("depth", 4))
    pair, prompt = shipped(cell.pair), [2, 3, 2]
    engine = subject.open(pair, **options)
    try:
        engine.raw  # noqa: B018  opened here, so that an engine that is sound but cannot load a toy is not called broken
    except AdapterError as error:
        judge("inconclusive", f"its sampled law was not judged: it could not be opened on the pair {pair.name}: {error}")
    params = {**cell.params, "max_new_tokens": min(depth + 2, 8)}
    expected = target_law(subject.plain(pair, "float64"), prompt, SamplingParams.of(params))
    n = 20_000 if subject.asked.tier == "full" else 2_000
    counts = _sample(engine, prompt, params, n, judge.seed())
    first = chi_square(counts, expected)
    second = None
    if not first.impossible and first.p < FIRST:
        second = chi_square(_sample(engine, prompt, params, 4 * n, judge.seed(1)), expected)
    _fit(judge, cell, expected, counts, first, second)


def _sample(engine: Engine, prompt: list[int], params: dict[str, Any], n: int, seed: int) -> Counter[tuple[int, ...]]:
    counts: Counter[tuple[int, ...]] = Counter()
    for start in range(0, n, 500):
        size = min(500, n - start)
        outputs = engine.generate([prompt] * size, [params] * size, range(seed + start, seed + start + size))
        counts.update(output.tokens for output in outputs)
    return counts


def _fit(
    judge: Judge, cell: Cell, expected: Law, counts: Counter[tuple[int, ...]], first: ChiSquare, second: ChiSquare | None
) -> None:
    observed = {text: count / first.n for text, count in counts.items()}
    evidence: dict[str, Any] = {
        "p_value": first.p,
        "sensitivity": f"total variation of {first.visible(FIRST):.3f} or more on {first.df + 1} cells (power 0.9)",
        "measured": {
            "chi-square": first.statistic,
            "degrees of freedom": first.df,
            "samples": first.n,
            "impossible": first.impossible,
        },
        "pictures": (law_picture(f"{cell.id}: {first.n} samples", expected, observed, first.n),),
    }
    if first.impossible:
        judge("fault", f"{first.impossible} of {first.n} samples have probability zero under the target", **evidence)
    elif second is not None and second.p < SECOND:
        judge("fault", f"p = {first.p:.2g}, and {second.p:.2g} on {second.n} fresh samples", **evidence)
    elif second is not None:
        judge("pass", f"p = {first.p:.2g}, but {second.p:.2g} on {second.n} fresh samples", **evidence)
    else:
        judge("pass", f"p = {first.p:.2g}: {first.n} samples fit the target's law", **evidence)
