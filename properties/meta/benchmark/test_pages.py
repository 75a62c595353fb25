"""What a reader sees of a record. Wording is compared with snapshots: a change of wording is one diff to review."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from eagle2_ref.errors import BadInput
from harness.benchmark import pages
from harness.benchmark.record import (
    BenchRecord,
    BudgetPoint,
    Call,
    CompareRecord,
    Divergence,
    Reliability,
    StepProfile,
    read_bench,
    read_comparison,
)
from harness.benchmark.regression import compare_with
from harness.benchmark.result_plots import method_plot, prompt_plot, published_plots
from harness.benchmark.settings import CompareSettings
from harness.report.layout import html, markdown
from properties.meta.benchmark.examples import (
    BENCH_RECORD,
    CALLS,
    FAULT,
    IN_ORDER,
    KINDS,
    PLAIN,
    TIE,
    bench_call,
    compare_record,
    entrant,
    method_call,
)

ROOT = Path(__file__).parents[3]
COMPARE_RECORD = compare_record(
    PLAIN | IN_ORDER | {"eagle2": [4, 5, 4], "eagle": [3, 4, 3]},
    TIE,
    StepProfile(arm="vanilla", temperature=0.0, steps=9, milliseconds={"target pass": 1.5, "rest": 0.5}),
    StepProfile(arm="eagle2", temperature=0.0, steps=9, milliseconds={"target pass": 2.0, "drafting": 3.0}),
    *(BudgetPoint(tree="chain", temperature=0.0, m=m, passes=10, tokens=20 + m, rows=10 * m) for m in (1, 8)),
    *(line for line in BENCH_RECORD.lines if isinstance(line, Reliability)),
    left_out={"ghost": "x has no checkpoint 'small', which this method drafts with"},
)


def terminal(show: Any, *arguments: Any) -> str:
    """Output on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    show(*arguments, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_bench_page(snapshot: SnapshotAssertion) -> None:
    assert markdown(pages.bench_page(BENCH_RECORD)) == snapshot


def test_compare_page(snapshot: SnapshotAssertion) -> None:
    assert markdown(pages.compare_page(COMPARE_RECORD)) == snapshot


def test_bench_on_a_terminal(snapshot: SnapshotAssertion) -> None:
    assert terminal(pages.show_page, pages.bench_page(BENCH_RECORD)) == snapshot


def test_comparison_on_a_terminal(snapshot: SnapshotAssertion) -> None:
    assert terminal(pages.show_page, pages.compare_page(COMPARE_RECORD)) == snapshot


def test_regression_on_a_terminal(snapshot: SnapshotAssertion) -> None:
    arms = tuple(arm.model_copy(update={"rows": 9}) if arm.rows else arm for arm in BENCH_RECORD.footer.figures.arms)  # type: ignore[union-attr]
    figures = BENCH_RECORD.footer.figures.model_copy(update={"arms": arms})  # type: ignore[union-attr]
    before = replace(BENCH_RECORD, footer=BENCH_RECORD.footer.model_copy(update={"figures": figures}))  # type: ignore[union-attr]
    assert terminal(pages.show_regression, compare_with(BENCH_RECORD, before), before) == snapshot
    assert "No count changed" in terminal(pages.show_regression, compare_with(BENCH_RECORD, BENCH_RECORD), BENCH_RECORD)


def test_sections_of_the_documentation(snapshot: SnapshotAssertion) -> None:
    assert pages.bench_section(BENCH_RECORD) == snapshot(name="bench")
    assert pages.compare_section(COMPARE_RECORD) == snapshot(name="compare")


def test_page_starts_with_its_answer_and_a_table_or_plot() -> None:
    for page in (pages.bench_page(BENCH_RECORD), pages.compare_page(COMPARE_RECORD)):
        assert page.answer.count(". ") == 0 and page.answer.endswith(".")
        assert page.sections[0].blocks[0].block in ("table", "drawing")


def test_answer_of_bench_names_the_head_and_the_tuned_budget() -> None:
    tuned = [call.model_copy(update={"arm": "tuned"}) for call in CALLS if call.arm == "speculative"]
    record = replace(BENCH_RECORD, lines=(*CALLS, *tuned), footer=None)
    assert pages.bench_answer(record).count("3.00 times") == 2 and pages.bench_answer(BENCH_RECORD).count("3.00 times") == 1
    assert "No arms" in pages.bench_answer(replace(record, lines=tuple(call for call in CALLS if call.arm == "vanilla")))


def test_answer_of_compare_names_the_longest_and_the_fastest_method() -> None:
    best = pages.compare_answer(compare_record(PLAIN | {"eagle2": [4, 4, 4], "lookup": [5, 5, 5]}))
    assert "EAGLE2" in best and "5.00" in best and "LOOKUP" not in best
    slow = [method_call("eagle2", prompt, 4, 8.0) for prompt in KINDS]
    entrants = (entrant("eagle2"), entrant("lookup"))
    other = pages.compare_answer(compare_record(PLAIN | {"lookup": [5, 5, 5]}, *slow, entrants=entrants))
    assert "EAGLE2 emits the most" in other and "LOOKUP is the fastest, 4.00 times" in other


def test_expected_order_in_words() -> None:
    holds = pages.order_answer(compare_record(PLAIN | IN_ORDER))
    assert "EAGLE2 > EAGLE > MEDUSA > LOOKUP" in holds and "all 3" in holds
    fails = pages.order_answer(compare_record(PLAIN | IN_ORDER | {"eagle2": [4, 5, 4], "eagle": [3, 4, 3]}))
    assert "2 of 3" in fails and "fails for EAGLE2 > EAGLE" in fails
    undecided = pages.order_answer(compare_record(PLAIN | IN_ORDER | {"eagle2": [3, 9, 3]}))
    assert "undecided for EAGLE2 > EAGLE" in undecided
    assert pages.order_answer(compare_record(PLAIN | {"eagle2": [4, 4, 4]})) == ""


def test_greedy_texts_that_differ_are_ties_or_break_the_method() -> None:
    runs = [compare_record(PLAIN | IN_ORDER, *lines) for lines in ((), (TIE,), (TIE, FAULT))]
    assert [pages.is_broken(run) for run in runs] == [False, False, True]
    equal, tie, broken = map(pages.greedy_answer, runs)
    assert "all 12 texts" in equal and "11 of 12 texts" in tie and "rounding explains: 1; other differences: 0." in tie
    assert "10 of 12 texts" in broken and "rounding explains: 1; other differences: 1, of eagle." in broken
    warm = compare_record(PLAIN, settings=CompareSettings(temperatures=(1.0,)), entrants=(entrant("eagle2"),))
    assert "was not measured" in pages.greedy_answer(warm)
    page = pages.compare_page(runs[2])
    assert page.verdict == "fault" and "BROKEN" in page.warning and pages.compare_page(runs[1]).verdict != "fault"


# --- plots ----------------------------------------------------------------------------------------------------------------


def test_method_plot_shows_measured_figures_and_published_plots_look_different() -> None:
    record = compare_record(PLAIN | {"eagle2": [4, 4, 4], "lookup": [8, 8, 8]})
    measured = method_plot(record, "methods", "Methods", record.header.entered).svg
    assert measured.count(">5.00<") == 2 and ">T = 0<" in measured and ">EAGLE2<" in measured
    fills = [set(re.findall(r"fill:var\(--(\w+),", plot)) for plot in (measured, next(published_plots()).svg)]
    assert "tie" in fills[0] - fills[1]


def test_prompts_whose_names_start_alike_have_rows_of_their_own() -> None:
    names = ["a very long prompt 1", "a very long prompt 2", "b"]
    calls = [bench_call(arm, name, 2.0 + i) for i, arm in enumerate(("vanilla", "speculative")) for name in names]
    svg = prompt_plot(calls, 0.0).svg
    assert ">a very long prom (1)<" in svg and ">a very long prom (2)<" in svg and ">b<" in svg


# --- text of a record is untrusted ----------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\x07"


def hostile_bench() -> BenchRecord:
    fields = {"command": EVIL, "commit": EVIL, "machine": {EVIL: EVIL}, "versions": {EVIL: EVIL}, "arms": {EVIL: EVIL}}
    settings = BENCH_RECORD.header.settings.model_copy(update={"pair": EVIL, "prompts": EVIL})
    lines = [line.model_copy(update={"prompt": EVIL} if isinstance(line, Call) else {}) for line in BENCH_RECORD.lines]
    header = BENCH_RECORD.header.model_copy(update={**fields, "settings": settings})
    profile = StepProfile(arm=EVIL, temperature=0.0, steps=1, milliseconds={"rest": 1.0})
    return replace(BENCH_RECORD, header=header, lines=(*BENCH_RECORD.lines, *lines, profile), footer=None)


def hostile_comparison() -> CompareRecord:
    header = COMPARE_RECORD.header
    settings = header.settings.model_copy(update={"pair": EVIL, "prompts": EVIL})
    entrants = tuple(
        one.model_copy(update={"title": f"{EVIL}{i}", "paper": EVIL, "rule": EVIL}) for i, one in enumerate(header.entered)
    )
    prompts = tuple(one.model_copy(update={"kind": f"{EVIL}{i}"}) for i, one in enumerate(header.prompts))
    fields = {"entered": entrants, "prompts": prompts, "settings": settings, "left_out": {EVIL: EVIL}, "command": EVIL}
    evil = Divergence(arm=EVIL, prompt=EVIL, at=0, emitted=0, expected=1, margin=1.0, noise=0.0)
    return replace(COMPARE_RECORD, header=header.model_copy(update=fields), lines=(*COMPARE_RECORD.lines, evil))


@pytest.mark.parametrize("command", ["bench", "compare"])
def test_text_of_a_record_has_no_effect(command: str) -> None:
    page = pages.bench_page(hostile_bench()) if command == "bench" else pages.compare_page(hostile_comparison())
    assert "<script" not in html(page) and "https://" not in re.sub(r"https://[\w./-]+</", "", html(page))
    assert not re.search(r"(?<!\\)<script", re.sub("`.*`", "", markdown(page)))
    assert "\x07" not in html(page) + markdown(page) + terminal(pages.show_page, page)
    for drawing in page.drawings():
        ElementTree.fromstring(drawing.standalone())  # noqa: S314  we wrote it


# --- sections of the documentation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["bench", "compare"])
def test_documentation_has_the_section_of_the_committed_record(command: str) -> None:
    folder = ROOT / "reports" / command
    if command == "bench":
        mark, section = pages.BENCH_MARK, pages.bench_section(read_bench(folder, whole=True))
    else:
        mark, section = pages.COMPARE_MARK, pages.compare_section(read_comparison(folder, whole=True))
    file = ROOT / pages.SECTION_FILE
    text = file.read_text(encoding="utf-8")
    assert pages.replace_section(text, section, mark, file) == text, f"run `eagle2 {command} --readme reports/{command}`"


def test_section_is_written_between_its_marks(tmp_path: Path) -> None:
    file, mark = tmp_path / "benchmarks.md", pages.BENCH_MARK
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    file.write_text(f"before {begin}\nold\n{end} after\n")
    assert pages.write_section("new", mark, file) == file
    assert file.read_text() == f"before {begin}\nnew\n{end} after\n"
    for wrong in ("no marks", f"{end} {begin}", f"{begin}{begin}{end}"):
        with pytest.raises(BadInput, match="no section"):
            pages.replace_section(wrong, "", mark, file)
    with pytest.raises(BadInput, match="no file"):
        pages.write_section("new", mark, tmp_path / "nowhere.md")
