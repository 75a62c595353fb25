"""A recorded implementation: `eagle2 record` writes what was asked and answered, `trace:run.jsonl` answers the same again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from harness.implementations.engine import Missing, asked_options
from harness.pairs import name_of


@dataclass(frozen=True)
class Trace:
    """The first line of the file tells who was recorded; the others are requests with their answers, in any order."""

    implementation: str
    version: str
    capabilities: frozenset[str]
    options: dict[str, Any]
    answers: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Trace:
        try:
            head, *rest = [json.loads(line) for line in path.read_text().splitlines()]
            answers = {_key(**line): {"tokens": line["tokens"], "blocks": line.get("blocks")} for line in rest}
            # Coins and insides stay behind with the process that had them.
            told = frozenset(head["capabilities"]) - {"coins", "accept", "rules", "decoder"}
            return cls(head["implementation"], head["version"], told, head["options"], answers)
        except OSError as error:
            raise BadInput(f"no trace at {path}: {error.strerror}", "`eagle2 record IMPL -o run.jsonl` makes one") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is not a trace: {type(error).__name__}: {error}", "`eagle2 record IMPL -o run.jsonl` makes one"
            ) from None

    def engine(self, target: str, draft: str | None = None, **options: Any) -> Replayed:
        asked = {name: value for name, value in options.items() if self.options.get(name) != value}
        return Replayed(self, (name_of(Path(target)), draft is not None, asked_options(asked)))


def write_head(path: Path, implementation: str, version: str, capabilities: frozenset[str], options: dict[str, Any]) -> None:
    """Begin a trace."""
    head = {
        "kind": "trace",
        "implementation": implementation,
        "version": version,
        "capabilities": sorted(capabilities),
        "options": options,
    }
    path.write_text(json.dumps(head) + "\n")


class Replayed:
    """Answers from a trace."""

    def __init__(self, trace: Trace, opened: tuple[str, bool, dict[str, Any]]) -> None:
        self._trace, self._opened = trace, opened

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        keys = [_key(*self._opened, *row) for row in zip(prompts, params, seeds, strict=True)]
        if lacking := [key for key in keys if key not in self._trace.answers]:
            raise Missing(f"the trace lacks {len(lacking)} of {len(keys)} requests, the first of them {lacking[0][:160]}")
        return [self._trace.answers[key] for key in keys]


def _key(
    pair: str, speculate: bool, options: dict[str, Any], prompt: list[int], params: dict[str, Any], seed: int, **_answer: Any
) -> str:
    return json.dumps([pair, speculate, options, params, seed, prompt], sort_keys=True)
