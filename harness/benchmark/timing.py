"""Clocks: seconds of a device that works asynchronously, and a stopwatch for the parts of a computation."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

Clock = Callable[[], float]


def clock(device: torch.device) -> Clock:
    """A clock that waits on CUDA for all launched work, so that a time is that of the work and not of its launch."""
    if device.type != "cuda":
        return perf_counter

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return perf_counter()

    return synchronized


class Stopwatch:
    """Seconds by part. The time of a part that runs inside another part is counted for the inner part only."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []  # for each running part, the seconds of the parts inside it

    def time(self, owner: object, method: str, part: str) -> None:
        """From now on, time every call of a method of this one object."""
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self.clock()
            self._inner.append(0.0)
            try:
                return original(*args, **kwargs)
            finally:
                spent = self.clock() - started
                self.seconds[part] = self.seconds.get(part, 0.0) + spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        setattr(owner, method, timed)
