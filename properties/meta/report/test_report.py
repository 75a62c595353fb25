"""The report says what the record says: all of it, first what is wrong, and nothing that the record's text smuggles in."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from harness import report
from harness.record.model import (
    CountPicture,
    LawPicture,
    Property,
    Record,
    TreePicture,
    Verdict,
)
from harness.report import svg_paths as plots
from harness.report import trees, words
from properties.meta.helpers.records import (
    COUNTS,
    LAW,
    TREE,
    Page,
    clean,
    hostile,
    mixed,
    record,
    rendered,
    result,
)


def junit(of: Record, out: Path) -> ET.Element:
    return ET.fromstring(rendered(of, out)["junit.xml"])  # noqa: S314 - our own text, and it has no document type


@pytest.fixture(params=[mixed, hostile, clean, record], ids=["mixed", "hostile", "clean", "empty"])
def any_record(request: pytest.FixtureRequest) -> Record:
    made = request.param()
    assert isinstance(made, Record)
    return made


def test_four_files_are_written_and_nothing_else(any_record: Record, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    assert [path.name for path in report.render(any_record, out)] == ["index.html", "summary.md", "junit.xml", "badge.json"]
    assert sorted(path.name for path in out.iterdir()) == ["badge.json", "index.html", "junit.xml", "summary.md"]


def test_the_same_record_renders_to_the_same_bytes(any_record: Record, tmp_path: Path) -> None:
    again = Record.model_validate_json(any_record.model_dump_json())
    assert rendered(any_record, tmp_path / "a") == rendered(again, tmp_path / "b")


def test_the_page_is_nested_and_its_links_arrive(any_record: Record, tmp_path: Path) -> None:
    page = Page(rendered(any_record, tmp_path)["index.html"])
    ids = Counter(page.values("id"))
    assert max(ids.values()) == 1
    assert {href[1:] for href in page.values("href") if href.startswith("#")} <= set(ids)


def test_the_page_fetches_nothing_and_runs_nothing(any_record: Record, tmp_path: Path) -> None:
    text = rendered(any_record, tmp_path)["index.html"]
    page = Page(text)
    assert not set(page.tags) & {"script", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    names = {name for _, name, _ in page.attributes}
    assert not names & {"src", "srcset", "srcdoc", "xlink:href", "action", "data"} and not [
        n for n in names if n.startswith("on")
    ]
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src 'none'" in text


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    text = rendered(hostile(), tmp_path)["index.html"]
    assert "<script" not in text and "<img" not in text
    assert "{{ 7*7 }}" in "".join(Page(text).words)
    assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_every_property_and_case_is_on_the_page(tmp_path: Path) -> None:
    of = mixed()
    page = Page(rendered(of, tmp_path)["index.html"])
    said = "\n".join(page.words)
    for each in of.results:
        assert each.property in said and f"What {each.property} asks." in said
        assert each.case in said and each.summary in said and each.replay in said
    cells = [value for tag, name, value in page.attributes if (tag, name) == ("a", "title")]
    assert len(cells) == len(of.results)
    assert all(any(each.case in cell and f"{each.verdict}: {each.summary}" in cell for cell in cells) for each in of.results)


def test_faults_come_first_and_are_never_folded(tmp_path: Path) -> None:
    mostly: list[Verdict] = ["pass", "fault", "inconclusive"] * 6
    page = Page(
        rendered(record(*(result("LAW-2", str(i), v) for i, v in enumerate(mostly)), verdict="fault"), tmp_path)["index.html"]
    )
    rows = [value for tag, name, value in page.attributes if (tag, name) == ("tbody", "id")]
    verdicts = [mostly[int(row.removeprefix("LAW-2.")) - 1] for row in rows]
    assert verdicts == ["fault"] * 6 + ["inconclusive"] * 6 + ["pass"] * 6
    assert page.folded == set(rows[12:])


def test_every_picture_has_a_line_on_how_to_read_it(tmp_path: Path) -> None:
    page = Page(rendered(mixed(), tmp_path)["index.html"])
    drawn = Counter(value.split()[0] for tag, name, value in page.attributes if (tag, name) == ("figure", "class"))
    assert drawn == {"law": 4, "tree": 1, "count": 1, "uniform": 1}
    assert sum("reading" in value.split() for value in page.values("class")) == sum(drawn.values())
    assert "10 more pictures of this property are in the record." in page.words


@pytest.mark.parametrize(("many", "drawn"), [(4, False), (5, True)])
def test_p_values_are_drawn_from_five_on(many: int, drawn: bool, tmp_path: Path) -> None:
    of = record(*(result("LAW-4", str(i), p_value=i / 10) for i in range(many)))
    assert ("All p-values" in rendered(of, tmp_path)["index.html"]) == drawn


def test_nothing_in_the_record_is_lost_for_want_of_a_place(tmp_path: Path) -> None:
    silent = Property(id="STOP-9", chapter="stop", requirement="Nobody ran this.")
    files = rendered(record(result("NEW-1", "stray", "fault"), properties=(silent,), verdict="fault", exit_code=1), tmp_path)
    assert "Nobody ran this." in files["index.html"] and "No case was run." in files["index.html"]
    assert "NEW-1.1" in Page(files["index.html"]).values("id")
    assert "no case was run" in files["summary.md"] and "stray" in files["summary.md"] and "stray" in files["junit.xml"]


def test_a_typical_page_is_light(tmp_path: Path) -> None:
    """120 results of 15 properties, each result of six properties with a large picture."""
    parents, values = (-1, *((i - 1) // 3 for i in range(1, 60))), tuple(-0.1 * i for i in range(60))
    tree = TreePicture(title="Step", tokens=(" name",) * 60, parents=parents, values=values, path=(1, 4), emitted="\n")
    even = (1 / 400,) * 400
    law = LawPicture(title="Law", outcomes=tuple(f"outcome {i}" for i in range(400)), expected=even, observed=even, n=9)
    drawn = {"LAW-1": (law,), "LAW-2": (law,), "LAW-3": (law,), "LAW-4": (law,), "TREE-1": (tree,), "TREE-2": (tree,)}
    names = [f"{chapter}-{i}" for chapter in ("LAW", "TREE", "STOP") for i in range(1, 6)]
    seen = [result(n, f"T=1, k=8 depth=6 m=59, {i}", pictures=drawn.get(n, ()), replay="r" * 80) for n in names for i in range(8)]
    assert len(rendered(record(*seen), tmp_path)["index.html"].encode()) < 300_000


def test_endless_text_is_cut_and_said_to_be(tmp_path: Path) -> None:
    endless = result("LAW-1", "x" * 10**6, "fault", summary="y" * 10**6, replay="z" * 10**6)
    files = rendered(record(endless, verdict="fault"), tmp_path)
    assert all(len(text) < 60_000 for text in files.values())
    assert "more characters in the record" in files["index.html"]


def test_junit_counts_agree_and_a_missing_answer_is_an_error(any_record: Record, tmp_path: Path) -> None:
    root = junit(any_record, tmp_path)
    suite = root.find("testsuite")
    assert suite is not None
    elements = {"failure": ("fault",), "error": ("inconclusive", "blocked"), "skipped": ("n/a", "known")}
    wanted = {kind: sum(each.verdict in verdicts for each in any_record.results) for kind, verdicts in elements.items()}
    assert {kind: len(suite.findall(f"testcase/{kind}")) for kind in wanted} == wanted
    assert [suite.get(name) for name in ("failures", "errors", "skipped")] == [str(n) for n in wanted.values()]
    assert suite.get("tests") == root.get("tests") == str(len(any_record.results)) == str(len(suite.findall("testcase")))


def test_junit_names_the_case_and_how_to_see_it_again(tmp_path: Path) -> None:
    root = junit(mixed(), tmp_path)
    cases = {case.get("name"): case for case in root.iter("testcase")}
    bad = cases["LAW-2 [bad]"]
    failure = bad.find("failure")
    assert bad.get("classname") == "law" and failure is not None and failure.get("message") == "seen in bad"
    assert failure.text is not None and "chi-square: 1984" in failure.text and "replay: replay bad" in failure.text
    assert "replay: eagle2 replay LAW-2.10" in failure.text and "p-value, Neyman: 0.0123" in failure.text
    broken = cases["COUNT-1 [counted]"].find("error")
    assert broken is not None and broken.get("type") == "broken"


def test_the_summary_lists_each_fault_with_its_replay(tmp_path: Path) -> None:
    summary = rendered(mixed(), tmp_path)["summary.md"]
    assert summary.startswith("## ✗ fault: `ref`")
    faults = summary[summary.index("### Faults") : summary.index("### Known faults")]
    assert [line for line in faults.splitlines()[2:] if line] == [
        "- **LAW-1** verdict fault: seen in verdict fault",
        "  `eagle2 replay LAW-1.2`",
        "  `replay fault`",
        "- **LAW-2** bad: seen in bad",
        "  After the prompt 2 3 2 (3 tokens), at new token 4 (the first is 0), token 1 came: the target gives it 0.25, the"
        " implementation gives it 0.5.",
        "  `eagle2 replay LAW-2.10`",
        "  `replay bad`",
        "- looks like M04 (The bonus is stale, SafeAILab/EAGLE PR 47), fit 0.98, on LAW-4 on coin4",
    ]
    assert "| LAW-2 | What LAW-2 asks. | 1 |  |  |  |  | 9 |  |" in summary


def test_the_summary_of_hostile_text_keeps_its_shape(tmp_path: Path) -> None:
    summary = rendered(hostile(), tmp_path)["summary.md"]
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == 3 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    prose = re.sub(r"(`+).+?\1(?!`)", "", re.sub(r"\\.", "", summary))
    assert "<" not in prose and "://" not in prose and "[" not in prose


def test_the_badge_is_what_shields_reads(any_record: Record, tmp_path: Path) -> None:
    badge = json.loads(rendered(any_record, tmp_path)["badge.json"])
    assert badge["schemaVersion"] == 1 and set(badge) == {"schemaVersion", "label", "message", "color"}
    assert badge["message"].startswith(any_record.footer.verdict)


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_the_overall_verdict_is_the_footers(verdict: Verdict, tmp_path: Path) -> None:
    of = record(*(result("LAW-1", v, v) for v in get_args(Verdict)), verdict=verdict)
    files = rendered(of, tmp_path)
    words_ = re.search(r'class="word">.*?</span> (.*?)</p>', files["index.html"])
    assert words_ is not None and words_[1] == verdict
    assert words.sentence(of) in files["index.html"]


def test_the_sentence_claims_no_more_than_was_judged() -> None:
    broken = result("LAW-1", "a", "inconclusive", broken=True)
    said = {
        "nothing tells its output from that of the target model": record(result("LAW-1", "a"), result("TREE-1", "b")),
        "1 check found no fault, but none of them judged the emitted text": record(result("SMOKE-1", "a")),
        "0 checks found no fault, but none of them judged the emitted text": record(),
        "is not the target model’s": record(result("LAW-1", "a", "fault"), verdict="fault"),
        "none of them in the emitted text": record(result("TREE-1", "a", "fault"), verdict="fault"),
        "raised, hung or answered nonsense in 1 of 1 check": record(broken, verdict="inconclusive", exit_code=4),
    }
    assert [claim for claim, of in said.items() if claim not in words.sentence(of)] == []


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rendered(clean(), tmp_path)

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        report.render(mixed(), tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == before


def test_a_tree_that_is_none_is_drawn_all_the_same(tmp_path: Path) -> None:
    """A faulty tree is the one that has to be looked at: parents out of range, too few values, a path that leads nowhere."""

    def tree(tokens: int, parents: tuple[int, ...], values: tuple[float, ...], path: tuple[int, ...]) -> TreePicture:
        return TreePicture(title="Odd", tokens=("a",) * tokens, parents=parents, values=values, path=path, emitted="")

    wrong = tree(6, (3, 2, 1, 99, -5, 0), (5.0, math.inf, math.nan), (0, 77, -3, 5))
    nothing, deep = tree(0, (), (), ()), tree(2000, tuple(range(-1, 1999)), (0.0,) * 2000, tuple(range(2000)))
    assert [node.style for node in trees.tree(wrong).nodes] == ["root", "stray", "idle", "stray", "stray", "path", "emitted"]
    text = rendered(record(result("TREE-1", "wrong", pictures=(wrong, nothing, deep))), tmp_path)["index.html"]
    assert not re.search(r'(\bd|x|y|r|cx|cy|width|height|viewBox|opacity)="[^"]*(nan|inf)', text)
    assert text.count('class="emitted"') == 3


def test_an_emitted_token_hangs_on_the_end_of_the_accepted_path() -> None:
    drawn = trees.tree(TREE)
    end, emitted = drawn.nodes[3], drawn.nodes[-1]
    assert emitted.text == "(" and emitted.x > end.x and drawn.last.startswith("M") and drawn.path.count("M") == 2
    assert drawn.nodes[2].text == "\\n" and drawn.nodes[1].text == "␣f"
    assert drawn.nodes[1].r ** 2 / drawn.nodes[0].r ** 2 == pytest.approx(math.exp(-0.3))


def test_marks_of_a_law_lie_where_the_numbers_are() -> None:
    flat = LawPicture(title="", outcomes=("a", "b"), expected=(0.5, 0.25), observed=(0.5, 0.25), n=0)
    plot = plots.law(flat)
    bars = next(path for style, path in plot.paths if style == "bar")
    long, short = (float(width) for width in re.findall(r"h([0-9.]+)v", bars))
    assert long == pytest.approx(2 * short, abs=0.2)
    assert "by exact enumeration" in plot.reading and "in 900 samples" in plots.law(LAW).reading
    assert not [path for style, path in plot.paths if style == "whisker" and path]
    gap = [path for style, path in plot.paths if style == "dot"][1]
    assert set(re.findall(r"M([0-9.]+) ", gap)) == {"358.0"}


def test_bars_of_a_count_stand_in_proportion_and_none_is_left_out() -> None:
    plot = plots.count(COUNTS)
    tops = [float(top) for top in re.findall(r"V([0-9.]+)h", plot.paths[0][1])]
    assert (128 - tops[0]) / (128 - tops[2]) == pytest.approx(3 / 5, abs=0.01) and tops[1] == 128
    assert "8 in all" in plot.reading
    tail = plots.count(CountPicture(title="", xlabel="", counts=(1,) * 40))
    tops = [float(top) for top in re.findall(r"V([0-9.]+)h", tail.paths[0][1])]
    assert len(tops) == 33 and (128 - tops[32]) / (128 - tops[0]) == pytest.approx(8)
    assert "32+" in [label.text for label in tail.labels] and "40 in all" in tail.reading


def test_a_law_that_cannot_be_drawn_in_full_says_so(tmp_path: Path) -> None:
    many = 100
    observed = [0.01] * many
    observed[90] = 0.05
    names = tuple(str(i) for i in range(many))
    plot = plots.law(LawPicture(title="", outcomes=names, expected=(0.01,) * many, observed=tuple(observed), n=50))
    assert "18 of 100 outcomes" in plot.reading and "90" in [label.text for label in plot.labels]
    odd = LawPicture(title="", outcomes=("a", "b", "c"), expected=(math.nan, 1.0), observed=(0.0, math.inf), n=0)
    assert "0 of 3 outcomes" in plots.law(odd).reading
    text = rendered(record(result("LAW-1", "odd", pictures=(odd,))), tmp_path)["index.html"]
    assert not re.search(r"[\s\">M-](nan|inf)\b", text)


def test_the_staircase_starts_and_ends_in_the_corners() -> None:
    stairs = next(path for style, path in plots.uniform([0.5, 0.1, 0.1, 0.9, 1.0]).paths if style == "stairs")
    points = re.findall(r"([0-9.]+) ([0-9.]+)", stairs)
    assert points[0] == ("34.0", "306.0") and points[-1] == ("330.0", "10.0")
    assert all(float(a[0]) <= float(b[0]) and float(a[1]) >= float(b[1]) for a, b in pairwise(points))


@pytest.mark.parametrize(
    ("value", "said"), [(20000, "20,000"), (6e-17, "6e-17"), (0.0341234, "0.03412"), (math.nan, "nan"), ("x\x00", "x\\x00")]
)
def test_numbers_are_said_at_four_digits(value: float | str, said: str) -> None:
    assert words.number(value) == said
