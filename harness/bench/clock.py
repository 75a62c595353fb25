"""Seconds, of a device that may still be at work."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

Clock = Callable[[], float]


def clock(device: torch.device) -> Clock:
    """On CUDA it waits for what was launched: a time is then that of the work, not of the asking."""
    if device.type != "cuda":
        return perf_counter

    def waited() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return waited
