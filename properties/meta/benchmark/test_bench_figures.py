"""From timed calls to figures, on made-up calls of which the answers are known; a record's way to the disk and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from harness.bench import show
from harness.bench.against import against
from harness.bench.counting import added, counted
from harness.bench.counts import off
from harness.bench.figures import OFF, compared, figures, interval
from harness.bench.record import (
    RECORD,
    Asked,
    Call,
    Cost,
    Counts,
    Footer,
    Header,
    Line,
    Point,
    Record,
    Steps,
    Together,
    Tried,
    Tuned,
    Writer,
    read,
)
from harness.bench.settings import Settings
from harness.bench.words import sentence


def call(
    arm: str, prompt: str, seconds: float, prefill: float | None = 1.0, repeat: int = 0, accepted: tuple[int, ...] = (0, 10)
) -> Call:
    """A text of 21 tokens, one of which the prompt's pass brings: by default in ten passes that accept a token each."""
    counts = Counts(target_passes=1 + sum(accepted), head_passes=40, rows=260, accepted=accepted)
    return Call(
        arm=arm,
        temperature=0.0,
        prompt=prompt,
        repeat=repeat,
        seconds=seconds,
        prefill=prefill,
        tokens=21,
        first=1,
        counts=counts if arm == "speculative" else None,
    )


CALLS = [
    *(call("vanilla", "a", 1.0 + 20 * t, repeat=i) for i, t in enumerate((0.010, 0.009, 0.090))),  # median 10 ms
    *(call("speculative", "a", 1.0 + 20 * t, repeat=i) for i, t in enumerate((0.005, 0.001, 0.006))),  # 5 ms: twice as fast
    *(call("vanilla", "b", 3.0 + 20 * 0.012, 3.0) for _ in range(3)),
    *(call("speculative", "b", 1.0 + 20 * 0.004, accepted=(0, 0, 0, 5)) for _ in range(3)),  # 3 times
    *(call("vanilla", "c", 1.0 + 20 * 0.100) for _ in range(3)),
    *(call("speculative", "c", 1.0 + 20 * 0.010) for _ in range(3)),  # 10 times
    *(call("beside", name, 2.1, None) for name in "abc"),  # 100 ms a token, with the prompt's pass
    *(call("beside" + OFF, name, 4.2, None) for name in "abc"),
]


def batch(arm: str, n: int, seconds: float, repeat: int = 0, first: int = 0) -> Together:
    """n texts of 21 tokens, in 10 passes of 26 rows a text, behind prompts that took a second."""
    prompts = tuple(str(first + i) for i in range(n))
    spent = {"seconds": 1.0 + seconds, "prefill": 1.0, "tokens": 21 * n, "passes": 10, "rows": 260 * n}
    return Together(arm=arm, temperature=0.0, prompts=prompts, repeat=repeat, **spent)


BATCHES = [
    *(batch("vanilla", 2, t, i) for i, t in enumerate((2.0, 2.0, 11.0))),
    *(batch("speculative", 2, t, i) for i, t in enumerate((1.0, 4.0, 4.0))),  # 2, half and 2.75 times as fast
    *(batch(arm, 1, t, 0, first) for first in (0, 1) for arm, t in (("vanilla", 3.0), ("speculative", 1.0))),
    batch("vanilla", 4, 1.0),  # what the other arm has not done yet is not compared
    batch("vanilla", 1, 9.0, 1),
]


def test_batches() -> None:
    """Speeds are of decoding alone, of all groups of a repeat together; their ratio is the median over repeats."""
    found = {(one.texts, one.arm): one for one in figures([], BATCHES).batches}
    assert list(found) == [(1, "speculative"), (1, "vanilla"), (2, "speculative"), (2, "vanilla")]
    ours, bare = found[2, "speculative"], found[2, "vanilla"]
    assert (ours.speed, bare.speed) == (10.0, 20.0) and (ours.ratio, ours.low, ours.high) == (2.0, 0.5, 2.75)
    assert (ours.milliseconds, bare.milliseconds) == (300.0, 500.0) and ours.rows == 52 and ours.prefill == 1000.0
    assert bare.ratio == bare.low == bare.high == 1.0
    assert (found[1, "speculative"].speed, found[1, "speculative"].ratio) == pytest.approx((20.0, 3.0))


