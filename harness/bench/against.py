"""A run beside an earlier one: counts that moved by more than 2 %, either way, are told; wall clock is shown and never judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from harness.bench.arms import PAPER, TUNED
from harness.bench.counts import off
from harness.bench.figures import figures
from harness.bench.record import Arm, Asked, Call, Figures, Header, Record, Together, Tuned
from harness.bench.settings import Settings

COUNTS = ("tau", "target_passes", "head_passes", "rows")
FREE = {"threads", "device", "beside", "transformers", "prompts", "limit", "batch"}
"""Settings that may differ: no count hangs on them. Prompts are compared themselves, not the name of their file."""


@dataclass(frozen=True)
class Row:
    """An arm then and now. moved: names of counts."""

    before: Arm
    now: Arm

    @property
    def moved(self) -> list[str]:
        return [name for name in COUNTS if off(getattr(self.now, name), getattr(self.before, name))]


def against(now: Record, before: Record) -> list[Row]:
    """Every arm that both have; ours is always among them. Tuned ones only where both runs chose the same budget: a clock
    had a say in it."""
    comparable(now.header.settings, now.header.prompts, before.header)
    theirs, mine = ({(arm.arm, arm.temperature): arm for arm in of(record).arms} for record in (before, now))
    had, chose = (_chosen(record) for record in (before, now))
    return [Row(theirs[key], arm) for key, arm in mine.items() if key in theirs and had.get(key) == chose.get(key)]


def _chosen(record: Record) -> dict[tuple[str, float], Budget | None]:
    """Budgets by arm and temperature."""
    found = [
        (arm, one.temperature, tried) for one in record.of(Tuned) for arm, tried in ((TUNED, one.chosen), (PAPER, one.paper))
    ]
    return {(arm, temperature): tried.budget if tried else None for arm, temperature, tried in found}


def comparable(settings: Settings, prompts: Sequence[Asked], before: Header) -> None:
    """Raise BadInput where texts are not the same texts."""
    for name in Settings.model_fields:
        mine, theirs = getattr(settings, name), getattr(before.settings, name)
        if name not in FREE and mine != theirs:
            raise BadInput(
                f"the earlier run had {name} {theirs}, this one has {mine}", "its header has its settings: give the same"
            )
    asked, had = ({prompt.id: prompt.digest for prompt in found} for found in (prompts, before.prompts))
    if asked != had:
        strange = sorted(asked.items() ^ had.items())[0][0]
        raise BadInput(f"the two runs do not have the same prompts: {strange} differs", "give the same --prompts and --limit")


def of(record: Record) -> Figures:
    """The figures of a record; of one that was cut off, of what there is."""
    return record.footer.figures if record.footer else figures(record.of(Call), record.of(Together))
