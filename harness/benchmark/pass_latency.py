"""Latency of one pass by its number of rows: the target's pass, and the head's pass with the LM head after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as TextSequence
from eagle2_ref.tree import DraftTree
from harness.benchmark.record import PassLatency
from harness.benchmark.timing import Clock

ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
CONTEXT, TIMES, WARM_UP = 200, 40, 3
"""Tokens in the cache, timed passes of each size, and passes before them that are not timed."""

What = Literal["target", "head"]
Pass = Callable[[], object]


def pass_latencies(decoder: Decoder, prompt: Sequence[int], clock: Clock, times: int = TIMES) -> Iterator[PassLatency]:
    """Median and quartiles for every size.

    All sizes are timed in turn, in a new random order each round. A slow phase of the machine then slows all sizes, and no
    size always follows the one that leaves the least in the processor's caches.
    """
    context = min(CONTEXT, decoder.target.context - max(ROWS))
    text = [prompt[i % len(prompt)] for i in range(context)]
    sequence = decoder.start(text, SamplingParams(), SeededCoins(0))
    (output,) = decoder.target.prefill([sequence.cache], [text])
    passes = _target_passes(decoder, sequence)
    if isinstance(decoder.drafter, Eagle2):
        passes |= _head_passes(decoder.drafter, sequence, output.features)
    milliseconds: dict[tuple[What, int], list[float]] = {size: [] for size in passes}
    sizes, random = list(passes), np.random.default_rng(0)
    for turn in range(WARM_UP + times):
        for size in (sizes[i] for i in random.permutation(len(sizes))):
            started = clock()
            passes[size]()
            if turn >= WARM_UP:
                milliseconds[size].append(1000 * (clock() - started))
    for (what, rows), found in milliseconds.items():
        low, median, high = np.quantile(found, [0.25, 0.5, 0.75])
        yield PassLatency(what=what, rows=rows, behind=context, n=times, median=float(median), low=float(low), high=float(high))


def _target_passes(decoder: Decoder, sequence: TextSequence) -> dict[tuple[What, int], Pass]:
    """Verifications of binary trees. Nothing is committed, so the text in the cache stays the same."""
    trees = {rows: _binary_tree(sequence.tokens, rows) for rows in ROWS}
    return {("target", rows): partial(decoder.target.verify, [sequence.cache], [tree]) for rows, tree in trees.items()}


def _binary_tree(text: Sequence[int], rows: int) -> DraftTree:
    return DraftTree.of([text[i % len(text)] for i in range(rows)], [(i - 1) // 2 if i else -1 for i in range(rows)])


def _head_passes(drafter: Eagle2, sequence: TextSequence, features: Tensor) -> dict[tuple[What, int], Pass]:
    """A layer of the draft tree: every row attends to the text and to itself. features: the target's of the text, [n, H]."""
    text = sequence.tokens
    drafter.observe(sequence, [*text[1:], text[0]], features)
    with torch.inference_mode():
        drafter.catch_up([sequence])  # fills the head's cache with the text
    n, device, features = len(text), features.device, drafter.read(features)
    tokens = torch.tensor([list(text)], device=device)

    def head_pass(rows: int) -> Tensor:
        with torch.inference_mode():
            itself = torch.full((rows, rows), float("-inf"), dtype=features.dtype, device=device).fill_diagonal_(0)
            mask = torch.cat([itself.new_zeros(rows, n), itself], dim=1)[None]
            positions = torch.full((1, rows), n, device=device)
            return drafter.lm_head(drafter.head(tokens[:, :rows], features[None, :rows], positions, mask, sequence.draft.cache))

    return {("head", rows): partial(head_pass, rows) for rows in ROWS}
