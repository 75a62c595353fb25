"""What a pass costs by the number of its rows: the target's, and the head's with the LM head behind it."""

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
from eagle2_ref.model.cache import KVCache
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import DraftTree
from harness.bench.clock import Clock
from harness.bench.record import Cost
from harness.bench.steps import twin

ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
BEHIND, TIMES, WARM = 200, 40, 3

What = Literal["target", "head"]
Pass = Callable[[], object]


def costs(decoder: Decoder, prompt: Sequence[int], clock: Clock, times: int = TIMES) -> Iterator[Cost]:
    """Every size in turn, over and over and in another order each time, so that what slows the machine down for a while slows
    them all, and none always comes behind the one that leaves it the least in the machine's caches."""
    spare = twin(decoder)
    behind = min(BEHIND, decoder.target.context - max(ROWS))
    text = [prompt[i % len(prompt)] for i in range(behind)]
    sequence = spare.start(text, SamplingParams(), SeededCoins(0))
    features = spare.target.prefill([sequence.cache], [text])[0].features
    passes = _target(spare, sequence.cache, text)
    if isinstance(spare.drafter, Eagle2):
        passes |= _head(spare.drafter, sequence, text, features)
    spent: dict[tuple[What, int], list[float]] = {size: [] for size in passes}
    sizes, order = list(passes), np.random.default_rng(0)
    for turn in range(WARM + times):
        for size in (sizes[i] for i in order.permutation(len(sizes))):
            begun = clock()
            passes[size]()
            if turn >= WARM:
                spent[size].append(1000 * (clock() - begun))
    for (what, rows), found in spent.items():
        low, median, high = np.quantile(found, [0.25, 0.5, 0.75])
        yield Cost(what=what, rows=rows, behind=behind, n=times, median=float(median), low=float(low), high=float(high))


def _target(decoder: Decoder, cache: KVCache, text: Sequence[int]) -> dict[tuple[What, int], Pass]:
    """Verify binary trees. Nothing is committed, so that the text stays as long as it is."""
    return {("target", rows): partial(decoder.target.verify, [cache], [_tree(text, rows)]) for rows in ROWS}


def _tree(text: Sequence[int], rows: int) -> DraftTree:
    return DraftTree.of([text[i % len(text)] for i in range(rows)], [(i - 1) // 2 if i else -1 for i in range(rows)])


def _head(drafter: Eagle2, sequence: Text, text: Sequence[int], features: Tensor) -> dict[tuple[What, int], Pass]:
    """A layer of the draft tree: every row sees the text and itself. features [n, H] are the target's of the text."""
    drafter.observe(sequence, [*text[1:], text[0]], features)
    drafter.catch_up([sequence])  # which puts the text into the head's cache
    n, device = len(text), features.device
    tokens = torch.tensor([list(text)], device=device)

    def one(rows: int) -> Tensor:
        with torch.inference_mode():
            itself = torch.full((rows, rows), float("-inf"), dtype=features.dtype, device=device).fill_diagonal_(0)
            mask = torch.cat([itself.new_zeros(rows, n), itself], dim=1)[None]
            positions = torch.full((1, rows), n, device=device)
            return drafter.lm_head(drafter.head(tokens[:, :rows], features[None, :rows], positions, mask, sequence.draft.cache))

    return {("head", rows): partial(one, rows) for rows in ROWS}
