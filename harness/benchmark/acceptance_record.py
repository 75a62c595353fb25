"""Records of `eagle2 acceptance`: JSON lines, a header, one line per text, decoded text and calibration, and a footer.

The names of fields, and the values of `kind`, are the file format (format 1) and must not change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from eagle2_ref.errors import BadInput
from harness.benchmark.record import RECORD, Footer, Header, Record, Reliability
from harness.benchmark.settings import AcceptanceSettings
from harness.record.jsonl import read_parts
from harness.record.model import Value

Shape = Literal["chain", "tree"]
"""The two trees whose acceptance is stored for every position: one of width 1, and the tree with the budget of the run."""


class Cell(Value):
    """A cell of the grid: the size of a draft tree."""

    k: int
    depth: int
    m: int

    def __str__(self) -> str:
        return f"k = {self.k}, depth = {self.depth}, m = {self.m}"


class AcceptanceHeader(Header):
    """The header of `eagle2 acceptance`."""

    settings: AcceptanceSettings
    head: str = Field(description="name of the method that drafts with the head")
    grid: tuple[Cell, ...]
    budget: Cell = Field(description="the tree that is judged; one of the grid")
    trained_on: int | None = Field(None, description="tokens of text that the head was trained on; none if it does not say so")


class TextAcceptance(Value):
    """One text of the target, and which of its tokens the drafter would have proposed.

    `chain` and `tree` have an element for each new token but the last, as the root of a draft tree: the number of draft tokens
    that the text follows.
    """

    kind: Literal["text"] = "text"
    temperature: float
    prompt: str
    tokens: int = Field(description="number of new tokens")
    finish: str = Field(description="why the text ended: eos, length or context")
    digest: str = Field(description="of the new tokens")
    room: int = Field(description="number of new tokens that the text could have had")
    repeated: float | None = Field(description="share of its 4-grams that occurred in it before; none for a text of fewer tokens")
    chain: tuple[int, ...] = Field(description="accepted tokens of a chain, by position")
    tree: tuple[int, ...] = Field(description="accepted tokens of the tree with the budget of the run, by position")
    passes: tuple[int, ...] = Field(description="target passes that decode the text, for each cell of the grid")


class DecodedText(Value):
    """The same text, decoded with a drafter, as a check."""

    kind: Literal["decoded"] = "decoded"
    temperature: float
    prompt: str
    cell: Cell
    tokens: int
    passes: int = Field(description="target passes, without the one over the prompt")
    same: bool = Field(description="the text is that of the estimate")


class CeilingText(Value):
    """The same text, decoded with the trees of a perfect head, one that knows the target's distribution."""

    kind: Literal["ceiling"] = "ceiling"
    temperature: float
    prompt: str
    tokens: int
    passes: int = Field(description="target passes that verify trees, without the one over the prompt")


class Rate(Value):
    """A figure with its 95 % interval over prompts."""

    value: float
    low: float
    high: float


class CellFigures(Value):
    """τ of one cell of the grid, on all prompts."""

    temperature: float
    cell: Cell
    tokens: int
    passes: int
    tau: Rate


class GroupFigures(Value):
    """τ of the budget of the run, on a part of the passes."""

    temperature: float
    group: str = Field(description="kind of the prompts, or range of the context in tokens")
    texts: int
    passes: int
    tau: Rate


class DepthFigures(Value):
    """How often the node at a depth is accepted if its parent was, over all positions of the texts."""

    temperature: float
    shape: Shape
    depth: int
    positions: int = Field(description="positions at which the parent was accepted")
    accepted: Rate


FEWEST_CHECKED = 3
"""Fewest texts whose decoding is compared with the estimate: fewer have no interval worth the name."""

NEGLIGIBLE = 0.01
"""Share of τ by which rounding may change it: in a batch of positions and in a tree alone, sums are added in another order."""


class CheckFigures(Value):
    """The estimate and decoding, on the texts that decoding repeated."""

    temperature: float
    cell: Cell
    texts: int = Field(description="texts that were decoded")
    same: int = Field(description="texts that decoding repeated token for token")
    estimated: float
    decoded: float
    difference: Rate = Field(description="decoded τ less estimated τ; a t interval over texts")

    @property
    def agrees(self) -> bool:
        """Whether the interval of the difference contains 0, or the difference is negligible."""
        return self.difference.low <= 0 <= self.difference.high or abs(self.difference.value) <= NEGLIGIBLE * self.decoded


class AcceptanceFigures(Value):
    """All figures of `eagle2 acceptance`."""

    cells: tuple[CellFigures, ...]
    kinds: tuple[GroupFigures, ...]
    contexts: tuple[GroupFigures, ...]
    depths: tuple[DepthFigures, ...]
    checks: tuple[CheckFigures, ...]
    ceilings: tuple[GroupFigures, ...] = Field(
        (), description="τ of a perfect head with the judged tree: on all prompts, then by kind"
    )


class AcceptanceFooter(Footer):
    """The footer of `eagle2 acceptance`."""

    figures: AcceptanceFigures


AcceptanceLine = Annotated[
    AcceptanceHeader | TextAcceptance | Reliability | DecodedText | CeilingText | AcceptanceFooter, Field(discriminator="kind")
]
ACCEPTANCE_LINES: TypeAdapter[AcceptanceHeader | TextAcceptance | Reliability | DecodedText | CeilingText | AcceptanceFooter] = (
    TypeAdapter(AcceptanceLine)
)
AcceptanceRecord = Record[AcceptanceHeader, AcceptanceFooter]


def read_acceptance(path: Path, whole: bool = False) -> AcceptanceRecord:
    """Read a record of `eagle2 acceptance`, or the one in a folder. whole: refuse a record without a footer."""
    path = path / RECORD if path.is_dir() else path
    parts = read_parts(
        path, ACCEPTANCE_LINES, AcceptanceHeader, AcceptanceFooter, command="`eagle2 acceptance --out DIR`", whole=whole
    )
    record = Record(*parts)
    if not (texts := record.of(TextAcceptance)):
        raise BadInput(f"{path} has no text", "the run was cut off before its first; run it again")
    for text in texts:
        if not len(text.chain) == len(text.tree) == text.tokens - 1 or len(text.passes) != len(record.header.grid):
            raise BadInput(
                f"{path} contradicts itself: the text of {text.prompt} at T = {text.temperature:g} has {text.tokens} tokens, and"
                f" {len(text.tree)} positions",
                "it was changed after the run; run it again",
            )
    return record
