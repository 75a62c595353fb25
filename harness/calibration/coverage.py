"""Coverage of bounds, and power at the stated smallest detectable effect, from samples of known deviations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.calibration.observations import no_counts
from harness.calibration.toy_pairs import Floats
from harness.statistics.bounds import chi_square_bound, dkw_bound, edge_distance, impossible_token_bound, weissman_bound
from harness.statistics.eprocess import FAULT, WIDTHS, detectable_deviation, log10_average, log10_components

LEVEL = 0.98
"""Level of the bounds here, chosen so that misses can be counted."""


@dataclass(frozen=True)
class Covered:
    """How often a bound is at least the true distance, over samples of one known deviation."""

    bound: str
    size: int
    n: int
    deviation: float
    times: int

    def run(self) -> dict[str, Any]:
        rng = np.random.default_rng([3, self.size, self.n, int(1e6 * self.deviation)])
        covered = sum(COVERS[self.bound](self, rng) for _ in range(self.times))
        return vars(self) | {"covered": covered, "level": LEVEL}

    @property
    def laws(self) -> tuple[Floats, Floats]:
        """The tested distribution, and the one that is sampled, at this distance from it."""
        law = WIDTHS if self.size == len(WIDTHS) else falling(self.size)
        return law, deviating(law, self.deviation)


def falling(size: int) -> Floats:
    """A decreasing distribution without rare outcomes."""
    powers = 100.0 ** -np.linspace(0, 1, size)
    law: Floats = 0.5 / size + 0.5 * powers / powers.sum()
    return law


def deviating(law: Floats, distance: float) -> Floats:
    """A distribution at this total variation: every second outcome is too probable, in proportion, the others too improbable."""
    much = law * np.resize([1, 0], len(law))
    little = law - much
    other: Floats = law + distance * (much / much.sum() - little / little.sum())
    return other


def covers_weissman(case: Covered, rng: np.random.Generator) -> bool:
    law, true = case.laws
    return weissman_bound(rng.multinomial(case.n, true), law, LEVEL).value >= case.deviation


def covers_inversion(case: Covered, rng: np.random.Generator) -> bool:
    law, true = case.laws
    return chi_square_bound(rng.multinomial(case.n, true), law, LEVEL).value >= case.deviation


def covers_rank_cdf(case: Covered, rng: np.random.Generator) -> bool:
    """Samples of the distribution function F(u) = u + 4 d u (1 - u), whose largest distance from u is d."""
    a = 4 * case.deviation
    u = np.sort(((1 + a) - np.sqrt((1 + a) ** 2 - 4 * a * rng.random(case.n))) / (2 * a))
    steps = np.arange(case.n + 1) / case.n
    distance = max((steps[1:] - u).max(), (u - steps[:-1]).max())
    return dkw_bound(float(distance), case.n, LEVEL).value >= case.deviation


def covers_edges(case: Covered, rng: np.random.Generator) -> bool:
    """The same distance from counts by bin: between the distribution functions at the edges of the bins."""
    law, true = case.laws
    truth = float(abs(np.cumsum(true - law)).max())
    return dkw_bound(edge_distance(rng.multinomial(case.n, true), law), case.n, LEVEL).value >= truth


def covers_support(case: Covered, rng: np.random.Generator) -> bool:
    return impossible_token_bound(int(rng.binomial(case.n, case.deviation)), case.n, LEVEL).value >= case.deviation


COVERS = {
    "Weissman": covers_weissman,
    "inversion": covers_inversion,
    "rank CDF": covers_rank_cdf,
    "rank CDF at edges": covers_edges,
    "support": covers_support,
}
"""The bounds, by name."""

CASES = (
    *(("Weissman", size, n, d) for size, n in ((8, 2000), (64, 20000), (1000, 100000)) for d in (0.01, 0.05)),
    *(("inversion", size, n, d) for size, n in ((8, 2000), (64, 20000), (1000, 100000)) for d in (0.01, 0.05)),
    *(("inversion", len(WIDTHS), n, d) for n in (8192, 131072) for d in (0.003, 0.02)),
    *(("rank CDF", 1, n, d) for n in (2000, 20000) for d in (0.001, 0.03)),
    *(("rank CDF at edges", len(WIDTHS), n, d) for n in (8192,) for d in (0.003, 0.02)),
    *(("support", 1, n, d) for n in (1000, 20000) for d in (0.0005, 0.01)),
)
"""Bound, outcomes, samples, deviation."""


@dataclass(frozen=True)
class Promised:
    """How often a decoder is detected in n tokens that deviates by the smallest detectable effect, `detectable_deviation(n)`."""

    n: int
    times: int

    def run(self) -> dict[str, Any]:
        deviation = detectable_deviation(self.n).value
        rng = np.random.default_rng([4, self.n])
        histograms = rng.multinomial(self.n, deviating(WIDTHS, deviation), self.times)
        sums = replace(no_counts(self.times), histogram=histograms)
        convicted = int((log10_average(log10_components(sums)) >= np.log10(FAULT)).sum())
        return vars(self) | {"deviation": deviation, "convicted": convicted, "power": 0.9}
