"""Records of `eagle2 bench` and `eagle2 compare`: JSON lines, a header, one line per measurement, and a footer.

The names of fields, and the values of `kind`, are the file format (format 1) and must not change.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, TypeAdapter

from eagle2_ref.decode import Generation
from eagle2_ref.drafters.eagle2 import Budget, TreeBudget
from eagle2_ref.errors import BadInput
from harness.benchmark.settings import BenchSettings, CompareSettings, RunSettings
from harness.pairs import Prompt
from harness.record.jsonl import read_parts
from harness.record.model import Value

RECORD = "record.jsonl"


class PromptInfo(Value):
    """A prompt: its length in tokens, and a digest of its tokens."""

    id: str
    kind: str
    length: int
    digest: str

    @classmethod
    def of(cls, prompt: Prompt) -> PromptInfo:
        digest = hashlib.sha256(json.dumps(prompt.tokens).encode()).hexdigest()[:16]
        return cls(id=prompt.id, kind=prompt.kind, length=len(prompt.tokens), digest=digest)


class Header(Value):
    """The first line: what was measured, on which machine, with which code."""

    kind: Literal["header"] = "header"
    format: Literal[1] = 1
    started: str
    command: str
    commit: str
    settings: RunSettings
    machine: dict[str, str]
    versions: dict[str, str]
    prompts: tuple[PromptInfo, ...]


class BenchHeader(Header):
    """The header of `eagle2 bench`."""

    settings: BenchSettings
    arms: dict[str, str] = Field(description="description of each arm")


class Entrant(Value):
    """An arm of `eagle2 compare`: a method with its options and its own acceptance rule."""

    arm: str
    method: str
    title: str
    paper: str
    rule: str
    options: dict[str, bool | int | float | str]
    own: bool = Field(description="listed with its own options: the method's defaults, those of a preset, or given ones")
    equal: bool = Field(description="with these options it drafts as many tokens per pass as all others")
    peer: bool = Field(False, description="another implementation, which is timed next to the methods")


class CompareHeader(Header):
    """The header of `eagle2 compare`."""

    settings: CompareSettings
    entered: tuple[Entrant, ...]
    left_out: dict[str, str] = Field(description="arms that could not be run, each with the reason")


class Counts(Value):
    """What decoding one text cost, in numbers that do not depend on a clock."""

    target_passes: int = Field(description="passes of the target, that over the prompt included")
    head_passes: int | None = Field(description="passes of the drafter; null if the implementation does not report them")
    rows: int = Field(description="rows of the target's passes: nodes of all trees, roots included, without the prompt's pass")
    accepted: tuple[int, ...] = Field(description="accepted[j]: passes that accepted j draft tokens, without the prompt's pass")

    @classmethod
    def of(cls, passes: Iterable[tuple[int, int]], target_passes: int, head_passes: int | None) -> Counts:
        """From rows and number of accepted tokens of every pass after the one over the prompt."""
        found = list(passes)
        histogram = Counter(accepted for _, accepted in found)
        return cls(
            target_passes=target_passes,
            head_passes=head_passes,
            rows=sum(rows for rows, _ in found),
            accepted=tuple(histogram[j] for j in range(max(histogram, default=-1) + 1)),
        )

    @classmethod
    def of_text(cls, text: Generation) -> Counts:
        passes = ((len(block.tree), len(block.tokens) - 1) for block in text.blocks[1:])
        return cls.of(passes, text.target_passes, text.draft_passes)

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """The sum of several. head_passes is None if one of them has none."""
        found = list(counts)
        heads = [one.head_passes for one in found]
        return cls(
            target_passes=sum(one.target_passes for one in found),
            head_passes=None if None in heads else sum(head for head in heads if head is not None),
            rows=sum(one.rows for one in found),
            accepted=tuple(map(sum, zip_longest(*(one.accepted for one in found), fillvalue=0))),
        )


class Call(Value):
    """One timed text."""

    kind: Literal["call"] = "call"
    arm: str
    temperature: float
    prompt: str
    repeat: int
    seconds: float
    prefill: float | None = Field(description="seconds until the first token; null if it cannot be observed")
    tokens: int
    first: int = Field(description="number of tokens that the pass over the prompt emitted")
    counts: Counts | None
    repeated: float | None = Field(None, description="share of the text's 4-grams that occurred in it before")


class BatchCall(Value):
    """One timed batch: texts of equal length that share their passes."""

    kind: Literal["together"] = "together"
    arm: str
    temperature: float
    prompts: tuple[str, ...]
    repeat: int
    seconds: float
    prefill: float = Field(description="seconds until every text has its first token")
    tokens: int
    passes: int = Field(description="passes of the target over all unfinished texts, without those over the prompts")
    rows: int = Field(description="rows of these passes: nodes of all trees")


class StepProfile(Value):
    """Mean milliseconds of a decoding step by part. The clocks slow the step down, so it is never compared with timed texts."""

    kind: Literal["steps"] = "steps"
    arm: str
    temperature: float
    steps: int
    milliseconds: dict[str, float]

    @property
    def total(self) -> float:
        """Milliseconds of a whole step."""
        return sum(self.milliseconds.values())


class StepBound(Value):
    """A step of the fixed-shape decoder, and what is needed to compute its lower bound."""

    kind: Literal["bound"] = "bound"
    arm: str
    temperature: float
    steps: int
    milliseconds: float = Field(description="median")
    weights: dict[str, int] = Field(description="bytes of weights that the passes of a step read")
    bandwidth: float = Field(description="bytes per second that the memory moves")

    @property
    def lower_bound(self) -> float:
        """Milliseconds to read all weights once."""
        return 1000 * sum(self.weights.values()) / self.bandwidth


class PassLatency(Value):
    """Milliseconds of a pass with so many rows: median and quartiles of n passes."""

    kind: Literal["cost"] = "cost"
    what: Literal["target", "head"]
    rows: int
    behind: int = Field(description="tokens in the cache")
    n: int
    median: float
    low: float
    high: float


class BudgetTrial(Value):
    """A budget that was tried during tuning. Its rate follows from counts and measured pass latencies."""

    k: int
    depth: int
    m: int
    head_temperature: float
    node: float
    layer: float
    rate: float = Field(description="tokens per millisecond")
    tau: float
    rows: float = Field(description="rows per target pass")
    layers: float = Field(description="head passes per target pass")
    timed: float | None = Field(None, description="speed-up over ordinary decoding, for the budgets that were timed")

    @classmethod
    def of(cls, budget: TreeBudget, **measured: float) -> BudgetTrial:
        """The trial of a budget: the size of its trees, and what was measured with them."""
        names = ("k", "depth", "m", "head_temperature", "node", "layer")
        return cls(**{name: getattr(budget, name) for name in names}, **measured)

    @property
    def budget(self) -> Budget:
        return Budget(self.k, self.depth, self.m, self.head_temperature, self.node, self.layer)

    @property
    def is_published(self) -> bool:
        """Whether the budget has only the options of the paper."""
        return self.budget == Budget(self.k, self.depth, self.m)


class TuningResult(Value):
    """The budget that tuning chose at a temperature; None if ordinary decoding is faster."""

    kind: Literal["tuned"] = "tuned"
    arm: str = Field("", description="the arm whose budget was tuned, if there are several")
    temperature: float
    chosen: BudgetTrial | None
    paper: BudgetTrial | None = Field(None, description="the best budget with the options of the paper only")
    vanilla: float = Field(description="tokens per millisecond of ordinary decoding")
    tried: tuple[BudgetTrial, ...] = Field(description="all budgets, the timed ones first")


class Reliability(Value):
    """How often drafted nodes are accepted, by confidence in ten equal bins. Only nodes whose parent was accepted count."""

    kind: Literal["reliability"] = "reliability"
    temperature: float
    head_temperature: float
    nodes: tuple[int, ...]
    confidence: tuple[float, ...] = Field(description="mean confidence of each bin")
    accepted: tuple[float, ...] = Field(description="acceptance rate of each bin")
    error: float = Field(description="expected calibration error: mean distance of the two, weighted by nodes")


class HeadTemperature(Value):
    """Tokens per pass at one temperature of the head, which is the fitted one or one of a few round values."""

    kind: Literal["calibrated"] = "calibrated"
    temperature: float
    head_temperature: float
    layers: tuple[float, ...] = Field((), description="of the fitted one: the temperature fitted to each layer alone")
    k: int
    depth: int
    m: int
    prompts: int
    passes: int
    tokens: int
    error: float = Field(description="expected calibration error")

    @property
    def tau(self) -> float:
        return self.tokens / self.passes


class VerdictLatency(Value):
    """A sampling campaign, timed until its verdict."""

    kind: Literal["campaign"] = "campaign"
    decoder: str
    pair: str
    verdict: Literal["pass", "fault", "inconclusive"]
    texts: int
    tokens: int
    seconds: float
    decoding: float = Field(description="seconds of the decoder")
    scoring: float = Field(description="seconds of the target's passes over the decoder's texts")

    @property
    def harness_share(self) -> float:
        """Share of the time that neither the decoder nor the target's passes need."""
        return 1 - (self.decoding + self.scoring) / self.seconds


