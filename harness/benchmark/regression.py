"""Compare a run with an earlier one. Counts that changed by more than 2 % fail; times are only displayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from harness.benchmark.arms import PAPER, TUNED
from harness.benchmark.counts import changed
from harness.benchmark.figures import figures_of
from harness.benchmark.record import ArmFigures, BenchHeader, BenchRecord, PromptInfo, TuningResult
from harness.benchmark.settings import BenchSettings

COUNTS = ("tau", "target_passes", "head_passes", "rows")

NO_EFFECT_ON_COUNTS = {
    "threads", "device", "beside", "transformers", "fixed_shapes", "prompts", "limit", "harness", "batch",
}  # fmt: skip
"""Settings that may differ between the runs. Prompts are compared by their tokens, not by the name of their file."""


@dataclass(frozen=True)
class ArmChange:
    """One arm in both runs."""

    before: ArmFigures
    now: ArmFigures

    @property
    def changed_counts(self) -> list[str]:
        """Names of the counts that changed by more than 2 %."""
        return [name for name in COUNTS if changed(getattr(self.now, name), getattr(self.before, name))]


def compare_with(now: BenchRecord, before: BenchRecord) -> list[ArmChange]:
    """Every arm that both runs have. Tuned arms are compared only if both runs chose the same budget, since clocks choose it.

    Raises:
        BadInput: the runs did not decode the same texts.
    """
    check_comparable(now.header.settings, now.header.prompts, before.header)
    earlier = {(arm.arm, arm.temperature): arm for arm in figures_of(before).arms}
    chosen_before, chosen_now = _tuned_budgets(before), _tuned_budgets(now)
    return [
        ArmChange(earlier[key], arm)
        for arm in figures_of(now).arms
        if (key := (arm.arm, arm.temperature)) in earlier and chosen_before.get(key) == chosen_now.get(key)
    ]


def check_comparable(settings: BenchSettings, prompts: Sequence[PromptInfo], before: BenchHeader) -> None:
    """Raise BadInput if two runs do not decode the same texts."""
    for name in BenchSettings.model_fields:
        mine, theirs = getattr(settings, name), getattr(before.settings, name)
        if name not in NO_EFFECT_ON_COUNTS and mine != theirs:
            raise BadInput(f"the earlier run had {name} {theirs}, this one has {mine}", "give the settings that its header lists")
    mine_by_id, theirs_by_id = ({prompt.id: prompt.digest for prompt in found} for found in (prompts, before.prompts))
    if mine_by_id != theirs_by_id:
        first = min(mine_by_id.items() ^ theirs_by_id.items())[0]
        raise BadInput(f"the two runs do not have the same prompts: {first} differs", "give the same --prompts and --limit")


def _tuned_budgets(record: BenchRecord) -> dict[tuple[str, float], Budget | None]:
    """Chosen budgets by arm and temperature."""
    return {
        (arm, result.temperature): trial.budget if trial else None
        for result in record.of(TuningResult)
        for arm, trial in ((TUNED, result.chosen), (PAPER, result.paper))
    }