def ratio(arm: str, over: str) -> Any:
    (found,) = [one for one in figures(CALLS).ratios if (one.arm, one.over) == (arm, over)]
    return found


def test_decoding_is_timed_without_the_prompts_pass() -> None:
    """And the median over repeats is taken first, then the median over prompts."""
    vanilla = next(arm for arm in figures(CALLS).arms if arm.arm == "vanilla")
    assert vanilla.milliseconds == pytest.approx(12.0) and vanilla.prefill == pytest.approx(1000.0) and not vanilla.whole


def test_a_ratio_and_its_totals() -> None:
    """The median of ratios 2, 3 and 10; of the totals, 122 ms over 19."""
    ours = ratio("speculative", "vanilla")
    assert ours.median == pytest.approx(3.0) and ours.totals == pytest.approx(122 / 19)
    assert (ours.low, ours.high) == pytest.approx((2.0, 10.0)) and not ours.whole


def test_where_the_prompts_pass_is_not_told_apart_both_are_taken_whole() -> None:
    beside = ratio("beside", "vanilla")
    assert beside.whole and beside.median == pytest.approx((1.0 + 20 * 0.100) / 2.1)
    assert ratio("beside", "beside" + OFF).median == pytest.approx(2.0)
    other_way = ratio("speculative", "beside")
    assert other_way.whole and other_way.median == pytest.approx(2.1 / (1.0 + 20 * 0.005))


def test_tau_of_all_passes_and_of_prompts() -> None:
    """Prompts a and c took 10 passes for 20 tokens, b took 5: pooled 60 / 25, by prompt the mean of 2, 4 and 2."""
    ours = next(arm for arm in figures(CALLS).arms if arm.arm == "speculative")
    assert ours.tau == pytest.approx(60 / 25) and ours.tau_mean == pytest.approx(8 / 3)
    assert ours.accepted == (0, 60, 0, 15) and ours.target_passes == 3 * (11 + 6 + 11) and ours.rows == 9 * 260
    beside = next(arm for arm in figures(CALLS).arms if arm.arm == "beside")
    assert beside.tau is None and beside.rows is None


def test_what_is_compared() -> None:
    names = ["speculative", "vanilla", "x", "x" + OFF]
    assert compared(names) == [
        *((name, "vanilla") for name in ("speculative", "x", "x" + OFF)),
        *(("speculative", name) for name in ("x", "x" + OFF)),
        ("x", "x" + OFF),
    ]


def test_the_interval_of_a_median() -> None:
    """Of two values the redrawn median is either, a quarter of the time each: both ends are in the middle 95 %."""
    assert interval([5.0]) == (5.0, 5.0)
    assert interval([1.0, 3.0]) == (1.0, 3.0)
    low, high = interval([float(i) for i in range(1, 1002)])
    # The order statistics of a binomial: 501 ± 1.96 * sqrt(1001) / 2.
    assert (low, high) == pytest.approx((470, 532), abs=3)


def test_counts_add() -> None:
    one, two = counted([(26, 6), (26, 0)], 3, 12), counted([(5, 1)], 2, None)
    assert one.accepted == (1, 0, 0, 0, 0, 0, 1) and one.rows == 52
    assert added([one, two]) == Counts(target_passes=5, head_passes=None, rows=57, accepted=(1, 1, 0, 0, 0, 0, 1))


