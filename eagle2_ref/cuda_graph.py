"""A step of fixed shapes as one CUDA graph: what it launched once is launched again, without Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM = 3
"""Runs before the one that is recorded: whatever is made at a first call is there by then."""


def capture(step: Callable[[], Tensor], state: Sequence[Tensor], device: torch.device) -> Callable[[], Tensor]:
    """The graph of a step that reads and writes `state` in place, asks the host for nothing, and returns one tensor.

    The graph reads and writes where tensors lie: state, caches, weights and tables must stay there for as long as it lives. Each
    run before it begins from the state as it is, as one that went on might run out of its room; it is left as it was found.
    """
    before = [tensor.clone() for tensor in state]
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                step()
                put_back(state, before)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):  # where nothing is run, but written down
            out = step()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def put_back(state: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """The values of earlier, in the same places."""
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
