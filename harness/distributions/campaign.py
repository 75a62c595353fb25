"""Sampling campaigns: shards that are pure functions of (engine, plan, seed, range of texts), and a sequential test on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT
from harness.distributions.scoring import TargetScorer
from harness.implementations.engine import BlockTrace, Engine, Output
from harness.statistics import Array
from harness.statistics.eprocess import Counts, Evidence, PitSequence
from harness.statistics.pit import pit_sequence

TEXTS_PER_CALL = 32
"""Texts requested in one call: of several lengths and, if the plan has several, several parameters."""

TEXTS_PER_LOOK = 64
"""Texts between two looks at the evidence."""

MAX_PROMPT = 160
"""Tokens of a prompt that a plan uses at most."""

TokenPlace = tuple[int, int, list[int] | None]
"""Where a token was sampled: its offset in its block, whether after a leaf (1 or 0), and the tokens of its node's children."""
UNKNOWN: TokenPlace = (-1, -1, None)


@dataclass(frozen=True)
class Plan:
    """The requests of a campaign. Texts take prompts and parameters in turn, so that every prompt meets every parameter.

    per_call: texts of one call. per_look: texts between two looks at the evidence.
    """

    prompts: Sequence[Sequence[int]]
    params: Sequence[dict[str, Any]]
    per_call: int = TEXTS_PER_CALL
    per_look: int = TEXTS_PER_LOOK

    @classmethod
    def of(
        cls,
        prompts: Sequence[Sequence[int]],
        params: Sequence[dict[str, Any]],
        most: int = MAX_PROMPT,
        per_call: int = TEXTS_PER_CALL,
        per_look: int = TEXTS_PER_LOOK,
    ) -> Plan:
        """A plan that cuts prompts to their first `most` tokens."""
        return cls([prompt[:most] for prompt in prompts], params, per_call, per_look)

    def request(self, text: int) -> tuple[Sequence[int], dict[str, Any]]:
        """Prompt and parameters of text number `text`."""
        return self.prompts[text % len(self.prompts)], self.params[sum(divmod(text, len(self.prompts))) % len(self.params)]


def short_prompts(vocab_size: int) -> list[list[int]]:
    """Prompts of one to four tokens for a small model."""
    return [[(7 * i + 3 * j) % vocab_size for j in range(1 + i % 4)] for i in range(23)]


@dataclass
class SequentialTest:
    """Samples texts and updates the evidence until a fault is found or the budget of tokens is spent.

    Attributes:
        budget: tokens to sample; four times as many if the evidence is between a pass and a fault.
        counts: counts of this run and of the earlier runs that it continues.
        sequences: PIT sequences of this run.
    """

    scorer: TargetScorer
    plan: Plan
    seed: int
    budget: int
    counts: Counts = field(default_factory=Counts.zero)
    sequences: list[PitSequence] = field(default_factory=list)

    def run(self, engine: Engine, earlier: Counts | None = None) -> Evidence:
        """Sample from an engine, on top of the counts of earlier runs with the same plan and seed."""
        self.counts = earlier or Counts.zero()
        limit, extended = int(self.counts.tokens) + self.budget, False
        while True:
            start = int(self.counts.sequences)
            new = sample_shard(engine, self.scorer, self.plan, self.seed, range(start, start + self.plan.per_look))
            self.sequences += new
            self.counts += Counts.of(new)
            evidence = Evidence.of(self.counts)
            if evidence.extend and not extended:
                limit, extended = limit + 3 * self.budget, True
            if evidence.fault or evidence.tokens >= limit:
                return evidence


def sample_shard(engine: Engine, scorer: TargetScorer, plan: Plan, seed: int, texts: range) -> list[PitSequence]:
    """Sample and score some texts of a plan.

    Text i is sampled with seed + i, and randomised with a generator of (seed, i) that the engine does not know.
    """
    starts = range(texts.start, texts.stop, plan.per_call)
    return [sequence for i in starts for sequence in _sample_call(engine, scorer, plan, seed, texts, i)]


def _sample_call(engine: Engine, scorer: TargetScorer, plan: Plan, seed: int, texts: range, start: int) -> Iterator[PitSequence]:
    numbers = range(start, min(start + plan.per_call, texts.stop))
    prompts, params = zip(*(plan.request(i) for i in numbers), strict=True)
    outputs = engine.generate(prompts, params, [seed + i for i in numbers])
    deterministic = "deterministic" in engine.implementation.capabilities
    laws = scorer.laws(prompts, [output.tokens for output in outputs], [SamplingParams.of(p) for p in params])
    for i, output, p in zip(numbers, outputs, laws, strict=True):
        v = np.random.default_rng([seed, i]).random(len(output.tokens))
        offsets, leaves, children = token_places(output)
        yield pit_sequence(p, np.array(output.tokens), v, offsets, leaves, children if deterministic else None)


def token_places(output: Output) -> tuple[Array | None, Array | None, list[list[int] | None] | None]:
    """Offset in the block, leaf or not, and children of the node, for every token of an output.

    Bets on children are fair only if the draft was chosen without randomness: a child sampled from q is accepted with
    probability min(1, p / q), which exceeds p, although the emitted distribution is right.

    Returns:
        Three sequences of length n; all None if the implementation reports no blocks; -1, -1 and None for tokens whose blocks
        do not match the text.
    """
    if output.blocks is None:
        return None, None, None
    places = [place for span in _spans(output) for place in _places_in_block(*span)][: len(output.tokens)]
    places += [UNKNOWN] * (len(output.tokens) - len(places))
    offsets, leaves, children = zip(*places, strict=True)
    return np.array(offsets), np.array(leaves), list(children)


def _spans(output: Output) -> Iterator[tuple[BlockTrace, int | None, Sequence[int]]]:
    """Each block, the token before it (None if that is in the prompt), and the tokens that it emitted."""
    start = 0
    for block in output.blocks or ():
        end = start + block.accepted + 1
        if end <= start:
            return
        yield block, output.tokens[start - 1] if 0 < start <= len(output.tokens) else None, output.tokens[start:end]
        start = end


def _places_in_block(block: BlockTrace, newest: int | None, emitted: Sequence[int]) -> Iterator[TokenPlace]:
    valid = _is_valid(block, newest)
    children = _children(block) if valid else {}
    node: int | None = ROOT if valid else None
    for offset, token in enumerate(emitted):
        if node is None:
            yield UNKNOWN
        else:
            proposed = children.get(node, {})
            yield offset, int(not proposed), [*proposed]
            node = proposed.get(token)


def _children(block: BlockTrace) -> dict[int, dict[int, int]]:
    """Children of every inner node, by token."""
    children: dict[int, dict[int, int]] = {}
    for node, (token, parent) in enumerate(zip(block.tokens[1:], block.parents[1:], strict=True), start=1):
        children.setdefault(parent, {}).setdefault(token, node)
    return children


def _is_valid(block: BlockTrace, newest: int | None) -> bool:
    """Whether a block has no tree, or one whose parents precede their children and whose root is the newest token, if known."""
    tokens, parents = block.tokens, block.parents
    if len(tokens) != len(parents) or any(not 0 <= parent < node for node, parent in enumerate(parents[1:], start=1)):
        return False
    return not tokens or newest is None or tokens[0] == newest
