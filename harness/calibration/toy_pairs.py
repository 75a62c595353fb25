"""Toy pairs: a target whose distribution is a hash of the whole preceding text, and a draft head that is a noisy copy of it.

A distribution that depends on fewer than depth + 2 tokens would hide faults deep in a tree: the row of a wrong prefix would
be the correct row by chance. Distributions range from flat to peaked (above 0.9), since some faults show at one end only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from eagle2_ref.drafters.eagle2 import Budget

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Texts: TypeAlias = NDArray[np.uint64]
"""A text is represented by its hash."""

KINDS = 128  # distributions of a pair; the hash of a text selects one, and how its tokens are numbered
MOST_LIKELY = 512  # tokens among which a head drafts
VARIANTS = 4  # different errors of the head for each distribution

BUDGETS = {8: Budget(k=3, depth=4, m=10), 64: Budget(k=4, depth=4, m=16), 32000: Budget(k=4, depth=5, m=24)}
"""Vocabulary sizes, with the budget of the draft trees of each."""

NOISE = 1.0
"""Standard deviation of the head's error in log p. It gives blocks of two to four tokens, so that no place in a tree is rare."""


def tempered(p: Floats, temperature: float = 0.7) -> Floats:
    """Softmax of log p / temperature."""
    powers: Floats = p ** (1 / temperature)
    law: Floats = powers / powers.sum(axis=1, keepdims=True)
    return law


def nucleus(p: Floats, top_p: float = 0.9) -> Floats:
    """The fewest most probable tokens whose probability is at least top_p. p [K, V] is descending."""
    before = np.cumsum(p, axis=1) - p
    cut = np.where(before < top_p, p, 0)
    law: Floats = cut / cut.sum(axis=1, keepdims=True)
    return law


PROCESSING: dict[str, Callable[[Floats], Floats]] = {"T=0.7": tempered, "top_p=0.9": nucleus}
"""Sampling parameters that turn the raw distribution into the target's. Neither changes the order of tokens."""


@dataclass(frozen=True)
class Laws:
    """K distributions over V ranks, rank 0 being the most probable token.

    Args:
        p: probability of each rank, [K, V].
        edges: cumulative probabilities, those of distribution k shifted by k, so that one sorted array holds all, [K V + 1].
        support: number of ranks of positive probability, [K].
    """

    p: Floats
    edges: Floats
    support: Ints

    @classmethod
    def of(cls, p: Floats) -> Laws:
        upto = np.minimum(np.cumsum(p, axis=1), 1) + np.arange(len(p))[:, None]
        return cls(p, np.concatenate([[0.0], upto.ravel()]), np.count_nonzero(p, axis=1))

    def before(self, kind: Ints, rank: Ints) -> Floats:
        """Probability of all ranks before this one."""
        edges: Floats = self.edges[kind * self.p.shape[1] + rank] - kind
        return np.where(rank == 0, 0.0, edges)

    def draw(self, kind: Ints, u: Floats) -> Ints:
        """The rank at cumulative probability u: one binary search samples from all distributions at once."""
        place = np.searchsorted(self.edges, kind + u, side="right") - 1 - kind * self.p.shape[1]
        rank: Ints = np.clip(place, 0, self.support[kind] - 1)
        return rank


