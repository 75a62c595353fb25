"""What a run of `eagle2 compare` was asked to do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS, method
from harness.bench.settings import Timing
from harness.bench.settings import command as timed
from harness.compare.presets import Preset, preset
from harness.pairs import Pair

Checkpoints = Mapping[Checkpoint, Path | None]
"""What methods draft with, by kind; None where there is nothing of it."""


class Settings(Timing):
    """methods: by name; none is all. m: draft tokens a pass of the comparison at equal budget; 0 leaves it out.

    preset: a model of the paper, with its way to be asked and its budget; empty for any other. system: the message that stands
    before the turns of questions; empty for the model's own, if it has one.
    """

    name: ClassVar[str] = "compare"

    methods: tuple[str, ...] = ()
    tokens: int = 64
    limit: int = 18
    repeats: int = 2
    m: int = 25
    preset: str = ""
    system: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return self.methods or tuple(METHODS)

    @property
    def model(self) -> Preset | None:
        return preset(self.preset) if self.preset else None

    def check(self, pair: Pair) -> None:
        super().check(pair)
        for name in self.methods:
            method(name)
        if len(set(self.methods)) < len(self.methods):
            raise BadInput(f"--methods names {', '.join(self.methods)}", "name every method once")
        if self.m < 0:
            raise BadInput(f"m is {self.m}", "give a number of draft tokens, or 0 to compare with the methods' own options alone")


def command(settings: Settings, pair: Pair, found: Checkpoints) -> str:
    """What to type to have a run again; checkpoints of one's own by the names of their folders."""
    given: list[Checkpoint] = ["small", "medusa"] if pair.own else []
    words = [word for kind in given if (folder := found[kind]) for word in (f"--{kind}", folder.name)]
    return shlex.join([*shlex.split(timed(settings, pair)), *words])