TreeShape = Literal["dynamic", "deep", "static", "chain"]
"""Ways to build a tree of m nodes: EAGLE-2's at its depth, EAGLE-2's at any depth, EAGLE's static tree, a chain."""


class BudgetPoint(Value):
    """Tokens per pass with m draft tokens. Counts only, with coins that repeat exactly."""

    kind: Literal["point"] = "point"
    tree: TreeShape = "dynamic"
    temperature: float
    m: int
    passes: int
    tokens: int
    rows: int

    @property
    def tau(self) -> float:
        return self.tokens / self.passes


class Divergence(Value):
    """A greedy text that differs from the text of ordinary decoding."""

    kind: Literal["parted"] = "parted"
    arm: str
    prompt: str
    at: int = Field(description="index of the first different token among the new tokens")
    emitted: int = Field(description="the token that was emitted; -1 if the text had ended")
    expected: int = Field(description="the token of ordinary decoding; -1 if that text had ended")
    margin: float = Field(description="distance of the target's logits of the two tokens")
    noise: float = Field(description="how far two orders of arithmetic can move these logits apart")

    @property
    def is_tie(self) -> bool:
        """Whether rounding can explain the difference."""
        return self.margin <= self.noise


class ArmFigures(Value):
    """Figures of an arm at a temperature. Counts are sums over all timed texts."""

    arm: str
    temperature: float
    whole: bool = Field(description="the milliseconds include the pass over the prompt")
    milliseconds: float = Field(description="per token, median over prompts")
    low: float = Field(description="lower end of the 95 % interval of the milliseconds")
    high: float
    prefill: float | None = Field(description="milliseconds, median over prompts")
    calls: int
    tokens: int
    target_passes: int | None = None
    head_passes: int | None = None
    rows: int | None = None
    tau: float | None = Field(None, description="tokens per target pass, all passes pooled")
    tau_mean: float | None = Field(None, description="mean over prompts of the prompts' own τ")
    accepted: tuple[int, ...] = ()


