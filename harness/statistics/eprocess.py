"""E-processes on the probability integral transforms of emitted tokens: the sequential test of LAW-7.

Every emitted token x is turned into a number U in [0, 1]: the probability of all likelier tokens under the target, plus
v p(x) with v uniform from a generator of the harness (Rosenblatt 1952; randomised as in Brockwell 2007). The null hypothesis
is that every token was sampled from the target's distribution given the tokens before it; then the U are independent and
uniform.

A component is a betting strategy against the null: a non-negative process E that starts at 1 and is multiplied, per token, by
a factor of expectation at most 1 (a test martingale; Shafer 2021, Ramdas, Gruenwald, Vovk and Shafer 2023). Ville's inequality:
P(E ever reaches x) <= 1 / x under the null, after any number of tokens and looks. A campaign may therefore stop early, be
extended, or continue from an earlier run, and a fault at E >= 1e9 is a false alarm with probability at most 1e-9.

Tokens are stratified only by what is known before they are sampled (offset in the block, leaf or inner node, the previous
token). Accepted, recovered or bonus depend on the token itself: stratifying by them convicts a correct decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice, pairwise
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp
from scipy.stats import ncx2

from harness.statistics import Array
from harness.statistics.bounds import Bound

FAULT = 1e9
"""Evidence E at which a decoder is at fault."""
EXTEND = 1e3
"""Evidence E at which a campaign is extended to four times its tokens before it gives a verdict."""

TILTS = tuple(sign * size for size in (0.01, 0.03, 0.1, 0.3) for sign in (1, -1))
"""Exponents: the bet is that tokens are sampled from p^(1 + tilt), which is p at a temperature of 1 / (1 + tilt)."""

ODDS = tuple(10.0 ** (sign * size) for size in (0.01, 0.03, 0.1, 0.3, 1.0) for sign in (1, -1))
"""Factors on the odds that the token after a node is one of its children. Small factors are needed too: a bet on a factor of 10
loses if only 5 % of the acceptances are missing."""

HALVINGS = 8
WIDTHS = np.array([1 / 20] * 19 + [2.0**-i / 20 for i in range(1, HALVINGS + 1)] + [2.0**-HALVINGS / 20])
"""Widths of the 28 bins of U. Twentieths in the bulk, where a fault shifts much probability a little. The last twentieth, the
improbable tokens, is halved repeatedly down to 2e-4: truncation, float32 sums and stale caches move little probability there,
by large factors."""
EDGES = np.cumsum(WIDTHS)[:-1]

GRID = 8
"""Bins per axis of the tables of pairs of U. Coarse, so that 64 cells fill up soon: reused random numbers are a gross fault."""
OFFSETS = 4
"""Strata by offset in the block: 0, 1, 2, and 3 or more."""
CONCENTRATIONS = 10.0 ** np.arange(1, 7)
"""Concentrations of the Dirichlet priors, centred at uniform: from gross deviations to deviations of 1 in 1,000."""
EXAMPLES = 8
"""Impossible tokens whose position is stored."""


@dataclass(frozen=True)
class PitSequence:
    """What the tests use of one sequence of n emitted tokens: one row per token, in order.

    Unknown values (a black box that reports no blocks) are -1, and nan for `child_mass`.

    Attributes:
        u: [n] probability of the tokens likelier than this one (ties by id), plus p times a uniform number of the harness.
        p: [n] probability of the token under the processed target; 0 means impossible, and the rest of the row is ignored.
        tilt: [n, 8] log of p^(1 + tilt) / sum(p^(1 + tilt)) / p at the token, for each of TILTS: the log factor of a bet.
        score: [n] log p + entropy, of expectation 0 under the null.
        variance: [n] variance of the score under the null.
        offset: [n] offset of the token in its block, from 0.
        leaf: [n] 1 if the token was sampled after a leaf of the draft tree, 0 after an inner node.
        is_child: [n] 1 if the token is one of the children of its node, else 0.
        child_mass: [n] probability of all those children under p.
    """

    u: Array
    p: Array
    tilt: Array
    score: Array
    variance: Array
    offset: Array
    leaf: Array
    is_child: Array
    child_mass: Array


@dataclass(frozen=True, eq=False)
class Counts:
    """Sums over tokens from which all evidence is computed. Counts of shards, machines and runs add.

    Leading axes may precede the shapes given here (many campaigns, or many moments of one); every formula below keeps them.

    Attributes:
        tokens, sequences, impossible: [] number of tokens, of sequences, and of tokens of probability zero.
        histogram: [28] tokens by bin of U.
        leaf: [2, 28] the same, after inner nodes and after leaves.
        offset: [4, 28] the same, by offset in the block.
        lag: [8, 8] pairs of U of a token and the next token.
        block: [8, 8] pairs of U of the first tokens of consecutive blocks.
        cross: [8, 8] pairs of U at the same position of consecutive sequences of a shard: shows equally seeded generators.
        tilt: [8] sums of the log factors for TILTS.
        child: [10] sums of the log factors for ODDS.
        score: [2] sum of the scores and of their variances.
        examples: (sequence, position) of the first impossible tokens.
    """

    tokens: Array
    sequences: Array
    impossible: Array
    histogram: Array
    leaf: Array
    offset: Array
    lag: Array
    block: Array
    cross: Array
    tilt: Array
    child: Array
    score: Array
    examples: tuple[tuple[int, int], ...] = ()

    @classmethod
    def zero(cls) -> Counts:
        """Counts of no sequences."""
        bins, grid = len(WIDTHS), (GRID, GRID)
        integer_shapes = ((), (), (), (bins,), (2, bins), (OFFSETS, bins), grid, grid, grid)
        float_shapes = ((len(TILTS),), (len(ODDS),), (2,))
        integers = [np.zeros(shape, np.int64) for shape in integer_shapes]
        arrays: list[Any] = [*integers, *(np.zeros(shape) for shape in float_shapes)]
        return cls(*arrays)

    @classmethod
    def of(cls, sequences: Sequence[PitSequence]) -> Counts:
        """Counts of the sequences of one shard, in the order in which they were requested."""
        if not sequences:
            return cls.zero()
        all_tokens = PitSequence(**{f.name: np.concatenate([getattr(s, f.name) for s in sequences]) for f in fields(PitSequence)})
        possible = all_tokens.p > 0
        s = PitSequence(**{f.name: getattr(all_tokens, f.name)[possible] for f in fields(PitSequence)})
        bins = np.searchsorted(EDGES, s.u, side="right")
        known = ~np.isnan(s.child_mass)
        return cls(
            tokens=np.array(len(possible)),
            sequences=np.array(len(sequences)),
            impossible=np.array((~possible).sum()),
            histogram=np.bincount(bins, minlength=len(WIDTHS)),
            leaf=_table(s.leaf, bins, (2, len(WIDTHS))),
            offset=_table(np.minimum(s.offset, OFFSETS - 1), bins, (OFFSETS, len(WIDTHS))),
            lag=_table_of_pairs([(_grid(one)[:-1], _grid(one)[1:]) for one in sequences]),
            block=_table_of_pairs([(first[:-1], first[1:]) for first in (_grid(one)[one.offset == 0] for one in sequences)]),
            cross=_table_of_pairs([_truncated(_grid(one), _grid(two)) for one, two in pairwise(sequences)]),
            tilt=s.tilt.sum(axis=0),
            child=child_factors(s.is_child[known], s.child_mass[known]).sum(axis=0),
            score=np.array([s.score.sum(), s.variance.sum()]),
            examples=_impossible_positions(sequences),
        )

    def __add__(self, other: Counts) -> Counts:
        """The sum; the sequences of `other` are numbered after those of `self`."""
        later = tuple((int(self.sequences) + sequence, position) for sequence, position in other.examples)
        return Counts(
            **{name: array + getattr(other, name) for name, array in self.arrays().items()},
            examples=(*self.examples, *later)[:EXAMPLES],
        )

    def arrays(self) -> dict[str, Any]:
        """All fields except the examples, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "examples"}

    def to_json(self) -> dict[str, Any]:
        """Lists of numbers; `from_json` restores them exactly."""
        return {name: array.tolist() for name, array in self.arrays().items()} | {"examples": [list(e) for e in self.examples]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Counts:
        """Restore counts.

        Raises:
            ValueError: the fields or shapes are others than those of this version, or the numbers are no counts of tokens.
        """
        expected = cls.zero().arrays()
        if values.keys() != {*expected, "examples"}:
            raise ValueError(f"counts must have exactly {', '.join([*expected, 'examples'])}, not {', '.join(values)}")
        counts = cls(
            **{name: _read_array(name, values[name], array) for name, array in expected.items()},
            examples=tuple((_whole(s), _whole(t)) for s, t in values["examples"]),
        )
        counts._validate()
        return counts

    def _validate(self) -> None:
        """Refuse counts that no tokens have: ValueError with the name of the first."""
        possible = self.tokens - self.impossible
        holds = {
            "histogram": self.histogram.sum() == possible,  # every possible token is in one bin, and in one stratum at most
            "leaf": bool((self.leaf.sum(axis=0) <= self.histogram).all()),
            "offset": bool((self.offset.sum(axis=0) <= self.histogram).all()),
            **{name: getattr(self, name).sum() <= possible for name in ("lag", "block", "cross")},
            "score": self.score[1] >= 0,
            "sequences": self.sequences > 0 or self.tokens == 0,
            "examples": len(self.examples) == min(EXAMPLES, self.impossible)
            and all(0 <= s < self.sequences and 0 <= t < self.tokens for s, t in self.examples),
        }
        if wrong := [name for name, right in holds.items() if not right]:
            raise ValueError(f"{wrong[0]} contradicts the other counts")


def _read_array(name: str, value: Any, like: Array) -> Array:
    """An array of the type and shape of `like`; whole numbers must be whole and not negative, others finite."""
    read = np.array(value)
    if read.shape != like.shape:
        raise ValueError(f"{name} has shape {read.shape}, expected {like.shape}")
    if like.dtype.kind == "i" and (read.dtype.kind != "i" or (read < 0).any()):
        raise ValueError(f"{name} has a number that is no count")
    if read.dtype.kind not in "if" or not np.isfinite(read).all():
        raise ValueError(f"{name} has a number that is no sum")
    return read.astype(like.dtype)


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def child_factors(is_child: Array, child_mass: Array) -> Array:
    """Log factors [n, 10] of the bets that the odds of a child, child_mass / (1 - child_mass), are multiplied by each of ODDS."""
    odds = np.array(ODDS)
    factors: Array = is_child[:, None] * np.log(odds) - np.log1p(child_mass[:, None] * (odds - 1))
    return factors


def _grid(sequence: PitSequence) -> Array:
    """Row or column [n] of each token in a table of pairs; -1 for an impossible token."""
    return np.where(sequence.p > 0, np.minimum((sequence.u * GRID).astype(int), GRID - 1), -1)


def _table_of_pairs(pairs: Sequence[tuple[Array, Array]]) -> Array:
    none = np.zeros(0, int)
    rows, columns = (np.concatenate([none, *(pair[side] for pair in pairs)]) for side in (0, 1))
    return _table(rows, columns, (GRID, GRID))


def _table(rows: Array, columns: Array, shape: tuple[int, int]) -> Array:
    """How often each (row, column) occurs; pairs with an unknown side (-1) are left out."""
    known = (rows >= 0) & (columns >= 0)
    return np.bincount(rows[known] * shape[1] + columns[known], minlength=shape[0] * shape[1]).reshape(shape)


def _truncated(one: Array, two: Array) -> tuple[Array, Array]:
    n = min(len(one), len(two))
    return one[:n], two[:n]


def _impossible_positions(sequences: Sequence[PitSequence]) -> tuple[tuple[int, int], ...]:
    found = ((i, int(t)) for i, sequence in enumerate(sequences) for t in np.flatnonzero(sequence.p == 0))
    return tuple(islice(found, EXAMPLES))


@dataclass(frozen=True)
class Evidence:
    """log10 of E: of each component, and of their average, on which the verdict rests.

    The weights of the average are equal and fixed in advance, so it is an e-process itself; a component without data
    contributes 1. An impossible token needs no bet: its probability under the null is zero, so one is proof.
    """

    tokens: int
    impossible: int
    components: Mapping[str, float]
    log10: float

    @classmethod
    def of(cls, counts: Counts) -> Evidence:
        """Evidence in one set of counts, without leading axes."""
        components = log10_components(counts)
        scalars = {name: float(log10) for name, log10 in components.items()}
        return cls(int(counts.tokens), int(counts.impossible), scalars, float(log10_average(components)))

    @property
    def largest(self) -> str:
        """Name of the component with the most evidence."""
        return max(self.components, key=lambda name: self.components[name])

    @property
    def fault(self) -> bool:
        return self.impossible > 0 or self.log10 >= np.log10(FAULT)

    @property
    def extend(self) -> bool:
        """Whether the evidence is too small for a fault and too large for a pass: take four times as many tokens."""
        return not self.fault and self.log10 >= np.log10(EXTEND)


def log10_components(counts: Counts) -> dict[str, Array]:
    """log10 E [...] of every component by name, over the leading axes of the counts."""
    strata = {"histogram": counts.histogram[..., None, :], "leaf": counts.leaf, "offset": counts.offset}
    pairs = {"lag": counts.lag, "block": counts.block, "cross": counts.cross}
    log_factors = {"tilt": counts.tilt, "child": counts.child}
    # One row of a table may deviate grossly and the next not at all: each row is bet on with its own concentrations.
    return (
        {name: _log10_mean(dirichlet_log_gain(table, WIDTHS)).sum(axis=-1) for name, table in strata.items()}
        | {name: _log10_mean(dirichlet_log_gain(table, np.full(GRID, 1 / GRID))).sum(axis=-1) for name, table in pairs.items()}
        | {name: _log10_mean(factors) for name, factors in log_factors.items()}
    )


def log10_average(components: Mapping[str, Array]) -> Array:
    """log10 of the mean [...] of E over the components."""
    return _log10_mean(np.stack(list(components.values()), axis=-1) * np.log(10))


def dirichlet_log_gain(n: Array, pi: Array) -> Array:
    """log E of bets on a table of counts, for each of CONCENTRATIONS.

    The bet of concentration c: the true probabilities are distributed as Dirichlet(c pi). Its gain is the likelihood ratio of
    the Dirichlet-multinomial to the multinomial distribution, a function of the counts alone:
    Gamma(c) / Gamma(N + c) prod_b Gamma(n_b + c pi_b) / (Gamma(c pi_b) pi_b^n_b), with N the sum of n.

    Args:
        n: counts [..., B].
        pi: probabilities of the bins under the null, [B].

    Returns:
        log E [..., C].
    """
    c = CONCENTRATIONS[:, None]
    total = n.sum(axis=-1)[..., None]
    bins = (gammaln(n[..., None, :] + c * pi) - gammaln(c * pi)).sum(axis=-1)
    gain: Array = gammaln(c[:, 0]) - gammaln(total + c[:, 0]) + bins - (n * np.log(pi)).sum(axis=-1)[..., None]
    return gain


def _log10_mean(log_factors: Array) -> Array:
    """log10 of the mean over the last axis of exp(log_factors)."""
    mean: Array = (logsumexp(log_factors, axis=-1) - np.log(log_factors.shape[-1])) / np.log(10)
    return mean


def detectable_deviation(n: int, power: float = 0.9) -> Bound:
    """Smallest total variation between the binned U and uniform for which n tokens reach FAULT with the given power.

    Holds for a deviation of any shape; the histogram has to win for the average over components, and the right concentration
    for the mean over concentrations. Its gain is a function of the chi-square statistic X (both log-likelihoods to second
    order): over n tokens, a bet of concentration c gains X/2 s - df/2 log(1 + n/c) with s = n / (n + c). A distribution at total
    variation d gives X a noncentrality of at least 4 n d^2.
    """
    assumption = "many tokens in every bin; the same deviation at every token (one that cancels over contexts is not detected)"
    if n == 0:
        return Bound(1.0, False, assumption)
    df = len(WIDTHS) - 1
    log_costs = np.log([FAULT, len(log10_components(Counts.zero()))]).sum()

    def surplus(statistic: float) -> float:
        gains = statistic / 2 * n / (n + CONCENTRATIONS) - df / 2 * np.log1p(n / CONCENTRATIONS)
        return float(_log10_mean(gains) * np.log(10) - log_costs)

    threshold = brentq(surplus, 0, 1e9)
    noncentrality = brentq(lambda x: ncx2.sf(threshold, df, x) - power, 0, 4 * threshold + 1e3)
    return Bound(min(1.0, float(np.sqrt(noncentrality / n) / 2)), False, assumption)
