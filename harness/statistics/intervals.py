"""Confidence intervals: exact for a binomial probability, bootstrap for any statistic over prompts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from harness.statistics import Array

RESAMPLES = 10_000
Samples = tuple[ArrayLike, ArrayLike]
"""Numerators and denominators of a ratio of sums."""

SEED = 0
"""One fixed seed: the same record always gives the same interval, and paired arms are resampled alike."""


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval for a binomial probability (Clopper and Pearson 1934).

    Its coverage is at least `level` for every n and every true probability.

    Returns:
        Lower and upper limit; (0, 1) if n is 0.
    """
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    return float(low), _upper_limit(successes, n, tail)


def clopper_pearson_upper(successes: int, n: int, level: float = 0.95) -> float:
    """Exact one-sided upper limit for a binomial probability: (0, limit) covers it with probability at least `level`."""
    return _upper_limit(successes, n, 1 - level)


def _upper_limit(successes: int, n: int, tail: float) -> float:
    return float(stats.beta.isf(tail, successes + 1, n - successes)) if successes < n else 1.0


def paired_ratio_difference(now: Samples, before: Samples, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval for a difference of two ratios of sums over the same prompts, linearised (the delta method).

    For few prompts, of which a bootstrap would give too narrow an interval.

    Args:
        now, before: numerators and denominators, each [n], one value per prompt.
        level: confidence.

    Returns:
        Lower and upper limit. Raises ValueError for fewer than two prompts.
    """
    parts = [tuple(np.asarray(values, dtype=float) for values in sample) for sample in (now, before)]
    if (n := len(parts[0][0])) < 2:
        raise ValueError(f"a t interval needs two prompts or more, there are {n}")
    ratios = [top.sum() / bottom.sum() for top, bottom in parts]
    influence = [(top - ratio * bottom) / bottom.mean() for ratio, (top, bottom) in zip(ratios, parts, strict=True)]
    spread = (influence[0] - influence[1]).std(ddof=1) / np.sqrt(n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * spread)
    difference = float(ratios[0] - ratios[1])
    return difference - half, difference + half


def bootstrap(
    statistic: Callable[..., Array], *samples: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over prompts.

    The prompts are resampled with replacement, the same prompts in every sample, always from the same seed. For a ratio of
    sums: `bootstrap(lambda tokens, passes, axis: tokens.sum(axis) / passes.sum(axis), tokens, passes)`.

    Args:
        statistic: function of the samples with a keyword `axis`, the axis of the prompts, which it removes.
        *samples: one or more arrays [n], one value per prompt.
        level: confidence.
        resamples: number of resamples.

    Returns:
        Lower and upper limit; (nan, nan) without prompts; with one prompt, both limits are its statistic.
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    if len(arrays[0]) == 0:
        return float("nan"), float("nan")
    if len(arrays[0]) == 1:  # scipy refuses a single observation
        value = float(statistic(*arrays, axis=-1))
        return value, value
    limits = stats.bootstrap(
        arrays, statistic, paired=True, vectorized=True, method="percentile",
        n_resamples=resamples, confidence_level=level, random_state=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    return float(limits.low), float(limits.high)
