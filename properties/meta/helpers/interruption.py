"""Interruption of a training at a step."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.training.optimization import Optimization


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Raise KeyboardInterrupt in this step, counted over all trainings from now on. Returns the list of steps that began."""
    update: Any = Optimization.update
    begun = list[int]()

    def interrupted(*arguments: Any) -> None:
        begun.append(len(begun) + 1)
        if len(begun) == step:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(Optimization, "update", interrupted)
    return begun
