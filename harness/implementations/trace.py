"""A recorded implementation: `eagle2 record` writes every request with its answer, `trace:run.jsonl` gives the same answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from eagle2_ref.errors import BadInput
from harness.files import refuse_special_file
from harness.implementations.engine import COUNTERS, Counters, Missing, Params, call_key, key_options, request_key
from harness.pairs import name_of
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.implementations import Implementation

DESCRIBED = ("checkpoint", "logprobs", "lossy", "budget")
"""Fields of an implementation that are stored with a trace, since checks depend on them."""

IN_PROCESS = {"coins", "accept", "rules", "decoder"}
"""Capabilities that a trace cannot have: they need the recorded process."""


class Recorded(BaseModel):
    """Options of `eagle2 record` that a judgement must have too: with others, answers are missing or judged wrongly."""

    pair: str
    tier: str
    dtype: str
    seed: int


class Head(BaseModel):
    """The first line."""

    kind: Literal["trace"]
    version: str
    capabilities: list[str]
    options: dict[str, Any]
    checkpoint: str = "draft"
    logprobs: str = "processed"
    lossy: str = ""
    budget: dict[str, int] | None = None
    recorded: Recorded | None = None


class Answer(BaseModel):
    """A request with its answer."""

    pair: str
    speculate: bool
    options: dict[str, Any]
    prompt: list[int]
    params: Params
    seed: int
    tokens: list[int]
    blocks: list[dict[str, Any]] | None = None
    logprobs: list[float] | None = None


class Counts(BaseModel):
    """Counters of one call; see engine.Counters."""

    passes: int
    drafted: int
    accepted: int


class Call(BaseModel):
    """The counters of one call."""

    call: str
    counted: Counts


@dataclass(frozen=True)
class Trace:
    """A trace file: its first line describes the implementation; every other line is a request with its answer, or the counters
    of one call. The order of these lines does not matter."""

    version: str
    capabilities: frozenset[str]
    options: dict[str, Any]
    described: dict[str, Any]
    answers: dict[str, dict[str, Any]]
    counters: dict[str, Counters]
    pairs: frozenset[str]
    recorded: dict[str, str | int]

    @classmethod
    def read(cls, path: Path) -> Trace:
        hint = "write a trace with `eagle2 record IMPL -o run.jsonl`"
        refuse_special_file(path, "the trace")
        try:
            head, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except OSError as error:
            raise BadInput(f"no trace at {path}: {error.strerror}", hint) from None
        except UnicodeDecodeError:
            raise BadInput(f"{path} is not a trace: it is not UTF-8 text", hint) from None
        found: Head | Answer | Call
        answers, counters, pairs = dict[str, dict[str, Any]](), dict[str, Counters](), set[str]()
        for number, line in enumerate([head, *lines], start=1):
            try:
                fields = from_json(line)
                kind = Head if number == 1 else Call if isinstance(fields, dict) and "call" in fields else Answer
                found = kind.model_validate(fields, strict=True)
            except ValueError as error:
                raise BadInput(f"{path} is not a trace: line {number}: {_reason(line, error)}", hint) from None
            if isinstance(found, Head):
                described = found
            elif isinstance(found, Call):
                counters[found.call] = Counters(**found.counted.model_dump())
            else:
                answer = found.model_dump(include={"tokens", "blocks", "logprobs"})
                answers[request_key(**found.model_dump(exclude=set(answer)))] = answer
                pairs.add(found.pair)
        return cls(
            described.version,
            frozenset(described.capabilities) - IN_PROCESS,
            described.options,
            described.model_dump(include=set(DESCRIBED), exclude_unset=True),
            answers,
            counters,
            frozenset(pairs),
            described.recorded.model_dump() if described.recorded else {},
        )

    def engine(self, target: str, draft: str | None = None, **options: Any) -> TraceEngine:
        changed = {name: value for name, value in options.items() if self.options.get(name) != value}
        return TraceEngine(self, (name_of(Path(target)), draft is not None, key_options(changed)))


def write_head(path: Path, implementation: Implementation, settings: Settings | None = None) -> None:
    """Start a trace file with the line that describes the implementation, and the options that decide what is requested."""
    head = {
        "kind": "trace",
        "implementation": implementation.name,
        "version": implementation.version,
        "capabilities": sorted(implementation.capabilities),
        "options": implementation.options,
        **{name: getattr(implementation, name) for name in DESCRIBED},
        "recorded": _selected(settings) if settings else None,
    }
    refuse_special_file(path, "the trace")
    try:
        path.write_text(json.dumps(head) + "\n")
    except OSError as error:
        raise BadInput(f"no trace can be written to {path}: {error.strerror}", "give another file with -o") from None


def differences(recorded: Mapping[str, str | int], settings: Settings) -> str:
    """How the options of a run differ from those of its trace; "" if they do not. Other requests have no answers there."""
    selected = _selected(settings)
    changed = [name for name in recorded if recorded[name] != selected.get(name)]
    theirs, ours = (_options({name: of[name] for name in changed if name in of}) for of in (recorded, selected))
    return f"the trace was recorded with {theirs}; this run has {ours}, so that answers may be missing" if changed else ""


def _selected(settings: Settings) -> dict[str, str | int]:
    pair = {"pair": name_of(Path(settings.target))} if settings.target else {}
    return {**{name: getattr(settings, name) for name in Recorded.model_fields}, **pair}


def _options(values: Mapping[str, str | int]) -> str:
    return " ".join(f"--{name} {value}" for name, value in values.items())


def _reason(line: str, error: ValueError) -> str:
    """Why a line of a trace is refused, with the field that is wrong."""
    if not line.strip():
        return "it is blank"
    if not isinstance(error, ValidationError):
        return str(error).replace(" at line 1 column", " at column")
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


class TraceEngine:
    """Answers from a trace. Its counters are the sum of those recorded for the calls made so far."""

    def __init__(self, trace: Trace, opened: tuple[str, bool, dict[str, Any]]) -> None:
        self._trace, self._opened = trace, opened
        self._calls: list[str] = []

    def generate(self, prompts: list[list[int]], params: list[Params], seeds: list[int]) -> list[dict[str, Any]]:
        keys = [request_key(*self._opened, *row) for row in zip(prompts, params, seeds, strict=True)]
        if missing := [key for key in keys if key not in self._trace.answers]:
            pair, pairs, recorded = self._opened[0], self._trace.pairs, self._trace.recorded
            why = "" if pair in pairs else f"; none is on the pair {pair}, only on {', '.join(sorted(pairs)) or 'no pair'}"
            how = f"; it was recorded with {_options(recorded)}" if recorded else ""
            raise Missing(f"the trace lacks {len(missing)} of {len(keys)} requests{why}{how}; the first is {missing[0][:160]}")
        self._calls.append(call_key(keys))
        return [self._trace.answers[key] for key in keys]

    def counters(self) -> dict[str, int]:
        if missing := [call for call in self._calls if call not in self._trace.counters]:
            raise Missing(f"the trace lacks the counters of {len(missing)} of {len(self._calls)} calls")
        recorded = [asdict(self._trace.counters[call]) for call in self._calls]
        return {name: sum(counters[name] for counters in recorded) for name in COUNTERS}
