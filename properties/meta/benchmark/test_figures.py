"""From timed texts to figures, on invented texts whose figures are known; records on disk; comparison with an earlier run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle2_ref.errors import BadInput
from harness.benchmark.arms import OFF
from harness.benchmark.counts import changed
from harness.benchmark.figures import (
    EXPECTED_ORDER,
    bench_figures,
    compared_arms,
    drafting_share,
    figures_of,
    median_interval,
    method_figures,
    method_figures_of,
    order_checks,
    tau_interval,
    tokens_and_passes,
)
from harness.benchmark.record import (
    RECORD,
    BenchRecord,
    BudgetTrial,
    Call,
    CompareFooter,
    Counts,
    PromptInfo,
    Record,
    StepProfile,
    TuningResult,
    read_bench,
)
from harness.benchmark.regression import compare_with
from harness.benchmark.result_tables import order_table, regression_table
from harness.benchmark.settings import BenchSettings
from harness.record.jsonl import Writer
from harness.record.model import Value
from properties.meta.benchmark.examples import (
    BATCHES,
    BENCH_FOOTER,
    BENCH_HEADER,
    BENCH_RECORD,
    CALLS,
    IN_ORDER,
    KINDS,
    OTHER_LINES,
    PLAIN,
    TRIAL,
    compare_record,
    entrant,
    method_call,
)

# --- bench ----------------------------------------------------------------------------------------------------------------


def arm(name: str) -> Any:
    return next(found for found in bench_figures(CALLS).arms if found.arm == name)


def ratio(name: str, over: str) -> Any:
    (found,) = [one for one in bench_figures(CALLS).ratios if (one.arm, one.over) == (name, over)]
    return found


def test_milliseconds_exclude_the_pass_over_the_prompt() -> None:
    """The median over repeats is taken first, then the median over prompts."""
    vanilla = arm("vanilla")
    assert vanilla.milliseconds == pytest.approx(12.0) and vanilla.prefill == pytest.approx(1000.0) and not vanilla.whole


def test_speed_ratio_is_a_median_over_prompts() -> None:
    """The median of 2, 3 and 10; of the totals, 122 ms over 19."""
    ours = ratio("speculative", "vanilla")
    assert ours.median == pytest.approx(3.0) and ours.totals == pytest.approx(122 / 19)
    assert (ours.low, ours.high) == pytest.approx((2.0, 10.0)) and not ours.whole


def test_whole_texts_are_compared_if_one_arm_hides_its_first_token() -> None:
    other = ratio("other", "vanilla")
    assert other.whole and other.median == pytest.approx((1.0 + 20 * 0.100) / 2.1)
    assert ratio("other", "other" + OFF).median == pytest.approx(2.0)
    reverse = ratio("speculative", "other")
    assert reverse.whole and reverse.median == pytest.approx(2.1 / (1.0 + 20 * 0.005))


def test_tau_is_pooled_and_averaged_over_prompts() -> None:
    """Prompts a and c took 10 passes for 20 tokens, b took 5: pooled 60 / 25; the mean of the prompts is that of 2, 4 and 2."""
    ours = arm("speculative")
    assert ours.tau == pytest.approx(60 / 25) and ours.tau_mean == pytest.approx(8 / 3)
    assert ours.accepted == (0, 60, 0, 15) and ours.target_passes == 3 * (11 + 6 + 11) and ours.rows == 9 * 260
    assert arm("other").tau is None and arm("other").rows is None


def test_compared_arms() -> None:
    names = ["speculative", "vanilla", "x", "x" + OFF]
    assert compared_arms(names) == [
        *((name, "vanilla") for name in ("speculative", "x", "x" + OFF)),
        *(("speculative", name) for name in ("x", "x" + OFF)),
        ("x", "x" + OFF),
    ]
    fixed = ["speculative", "vanilla", "static", "static vanilla", "transformers"]
    assert [pair for pair in compared_arms(fixed) if "static vanilla" in pair] == [
        ("static vanilla", "vanilla"),
        ("static", "static vanilla"),
    ]
    assert ("static", "transformers") in compared_arms(fixed)


def test_batch_figures_are_medians_over_repeats() -> None:
    """Speeds are of decoding alone, all groups of a repeat pooled. A batch that one arm has not decoded is left out."""
    found = {(one.texts, one.arm): one for one in bench_figures([], BATCHES).batches}
    assert list(found) == [(1, "speculative"), (1, "vanilla"), (2, "speculative"), (2, "vanilla")]
    ours, plain = found[2, "speculative"], found[2, "vanilla"]
    assert (ours.speed, plain.speed) == (10.0, 20.0) and (ours.ratio, ours.low, ours.high) == (2.0, 0.5, 2.75)
    assert (ours.milliseconds, plain.milliseconds) == (300.0, 500.0) and ours.rows == 52 and ours.prefill == 1000.0
    assert plain.ratio == plain.low == plain.high == 1.0
    assert (found[1, "speculative"].speed, found[1, "speculative"].ratio) == pytest.approx((20.0, 3.0))


def test_interval_of_a_median() -> None:
    """The median of two resampled values is either of them, a quarter of the time each: both are in the middle 95 %."""
    assert median_interval([5.0]) == (5.0, 5.0)
    assert median_interval([1.0, 3.0]) == (1.0, 3.0)
    # The order statistics of a binomial distribution: 501 ± 1.96 * sqrt(1001) / 2.
    assert median_interval([float(i) for i in range(1, 1002)]) == pytest.approx((470, 532), abs=3)


def test_counts_add_up() -> None:
    one, two = Counts.of([(26, 6), (26, 0)], 3, 12), Counts.of([(5, 1)], 2, None)
    assert one.accepted == (1, 0, 0, 0, 0, 0, 1) and one.rows == 52
    assert Counts.total([one, two]) == Counts(target_passes=5, head_passes=None, rows=57, accepted=(1, 1, 0, 0, 0, 0, 1))


def test_figures_of_a_record_without_footer_are_those_of_its_texts() -> None:
    assert figures_of(replace(BENCH_RECORD, footer=None)) == figures_of(BENCH_RECORD)


# --- records --------------------------------------------------------------------------------------------------------------


def written(folder: Path, *lines: Value) -> Path:
    with Writer(folder / RECORD) as writer:
        writer.write(BENCH_HEADER, *lines)
    return folder / RECORD


def test_record_reads_as_it_was_written(tmp_path: Path) -> None:
    record = read_bench(written(tmp_path, *BENCH_RECORD.lines, BENCH_FOOTER))
    assert record == BENCH_RECORD == read_bench(tmp_path)
    assert bench_figures(record.of(Call), BATCHES) == BENCH_FOOTER.figures


def test_record_that_was_cut_off_is_read_unless_it_must_be_whole(tmp_path: Path) -> None:
    """Half a line at the end is left out."""
    path = written(tmp_path, *CALLS)
    with path.open("a") as file:
        file.write(CALLS[0].model_dump_json()[:40])
    assert read_bench(path).lines == tuple(CALLS) and read_bench(path).footer is None
    with pytest.raises(BadInput, match="no footer"):
        read_bench(path, whole=True)


DAMAGE: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "wrong type": (lambda lines: [lines[0], lines[1].replace('"tokens":21', '"tokens":"x"'), *lines[2:]], "line 2 is not a line"),
    "no header": (lambda lines: lines[1:], "no header"),
    "two runs": (lambda lines: lines + lines, "second header"),
    "no timed text": (lambda lines: lines[:1], "no timed call"),
    "empty": (lambda _lines: [], "no header"),
    "another format": (lambda lines: [lines[0].replace('"format":1', '"format":2'), *lines[1:]], "line 1 is not a line"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_record_is_refused(damage: str, tmp_path: Path) -> None:
    path = written(tmp_path, *CALLS, *OTHER_LINES, BENCH_FOOTER)
    change, message = DAMAGE[damage]
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(BadInput, match=message):
        read_bench(path)


# --- comparison with an earlier run ---------------------------------------------------------------------------------------


def with_figures(**fields: Any) -> BenchRecord:
    """A record whose speculative arm has other figures."""
    arms = [arm.model_copy(update=fields if arm.arm == "speculative" else {}) for arm in BENCH_FOOTER.figures.arms]
    figures = BENCH_FOOTER.figures.model_copy(update={"arms": tuple(arms)})
    return Record(BENCH_HEADER, tuple(CALLS), BENCH_FOOTER.model_copy(update={"figures": figures}))


@pytest.mark.parametrize("count", ["tau", "target_passes", "head_passes", "rows"])
@pytest.mark.parametrize(("factor", "fails"), [(0.97, True), (0.985, False), (1.0, False), (1.015, False), (1.03, True)])
def test_counts_may_change_by_two_percent(count: str, factor: float, fails: bool) -> None:
    was = next(getattr(arm, count) for arm in BENCH_FOOTER.figures.arms if arm.arm == "speculative")
    rows = compare_with(with_figures(**{count: was * factor}), with_figures())
    assert [name for row in rows for name in row.changed_counts] == ([count] if fails else [])
    table = regression_table(rows)
    name = "τ" if count == "tau" else count.replace("_", " ")
    assert [row[-1] for i, row in enumerate(table.rows) if i in table.bold] == ([name] if fails else [])


def test_times_do_not_decide() -> None:
    assert not any(row.changed_counts for row in compare_with(with_figures(milliseconds=1000.0, prefill=0.1), with_figures()))


def test_count_missing_on_one_side_has_changed() -> None:
    assert changed(None, 3) and changed(3, None) and not changed(None, None) and changed(1, 0) and not changed(0, 0)


def test_tuned_arms_are_compared_only_with_the_same_budget() -> None:
    """A clock chooses the budget; another budget has other counts."""

    def run(k: int, rows: int) -> BenchRecord:
        arms = BENCH_FOOTER.figures.arms
        tuned = next(arm for arm in arms if arm.arm == "speculative").model_copy(update={"arm": "tuned", "rows": rows})
        figures = BENCH_FOOTER.figures.model_copy(update={"arms": (*arms, tuned)})
        trial: BudgetTrial = TRIAL.model_copy(update={"k": k})
        result = TuningResult(temperature=0.0, chosen=trial, vanilla=0.5, tried=(trial,))
        return Record(BENCH_HEADER, (result, *CALLS), BENCH_FOOTER.model_copy(update={"figures": figures}))

    same, other = compare_with(run(2, 900), run(2, 100)), compare_with(run(2, 900), run(3, 100))
    assert [row.changed_counts for row in same if row.now.arm == "tuned"] == [["rows"]]
    assert "tuned" not in {row.now.arm for row in other} and "speculative" in {row.now.arm for row in other}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": BenchSettings(temperatures=(0.0,), m=24)}, "had m 25, this one has 24"),
        ({"settings": BenchSettings(temperatures=(0.0,), repeats=1)}, "had repeats 3, this one has 1"),
        ({"prompts": (PromptInfo(id="a", kind="test", length=3, digest="01"),)}, "not have the same prompts: a differs"),
        ({"prompts": ()}, "not have the same prompts: a differs"),
    ],
    ids=["m", "repeats", "another prompt", "no prompt"],
)
def test_runs_of_different_texts_are_not_compared(change: dict[str, Any], message: str) -> None:
    now = replace(with_figures(), header=BENCH_HEADER.model_copy(update=change))
    with pytest.raises(BadInput, match=message):
        compare_with(now, with_figures())


def test_settings_without_effect_on_counts_may_differ() -> None:
    other = BENCH_HEADER.model_copy(update={"settings": BenchSettings(temperatures=(0.0,), threads=1, transformers=False)})
    assert compare_with(replace(with_figures(), header=other), with_figures())


# --- compare --------------------------------------------------------------------------------------------------------------


def methods(*calls: Call) -> dict[tuple[str, str], Any]:
    return {(row.arm, row.prompts): row for row in method_figures(calls, KINDS)}


def test_tau_of_a_method_is_pooled_and_its_speed_is_a_median() -> None:
    plain = [method_call("vanilla", prompt, 20, 20.0) for prompt in KINDS]
    repeats = [method_call("x", "a", 4, 10.0), method_call("x", "a", 6, 5.0, repeat=1)]
    found = methods(*plain, *repeats, method_call("x", "b", 20, 8.0), method_call("x", "c", 2, 2.0))
    every, code = found["x", ""], found["x", "code"]
    assert every.tau == 80 / 32 and code.tau == 60 / 30 and found["x", "prose"].tau == 10
    assert every.speed == pytest.approx(20 / 7.5) and code.speed == pytest.approx((20 / 7.5 + 2.5) / 2)
    assert (every.target_passes, every.draft_passes, every.tokens, every.rows) == (36, 96, 84, 26.0)
    assert found["vanilla", ""].speed == found["vanilla", ""].tau == 1.0


def test_text_that_ends_with_the_prompts_pass_has_no_figures() -> None:
    """Prompts that ordinary decoding has not decoded are left out, too."""
    plain, ours = method_call("vanilla", "a", 20, 20.0), method_call("x", "a", 5, 10.0)
    found = methods(plain, ours, method_call("x", "b", 0, 0.0, tokens=1), method_call("x", "c", 1, 1.0))
    assert found["x", ""].speed == 2.0 and found["x", ""].tau == 40 / 6 and ("x", "prose") not in found


def test_interval_of_tau() -> None:
    """With one prompt it is τ itself; with two, the prompts' own τ; with many, that of a ratio of means."""
    assert tau_interval(np.array([20.0]), np.array([5.0])) == (4.0, 4.0)
    assert tau_interval(np.array([20.0, 20.0]), np.array([5.0, 10.0])) == (2.0, 4.0)
    low, high = tau_interval(np.full(100, 20.0), np.tile([5.0, 10.0], 50))
    half = 20 / 7.5**2 * 2.5 / 10 * 1.96  # d τ / d (mean passes), times 1.96 standard errors of that mean
    assert (low, high) == pytest.approx((20 / 7.5 - half, 20 / 7.5 + half), abs=0.03)


