"""The record of a verification, format 1: what every check measured. JSON lines: a header, results, a footer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from eagle2_ref.errors import BadInput
from harness.record.jsonl import read_parts

Verdict = Literal["pass", "fault", "known", "tie", "inconclusive", "n/a", "blocked"]
Number = float | int


class Value(BaseModel):
    """A frozen value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Property(Value):
    """A requirement. `needs` names its foundations: where one of them is red, a fault of this one is blocked."""

    id: str = Field(description="stable, such as LAW-1")
    chapter: str = Field(description="law, greedy, batch, tree, cache, stop, count, theory, told, smoke or known")
    requirement: str = Field(description="one sentence")
    needs: tuple[str, ...] = ()


class LawPicture(Value):
    """Observed and expected probability of outcomes, the most probable first; `n` samples, 0 if the observed law is exact."""

    kind: Literal["law"] = "law"
    title: str
    outcomes: tuple[str, ...]
    expected: tuple[float, ...]
    observed: tuple[float, ...]
    n: int = 0


class TreePicture(Value):
    """The draft tree of one step. Node 0 is the root; `path` was accepted and `emitted` is the recovered or bonus token."""

    kind: Literal["tree"] = "tree"
    title: str
    tokens: tuple[str, ...]
    parents: tuple[int, ...]
    values: tuple[float, ...] = Field(description="log of the product of confidences from the root")
    path: tuple[int, ...]
    emitted: str


class CountPicture(Value):
    """How often each whole number occurred, such as blocks by number of accepted tokens; counts[i] belongs to i."""

    kind: Literal["count"] = "count"
    title: str
    xlabel: str
    counts: tuple[int, ...]


Picture = Annotated[LawPicture | TreePicture | CountPicture, Field(discriminator="kind")]


class Witness(Value):
    """One place at which an implementation departed from the law, with all that is needed to reproduce it.

    Either a text (prompt, params, and the seed or the enumerated choices) with the position of the wrong token in it, or an
    instance of an acceptance rule (tokens, parents, law) with the node after which the wrong token was emitted.
    """

    options: dict[str, Number | str | bool] = Field({}, description="options that the engine was opened with")
    pair: str = ""
    prompt: tuple[int, ...] = ()
    params: dict[str, Any] = {}
    seed: int | None = None
    keyed: bool = Field(False, description="the seed is that of coins keyed by position")
    choices: tuple[int, ...] | None = Field(None, description="outcome of each random choice of an enumerated execution")
    position: int = Field(0, description="index of the wrong token among the new ones")
    tokens: tuple[int, ...] = Field((), description="instance of a rule: token of each node")
    parents: tuple[int, ...] = ()
    law: tuple[tuple[float, ...], ...] = Field((), description="instance of a rule: p at each node")
    node: int | None = None
    emitted: int = Field(description="the emitted token")
    expected: int | None = Field(None, description="the correct token, where only one is")
    p: float | None = Field(None, description="the target's probability of the emitted token")
    q: float | None = Field(None, description="the implementation's probability of it")


class Excuse(Value):
    """Why a fault is `known`: a list of known failures names it, or the engine's own documentation calls the mode lossy."""

    reason: str
    link: str = ""
    expires: str = Field("", description="the last day on which it is excused, ISO 8601; a lossy mode has none")


class Header(Value):
    """The implementation under test, its settings and its environment. The first line of a record."""

    kind: Literal["header"] = "header"
    format: Literal[1] = 1
    started: str = Field(description="UTC, ISO 8601")
    implementation: str = Field(description="the connectable, such as ref:rule=walk")
    implementation_version: str = ""
    capabilities: tuple[str, ...] = ()
    pair: str = Field(description="name of the pair that was decoded with")
    checksums: dict[str, str] = Field(
        description="SHA-256 of every file of the pairs used, by path relative to the pair's folder"
    )
    settings: dict[str, str] = Field(description="tier, device, dtype, seed")
    versions: dict[str, str] = Field(description="python and the packages that matter")
    machine: dict[str, str]
    command: str = Field(description="command that repeats the run")
    properties: tuple[Property, ...] = Field(description="the catalogue: every property that was to be checked")


class Quantity(Value):
    """A number with its unit."""

    value: Number
    unit: str = Field(description="such as 'executions', 'total variation' or 'nats'")

    def __str__(self) -> str:
        return f"{self.value:,} {self.unit}"


