"""The report says what a verdict is worth: where a fault is and how to see it again, the statement, the error budget."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness import terminal
from harness.report import trees, view, words
from properties.meta.helpers.records import (
    HOSTILE,
    INSTANCE,
    TEXT,
    clean,
    hostile,
    mixed,
    record,
    rendered,
    result,
)


def test_the_statement_is_three_lines_that_are_never_merged(tmp_path: Path) -> None:
    files = rendered(mixed(), tmp_path)
    page = files["index.html"]
    part = page[page.index('id="statement"') : page.index('id="matrix"')]
    assert re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", part) == [
        ("exact", "Enumerated: 7."),
        ("logits", "Measured: 8."),
        ("sampled", "Samples: 9."),
    ]
    lines = [line for line in files["summary.md"].splitlines() if line.startswith(("- **exact", "- **logits", "- **sampled"))]
    assert lines == ["- **exact** Enumerated: 7.", "- **logits** Measured: 8.", "- **sampled** Samples: 9."]
    silent = rendered(clean(), tmp_path)
    assert "How far from the target" not in silent["index.html"] + silent["summary.md"]


@pytest.mark.parametrize(
    ("probability", "often"),
    [(2.7e-7, "2.7e-07; at 50 runs a day once in 200 years"), (1e-3, "0.001; at 50 runs a day once in 0.055 years")],
)
def test_the_error_budget_is_told_in_years(probability: float, often: str) -> None:
    start = "A correct implementation is called a fault by such a run with probability at most "
    assert words.false_alarm(probability) == f"{start}{often}."


def test_the_error_budget_stands_beside_the_p_values_or_alone(tmp_path: Path) -> None:
    page = rendered(mixed(), tmp_path)["index.html"]
    part = page[page.index('id="p-values"') : page.index('id="evidence"')]
    assert words.false_alarm(2.7e-7) in part and "Diagnostics among them: 1;" in part
    few = mixed().model_copy(update={"results": ()})
    assert words.false_alarm(2.7e-7) in rendered(few, tmp_path)["index.html"]
    assert "is called a fault by such a run" not in rendered(clean(), tmp_path)["index.html"]


def test_diagnostics_are_drawn_with_the_other_p_values(tmp_path: Path) -> None:
    told = result("LAW-7", "streams", diagnostics={f"test {i}": i / 10 for i in range(5)})
    page = rendered(record(told), tmp_path)["index.html"]
    assert "the 5 p-values" in page and "p-value, test 3 <b>0.3</b>" in page


def test_a_fault_is_told_with_its_place_and_its_replay(tmp_path: Path) -> None:
    page = rendered(mixed(), tmp_path)["index.html"]
    wrong = page[page.index('id="faults"') : page.index('id="statement"')]
    assert "<code>eagle2 replay LAW-2.10</code>" in wrong
    assert (
        '<p class="likeness">looks like M04 (The bonus is stale, SafeAILab/EAGLE PR 47), fit 0.98, on LAW-4 on coin4</p>' in wrong
    )
    row = page[page.index('<tbody id="LAW-2.10">') :]
    assert "token 1 came: the target gives it 0.25" in row and "<code>eagle2 replay LAW-2.10</code>" in row
    assert page.count("eagle2 replay") == 5, "two faults, each told twice, and a known one; what is no fault promises no replay"


def test_an_id_on_the_page_finds_its_result() -> None:
    of = mixed()
    assert view.find(of, "LAW-2.10").result is of.results[16] and of.results[16].case == "bad"
    with pytest.raises(BadInput, match=r"no result 'LAW-2.99'\n +its faults are LAW-1.2, LAW-1.3 and LAW-2.10$"):
        view.find(of, "LAW-2.99")
    with pytest.raises(BadInput, match="it holds no fault"):
        view.find(clean(), HOSTILE)


def test_a_witness_in_words() -> None:
    assert words.witness(TEXT) == (
        "After the prompt 2 3 2 (3 tokens), at new token 4 (the first is 0), token 1 came: the target gives it 0.25, the"
        " implementation gives it 0.5."
    )
    assert words.witness(INSTANCE) == "In a tree of 3 nodes, after node 2, token 1 came where 0 was due."
    long = TEXT.model_copy(update={"prompt": tuple(range(500)), "p": None, "q": None})
    assert words.witness(long).startswith("After the prompt … 488 489 ") and "(500 tokens)" in words.witness(long)


def test_the_tree_of_a_witness_is_drawn_to_the_bad_node(tmp_path: Path) -> None:
    picture = trees.witness(INSTANCE)
    assert picture is not None and (picture.path, picture.emitted) == ((1, 2), "1")
    assert trees.witness(TEXT) is None
    page = rendered(record(result("LAW-2", "", "fault", witness=INSTANCE), verdict="fault"), tmp_path)["index.html"]
    assert page.count('<figure class="tree fault">') == 1 and "Witness: after node 2 came token 1" in page


@pytest.mark.parametrize("parents", [(), (1, 2, 1), (-9, 99, 2), (2, 2, 2)], ids=str)
def test_a_witness_that_is_no_tree_is_drawn_all_the_same(parents: tuple[int, ...], tmp_path: Path) -> None:
    odd = INSTANCE.model_copy(update={"parents": parents})
    assert "Witness" in rendered(record(result("LAW-2", "", "fault", witness=odd), verdict="fault"), tmp_path)["index.html"]


# --- the terminal --------------------------------------------------------------------------------------------------


def test_the_terminal_tells_what_a_verdict_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(mixed(), Path("reports/latest"))
    said = " ".join(capsys.readouterr().out.split())
    for told in ("eagle2 replay LAW-2.10 ", "looks like M04", "exact Enumerated: 7.", "logits Measured: 8.", "once in 200 years"):
        assert told in said


def test_the_terminal_is_given_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_record(hostile(), None)
    said = capsys.readouterr().out
    assert "alert(1)" in said and not [c for c in said if not c.isprintable() and c != "\n"]
