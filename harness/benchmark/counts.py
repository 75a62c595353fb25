"""Counts that repeat exactly (reports/bench/counts.json): fixed prompts, the rule `walk`, coins keyed by position.

They change only if drafting or the loop changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import walk
from harness.benchmark.arms import keyed_texts
from harness.benchmark.record import Counts
from harness.environment import commit
from harness.files import write_atomic
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.record.model import Value

COUNTS = "counts.json"
TOLERANCE = 0.02
"""Both sides: an unintended improvement is as suspicious as a loss."""


class TotalCounts(Value):
    """Counts of all prompts together. tau: tokens per target pass, without the pass over the prompt."""

    tokens: int
    target_passes: int
    head_passes: int
    rows: int
    tau: float


class CountsFile(Value):
    """counts.json: the counts by temperature, with the commit and the settings of the run."""

    commit: str
    command: str = "eagle2 bench --counts"
    pair: str = "stdlib"
    rule: str = "walk, coins keyed by position, float32 on the CPU"
    k: int = 8
    depth: int = 6
    m: int = 25
    tokens: int = 64
    prompts: tuple[str, ...] = ()
    counts: dict[str, TotalCounts] = Field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        return Budget(self.k, self.depth, self.m)


def write_counts(folder: Path) -> Path:
    """Decode, and write counts.json into a folder."""
    run = CountsFile(commit=commit())
    pair = shipped(run.pair)
    chosen = first_of_each_kind(pair)
    decoder = Decoder.load(pair.target, pair.draft, run.budget, walk)
    counts = {f"{t:g}": count(decoder, chosen, t, run.tokens) for t in (0.0, 1.0)}
    folder.mkdir(parents=True, exist_ok=True)
    written = run.model_copy(update={"prompts": tuple(prompt.id for prompt in chosen), "counts": counts})
    return write_atomic(folder / COUNTS, written.model_dump_json(indent=2) + "\n")


def read_counts(path: Path) -> CountsFile:
    """Read counts.json."""
    try:
        return CountsFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput(f"no counts at {path}: {error}", "`eagle2 bench --counts` writes them") from None


def first_of_each_kind(pair: Pair, n: int = 2) -> list[Prompt]:
    """The first n shipped prompts of each kind."""
    found = prompts(pair)
    kinds = dict.fromkeys(prompt.kind for prompt in found)
    return [prompt for kind in kinds for prompt in [p for p in found if p.kind == kind][:n]]


def prompts_by_id(ids: Iterable[str], pair: Pair) -> list[Prompt]:
    """Shipped prompts by their ids."""
    found = {prompt.id: prompt for prompt in prompts(pair)}
    return [found[id_] for id_ in ids]


def count(decoder: Decoder, prompts: Sequence[Prompt], temperature: float, tokens: int) -> TotalCounts:
    """Decode the prompts, each with the coins of its place in the list, and add up the counts."""
    total = Counts.total(map(Counts.of_text, keyed_texts(decoder, prompts, temperature, tokens)))
    passes, emitted = sum(total.accepted), sum((j + 1) * n for j, n in enumerate(total.accepted))
    return TotalCounts(
        tokens=len(prompts) * tokens,
        target_passes=total.target_passes,
        head_passes=total.head_passes or 0,
        rows=total.rows,
        tau=round(emitted / passes, 4),
    )


def describe_changes(now: Mapping[str, float | int | None], before: Mapping[str, float | int | None]) -> list[str]:
    """One sentence for every count that changed by more than 2 % in either direction, or that is missing on one side."""
    return [f"{name} {_text(now.get(name))}, was {_text(was)}" for name, was in before.items() if changed(now.get(name), was)]


def changed(now: float | int | None, was: float | int | None) -> bool:
    """Whether a count changed by more than 2 % in either direction. A count that is missing on one side only has changed."""
    if now is None or was is None:
        return now is not was
    return abs(now - was) > TOLERANCE * abs(was)


def _text(value: float | int | None) -> str:
    return "not reported" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