HEADER = Header(
    started="2026-01-02T03:04:05+00:00",
    command="eagle2 bench",
    commit="0123456789ab",
    settings=Settings(temperatures=(0.0,)),
    machine={"processor": "made up <b>", "cores": "2", "threads": "2"},
    versions={"torch": "2.13"},
    arms={"speculative": "ours"},
    prompts=(Asked(id="a", kind="test", length=3, digest="00"),),
)
LINES: list[Line] = [
    *CALLS,
    Steps(arm="speculative", temperature=0.0, steps=5, milliseconds={"target pass": 3.0, "rest": 0.5}),
    Cost(what="target", rows=1, behind=200, n=40, median=3.0, low=2.5, high=float("inf")),
    Point(temperature=0.0, m=25, passes=10, tokens=50, rows=260),
]
FOOTER = Footer(finished="2026-01-02T03:05:05+00:00", seconds=60.0, memory={"process": 300.0}, figures=figures(CALLS))


def test_the_sentence_is_of_ours_alone() -> None:
    told = sentence(Record(header=HEADER, lines=tuple(CALLS), footer=None))
    assert told == "Decoding with the head is, at temperature 0, 3.00 times (2.00–10.00) as fast as the same loop without drafts."


def test_a_tuned_budget_has_a_sentence_of_its_own() -> None:
    renamed = [call.model_copy(update={"arm": "tuned"}) for call in CALLS if call.arm == "speculative"]
    told = sentence(Record(header=HEADER, lines=(*CALLS, *renamed), footer=None))
    assert told.endswith(
        " With a tuned budget it is, at temperature 0, 3.00 times (2.00–10.00) as fast as the same loop without drafts."
    )


def test_the_parts_of_a_step_are_told_as_shares() -> None:
    one = Steps(arm="vanilla", temperature=0.0, steps=5, milliseconds={"target pass": 3.0, "rule": 0.75, "rest": 0.25})
    assert show.parts([one]).rows == (("0", "vanilla", "4.00", "75%", "", "", "19%", "", "6%"),)


def test_at_a_glance_there_is_a_row_an_arm() -> None:
    """How many times as fast as vanilla, as transformers and as its own control, where it has been compared with them."""
    cells = show.glance(Record(header=HEADER, lines=tuple(CALLS), footer=None))
    rows = {row[1]: dict(zip(cells.columns, row, strict=True)) for row in cells.rows}
    assert [rows["speculative"][name] for name in ("× vanilla", "95 %", "τ")] == ["3.00", "2.00–10.00", "2.40"]
    assert rows["vanilla"]["× vanilla"] == "" and rows["speculative"]["× control"] == ""
    assert rows["beside"]["× control"] == "2.00*" and rows["beside"]["τ"] == ""
    assert [cells.rows[i][1] for i in cells.heavy] == ["speculative"]


def recorded(folder: Path, *lines: Line) -> Path:
    with Writer(folder / RECORD, HEADER) as writer:
        writer.write(*lines)
    return folder / RECORD


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    record = read(recorded(tmp_path, *LINES, FOOTER))
    assert record == Record(header=HEADER, lines=tuple(LINES), footer=FOOTER) == read(tmp_path)
    assert figures(record.of(Call)) == FOOTER.figures


def test_a_run_that_was_cut_off_has_lost_nothing_but_its_end(tmp_path: Path) -> None:
    """Every line is on disk at once. Half a line is left out; what asks for a whole run refuses it."""
    path = tmp_path / RECORD
    with Writer(path, HEADER) as writer:
        for n, line in enumerate(LINES, start=1):
            writer.write(line)
            assert len(read(path).lines) == n
    with path.open("a") as file:
        file.write(LINES[0].model_dump_json()[:40])
    assert read(path).lines == tuple(LINES) and read(path).footer is None
    with pytest.raises(BadInput, match="no footer"):
        read(path, whole=True)


