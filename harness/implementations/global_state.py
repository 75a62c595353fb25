"""Torch's global settings: an implementation has its own values, which are in force during its calls alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch


class TorchSettings(NamedTuple):
    """Global settings of torch that change what computations of the harness return, or whether they run."""

    dtype: torch.dtype
    device: torch.device
    gradients: bool
    autocast: bool
    autocast_dtype: torch.dtype
    deterministic: bool
    threads: int

    @classmethod
    def current(cls) -> TorchSettings:
        return cls(
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
        )

    def restore(self) -> None:
        now = TorchSettings.current()
        if now.dtype != self.dtype:
            torch.set_default_dtype(self.dtype)
        if now.device != self.device:
            torch.set_default_device(None if self.device.type == "cpu" else self.device)
        if now.gradients != self.gradients:
            torch.set_grad_enabled(self.gradients)
        if (now.autocast, now.autocast_dtype) != (self.autocast, self.autocast_dtype):
            torch.set_autocast_enabled("cpu", self.autocast)
            torch.set_autocast_dtype("cpu", self.autocast_dtype)
        if now.deterministic != self.deterministic:
            torch.use_deterministic_algorithms(self.deterministic)
        if now.threads != self.threads:
            torch.set_num_threads(self.threads)


class GlobalState:
    """The global settings that an implementation chose, at import or in a call."""

    def __init__(self) -> None:
        self._own: TorchSettings | None = None

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Apply the implementation's settings, and the harness's again afterwards."""
        ours = TorchSettings.current()
        if self._own:
            self._own.restore()
        try:
            yield
        finally:
            own = TorchSettings.current()
            self._own = own if own != ours else None
            ours.restore()
