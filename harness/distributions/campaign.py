"""A sampling campaign: shards, each a pure function of (engine, plan, range of seeds), whose counts add; and bets on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT
from harness.distributions.oracle import Oracle
from harness.implementations.engine import BlockTrace, Engine, Output
from harness.statistics.eprocess import Counts, Evidence, PitSequence
from harness.statistics.pit import pit_sequence

PER_CALL = 32
"""Prompts in one call: of several lengths and, where the plan has several, of several parameters."""

ROUND = 64
"""Texts between two looks at the evidence."""

LONGEST = 160
"""Of a prompt, in tokens."""

Place = tuple[int, int, list[int] | None]
"""Where a token was drawn: its offset in its block, whether after a leaf, and its node's children."""
UNKNOWN: Place = (-1, -1, None)


@dataclass(frozen=True)
class Plan:
    """What is asked for: texts take prompts and parameters in turn, and every prompt meets all of them."""

    prompts: Sequence[Sequence[int]]
    params: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]]) -> Plan:
        """Of prompts that may be long: their beginnings."""
        return cls([prompt[:LONGEST] for prompt in prompts], params)

    def asked(self, text: int) -> tuple[Sequence[int], dict[str, Any]]:
        return self.prompts[text % len(self.prompts)], self.params[sum(divmod(text, len(self.prompts))) % len(self.params)]


def starts(vocab_size: int) -> list[list[int]]:
    """Prompts for a toy: of one to four tokens, of every kind."""
    return [[(7 * i + 3 * j) % vocab_size for j in range(1 + i % 4)] for i in range(23)]


@dataclass
class Bet:
    """Bets on a stream of tokens, round by round, until they are won or the budget of tokens is spent."""

    oracle: Oracle
    plan: Plan
    seed: int
    budget: int
    sums: Counts = field(default_factory=Counts.zero)
    strands: list[PitSequence] = field(default_factory=list)

    def sample(self, engine: Engine, kept: Counts | None = None) -> Evidence:
        """Evidence of this run, on top of what was kept of earlier ones. Where there is some, the budget grows fourfold."""
        self.sums = kept or Counts.zero()
        limit, extended = int(self.sums.tokens) + self.budget, False
        while True:
            done = int(self.sums.sequences)
            fresh = shard(engine, self.oracle, self.plan, self.seed, range(done, done + ROUND))
            self.strands += fresh
            self.sums += Counts.of(fresh)
            found = Evidence.of(self.sums)
            if found.extend and not extended:
                limit, extended = limit + 3 * self.budget, True
            if found.fault or found.tokens >= limit:
                return found


def shard(engine: Engine, oracle: Oracle, plan: Plan, seed: int, texts: range) -> list[PitSequence]:
    """Some texts of a plan, to be counted; text i is sampled with seed + i, and judged with a coin that only we know."""
    return [one for i in range(texts.start, texts.stop, PER_CALL) for one in _call(engine, oracle, plan, seed, texts, i)]


def _call(engine: Engine, oracle: Oracle, plan: Plan, seed: int, texts: range, start: int) -> Iterator[PitSequence]:
    numbers = range(start, min(start + PER_CALL, texts.stop))
    prompts, params = zip(*(plan.asked(i) for i in numbers), strict=True)
    outputs = engine.generate(prompts, params, [seed + i for i in numbers])
    chosen = "deterministic" in engine.implementation.capabilities
    laws = oracle.laws(prompts, [output.tokens for output in outputs], [SamplingParams.of(p) for p in params])
    for i, output, p in zip(numbers, outputs, laws, strict=True):
        v = np.random.default_rng([seed, i]).random(len(output.tokens))
        offsets, leaves, children = placed(output)
        yield pit_sequence(p, np.array(output.tokens), v, offsets, leaves, children if chosen else None)


def placed(output: Output) -> tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None, list[list[int] | None] | None]:
    """Of each token its offset in its block, whether it was drawn after a leaf, and the tokens of its node's children.

    Bets on children are fair only if they were chosen before any coin fell: a child that was sampled from q is accepted with
    probability min(1, p / q), which is more than p, and yet the law is right.

    Nothing where the implementation does not tell its blocks; unknown (-1, None) where what it tells does not fit its text.
    """
    if output.blocks is None:
        return None, None, None
    places = [place for told in _spans(output) for place in _along(*told)][: len(output.tokens)]
    places += [UNKNOWN] * (len(output.tokens) - len(places))
    offsets, leaves, children = zip(*places, strict=True)
    return np.array(offsets), np.array(leaves), list(children)


def _spans(output: Output) -> Iterator[tuple[BlockTrace, int | None, Sequence[int]]]:
    """Each block, the token before it (None: of the prompt), and the tokens it emitted."""
    done = 0
    for block in output.blocks or ():
        end = done + block.accepted + 1
        if end <= done:
            return
        yield block, output.tokens[done - 1] if 0 < done <= len(output.tokens) else None, output.tokens[done:end]
        done = end


def _along(block: BlockTrace, newest: int | None, emitted: Sequence[int]) -> Iterator[Place]:
    sound = _sound(block, newest)
    children = _children(block) if sound else {}
    node: int | None = ROOT if sound else None
    for offset, token in enumerate(emitted):
        if node is None:
            yield UNKNOWN
        else:
            offered = children.get(node, {})
            yield offset, int(not offered), [*offered]
            node = offered.get(token)


def _children(block: BlockTrace) -> dict[int, dict[int, int]]:
    """Of each node that has some, its children by token."""
    children: dict[int, dict[int, int]] = {}
    for node, (token, parent) in enumerate(zip(block.tokens[1:], block.parents[1:], strict=True), start=1):
        children.setdefault(parent, {}).setdefault(token, node)
    return children


def _sound(block: BlockTrace, newest: int | None) -> bool:
    """Whether a block has a tree whose root is the newest token, as far as that is known; or none at all."""
    tokens, parents = block.tokens, block.parents
    if len(tokens) != len(parents) or any(not 0 <= parent < node for node, parent in enumerate(parents[1:], start=1)):
        return False
    return not tokens or newest is None or tokens[0] == newest
