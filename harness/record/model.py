"""The values that travel: what a check measured, and the record they are kept in (JSON lines: header, results, footer)."""

from __future__ import annotations

import json
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
    """Something that must hold. `needs` names its foundations: where one of them is red, this one is blocked."""

    id: str = Field(description="stable, such as LAW-1")
    chapter: str = Field(description="law, greedy, batch, tree, cache, stop, count, theory, told, smoke or known")
    requirement: str = Field(description="one sentence")
    needs: tuple[str, ...] = ()


class LawPicture(Value):
    """Observed against expected probability of outcomes, most probable first; `n` samples, 0 if the observed law is exact."""

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
    """How often each whole number was seen, such as blocks by number of accepted tokens; counts[i] belongs to i."""

    kind: Literal["count"] = "count"
    title: str
    xlabel: str
    counts: tuple[int, ...]


Picture = Annotated[LawPicture | TreePicture | CountPicture, Field(discriminator="kind")]


class Witness(Value):
    """One place at which an implementation departed from the law, told so precisely that it can be seen again.

    Either a text (prompt, params, and the seed or the branches that its coins took) with the position of the bad token in it,
    or a rule's instance (tokens, parents, law) with the bad node.
    """

    options: dict[str, Number | str | bool] = Field({}, description="options that the engine was opened with")
    pair: str = ""
    prompt: tuple[int, ...] = ()
    params: dict[str, Any] = {}
    seed: int | None = None
    keyed: bool = Field(False, description="the seed is that of coins keyed by position")
    choices: tuple[int, ...] | None = Field(None, description="the branch taken at each choice of an enumerated execution")
    position: int = Field(0, description="place of the bad token among the new ones, from 0")
    tokens: tuple[int, ...] = Field((), description="of a rule's instance: token of each node")
    parents: tuple[int, ...] = ()
    law: tuple[tuple[float, ...], ...] = Field((), description="of a rule's instance: p at each node")
    node: int | None = None
    emitted: int = Field(description="a token that came out")
    expected: int | None = Field(None, description="the token that was due, where only one was")
    p: float | None = Field(None, description="the target's probability of the emitted token there")
    q: float | None = Field(None, description="the implementation's")


class Excuse(Value):
    """Why a fault is `known`: a list of known failures names it, or the engine's own documentation calls the mode lossy."""

    reason: str
    link: str = ""
    expires: str = Field("", description="the last day on which it is excused, ISO 8601; a lossy mode has none")


class Header(Value):
    """What was judged, with what, on what. The first line of a record."""

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
    command: str = Field(description="what to type to run this again")
    properties: tuple[Property, ...] = Field(description="the catalogue: all that was to be judged")


class Result(Value):
    """What one check of a property measured on one case, and what follows."""

    kind: Literal["result"] = "result"
    property: str
    case: str = Field(description="what the property was checked on, such as 'T=1 top_p=0.8, reject, k=2 depth=2 m=5'")
    verdict: Verdict
    summary: str = Field(description="one sentence: what was seen")
    measured: dict[str, Number | str] = {}
    p_value: float | None = None
    diagnostics: dict[str, float] = Field({}, description="p-values of further tests; they are reported and decide nothing")
    sensitivity: str | None = Field(None, description="what a pass would have seen")
    broken: bool = Field(False, description="the implementation raised, hung or answered nonsense")
    false_alarm: float = Field(0.0, description="probability at most of calling this a fault if the implementation is right")
    excuse: Excuse | None = Field(None, description="of a fault that is known, and of nothing else")
    witness: Witness | None = None
    pictures: tuple[Picture, ...] = ()
    seconds: float = 0.0
    replay: str = Field("", description="command that runs this case again")


class Statement(Value):
    """How far the implementation is the target, in three lines that are never merged into one number."""

    exact: str = Field(description="rules and whole decoders, enumerated: logic, on these instances")
    logits: str = Field(description="total variation a token that arithmetic puts between its law and the target's")
    sampled: str = Field(description="what the sampled evidence would have seen, and its bounds")


class Likeness(Value):
    """A mutant of the gallery that does what was seen. fit: 1 is the same, 0 is as far off as a correct decoder."""

    mutant: str
    fault: str
    source: str
    fit: float
    seen: str = Field(description="what the fit was measured on")


class Footer(Value):
    """The last line. A record without it was cut off and is refused."""

    kind: Literal["footer"] = "footer"
    finished: str
    seconds: float
    results: int
    verdict: Verdict
    exit_code: int
    false_alarm: float = Field(0.0, description="probability at most that a correct implementation is called a fault by this run")
    statement: Statement | None = None
    likenesses: tuple[Likeness, ...] = Field((), description="mutants that look like the faults found, the best first")


Line = Annotated[Header | Result | Footer, Field(discriminator="kind")]
LINES: TypeAdapter[Header | Result | Footer] = TypeAdapter(Line)


class Trial(Value):
    """One cell of the kill matrix: a mutant (or a control) before one case of a property."""

    kind: Literal["trial"] = "trial"
    mutant: str
    property: str
    case: str
    meant: bool = Field(description="the gallery names this property among those that are to see the fault")
    verdict: Verdict
    summary: str
    work: str = Field("", description="what it took, such as '81 executions' or '2,000 tokens'")
    seconds: float
    looks_like: str = Field("", description="id of the mutant that the diagnosis names")


class Record(Value):
    """A whole record."""

    header: Header
    results: tuple[Result, ...]
    footer: Footer


def read_record(path: Path) -> Record:
    """Read a record; a damaged or unfinished one, or one of another format, is refused."""
    header, results, footer = read_parts(path, LINES, Header, Footer, command="`eagle2 verify`")
    if footer is None or footer.results != len(results):
        raise BadInput(f"{path} lacks some of its results", "the run was cut off; run it again")
    return Record(header=header, results=results, footer=footer)


def schema() -> str:
    """JSON Schema of one line of a record, as committed under reports/schema/."""
    return json.dumps(LINES.json_schema(), indent=2, sort_keys=True) + "\n"
