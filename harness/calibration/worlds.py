"""Toy targets whose law is a hash of the whole text so far, and heads that are noisy copies of them.

A law that remembers less than depth + 2 tokens hides what happens deep in a tree: a row of the wrong prefix would be the
right row by chance. Laws span from flat to peaked (above .9), since a fault may live at one end alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eagle2_ref.drafters.eagle2 import Budget

Floats: TypeAlias = NDArray[Any]
Ints: TypeAlias = NDArray[Any]
Bools: TypeAlias = NDArray[Any]
Texts: TypeAlias = NDArray[Any]
"""A text is known by its hash."""

KINDS = 128  # laws of a world; a text's hash picks one, and how its tokens are numbered
LIKELIEST = 512  # tokens among which a head drafts
VARIANTS = 4  # ways in which a head is wrong about a law

BUDGETS = {8: Budget(k=3, depth=4, m=10), 64: Budget(k=4, depth=4, m=16), 32000: Budget(k=4, depth=5, m=24)}
"""The worlds: a vocabulary and the draft trees of EAGLE-2 that are grown on it."""

NOISE = 1.0
"""Standard deviation of a head's error in log p: blocks of two to four tokens, so that no slot of a tree is rare."""


def tempered(p: Floats, temperature: float = 0.7) -> Floats:
    """Softmax of log p / temperature."""
    powers: Floats = p ** (1 / temperature)
    law: Floats = powers / powers.sum(axis=1, keepdims=True)
    return law


def nucleus(p: Floats, top_p: float = 0.9) -> Floats:
    """The most probable tokens that together have mass top_p, the one that reaches it included. p [K, V] is descending."""
    before = np.cumsum(p, axis=1) - p
    cut = np.where(before < top_p, p, 0)
    law: Floats = cut / cut.sum(axis=1, keepdims=True)
    return law


PROCESSINGS: dict[str, Callable[[Floats], Floats]] = {"T=0.7": tempered, "top_p=0.9": nucleus}
"""What is done to the raw law before it is the target's. Neither changes the order of tokens."""


@dataclass(frozen=True)
class Laws:
    """K laws over V tokens, which each of them ranks from most to least probable.

    p        [K, V]      probability of a rank
    edges    [K V + 1]   law k is the piece from k to k + 1 of one ascending line; its ranks divide that piece
    support  [K]         number of ranks of positive probability
    """

    p: Floats
    edges: Floats
    support: Ints

    @classmethod
    def of(cls, p: Floats) -> Laws:
        upto = np.minimum(np.cumsum(p, axis=1), 1) + np.arange(len(p))[:, None]
        return cls(p, np.concatenate([[0.0], upto.ravel()]), np.count_nonzero(p, axis=1))

    def before(self, kind: Ints, rank: Ints) -> Floats:
        """Mass of the ranks above this one."""
        edges: Floats = self.edges[kind * self.p.shape[1] + rank] - kind
        return np.where(rank == 0, 0.0, edges)

    def draw(self, kind: Ints, u: Floats) -> Ints:
        """The rank at mass u: one binary search on the line draws from as many laws as there are kinds."""
        place = np.searchsorted(self.edges, kind + u, side="right") - 1 - kind * self.p.shape[1]
        rank: Ints = np.clip(place, 0, self.support[kind] - 1)
        return rank