def test_order_of_tau_that_holds() -> None:
    checks = order_checks(compare_record(PLAIN | IN_ORDER))
    assert all(one.holds for one in checks) and [one.first.method for one in checks] == ["eagle2", "eagle", "medusa"]


def test_order_of_tau_that_fails_for_one_pair() -> None:
    checks = order_checks(compare_record(PLAIN | IN_ORDER | {"eagle2": [4, 5, 4], "eagle": [3, 4, 3]}))
    assert [one.holds for one in checks] == [False, True, True]
    table = order_table(checks)
    assert table.rows[0] == ("0", "EAGLE2", "EAGLE", "4.62", "6.00", "-1.38", "-1.67 to -1.00", "fails") and table.bold == {0}


def test_order_of_tau_is_undecided_if_each_method_wins_a_prompt() -> None:
    assert order_checks(compare_record(PLAIN | IN_ORDER | {"eagle2": [3, 9, 3]}))[0].holds is None


def test_order_of_tau_is_checked_at_equal_budget_only() -> None:
    arms = (entrant("eagle2"), entrant("eagle", equal=False), entrant("eagle", own=False), entrant("medusa", equal=False))
    passes = {"eagle2": [4, 4, 4], "eagle": [9, 9, 9], "eagle, equal": [3, 3, 3], "medusa": [5, 5, 5]}
    (only,) = order_checks(compare_record(PLAIN | passes, entrants=arms))
    assert (only.first.arm, only.second.arm, only.holds) == ("eagle2", "eagle, equal", False)
    assert order_checks(compare_record(PLAIN | {"eagle2": [4, 4, 4]})) == []
    assert EXPECTED_ORDER[0] == ("eagle2",) and len({name for tier in EXPECTED_ORDER for name in tier}) == 6


