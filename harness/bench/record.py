"""The record of a run, JSON lines: header, a line for every timed call and every measurement, footer. Written as it goes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from harness.bench.settings import Settings, Timing
from harness.pairs import Prompt
from harness.record.model import Value

FORMAT = 1
RECORD = "record.jsonl"


class Asked(Value):
    """A prompt: its length in tokens, and a digest of them."""

    id: str
    kind: str
    length: int
    digest: str

    @classmethod
    def of(cls, prompt: Prompt) -> Asked:
        digest = hashlib.sha256(json.dumps(prompt.tokens).encode()).hexdigest()[:16]
        return cls(id=prompt.id, kind=prompt.kind, length=len(prompt.tokens), digest=digest)


class Begun(Value):
    """How a record of timed texts begins: what was asked, on which machine, with which code."""

    kind: Literal["header"] = "header"
    format: Literal[1] = 1
    started: str
    command: str
    commit: str
    settings: Timing
    machine: dict[str, str]
    versions: dict[str, str]
    prompts: tuple[Asked, ...]


class Header(Begun):
    """That of `eagle2 bench`. arms: by name, what each is."""

    settings: Settings
    arms: dict[str, str]


class Counts(Value):
    """What decoding cost, in numbers that no clock makes. accepted[j]: passes that accepted j drafted tokens.

    target_passes has the prompt's pass, accepted and rows have not. head_passes: None where nobody tells.
    """

    target_passes: int
    head_passes: int | None
    rows: int = Field(description="rows of the target's passes: nodes of all trees, roots included")
    accepted: tuple[int, ...]


class Call(Value):
    """One timed text. prefill: seconds to the first token, None where it is not told apart. first: tokens that came with it."""

    kind: Literal["call"] = "call"
    arm: str
    temperature: float
    prompt: str
    repeat: int
    seconds: float
    prefill: float | None
    tokens: int
    first: int
    counts: Counts | None


class Together(Value):
    """One timed batch: texts that share passes, all of one length. prefill: seconds until each has its first token.

    passes: of the target, each over all texts that go on, the prompts' left out. rows: of these passes, nodes of all trees.
    """

    kind: Literal["together"] = "together"
    arm: str
    temperature: float
    prompts: tuple[str, ...]
    repeat: int
    seconds: float
    prefill: float
    tokens: int
    passes: int
    rows: int


class Steps(Value):
    """Mean milliseconds of a step, by part. Clocks make a run slower: nothing of it is mixed with the timed calls."""

    kind: Literal["steps"] = "steps"
    arm: str
    temperature: float
    steps: int
    milliseconds: dict[str, float]


class Bound(Value):
    """A step in fixed shapes: median milliseconds, bytes of weights that its passes read, bytes a second that memory moves."""

    kind: Literal["bound"] = "bound"
    arm: str
    temperature: float
    steps: int
    milliseconds: float
    weights: dict[str, int]
    bandwidth: float

    @property
    def least(self) -> float:
        """Milliseconds to read all weights once."""
        return 1000 * sum(self.weights.values()) / self.bandwidth


class Cost(Value):
    """Milliseconds of one pass over so many rows behind a text: median and quartiles of n."""

    kind: Literal["cost"] = "cost"
    what: Literal["target", "head"]
    rows: int
    behind: int
    n: int
    median: float
    low: float
    high: float


class Tried(Value):
    """A budget that tuning tried: tokens per millisecond as counts and costs tell, and per pass tokens, rows and head passes.

    timed: of the most promising ones, how many times as fast as vanilla they are by the clock.
    """

    k: int
    depth: int
    m: int
    head_temperature: float
    node: float
    layer: float
    rate: float
    tau: float
    rows: float
    layers: float
    timed: float | None = None

    @property
    def budget(self) -> Budget:
        return Budget(self.k, self.depth, self.m, self.head_temperature, self.node, self.layer)

    @property
    def published(self) -> bool:
        """Whether it has nothing that the paper has not."""
        return self.budget == Budget(self.k, self.depth, self.m)


class Tuned(Value):
    """What tuning chose at a temperature, of all budgets and of those that the paper knows, None where not to draft is better;
    vanilla's tokens per millisecond; all it tried, those that were timed first."""

    kind: Literal["tuned"] = "tuned"
    temperature: float
    chosen: Tried | None
    paper: Tried | None = None
    vanilla: float
    tried: tuple[Tried, ...]


class Reliability(Value):
    """How often nodes are accepted whose parent is, by confidence in ten equal parts; error: the mean distance, by nodes."""

    kind: Literal["reliability"] = "reliability"
    temperature: float
    head_temperature: float
    nodes: tuple[int, ...]
    confidence: tuple[float, ...]
    accepted: tuple[float, ...]
    error: float


class Calibrated(Value):
    """Tokens per pass with one budget by the head's temperature, which was fitted to other prompts or is one of a few round ones.

    layers: of the fitted one, what each layer's own fit is. error: as `Reliability` has it.
    """

    kind: Literal["calibrated"] = "calibrated"
    temperature: float
    head_temperature: float
    layers: tuple[float, ...] = ()
    k: int
    depth: int
    m: int
    prompts: int
    passes: int
    tokens: int
    error: float

    @property
    def tau(self) -> float:
        return self.tokens / self.passes