DAMAGED: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a line": (lambda lines: [lines[0], lines[1].replace('"tokens":21', '"tokens":"x"'), *lines[2:]], "line 2 is not a line"),
    "no header": (lambda lines: lines[1:], "no header"),
    "two runs": (lambda lines: lines + lines, "more than one run"),
    "no call": (lambda lines: lines[:1], "no timed call"),
    "nothing": (lambda _lines: [], "is empty"),
    "a strange field": (lambda lines: [lines[0].replace('"format":1', '"format":2'), *lines[1:]], "line 1 is not a line"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_record_is_refused(damage: str, tmp_path: Path) -> None:
    path = recorded(tmp_path, *LINES, FOOTER)
    change, told = DAMAGED[damage]
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(BadInput, match=told):
        read(path)


def changed(**fields: Any) -> Record:
    """A record whose own arm has other counts."""
    arms = [arm.model_copy(update=fields if arm.arm == "speculative" else {}) for arm in FOOTER.figures.arms]
    footer = FOOTER.model_copy(update={"figures": FOOTER.figures.model_copy(update={"arms": tuple(arms)})})
    return Record(header=HEADER, lines=tuple(CALLS), footer=footer)


@pytest.mark.parametrize("count", ["tau", "target_passes", "head_passes", "rows"])
@pytest.mark.parametrize(("factor", "red"), [(0.97, True), (0.985, False), (1.0, False), (1.015, False), (1.03, True)])
def test_against_an_earlier_run_counts_are_judged_both_ways(count: str, factor: float, red: bool) -> None:
    before = changed()
    told, was = count.replace("_", " "), next(getattr(arm, count) for arm in FOOTER.figures.arms if arm.arm == "speculative")
    moved = [name for row in against(changed(**{count: was * factor}), before) for name in row.moved]
    assert moved == ([count] if red else [])
    shown = show.moved(against(changed(**{count: was * factor}), before))
    assert [row[-1] for i, row in enumerate(shown.rows) if i in shown.heavy] == (["τ" if count == "tau" else told] if red else [])


def test_wall_clock_is_not_judged() -> None:
    assert not any(row.moved for row in against(changed(milliseconds=1000.0, prefill=0.1), changed()))


def test_tuned_arms_are_compared_where_they_have_the_same_budget() -> None:
    """What the clock chose otherwise this time has other counts, and nothing has moved."""

    def run(k: int, rows: int) -> Record:
        arms = FOOTER.figures.arms
        mine = next(arm for arm in arms if arm.arm == "speculative").model_copy(update={"arm": "tuned", "rows": rows})
        footer = FOOTER.model_copy(update={"figures": FOOTER.figures.model_copy(update={"arms": (*arms, mine)})})
        shape = {"depth": 2, "m": 2, "head_temperature": 1.0, "node": 0.0, "layer": 0.0}
        chosen = Tried(k=k, **shape, rate=1.0, tau=2.0, rows=3.0, layers=2.0)
        tuned = Tuned(temperature=0.0, chosen=chosen, vanilla=0.5, tried=(chosen,))
        return Record(header=HEADER, lines=(tuned, *CALLS), footer=footer)

    assert [row.moved for row in against(run(2, 900), run(2, 100)) if row.now.arm == "tuned"] == [["rows"]]
    assert "tuned" not in {row.now.arm for row in against(run(2, 900), run(3, 100))}
    assert "speculative" in {row.now.arm for row in against(run(2, 900), run(3, 100))}


def test_a_count_that_is_told_on_one_side_alone_has_moved() -> None:
    assert off(None, 3) and off(3, None) and not off(None, None) and off(1, 0) and not off(0, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": Settings(temperatures=(0.0,), m=24)}, "had m 25, this one has 24"),
        ({"settings": Settings(temperatures=(0.0,), repeats=1)}, "had repeats 3, this one has 1"),
        ({"prompts": (Asked(id="a", kind="test", length=3, digest="01"),)}, "not have the same prompts: a differs"),
        ({"prompts": ()}, "not have the same prompts: a differs"),
    ],
)
def test_only_like_is_compared_with_like(change: dict[str, Any], told: str) -> None:
    now = changed().model_copy(update={"header": HEADER.model_copy(update=change)})
    with pytest.raises(BadInput, match=told):
        against(now, changed())


def test_what_no_count_hangs_on_may_differ() -> None:
    other = HEADER.model_copy(update={"settings": Settings(temperatures=(0.0,), threads=1, transformers=False)})
    assert against(changed().model_copy(update={"header": other}), changed())
