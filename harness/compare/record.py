"""The record of a comparison: who entered and how, timed texts, where greedy texts part, parts of a step, budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter

from harness.bench.record import Begun, Call, Point, Reliability, Steps, read_run
from harness.compare.settings import Settings
from harness.record.model import Value


class Entered(Value):
    """An arm: a method with its options, judged by its own rule.

    own: they are its defaults, or a preset's. equal: with them it drafts as many tokens a pass as the others do.
    """

    arm: str
    method: str
    title: str
    paper: str
    rule: str
    options: dict[str, bool | int | float | str]
    own: bool
    equal: bool


class Header(Begun):
    """left_out: arms that were asked for and cannot be run, each with the reason."""

    settings: Settings
    entered: tuple[Entered, ...]
    left_out: dict[str, str]


class Parted(Value):
    """A greedy text that is not ordinary decoding's: at which new token, how far the target's two logits are apart there, and
    how far apart the arithmetic alone can put them. A tie within that, a fault beyond."""

    kind: Literal["parted"] = "parted"
    arm: str
    prompt: str
    at: int
    emitted: int
    expected: int
    margin: float
    noise: float

    @property
    def tie(self) -> bool:
        return self.margin <= self.noise


class Row(Value):
    """An arm at a temperature, on prompts of a kind; without one on all. Intervals are of 95 %, over prompts.

    tau: tokens per target pass, the prompt's left out. speed: times as fast as ordinary decoding, the median over prompts.
    rows: a target pass, of all that rode in it. Passes and tokens are sums over all texts.
    """

    arm: str
    temperature: float
    prompts: str
    tau: float
    tau_low: float
    tau_high: float
    speed: float
    speed_low: float
    speed_high: float
    rows: float
    tokens: int
    target_passes: int
    draft_passes: int


class Footer(Value):
    """The last line; a record without it was cut off. figures: what the calls come to."""

    kind: Literal["footer"] = "footer"
    finished: str
    seconds: float
    memory: dict[str, float] = Field(description="peak, in MiB")
    figures: tuple[Row, ...]


Measured = Call | Parted | Steps | Point | Reliability
LINES: TypeAdapter[Header | Measured | Footer] = TypeAdapter(Annotated[Header | Measured | Footer, Field(discriminator="kind")])
V = TypeVar("V", bound=Value)


class Record(Value):
    """A run as it was written. footer: None where the run was cut off."""

    header: Header
    lines: tuple[Measured, ...]
    footer: Footer | None

    def of(self, kind: type[V]) -> list[V]:
        return [line for line in self.lines if isinstance(line, kind)]


def read(path: Path, whole: bool = False) -> Record:
    """Read a record, or the folder of one. One that was cut off is read as far as it goes, unless it must be whole."""
    header, lines, footer = read_run(path, LINES, Header, Footer, "eagle2 compare", whole)
    return Record(header=header, lines=tuple(lines), footer=footer)