@dataclass(frozen=True)
class World:
    """A target and its head.

    target, raw   the laws after and before processing, over the same ranks
    drafts        [K · VARIANTS, k]  ranks of the head's favourites, most confident first
    confidence    [K · VARIANTS, k]  log of the head's probability of them
    """

    budget: Budget
    target: Laws
    raw: Laws
    drafts: Ints
    confidence: Floats

    @classmethod
    def build(cls, vocab: int, processing: str, seed: int) -> World:
        rng = np.random.default_rng([vocab, seed])
        raw = zipf(rng, vocab) if vocab > 1000 else dirichlet(rng, vocab)
        drafts, confidence = head(rng, raw, BUDGETS[vocab].k)
        return cls(BUDGETS[vocab], Laws.of(PROCESSINGS[processing](raw)), Laws.of(raw), drafts, confidence)

    @cached_property
    def entropy(self) -> Floats:
        """Of each of the target's laws [KINDS]."""
        entropy: Floats = -(self.target.p * np.log(np.where(self.target.p > 0, self.target.p, 1))).sum(axis=1)
        return entropy

    @property
    def vocab(self) -> int:
        return len(self.target.p[0])

    def kind(self, text: Texts) -> Ints:
        """Which law comes next."""
        return (text & np.uint64(KINDS - 1)).astype(np.int64)

    def rank(self, text: Texts, token: Ints) -> Ints:
        """Ranks are numbered on from a token that depends on the text: another text's row is a wrong row."""
        rank = token - self._first(text)
        return np.where(rank < 0, rank + self.vocab, rank)

    def token(self, text: Texts, rank: Ints) -> Ints:
        token = rank + self._first(text)
        return np.where(token >= self.vocab, token - self.vocab, token)

    def _first(self, text: Texts) -> Ints:
        return (((text >> np.uint64(32)) * np.uint64(self.vocab)) >> np.uint64(32)).astype(np.int64)

    def p(self, text: Texts, token: Ints) -> Floats:
        """The target's law: p(token | text)."""
        return self.target.p[self.kind(text), self.rank(text, token)]

    def draft(self, text: Texts) -> tuple[Ints, Floats]:
        """The head's k favourite tokens [..., k], and the log of its confidence in them."""
        variant = (text >> np.uint64(16)).astype(np.int64) % VARIANTS
        row = self.kind(text) * VARIANTS + variant
        return self.token(text[..., None], self.drafts[row]), self.confidence[row]


def follow(text: Texts, token: Ints) -> Texts:
    """The text with a token behind it: the finaliser of splitmix64, which leaves no trace of what was similar."""
    key = (text ^ (token.astype(np.uint64) << np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Texts = key ^ (key >> np.uint64(31))
    return mixed


def head(rng: np.random.Generator, raw: Floats, k: int) -> tuple[Ints, Floats]:
    """The k favourites of a head that is wrong about log p by NOISE, in VARIANTS ways a law: ranks and log confidences.

    It is wrong about the likeliest tokens only; none of the others would be among its favourites.
    """
    seen = raw[:, None, :LIKELIEST]
    with np.errstate(divide="ignore"):
        logits = np.log(seen) + NOISE * rng.standard_normal((len(raw), VARIANTS, seen.shape[2]))
    total = np.exp(logits).sum(axis=2) + raw[:, None, LIKELIEST:].sum(axis=2)
    drafts = np.argsort(-logits, axis=2, kind="stable")[..., :k]
    confidence = np.take_along_axis(logits, drafts, 2) - np.log(total)[..., None]
    return drafts.reshape(-1, k), confidence.reshape(-1, k)


def dirichlet(rng: np.random.Generator, vocab: int) -> Floats:
    """Laws [KINDS, V] of log-uniform concentration: some flat, some of hardly more than one token."""
    alpha = np.exp(rng.uniform(np.log(0.3), np.log(2 * vocab), (KINDS, 1))) / vocab
    # Gamma variables in logarithms (Marsaglia and Tsang's boost): for a small alpha most of them underflow.
    logs = np.log(rng.gamma(alpha + 1, size=(KINDS, vocab))) + np.log(rng.random((KINDS, vocab))) / alpha
    p = np.exp(logs - logs.max(axis=1, keepdims=True))
    return -np.sort(-p / p.sum(1, keepdims=True), axis=1)


def zipf(rng: np.random.Generator, vocab: int) -> Floats:
    """Laws [KINDS, V] with the long tail of text: exponents from 1 to 2.2; in half of them the first token has a head start."""
    p = np.arange(1, vocab + 1) ** -rng.uniform(1, 2.2, (KINDS, 1))
    p /= p.sum(1, keepdims=True)
    start = rng.uniform(0, 0.95, (KINDS, 1)) * (rng.random((KINDS, 1)) < 0.5)
    p *= 1 - start
    p[:, :1] += start
    return p
