"""A recorded implementation: `eagle2 record` writes what was asked and answered, `trace:run.jsonl` answers the same again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagle2_ref.errors import BadInput
from harness.implementations.engine import Counters, Missing, asked_options, call_key, request_key
from harness.pairs import name_of

if TYPE_CHECKING:
    from harness.implementations import Implementation

ABOUT = ("checkpoint", "logprobs", "lossy", "budget")
"""What an implementation says of itself that a judge of its trace must know too."""


@dataclass(frozen=True)
class Trace:
    """The first line of the file tells who was recorded; the others are requests with their answers, in any order, and what
    was counted over the requests of a call."""

    implementation: str
    version: str
    capabilities: frozenset[str]
    options: dict[str, Any]
    about: dict[str, Any]
    answers: dict[str, dict[str, Any]]
    counted: dict[str, Counters]

    @classmethod
    def read(cls, path: Path) -> Trace:
        try:
            head, *rest = [json.loads(line) for line in path.read_text().splitlines()]
            answers = {
                request_key(**line): {name: line.get(name) for name in ("tokens", "blocks", "logprobs")}
                for line in rest
                if "call" not in line
            }
            counted = {line["call"]: Counters(**line["counted"]) for line in rest if "call" in line}
            # Coins and insides stay behind with the process that had them.
            told = frozenset(head["capabilities"]) - {"coins", "accept", "rules", "decoder"}
            about = {name: head[name] for name in ABOUT if name in head}
            return cls(head["implementation"], head["version"], told, head["options"], about, answers, counted)
        except OSError as error:
            raise BadInput(f"no trace at {path}: {error.strerror}", "`eagle2 record IMPL -o run.jsonl` makes one") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is not a trace: {type(error).__name__}: {error}", "`eagle2 record IMPL -o run.jsonl` makes one"
            ) from None

    def engine(self, target: str, draft: str | None = None, **options: Any) -> Replayed:
        asked = {name: value for name, value in options.items() if self.options.get(name) != value}
        return Replayed(self, (name_of(Path(target)), draft is not None, asked_options(asked)))


def write_head(path: Path, implementation: Implementation) -> None:
    """Begin a trace."""
    head = {
        "kind": "trace",
        "implementation": implementation.name,
        "version": implementation.version,
        "capabilities": sorted(implementation.capabilities),
        "options": implementation.options,
        **{name: getattr(implementation, name) for name in ABOUT},
    }
    try:
        path.write_text(json.dumps(head) + "\n")
    except OSError as error:
        raise BadInput(f"no trace can be written to {path}: {error.strerror}", "-o names another file") from None


class Replayed:
    """Answers from a trace; what it counts is what was counted over the same calls."""

    def __init__(self, trace: Trace, opened: tuple[str, bool, dict[str, Any]]) -> None:
        self._trace, self._opened = trace, opened
        self._calls: list[str] = []

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        keys = [request_key(*self._opened, *row) for row in zip(prompts, params, seeds, strict=True)]
        if lacking := [key for key in keys if key not in self._trace.answers]:
            raise Missing(f"the trace lacks {len(lacking)} of {len(keys)} requests, the first of them {lacking[0][:160]}")
        self._calls.append(call_key(keys))
        return [self._trace.answers[key] for key in keys]

    def counters(self) -> dict[str, int]:
        if lacking := [call for call in self._calls if call not in self._trace.counted]:
            raise Missing(f"the trace lacks what was counted over {len(lacking)} of {len(self._calls)} calls")
        told = [asdict(self._trace.counted[call]) for call in self._calls]
        return {name: sum(counted[name] for counted in told) for name in ("passes", "drafted", "accepted")}