class Campaign(Value):
    """A sampling campaign, timed to its verdict. Of the seconds, `decoding` are the decoder's own and `scoring` those of the
    target's passes over its texts; what is left is the harness's."""

    kind: Literal["campaign"] = "campaign"
    decoder: str
    pair: str
    verdict: Literal["pass", "fault", "inconclusive"]
    texts: int
    tokens: int
    seconds: float
    decoding: float
    scoring: float

    @property
    def overhead(self) -> float:
        """The harness's share."""
        return 1 - (self.decoding + self.scoring) / self.seconds


Drawn = Literal["dynamic", "deep", "static", "chain"]
"""How a tree of m tokens is made: grown by value, to the depth that was asked for or to any; EAGLE's fixed shape; a chain."""


class Point(Value):
    """Tokens per pass with m draft tokens; counts alone, with coins that repeat exactly."""

    kind: Literal["point"] = "point"
    tree: Drawn = "dynamic"
    temperature: float
    m: int
    passes: int
    tokens: int
    rows: int

    @property
    def tau(self) -> float:
        return self.tokens / self.passes


class Arm(Value):
    """An arm at a temperature. milliseconds: per token, the median over prompts, with its interval.

    whole: the prompt's pass is in the milliseconds. tau: of all passes together; tau_mean: the mean of the prompts' own.
    Counts are sums over all calls.
    """

    arm: str
    temperature: float
    whole: bool
    milliseconds: float
    low: float
    high: float
    prefill: float | None = Field(description="milliseconds, the median over prompts")
    calls: int
    tokens: int
    target_passes: int | None = None
    head_passes: int | None = None
    rows: int | None = None
    tau: float | None = None
    tau_mean: float | None = None
    accepted: tuple[int, ...] = ()


class Ratio(Value):
    """How many times as fast as `over` an arm is: the median over prompts, its 95 % interval, and the ratio of the totals."""

    arm: str
    over: str
    temperature: float
    whole: bool
    median: float
    low: float
    high: float
    totals: float


class Batched(Value):
    """So many texts that share passes. speed: tokens a second of all of them, the prompts' passes left out; prefill: milliseconds
    of such a pass. milliseconds and rows: of a pass of the target and all that goes with it. ratio: to vanilla's speed, the
    median over repeats, and the least and most of them.
    """

    arm: str
    temperature: float
    texts: int
    speed: float
    milliseconds: float
    rows: float
    prefill: float
    ratio: float
    low: float
    high: float


class Figures(Value):
    """What a run comes to."""

    arms: tuple[Arm, ...]
    ratios: tuple[Ratio, ...]
    batches: tuple[Batched, ...] = ()


class Footer(Value):
    """The last line; a record without it was cut off."""

    kind: Literal["footer"] = "footer"
    finished: str
    seconds: float
    memory: dict[str, float] = Field(description="peak, in MiB")
    figures: Figures


Measured = Tuned | Calibrated | Call | Together | Steps | Bound | Cost | Point | Reliability | Campaign
Line = Header | Measured | Footer
LINES: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])
V = TypeVar("V", bound=Value)
H = TypeVar("H", bound=Value)
F = TypeVar("F", bound=Value)


class Record(Value):
    """A run as it was written. footer: None where the run was cut off."""

    header: Header
    lines: tuple[Measured, ...]
    footer: Footer | None

    def of(self, kind: type[V]) -> list[V]:
        return [line for line in self.lines if isinstance(line, kind)]


class Writer:
    """Writes lines as they come: a run that is cut off has lost nothing but its footer."""

    def __init__(self, path: Path, header: Value) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self.write(header)

    def write(self, *lines: Value) -> None:
        for line in lines:
            self._file.write(line.model_dump_json() + "\n")
        self._file.flush()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def read(path: Path, whole: bool = False) -> Record:
    """Read a record, or the folder of one. One that was cut off is read as far as it goes, unless it must be whole."""
    header, lines, footer = read_run(path, LINES, Header, Footer, "eagle2 bench", whole)
    return Record(header=header, lines=tuple(lines), footer=footer)


def read_run(
    path: Path, kinds: TypeAdapter[Any], head: type[H], foot: type[F], command: str, whole: bool
) -> tuple[H, list[Any], F | None]:
    """Header, lines and footer of a record that `command --out` writes. kinds: all that its lines may be."""
    path = path / RECORD if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"no record at {path}: {error}", f"`{command} --out DIR` writes one") from None
    if not (found := _parsed(path, text, kinds)):
        raise BadInput(f"{path} is empty", f"`{command} --out DIR` writes a record")
    header, *lines = found
    footer = lines.pop() if lines and isinstance(lines[-1], foot) else None
    if not isinstance(header, head) or any(isinstance(line, head | foot) for line in lines):
        raise BadInput(f"{path} has no header, or more than one run in it", "one record holds one run")
    if not any(isinstance(line, Call) for line in lines):
        raise BadInput(f"{path} has no timed call", "the run was cut off before its first; run it again")
    if whole and footer is None:
        raise BadInput(f"{path} has no footer", "the run was cut off; run it again")
    return header, lines, footer


def _parsed(path: Path, text: str, kinds: TypeAdapter[Any]) -> list[Any]:
    """The lines. What stands behind the last line end is half a line of a run that was cut off, and is left out."""
    found: list[Any] = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            found.append(kinds.validate_json(line))
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise BadInput(f"{path}, line {number} is not a line of a record: {said}", "the record is damaged") from None
    return found