class Result(Value):
    """What one check of a property measured on one case, and its verdict."""

    kind: Literal["result"] = "result"
    property: str
    case: str = Field(description="setting that the property was checked on, such as 'T=1 top_p=0.8, reject, k=2 depth=2 m=5'")
    verdict: Verdict
    summary: str = Field(description="one sentence: what was observed")
    measured: dict[str, Number | str] = {}
    p_value: float | None = None
    diagnostics: dict[str, float] = Field({}, description="p-values of further tests; reported, never part of the verdict")
    sensitivity: str | None = Field(None, description="in words: what a pass would have detected")
    work: Quantity | None = Field(None, description="how much was processed, such as 81 executions")
    effect: Quantity | None = Field(None, description="size of the largest departure from the requirement that was measured")
    detectable: Quantity | None = Field(None, description="smallest effect that would have been called a fault, at power 0.9")
    note: str = Field("", description="what a reader should look at although it is no fault; empty for most results")
    broken: bool = Field(False, description="the implementation raised, hung or returned an invalid answer")
    false_alarm: float = Field(0.0, description="bound on the probability that a correct implementation is called a fault")
    excuse: Excuse | None = Field(None, description="why a fault is known; None for every other verdict")
    witness: Witness | None = None
    pictures: tuple[Picture, ...] = ()
    seconds: float = 0.0
    replay: str = Field("", description="command that runs this case again")


class Statement(Value):
    """What was shown about the distance between implementation and target: three kinds of evidence, never merged."""

    exact: str = Field(description="enumerated: rules and whole decoders")
    logits: str = Field(description="measured: total variation per token that rounding causes")
    sampled: str = Field(description="sampled: what the samples would have detected, and bounds")


class Likeness(Value):
    """A mutant that behaves as observed. fit: 1 for identical behaviour, 0 if it fits no better than a correct decoder."""

    mutant: str
    fault: str
    source: str
    fit: float
    seen: str = Field(description="evidence that the fit was computed from")


class Footer(Value):
    """The last line. A record without it is unfinished and refused."""

    kind: Literal["footer"] = "footer"
    finished: str
    seconds: float
    results: int
    verdict: Verdict
    exit_code: int
    false_alarm: float = Field(0.0, description="bound on the probability that this run calls a correct implementation a fault")
    statement: Statement | None = None
    likenesses: tuple[Likeness, ...] = Field((), description="mutants that behave like the faults found, the best fit first")


Line = Annotated[Header | Result | Footer, Field(discriminator="kind")]
LINES: TypeAdapter[Header | Result | Footer] = TypeAdapter(Line)


class Trial(Value):
    """One cell of the kill matrix: a mutant or a control, checked on one case of a property."""

    kind: Literal["trial"] = "trial"
    mutant: str
    property: str
    case: str
    meant: bool = Field(description="the gallery lists this property as a killer of the mutant")
    verdict: Verdict
    summary: str
    work: str = Field("", description="work of the check, such as '81 executions' or '2,000 tokens'")
    seconds: float
    looks_like: str = Field("", description="id of the mutant that the diagnosis names for it")


class Record(Value):
    """A whole record."""

    header: Header
    results: tuple[Result, ...]
    footer: Footer


PASS, FAULT, USAGE, INCONCLUSIVE, BROKEN = 0, 1, 2, 3, 4
"""Exit codes of `eagle2 verify`; 2 is a usage error, 4 a broken adapter. A crash, a timeout or missing data is never a pass."""

JUDGED: tuple[Verdict, ...] = ("known", "tie", "pass", "fault")
"""Verdicts that say something about the implementation."""


def conclude(results: Sequence[Result]) -> tuple[Verdict, int]:
    """The verdict of a run and its exit code. Fault outranks broken, then inconclusive, known, tie and pass."""
    verdicts = {result.verdict for result in results}
    if "fault" in verdicts:
        return "fault", FAULT
    if any(result.broken for result in results):
        return "inconclusive", BROKEN
    if verdicts & {"inconclusive", "blocked"} or not verdicts & set(JUDGED):
        return "inconclusive", INCONCLUSIVE
    return next(verdict for verdict in JUDGED if verdict in verdicts), PASS


def read_record(path: Path) -> Record:
    """Read a record; a damaged or unfinished one, one of another format, or one that contradicts itself is refused.

    Verdicts that were changed by hand are found only where they contradict other fields. Only a new run shows who is right.
    """
    header, results, footer = read_parts(path, LINES, Header, Footer, command="`eagle2 verify`")
    if footer is None or footer.results != len(results):
        raise BadInput(f"{path} lacks some of its results", "the run was cut off; run it again")
    if reason := _contradiction(results, footer):
        raise BadInput(f"{path} contradicts itself: {reason}", "it was changed after the run; run it again")
    return Record(header=header, results=results, footer=footer)


def _contradiction(results: Sequence[Result], footer: Footer) -> str:
    """What cannot be true of one run, in words; empty if nothing was found."""
    names = Counter((result.property, result.case) for result in results)
    for (check, case), times in names.items():
        if times > 1:
            return f"{check}[{case}] has {times} results"
    for result in results:
        if (result.verdict == "known") != (result.excuse is not None):
            return f"{result.property}[{result.case}] is {result.verdict} {'with' if result.excuse else 'without'} an excuse"
        if result.broken and result.verdict != "inconclusive":
            return f"{result.property}[{result.case}] is {result.verdict}, and its implementation is broken"
    verdict, code = conclude(results)
    if (verdict, code) != (footer.verdict, footer.exit_code):
        stated = f"{footer.verdict}, exit code {footer.exit_code}"
        return f"the footer says {stated}, and the results {verdict}, exit code {code}"
    return ""