def test_difference_of_tau_is_paired_over_prompts() -> None:
    """A method that is slightly better on every prompt is better, although the prompts differ more than the methods."""
    run = compare_record(PLAIN | {"eagle2": [2, 9, 18], "eagle": [3, 10, 19]})
    assert order_checks(run)[0].holds is True
    eagle2, eagle = (
        tau_interval(*tokens_and_passes([call for call in run.of(Call) if call.arm == arm])) for arm in ("eagle2", "eagle")
    )
    assert eagle2[0] < eagle[1], "the separate intervals overlap"


def test_drafting_share_is_relative_to_both_steps() -> None:
    """3 of 5 ms of a step, where a step of ordinary decoding takes 2 ms."""
    profiles = [
        StepProfile(arm="vanilla", temperature=0.0, steps=9, milliseconds={"target pass": 1.5, "rest": 0.5}),
        StepProfile(arm="x", temperature=0.0, steps=9, milliseconds={"target pass": 2.0, "drafting": 3.0}),
    ]
    assert drafting_share(profiles, "x", 0.0) == (0.6, 1.5) and drafting_share(profiles, "vanilla", 0.0) == (0.0, 0.0)
    assert drafting_share(profiles, "x", 1.0) is None and drafting_share(profiles, "y", 0.0) is None


def test_footer_of_a_comparison_has_its_figures() -> None:
    run = compare_record(PLAIN | IN_ORDER)
    figures = method_figures_of(run)
    footer = CompareFooter(finished="", seconds=1.0, memory={}, figures=figures[:1])
    assert len(figures) > 3 and method_figures_of(replace(run, footer=footer)) == figures[:1]
