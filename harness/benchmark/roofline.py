"""Roofline of the fixed-shape decoder: the time of a step, and its lower bound, the time to read the weights once.

On CUDA a step is one graph, so its parts cannot be timed. Known is how many bytes its passes must read. A model that fits into
the processor's cache may be faster than this bound; a model of many small layers is far slower, since every operation takes
time to launch, in a graph too.
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
from harness.benchmark.record import StepBound
from harness.benchmark.timing import Clock
from harness.pairs import Prompt

COPIED, TIMES = 1 << 27, 12
"""Bytes of the copied tensor, more than a processor caches, and number of copies."""

READS = ("target", "catch-up", "head")
"""Passes of a step: one of the target, one of the head over the accepted tokens, and one per further layer of the tree."""


def step_bound(
    decoder: FixedShapeDecoder,
    arm: str,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    seed: int,
    clock: Clock,
    bandwidth: float,
) -> StepBound:
    """Decode once more and read the clock between blocks, where the host waits for the device anyway.

    The first step of a text is left out, since it includes the head's pass over the prompt.
    """
    times = []
    for prompt in prompts:
        ends = [clock() for _ in decoder.stream(prompt.tokens, params, SeededCoins(seed))]
        times += [1000 * (after - before) for before, after in pairwise(ends[1:])]
    return StepBound(
        arm=arm,
        temperature=params.temperature,
        steps=len(times),
        milliseconds=median(times) if times else float("nan"),
        weights=weights_read(decoder),
        bandwidth=bandwidth,
    )


def weights_read(decoder: FixedShapeDecoder) -> dict[str, int]:
    """Bytes of weights that each kind of pass of a step reads. Embeddings are left out: a pass reads a few rows of them."""
    network, drafter = decoder.network, decoder.eagle
    target, head = _bytes(*_tensors(network.layers), network.norm, network.unembedding), 0
    if drafter:
        head = _bytes(*_tensors(drafter.head.layers), drafter.head.fc, drafter.head.fc_bias, network.unembedding)
    return dict(zip(READS, (target, head, (decoder.depth - 1) * head if drafter else 0), strict=True))


def memory_bandwidth(device: torch.device, clock: Clock) -> float:
    """Bytes per second, reads and writes together, measured by copying a large tensor."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    copy, times = torch.empty_like(source), []
    for _ in range(TIMES):
        started = clock()
        copy.copy_(source)
        times.append(clock() - started)
    return 2 * COPIED / median(times)


def _tensors(layers: Iterable[Any]) -> list[Tensor]:
    return [value for layer in layers for value in vars(layer).values() if isinstance(value, Tensor)]


def _bytes(*tensors: Tensor | None) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