class SpeedRatio(Value):
    """Speed of an arm as a multiple of the speed of another: median over prompts, its 95 % interval, and ratio of totals."""

    arm: str
    over: str
    temperature: float
    whole: bool = Field(description="the pass over the prompt is included for both")
    median: float
    low: float
    high: float
    totals: float


class BatchFigures(Value):
    """Figures of batches of one size, of an arm at a temperature."""

    arm: str
    temperature: float
    texts: int = Field(description="batch size")
    speed: float = Field(description="tokens per second of all texts together, without the passes over the prompts")
    milliseconds: float = Field(description="of one step: a target pass and everything around it")
    rows: float = Field(description="rows per target pass")
    prefill: float = Field(description="milliseconds until every text has its first token")
    ratio: float = Field(description="speed as a multiple of ordinary decoding's, median over repeats")
    low: float = Field(description="smallest ratio of a repeat")
    high: float = Field(description="largest ratio of a repeat")


class BenchFigures(Value):
    """All figures of `eagle2 bench`."""

    arms: tuple[ArmFigures, ...]
    ratios: tuple[SpeedRatio, ...]
    batches: tuple[BatchFigures, ...] = ()


class MethodFigures(Value):
    """Figures of a method at a temperature, on all prompts or on those of one kind. Intervals are 95 %, over prompts."""

    arm: str
    temperature: float
    prompts: str = Field(description="kind of the prompts; empty for all")
    tau: float = Field(description="tokens per target pass, without the pass over the prompt")
    tau_low: float
    tau_high: float
    speed: float = Field(description="multiple of ordinary decoding's speed, median over prompts")
    speed_low: float
    speed_high: float
    rows: float = Field(description="rows per target pass")
    tokens: int
    target_passes: int
    draft_passes: int