@dataclass(frozen=True)
class ToyPair:
    """A target and its draft head.

    Args:
        budget: size of the draft trees.
        target: distributions after processing.
        raw: distributions before processing, over the same ranks.
        drafts: ranks that the head drafts, most confident first, [K * VARIANTS, k].
        confidence: log of the head's probability of them, [K * VARIANTS, k].
    """

    budget: Budget
    target: Laws
    raw: Laws
    drafts: Ints
    confidence: Floats

    @classmethod
    def build(cls, vocab: int, processing: str, seed: int) -> ToyPair:
        rng = np.random.default_rng([vocab, seed])
        raw = zipf(rng, vocab) if vocab > 1000 else dirichlet(rng, vocab)
        drafts, confidence = head(rng, raw, BUDGETS[vocab].k)
        return cls(BUDGETS[vocab], Laws.of(PROCESSING[processing](raw)), Laws.of(raw), drafts, confidence)

    @cached_property
    def entropy(self) -> Floats:
        """Entropy of each of the target's distributions, [K]."""
        entropy: Floats = -(self.target.p * np.log(np.where(self.target.p > 0, self.target.p, 1))).sum(axis=1)
        return entropy

    @property
    def vocab(self) -> int:
        return len(self.target.p[0])

    def kind(self, text: Texts) -> Ints:
        """Index of the distribution after a text."""
        return (text & np.uint64(KINDS - 1)).astype(np.int64)

    def rank(self, text: Texts, token: Ints) -> Ints:
        """Ranks are tokens shifted by an offset that depends on the text, so that the row of another text is wrong."""
        rank = token - self._first(text)
        return np.where(rank < 0, rank + self.vocab, rank)

    def token(self, text: Texts, rank: Ints) -> Ints:
        token = rank + self._first(text)
        return np.where(token >= self.vocab, token - self.vocab, token)

    def _first(self, text: Texts) -> Ints:
        return (((text >> np.uint64(32)) * np.uint64(self.vocab)) >> np.uint64(32)).astype(np.int64)

    def p(self, text: Texts, token: Ints) -> Floats:
        """The target's probability p(token | text)."""
        return self.target.p[self.kind(text), self.rank(text, token)]

    def draft(self, text: Texts) -> tuple[Ints, Floats]:
        """The k tokens that the head drafts, [..., k], and the log of its confidence in them."""
        variant = (text >> np.uint64(16)).astype(np.int64) % VARIANTS
        row = self.kind(text) * VARIANTS + variant
        return self.token(text[..., None], self.drafts[row]), self.confidence[row]


def follow(text: Texts, token: Ints) -> Texts:
    """The text followed by a token: the finaliser of splitmix64, which maps similar texts to unrelated hashes."""
    key = (text ^ (token.astype(np.uint64) << np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def head(rng: np.random.Generator, raw: Floats, k: int) -> tuple[Ints, Floats]:
    """Ranks and log confidences of the k tokens that a head drafts, whose error in log p has standard deviation NOISE.

    Only the most likely tokens have an error; none of the others would be drafted.
    """
    seen = raw[:, None, :MOST_LIKELY]
    with np.errstate(divide="ignore"):
        logits = np.log(seen) + NOISE * rng.standard_normal((len(raw), VARIANTS, seen.shape[2]))
    total = np.exp(logits).sum(axis=2) + raw[:, None, MOST_LIKELY:].sum(axis=2)
    drafts = np.argsort(-logits, axis=2, kind="stable")[..., :k]
    confidence = np.take_along_axis(logits, drafts, 2) - np.log(total)[..., None]
    return drafts.reshape(-1, k), confidence.reshape(-1, k)


def dirichlet(rng: np.random.Generator, vocab: int) -> Floats:
    """Dirichlet distributions of log-uniform concentration, from flat to nearly one token, [KINDS, V]."""
    alpha = np.exp(rng.uniform(np.log(0.3), np.log(2 * vocab), (KINDS, 1))) / vocab
    # Gamma variables in logarithms (Marsaglia and Tsang's boost), since most of them underflow for small alpha.
    logs = np.log(rng.gamma(alpha + 1, size=(KINDS, vocab))) + np.log(rng.random((KINDS, vocab))) / alpha
    p = np.exp(logs - logs.max(axis=1, keepdims=True))
    return -np.sort(-p / p.sum(1, keepdims=True), axis=1)


def zipf(rng: np.random.Generator, vocab: int) -> Floats:
    """Zipf distributions with exponents from 1 to 2.2; half of them have a more probable first token, [KINDS, V]."""
    p = np.arange(1, vocab + 1) ** -rng.uniform(1, 2.2, (KINDS, 1))
    p /= p.sum(1, keepdims=True)
    start = rng.uniform(0, 0.95, (KINDS, 1)) * (rng.random((KINDS, 1)) < 0.5)
    p *= 1 - start
    p[:, :1] += start
    return p
