"""Counts that repeat exactly: fixed prompts, the rule `walk`, coins keyed by position. What they move by, drafting moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.bench.counting import added, counted
from harness.bench.record import Counts
from harness.environment import commit
from harness.files import write_atomic
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.record.model import Value

COUNTS = "counts.json"
TOLERANCE = 0.02
"""Both sides: what gets better unasked is as suspicious as what gets worse."""


class Counted(Value):
    """Of all prompts together. tau: tokens per target pass, the prompt's pass and its token left out."""

    tokens: int
    target_passes: int
    head_passes: int
    rows: int
    tau: float


class Committed(Value):
    """counts.json: what was counted, at which commit, under which settings."""

    commit: str
    command: str = "eagle2 bench --counts"
    pair: str = "stdlib"
    rule: str = "walk, coins keyed by position, float32 on the CPU"
    k: int = 8
    depth: int = 6
    m: int = 25
    tokens: int = 64
    prompts: tuple[str, ...] = ()
    counts: dict[str, Counted] = Field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        return Budget(self.k, self.depth, self.m)


def chosen(pair: Pair, a_kind: int = 2) -> list[Prompt]:
    """The first prompts of each kind."""
    found = prompts(pair)
    kinds = dict.fromkeys(prompt.kind for prompt in found)
    return [prompt for kind in kinds for prompt in [p for p in found if p.kind == kind][:a_kind]]


def count(decoder: Decoder, asked: Sequence[Prompt], temperature: float, tokens: int) -> Counted:
    """Decode the prompts, each with coins of its own place in the list."""
    params = SamplingParams(temperature=temperature, max_new_tokens=tokens)
    found = added(_one(decoder, prompt, params, seed) for seed, prompt in enumerate(asked))
    passes, emitted = sum(found.accepted), sum((j + 1) * n for j, n in enumerate(found.accepted))
    return Counted(
        tokens=len(asked) * tokens,
        target_passes=found.target_passes,
        head_passes=found.head_passes or 0,
        rows=found.rows,
        tau=round(emitted / passes, 4),
    )


def _one(decoder: Decoder, prompt: Prompt, params: SamplingParams, seed: int) -> Counts:
    made = decoder.generate(prompt.tokens, params, KeyedCoins(seed))
    return counted([(len(b.tree), len(b.tokens) - 1) for b in made.blocks[1:]], made.target_passes, made.draft_passes)


def moved(now: Mapping[str, float | int | None], before: Mapping[str, float | int | None]) -> list[str]:
    """In words, every count that is off by more than 2 %, either way. One that is told on one side alone counts as moved."""
    return [f"{name} {_told(now.get(name))}, was {_told(was)}" for name, was in before.items() if off(now.get(name), was)]


def off(now: float | int | None, was: float | int | None) -> bool:
    if now is None or was is None:
        return now is not was
    return abs(now - was) > TOLERANCE * abs(was)


def count_again(out: Path) -> Path:
    """Decode, and write counts.json anew."""
    told = Committed(commit=commit())
    pair = shipped(told.pair)
    asked = chosen(pair)
    decoder = Decoder.load(pair.target, pair.draft, told.budget, walk)
    counts = {f"{t:g}": count(decoder, asked, t, told.tokens) for t in (0.0, 1.0)}
    out.mkdir(parents=True, exist_ok=True)
    written = told.model_copy(update={"prompts": tuple(prompt.id for prompt in asked), "counts": counts})
    return write_atomic(out / COUNTS, written.model_dump_json(indent=2) + "\n")


def committed(path: Path) -> Committed:
    """counts.json, read."""
    try:
        return Committed.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BadInput(f"no counts at {path}: {error}", "`eagle2 bench --counts` writes them") from None


def named(ids: Iterable[str], pair: Pair) -> list[Prompt]:
    """Prompts by their ids."""
    found = {prompt.id: prompt for prompt in prompts(pair)}
    return [found[id_] for id_ in ids]


def _told(value: float | int | None) -> str:
    return "not told" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
