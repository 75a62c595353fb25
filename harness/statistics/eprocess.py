"""Evidence against a decoder as a bet that a correct one cannot win: sums over emitted tokens, which add over shards and runs.

Every emitted token is turned into a number U that is uniform on [0, 1), whatever the tokens before it, if and only if the
token was drawn from the target's law (Rosenblatt's transform, made continuous by a coin of the harness). A component stakes
1 on a pattern in the stream of U; what it holds after n tokens is E. Under the null hypothesis the expectation of E is at most 1
after any number of tokens, looked at as often as one likes: P(E ever reaches x) <= 1 / x (Ville). So a run may stop early,
be extended, or be added to yesterday's, and E >= 1e9 is a false alarm in 1e9.

Whatever a token is sorted by (offset in its block, leaf or inner node, the token before it) was settled before the token
was drawn. Sorting by accepted, recovered or bonus is not: that label depends on the token, and convicts a correct decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice, pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp
from scipy.stats import ncx2

from harness.statistics.bounds import Bound

Array: TypeAlias = NDArray[Any]

FAULT = 1e9
"""Evidence at which a decoder is at fault."""
EXTEND = 1e3
"""Evidence at which a run takes four times as many tokens before it says anything."""

TILTS = tuple(sign * size for size in (0.01, 0.03, 0.1, 0.3) for sign in (1, -1))
"""Exponents: the bet is that tokens are drawn from p^(1 + tilt), a temperature of 1 / (1 + tilt) on top of the right one."""

ODDS = tuple(10.0 ** (sign * size) for size in (0.01, 0.03, 0.1, 0.3, 1.0) for sign in (1, -1))
"""Factors on the odds that the token after a node is one of its children. Mild ones too: a bet on 10 loses if 5 % are missing."""

HALVINGS = 8
WIDTHS = np.array([1 / 20] * 19 + [2.0**-i / 20 for i in range(1, HALVINGS + 1)] + [2.0**-HALVINGS / 20])
"""The 28 bins of U. Twentieths in the bulk, where a fault shifts much mass a little. The last twentieth, the improbable tokens,
is halved again and again down to 2e-4: truncation, float32 sums and stale caches move little mass there, by large factors."""
EDGES = np.cumsum(WIDTHS)[:-1]

GRID = 8
"""Bins a side of the tables of pairs. Coarse, since 64 cells are to fill up soon; a generator used twice is no subtle thing."""
OFFSETS = 4
"""Strata by offset in the block: 0, 1, 2, and 3 or more."""
CONCENTRATIONS = 10.0 ** np.arange(1, 7)
"""Of the Dirichlet priors, centred at uniform, that bet on a table of counts: from gross deviations to those of 1 in 1,000."""
EXAMPLES = 8


@dataclass(frozen=True)
class Strand:
    """What one sequence gives away, one row a token, in order. Unknown (a black box without blocks): -1, and nan for mass.

    u         [n]     probability of the tokens likelier than this one, ties by id, plus p times a coin of the harness
    p         [n]     probability of the token under the processed target; 0: impossible, the rest of its row is then ignored
    tilt      [n, L]  log of p^(1 + tilt) / sum(p^(1 + tilt)) over p, at the token, for each of TILTS: the factor a bet gains
    score     [n]     log p + entropy, of expectation 0
    variance  [n]     its variance
    offset    [n]     place in its block, from 0
    leaf      [n]     1: the token was drawn after a leaf of the tree, 0: after an inner node
    hit       [n]     1: the token is among the children of its node, 0: it is not
    mass      [n]     probability of all those children under p
    """

    u: Array
    p: Array
    tilt: Array
    score: Array
    variance: Array
    offset: Array
    leaf: Array
    hit: Array
    mass: Array


@dataclass(frozen=True, eq=False)
class Counts:
    """The sums all evidence is computed from. They add: Counts of shards, of machines, of runs.

    Any leading axes may precede those named here (many campaigns, or many moments of one); every formula below keeps them.

    tokens, sequences, impossible    []
    histogram [28]   leaf [2, 28] (inner, leaf)   offset [4, 28]     tokens by bin of u, and by stratum
    lag, block, cross [8, 8]   pairs of u: a token and the next; first tokens of consecutive blocks; the same position in
                               consecutive sequences of a shard, where generators seeded alike show
    tilt [8]   child [10]      sums of log factors for TILTS and for ODDS
    score [2]                  sum of scores, and of their variances
    examples                   (sequence, position) of the first few impossible tokens
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
        bins, grid = len(WIDTHS), (GRID, GRID)
        whole = ((), (), (), (bins,), (2, bins), (OFFSETS, bins), grid, grid, grid)
        real = ((len(TILTS),), (len(ODDS),), (2,))
        arrays: list[Any] = [*(np.zeros(shape, np.int64) for shape in whole), *(np.zeros(shape) for shape in real)]
        return cls(*arrays)

    def __add__(self, other: Counts) -> Counts:
        """Sequences of the other are numbered after ours."""
        later = tuple((int(self.sequences) + sequence, position) for sequence, position in other.examples)
        return Counts(
            **{name: array + getattr(other, name) for name, array in self.arrays().items()},
            examples=(*self.examples, *later)[:EXAMPLES],
        )

    def arrays(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "examples"}

    def to_json(self) -> dict[str, Any]:
        return {name: array.tolist() for name, array in self.arrays().items()} | {"examples": [list(e) for e in self.examples]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Counts:
        """Back, exactly. Counts of other bins or bets than ours do not add to ours and are refused."""
        ours = cls.zero().arrays()
        if values.keys() != {*ours, "examples"}:
            raise ValueError(f"counts must have exactly {', '.join([*ours, 'examples'])}, not {', '.join(values)}")
        read = {name: np.array(values[name], array.dtype) for name, array in ours.items()}
        if wrong := [name for name, array in read.items() if array.shape != ours[name].shape]:
            raise ValueError(f"{wrong[0]} has shape {read[wrong[0]].shape}, expected {ours[wrong[0]].shape}")
        return cls(**read, examples=tuple((int(s), int(t)) for s, t in values["examples"]))


def stack(parts: Sequence[Counts]) -> Counts:
    """Counts side by side on a new first axis, such as one a campaign."""
    stacked: dict[str, Any] = {name: np.stack([getattr(part, name) for part in parts]) for name in parts[0].arrays()}
    return Counts(**stacked)


def running(parts: Sequence[Counts]) -> Counts:
    """The sums after each of the parts, on a new first axis: the moments at which a run may look at its evidence."""
    sums: dict[str, Any] = {name: array.cumsum(axis=0) for name, array in stack(parts).arrays().items()}
    return Counts(**sums)


def counts(strands: Sequence[Strand]) -> Counts:
    """Sum the strands of one shard, in the order in which the sequences were asked for."""
    if not strands:
        return Counts.zero()
    all_tokens = Strand(**{f.name: np.concatenate([getattr(s, f.name) for s in strands]) for f in fields(Strand)})
    possible = all_tokens.p > 0
    s = Strand(**{f.name: getattr(all_tokens, f.name)[possible] for f in fields(Strand)})
    bins = np.searchsorted(EDGES, s.u, side="right")
    known = ~np.isnan(s.mass)
    return Counts(
        tokens=np.array(len(possible)),
        sequences=np.array(len(strands)),
        impossible=np.array((~possible).sum()),
        histogram=np.bincount(bins, minlength=len(WIDTHS)),
        leaf=_table(s.leaf, bins, (2, len(WIDTHS))),
        offset=_table(np.minimum(s.offset, OFFSETS - 1), bins, (OFFSETS, len(WIDTHS))),
        lag=_pairs([(_bins(one)[:-1], _bins(one)[1:]) for one in strands]),
        block=_pairs([(first[:-1], first[1:]) for first in (_bins(one)[one.offset == 0] for one in strands)]),
        cross=_pairs([_shortest(_bins(one), _bins(two)) for one, two in pairwise(strands)]),
        tilt=s.tilt.sum(axis=0),
        child=child_factors(s.hit[known], s.mass[known]).sum(axis=0),
        score=np.array([s.score.sum(), s.variance.sum()]),
        examples=_impossible(strands),
    )


def child_factors(hit: Array, mass: Array) -> Array:
    """Log factors [n, 10] of bets on a node's children: their odds mass / (1 - mass) times each of ODDS."""
    odds = np.array(ODDS)
    factors: Array = hit[:, None] * np.log(odds) - np.log1p(mass[:, None] * (odds - 1))
    return factors


def _bins(strand: Strand) -> Array:
    """Row or column [n] of each token in a table of pairs; -1 for an impossible one."""
    return np.where(strand.p > 0, np.minimum((strand.u * GRID).astype(int), GRID - 1), -1)


def _pairs(pairs: Sequence[tuple[Array, Array]]) -> Array:
    none = np.zeros(0, int)
    rows, columns = (np.concatenate([none, *(pair[side] for pair in pairs)]) for side in (0, 1))
    return _table(rows, columns, (GRID, GRID))


def _table(rows: Array, columns: Array, shape: tuple[int, int]) -> Array:
    """How often each (row, column) occurs; what is -1 on either side is unknown and left out."""
    seen = (rows >= 0) & (columns >= 0)
    return np.bincount(rows[seen] * shape[1] + columns[seen], minlength=shape[0] * shape[1]).reshape(shape)


def _shortest(one: Array, two: Array) -> tuple[Array, Array]:
    n = min(len(one), len(two))
    return one[:n], two[:n]


def _impossible(strands: Sequence[Strand]) -> tuple[tuple[int, int], ...]:
    found = ((i, int(t)) for i, strand in enumerate(strands) for t in np.flatnonzero(strand.p == 0))
    return tuple(islice(found, EXAMPLES))


@dataclass(frozen=True)
class Evidence:
    """log10 of E: of each component, and of their average, which is what a verdict rests on.

    Weights are equal and fixed in advance, so the average is itself a fair bet; a component without data keeps its 1.
    An impossible token is no matter of bets: probability zero under the null, one is proof.
    """

    tokens: int
    impossible: int
    components: Mapping[str, float]
    log10: float

    @property
    def largest(self) -> str:
        """The component with the most evidence: where to look."""
        return max(self.components, key=lambda name: self.components[name])

    @property
    def fault(self) -> bool:
        return self.impossible > 0 or self.log10 >= np.log10(FAULT)

    @property
    def extend(self) -> bool:
        """Not enough for a verdict, too much to pass: take four times as many tokens."""
        return not self.fault and self.log10 >= np.log10(EXTEND)


def evidence(sums: Counts) -> Evidence:
    """The evidence in one set of counts."""
    each = components(sums)
    shown = {name: float(log10) for name, log10 in each.items()}
    return Evidence(int(sums.tokens), int(sums.impossible), shown, float(average(each)))


def components(sums: Counts) -> dict[str, Array]:
    """log10 E [...] of every component, over whatever leading axes the counts have."""
    strata = {"histogram": sums.histogram[..., None, :], "leaf": sums.leaf, "offset": sums.offset}
    pairs = {"lag": sums.lag, "block": sums.block, "cross": sums.cross}
    bets = {"tilt": sums.tilt, "child": sums.child}
    # A row of a table may deviate grossly and the next not at all: each is bet on with concentrations of its own.
    return (
        {name: _mixed(dirichlet(table, WIDTHS)).sum(axis=-1) for name, table in strata.items()}
        | {name: _mixed(dirichlet(table, np.full(GRID, 1 / GRID))).sum(axis=-1) for name, table in pairs.items()}
        | {name: _mixed(factors) for name, factors in bets.items()}
    )


def average(each: Mapping[str, Array]) -> Array:
    """log10 of the mean [...] of E over the components."""
    return _mixed(np.stack(list(each.values()), axis=-1) * np.log(10))


def dirichlet(n: Array, pi: Array) -> Array:
    """log E [..., C] of tokens counted in bins, n [..., B], against bins of probability pi [B], for each of CONCENTRATIONS.

    The bet: the true probabilities were drawn from Dirichlet(c pi). What it gains is the ratio of Dirichlet-multinomial to
    multinomial likelihood, which is a function of the counts alone.
    """
    c = CONCENTRATIONS[:, None]
    total = n.sum(axis=-1)[..., None]
    bins = (gammaln(n[..., None, :] + c * pi) - gammaln(c * pi)).sum(axis=-1)
    factors: Array = gammaln(c[:, 0]) - gammaln(total + c[:, 0]) + bins - (n * np.log(pi)).sum(axis=-1)[..., None]
    return factors


def _mixed(log_factors: Array) -> Array:
    """log10 of the mean over the last axis, given natural logarithms."""
    mean: Array = (logsumexp(log_factors, axis=-1) - np.log(log_factors.shape[-1])) / np.log(10)
    return mean


def visible(n: int, power: float = 0.9) -> Bound:
    """The smallest deviation for which n tokens give E >= FAULT with the given power, whatever its shape: a total variation
    between the distribution of U, by bins, and uniform.

    The histogram must win for all components, and the right concentration for all concentrations. Its gain is a function of
    the chi-square statistic X (both log-likelihoods to second order): of n tokens a bet of concentration c makes
    X/2 * s - df/2 * log(1 + n/c) where s = n / (n + c). A law at total variation d gives X a noncentrality of at least 4 n d^2.
    """
    told = "many tokens in every bin; the same deviation at all of them; a deviation that cancels over contexts has none here"
    if n == 0:
        return Bound(1.0, False, told)
    df = len(WIDTHS) - 1
    log_costs = np.log([FAULT, len(components(Counts.zero()))]).sum()

    def short(statistic: float) -> float:
        gains = statistic / 2 * n / (n + CONCENTRATIONS) - df / 2 * np.log1p(n / CONCENTRATIONS)
        return float(_mixed(gains) * np.log(10) - log_costs)

    needed = brentq(short, 0, 1e9)
    noncentrality = brentq(lambda x: ncx2.sf(needed, df, x) - power, 0, 4 * needed + 1e3)
    return Bound(min(1.0, float(np.sqrt(noncentrality / n) / 2)), False, told)
