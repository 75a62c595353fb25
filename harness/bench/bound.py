"""A step in fixed shapes: how long it takes, and the least that it can: the time to read the weights of its passes once.

On CUDA such a step is one graph, in which no clock can stand: its parts cannot be told. What can is what they must read. A
model that fits into the processor's own cache may be below that bound; one of many small layers is far above, as every
operation takes its time to be launched, in a graph too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import SeededCoins
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.sampling import SamplingParams
from harness.bench.clock import Clock
from harness.bench.record import Bound
from harness.pairs import Prompt

COPIED, TIMES = 1 << 27, 12
"""Bytes, of more than a processor keeps to itself; and how often they are copied."""


READS = ("target", "catch-up", "head")
"""Passes of a step: one of the target, one of the head over what was accepted, and one over each further layer of the tree."""


def bound(
    static: FixedShapeDecoder,
    arm: str,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    seed: int,
    clock: Clock,
    bandwidth: float,
) -> Bound:
    """Decode once more, with a look at the clock between blocks, where the host waits anyway.

    A text's first step is left out, which has the head's pass over the prompt in it.
    """
    spent = []
    for prompt in prompts:
        looks = [clock() for _ in static.stream(prompt.tokens, params, SeededCoins(seed))]
        spent += [1000 * (after - before) for before, after in pairwise(looks[1:])]
    return Bound(
        arm=arm,
        temperature=params.temperature,
        steps=len(spent),
        milliseconds=median(spent) if spent else float("nan"),
        weights=weights(static),
        bandwidth=bandwidth,
    )


def weights(static: FixedShapeDecoder) -> dict[str, int]:
    """Bytes of weights that the passes of a step read. Of embeddings a pass reads a few rows, which are not counted."""
    network, drafter = static.network, static.eagle
    target, once = _bytes(*_of(network.layers), network.norm, network.unembedding), 0
    if drafter:
        once = _bytes(*_of(drafter.head.layers), drafter.head.fc, drafter.head.fc_bias, network.unembedding)
    return dict(zip(READS, (target, once, (static.depth - 1) * once if drafter else 0), strict=True))


def bandwidth(device: torch.device, clock: Clock) -> float:
    """Bytes that memory can move in a second, read and written ones together: by copying, again and again."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    copy, spent = torch.empty_like(source), []
    for _ in range(TIMES):
        begun = clock()
        copy.copy_(source)
        spent.append(clock() - begun)
    return 2 * COPIED / median(spent)


def _of(layers: Iterable[Any]) -> list[Tensor]:
    return [value for layer in layers for value in vars(layer).values() if isinstance(value, Tensor)]


def _bytes(*tensors: Tensor | None) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
