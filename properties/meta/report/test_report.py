"""The report of `eagle2 verify` shows all of its record, the gravest first, and untrusted text has no effect in it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from syrupy.assertion import SnapshotAssertion

from eagle2_ref.errors import BadInput
from harness import report
from harness.record.model import LawPicture, Property, Record, TreePicture, Verdict
from harness.report import sentences
from harness.report.cases import find_case
from harness.statistics import budget
from properties.meta.helpers.records import (
    HOSTILE,
    INSTANCE,
    TEXT,
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


# --- files ---------------------------------------------------------------------------------------------------------


def test_report_is_four_files(any_record: Record, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    assert [path.name for path in report.render(any_record, out)] == ["index.html", "summary.md", "junit.xml", "badge.json"]
    assert sorted(path.name for path in out.iterdir()) == ["badge.json", "index.html", "junit.xml", "summary.md"]


def test_same_record_renders_to_same_bytes(any_record: Record, tmp_path: Path) -> None:
    again = Record.model_validate_json(any_record.model_dump_json())
    assert rendered(any_record, tmp_path / "a") == rendered(again, tmp_path / "b")


def test_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rendered(clean(), tmp_path)

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        report.render(mixed(), tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == before


# --- the page ------------------------------------------------------------------------------------------------------


def test_page_is_well_formed_and_its_links_have_targets(any_record: Record, tmp_path: Path) -> None:
    page = Page(rendered(any_record, tmp_path)["index.html"])
    ids = Counter(page.values("id"))
    assert max(ids.values(), default=1) == 1
    assert {href[1:] for href in page.values("href") if href.startswith("#")} <= set(ids)


def test_page_fetches_nothing_and_runs_nothing(any_record: Record, tmp_path: Path) -> None:
    text = rendered(any_record, tmp_path)["index.html"]
    page = Page(text)
    assert not set(page.tags) & {"script", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    names = {name for _, name, _ in page.attributes}
    assert not names & {"src", "srcset", "srcdoc", "xlink:href", "action", "data"}
    assert not [name for name in names if name.startswith("on")]
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src 'none'" in text


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    text = rendered(hostile(), tmp_path)["index.html"]
    assert "<script" not in text and "<img" not in text
    assert "{{ 7*7 }}" in "".join(Page(text).words)
    assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_page_shows_every_property_and_case(tmp_path: Path) -> None:
    of = mixed()
    page = Page(rendered(of, tmp_path)["index.html"])
    words = "\n".join(page.words)
    for each in of.results:
        assert each.property in words and f"What {each.property} asks." in words
        assert each.case in words and each.summary in words and each.replay in words
    tooltips = [value for tag, name, value in page.attributes if (tag, name) == ("a", "title")]
    assert len(tooltips) == len(of.results)
    assert all(any(each.case in one and f"{each.verdict}: {each.summary}" in one for one in tooltips) for each in of.results)


def test_faults_come_first_and_are_never_folded(tmp_path: Path) -> None:
    mostly: list[Verdict] = ["pass", "fault", "inconclusive"] * 6
    of = record(*(result("LAW-2", str(i), v) for i, v in enumerate(mostly)), verdict="fault")
    page = Page(rendered(of, tmp_path)["index.html"])
    rows = [value for tag, name, value in page.attributes if (tag, name) == ("tr", "id")]
    verdicts = [mostly[int(row.removeprefix("LAW-2.")) - 1] for row in rows]
    assert verdicts == ["fault"] * 6 + ["inconclusive"] * 6 + ["pass"] * 6
    assert page.folded == set(rows[12:])


def test_every_drawing_has_a_caption_and_undrawn_ones_are_counted(tmp_path: Path) -> None:
    text = rendered(mixed(), tmp_path)["index.html"]
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) == 7, "four of LAW-1, the tree, the counts, all p-values"
    assert all(
        figure.count("<svg") == figure.count('<p class="note">') == figure.count("<figcaption>") == 1 for figure in figures
    )
    assert "10 more pictures" in text


@pytest.mark.parametrize(("many", "drawn"), [(4, False), (5, True)])
def test_p_values_are_drawn_from_five_on(many: int, drawn: bool, tmp_path: Path) -> None:
    of = record(*(result("LAW-4", str(i), p_value=i / 10) for i in range(many)))
    assert ('id="p-values"' in rendered(of, tmp_path)["index.html"]) == drawn


def test_diagnostics_are_drawn_with_the_other_p_values(tmp_path: Path) -> None:
    of = record(result("LAW-7", "streams", diagnostics={f"test {i}": i / 10 for i in range(5)}))
    page = rendered(of, tmp_path)["index.html"]
    assert "the 5 p-values" in page and "5 of them are diagnostics" in page and "p-value, test 3 0.3" in page


def test_property_without_cases_and_result_without_property_are_shown(tmp_path: Path) -> None:
    silent = Property(id="STOP-9", chapter="stop", requirement="Has no case.")
    files = rendered(record(result("NEW-1", "stray", "fault"), properties=(silent,), verdict="fault", exit_code=1), tmp_path)
    assert "Has no case." in files["index.html"] and "No case was run." in files["index.html"]
    assert "NEW-1.1" in Page(files["index.html"]).values("id")
    assert "no case was run" in files["summary.md"] and "stray" in files["summary.md"] and "stray" in files["junit.xml"]


def test_page_of_a_typical_run_is_small(tmp_path: Path) -> None:
    """120 results of 15 properties, each result of six properties with a large picture."""
    parents, values = (-1, *((i - 1) // 3 for i in range(1, 60))), tuple(-0.1 * i for i in range(60))
    tree = TreePicture(title="Step", tokens=(" name",) * 60, parents=parents, values=values, path=(1, 4), emitted="\n")
    even = (1 / 400,) * 400
    law = LawPicture(title="Law", outcomes=tuple(f"outcome {i}" for i in range(400)), expected=even, observed=even, n=9)
    drawn = {"LAW-1": (law,), "LAW-2": (law,), "LAW-3": (law,), "LAW-4": (law,), "TREE-1": (tree,), "TREE-2": (tree,)}
    names = [f"{chapter}-{i}" for chapter in ("LAW", "TREE", "STOP") for i in range(1, 6)]
    seen = [result(n, f"T=1, k=8 depth=6 m=59, {i}", pictures=drawn.get(n, ()), replay="r" * 80) for n in names for i in range(8)]
    assert len(rendered(record(*seen), tmp_path)["index.html"].encode()) < 400_000


def test_long_text_is_cut_and_the_cut_is_stated(tmp_path: Path) -> None:
    endless = result("LAW-1", "x" * 10**6, "fault", summary="y" * 10**6, replay="z" * 10**6)
    files = rendered(record(endless, verdict="fault"), tmp_path)
    assert all(len(text) < 60_000 for text in files.values())
    assert "more characters in the record" in files["index.html"]


def test_statement_is_three_separate_lines(tmp_path: Path) -> None:
    files = rendered(mixed(), tmp_path)
    lines = [("exact", "Enumerated: 7."), ("logits", "Measured: 8."), ("sampled", "Samples: 9.")]
    assert [pair for pair in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", files["index.html"]) if pair in lines] == lines
    assert all(f"- {name}: {line}" in files["summary.md"] for name, line in lines)
    assert 'id="statement"' not in rendered(clean(), tmp_path)["index.html"]


def test_tree_of_a_witness_is_drawn(tmp_path: Path) -> None:
    of = record(result("LAW-2", "", "fault", witness=INSTANCE), verdict="fault")
    assert rendered(of, tmp_path)["index.html"].count('<svg class="tree"') == 1


# --- junit, summary, badge -----------------------------------------------------------------------------------------


def test_junit_counts_agree_and_a_missing_answer_is_an_error(any_record: Record, tmp_path: Path) -> None:
    root = junit(any_record, tmp_path)
    suite = root.find("testsuite")
    assert suite is not None
    elements = {"failure": ("fault",), "error": ("inconclusive", "blocked"), "skipped": ("n/a", "known")}
    wanted = {kind: sum(each.verdict in verdicts for each in any_record.results) for kind, verdicts in elements.items()}
    assert {kind: len(suite.findall(f"testcase/{kind}")) for kind in wanted} == wanted
    assert [suite.get(name) for name in ("failures", "errors", "skipped")] == [str(n) for n in wanted.values()]
    assert suite.get("tests") == root.get("tests") == str(len(any_record.results)) == str(len(suite.findall("testcase")))


def test_junit_names_the_case_and_its_commands(tmp_path: Path) -> None:
    root = junit(mixed(), tmp_path)
    cases = {case.get("name"): case for case in root.iter("testcase")}
    bad = cases["LAW-2 [bad]"]
    failure = bad.find("failure")
    assert bad.get("classname") == "law" and failure is not None and failure.get("message") == "seen in bad"
    assert failure.text is not None and "chi-square: 1984" in failure.text and "replay: replay bad" in failure.text
    assert "replay: eagle2 replay LAW-2.10" in failure.text and "p-value, Neyman: 0.0123" in failure.text
    broken = cases["COUNT-1 [counted]"].find("error")
    assert broken is not None and broken.get("type") == "broken"


def test_summary_of_every_verdict(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert rendered(mixed(), tmp_path)["summary.md"] == snapshot


def test_summary_of_hostile_text_keeps_its_shape(tmp_path: Path) -> None:
    summary = rendered(hostile(), tmp_path)["summary.md"]
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == 3 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    prose = re.sub(r"(`+).+?\1(?!`)", "", re.sub(r"\\.", "", summary))
    assert "<" not in prose and "://" not in prose and "[" not in prose


def test_badge_is_the_shields_endpoint_format(any_record: Record, tmp_path: Path) -> None:
    badge = json.loads(rendered(any_record, tmp_path)["badge.json"])
    assert badge["schemaVersion"] == 1 and set(badge) == {"schemaVersion", "label", "message", "color"}
    assert badge["message"].startswith(any_record.footer.verdict)


# --- sentences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_overall_verdict_is_the_footers(verdict: Verdict, tmp_path: Path) -> None:
    of = record(*(result("LAW-1", v, v) for v in get_args(Verdict)), verdict=verdict)
    files = rendered(of, tmp_path)
    word = re.search(r'class="word">.*?</span> (.*?)</p>', files["index.html"])
    assert word is not None and word[1] == verdict


def test_verdict_sentences(snapshot: SnapshotAssertion) -> None:
    """A sentence claims no more than was judged: the emitted text only if a check of it ran."""
    broken = result("LAW-1", "a", "inconclusive", broken=True)
    records = {
        "output judged": record(result("LAW-1", "a"), result("TREE-1", "b")),
        "only smoke": record(result("SMOKE-1", "a")),
        "nothing": record(),
        "fault of the output": record(result("LAW-1", "a", "fault"), verdict="fault"),
        "fault of the tree": record(result("TREE-1", "a", "fault"), verdict="fault"),
        "broken": record(broken, verdict="inconclusive", exit_code=4),
        **{verdict: record(result("LAW-1", "a", verdict), verdict=verdict) for verdict in ("known", "tie", "blocked", "n/a")},
    }
    assert {name: sentences.verdict_sentence(of) for name, of in records.items()} == snapshot


def test_witness_sentences(snapshot: SnapshotAssertion) -> None:
    long = TEXT.model_copy(update={"prompt": tuple(range(500)), "p": None, "q": None})
    assert [sentences.witness_sentence(one) for one in (TEXT, INSTANCE, long)] == snapshot


@pytest.mark.parametrize(("probability", "years"), [(2.7e-7, "200"), (1e-3, "0.055")])
def test_error_budget_is_stated_in_years(probability: float, years: str) -> None:
    sentence = sentences.false_alarm_sentence(probability)
    assert f"once in {years} years" in sentence and f"{probability:g}" in sentence
    assert sentences.RUNS_PER_DAY == budget.RUNS_PER_DAY


def test_anchor_of_the_page_finds_its_result() -> None:
    of = mixed()
    assert find_case(of, "LAW-2.10").result is of.results[16] and of.results[16].case == "bad"
    with pytest.raises(BadInput, match=r"'LAW-2.99'\n +.*LAW-1.2, LAW-1.3 and LAW-2.10$"):
        find_case(of, "LAW-2.99")
    with pytest.raises(BadInput, match="no fault"):
        find_case(clean(), HOSTILE)
