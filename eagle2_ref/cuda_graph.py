"""Capture a step of fixed shapes as a CUDA graph: later steps launch the recorded kernels without Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3
"""Runs before the capture, so that everything that is created at a first call exists."""


def capture(step: Callable[[], Tensor], state: Sequence[Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Capture a step.

    Args:
        step: reads and writes tensors in place, does not wait for the device, and returns one tensor.
        state: the tensors that it changes. Each warm-up run starts from their present values, which are restored: a run that
            went on from the last one could leave its caches.
        device: a CUDA device.

    Returns:
        A function that replays the step. It reads and writes at the same addresses: state, caches, weights and tables must
        stay where they are.
    """
    before = [tensor.clone() for tensor in state]
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
                restore(state, before)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):  # kernels are recorded here, not run
            out = step()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def restore(state: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Copy earlier values back in place."""
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
