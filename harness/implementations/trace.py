"""A recorded implementation: `eagle2 record` writes every request with its answer, `trace:run.jsonl` gives the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagle2_ref.errors import BadInput
from harness.implementations.engine import COUNTERS, Counters, Missing, Params, call_key, key_options, request_key
from harness.pairs import name_of

if TYPE_CHECKING:
    from harness.implementations import Implementation

DESCRIBED = ("checkpoint", "logprobs", "lossy", "budget")
"""Fields of an implementation that are stored with a trace, since checks depend on them."""

RECORDED: dict[str, Callable[[Any], Any]] = {"pair": str, "tier": str, "dtype": str, "seed": int}
"""Settings of a recording that its judgement must have too, with their types. The pair is stored by its name."""

IN_PROCESS = {"coins", "accept", "rules", "decoder"}
"""Capabilities that a trace cannot have: they need the recorded process."""


@dataclass(frozen=True)
class Trace:
    """A trace file: its first line describes the implementation; every other line is a request with its answer, or the counters
    of one call. The order of these lines does not matter.

    settings: those of RECORDED; empty in a trace of an earlier version.
    """

    version: str
    capabilities: frozenset[str]
    options: dict[str, Any]
    settings: dict[str, Any]
    described: dict[str, Any]
    answers: dict[str, dict[str, Any]]
    counters: dict[str, Counters]

    @classmethod
    def read(cls, path: Path) -> Trace:
        hint = "write a trace with `eagle2 record IMPL -o run.jsonl`"
        try:
            head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
            answers = {
                request_key(**line): {name: line.get(name) for name in ("tokens", "blocks", "logprobs")}
                for line in lines
                if "call" not in line
            }
            counters = {line["call"]: Counters(**line["counted"]) for line in lines if "call" in line}
            capabilities = frozenset(head["capabilities"]) - IN_PROCESS
            described = {name: head[name] for name in DESCRIBED if name in head}
            settings = {name: kind(head["settings"][name]) for name, kind in RECORDED.items()} if "settings" in head else {}
            return cls(head["version"], capabilities, head["options"], settings, described, answers, counters)
        except OSError as error:
            raise BadInput(f"no trace at {path}: {error.strerror}", hint) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} is not a trace: {type(error).__name__}: {error}", hint) from None

    def engine(self, target: str, draft: str | None = None, **options: Any) -> TraceEngine:
        changed = {name: value for name, value in options.items() if self.options.get(name) != value}
        return TraceEngine(self, (name_of(Path(target)), draft is not None, key_options(changed)))


def write_head(path: Path, implementation: Implementation, **settings: Any) -> None:
    """Start a trace file with the line that describes the implementation. `settings`: all of RECORDED, or none."""
    head = {
        "kind": "trace",
        "implementation": implementation.name,
        "version": implementation.version,
        "capabilities": sorted(implementation.capabilities),
        "options": implementation.options,
        **{name: getattr(implementation, name) for name in DESCRIBED},
        **({"settings": settings} if settings else {}),
    }
    try:
        path.write_text(json.dumps(head) + "\n")
    except OSError as error:
        raise BadInput(f"no trace can be written to {path}: {error.strerror}", "give another file with -o") from None


class TraceEngine:
    """Answers from a trace. Its counters are the sum of those recorded for the calls made so far."""

    def __init__(self, trace: Trace, opened: tuple[str, bool, dict[str, Any]]) -> None:
        self._trace, self._opened = trace, opened
        self._calls: list[str] = []

    def generate(self, prompts: list[list[int]], params: list[Params], seeds: list[int]) -> list[dict[str, Any]]:
        keys = [request_key(*self._opened, *row) for row in zip(prompts, params, seeds, strict=True)]
        if missing := [key for key in keys if key not in self._trace.answers]:
            raise Missing(f"the trace lacks {len(missing)} of {len(keys)} requests; the first is {missing[0][:160]}")
        self._calls.append(call_key(keys))
        return [self._trace.answers[key] for key in keys]

    def counters(self) -> dict[str, int]:
        if missing := [call for call in self._calls if call not in self._trace.counters]:
            raise Missing(f"the trace lacks the counters of {len(missing)} of {len(self._calls)} calls")
        recorded = [asdict(self._trace.counters[call]) for call in self._calls]
        return {name: sum(counters[name] for counters in recorded) for name in COUNTERS}