class Footer(Value):
    """The last line. A record without it was cut off."""

    kind: Literal["footer"] = "footer"
    finished: str
    seconds: float
    memory: dict[str, float] = Field(description="peak, in MiB")


class BenchFooter(Footer):
    """The footer of `eagle2 bench`."""

    figures: BenchFigures


class CompareFooter(Footer):
    """The footer of `eagle2 compare`."""

    figures: tuple[MethodFigures, ...]


Measurement = (
    TuningResult
    | HeadTemperature
    | Call
    | BatchCall
    | StepProfile
    | StepBound
    | PassLatency
    | BudgetPoint
    | Reliability
    | VerdictLatency
    | Divergence
)
BenchLine = Annotated[BenchHeader | Measurement | BenchFooter, Field(discriminator="kind")]
CompareLine = Annotated[CompareHeader | Measurement | CompareFooter, Field(discriminator="kind")]
BENCH_LINES: TypeAdapter[BenchHeader | Measurement | BenchFooter] = TypeAdapter(BenchLine)
COMPARE_LINES: TypeAdapter[CompareHeader | Measurement | CompareFooter] = TypeAdapter(CompareLine)

V = TypeVar("V", bound=Value)
H = TypeVar("H", bound=Header)
F = TypeVar("F", bound=Footer)


@dataclass(frozen=True)
class Record(Generic[H, F]):
    """A run as it was recorded. footer: None if the run was cut off."""

    header: H
    lines: tuple[Value, ...]
    footer: F | None

    def of(self, kind: type[V]) -> list[V]:
        """All measurements of one kind."""
        return select(self.lines, kind)


BenchRecord = Record[BenchHeader, BenchFooter]
CompareRecord = Record[CompareHeader, CompareFooter]


def select(lines: Sequence[Value], kind: type[V]) -> list[V]:
    """The lines of one kind."""
    return [line for line in lines if isinstance(line, kind)]


def read_bench(path: Path, whole: bool = False) -> BenchRecord:
    """Read a record of `eagle2 bench`, or the one in a folder. whole: refuse a record without a footer."""
    return _read(path, BENCH_LINES, BenchHeader, BenchFooter, "eagle2 bench", whole)


def read_comparison(path: Path, whole: bool = False) -> CompareRecord:
    """Read a record of `eagle2 compare`, or the one in a folder. whole: refuse a record without a footer."""
    return _read(path, COMPARE_LINES, CompareHeader, CompareFooter, "eagle2 compare", whole)


def _read(path: Path, lines: TypeAdapter[Any], header: type[H], footer: type[F], command: str, whole: bool) -> Record[H, F]:
    path = path / RECORD if path.is_dir() else path
    record = Record(*read_parts(path, lines, header, footer, command=f"`{command} --out DIR`", whole=whole))
    if not record.of(Call):
        raise BadInput(f"{path} has no timed call", "the run was cut off before its first; run it again")
    if reason := _contradiction(record):
        raise BadInput(f"{path} contradicts itself: {reason}", "it was changed after the run; run it again")
    return record


def _contradiction(record: Record[Any, Any]) -> str:
    """Where the counts of a footer are not those of its lines, in words; empty if nothing was found."""
    calls, figures = record.of(Call), getattr(record.footer, "figures", ())
    for one in figures.arms if isinstance(figures, BenchFigures) else figures:
        if getattr(one, "prompts", ""):  # figures of a part of the prompts
            continue
        timed = [call for call in calls if (call.arm, call.temperature) == (one.arm, one.temperature)]
        if isinstance(one, MethodFigures):  # a text of one block has no figures
            timed = [call for call in timed if call.counts and call.tokens > call.first]
        if one.tokens != (tokens := sum(call.tokens for call in timed)):
            return f"the footer counts {one.tokens} tokens of {one.arm} at T = {one.temperature:g}, and the lines {tokens}"
    return ""
