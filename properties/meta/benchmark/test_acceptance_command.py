"""`eagle2 acceptance` as a command: its record and page, and what decides its exit code."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from harness.benchmark.acceptance_figures import (
    acceptance_figures,
    below_floor,
    compare_with,
    disagreements,
    figures_of,
    judged_cells,
    passes_of,
    unchecked,
)
from harness.benchmark.acceptance_page import acceptance_mark, acceptance_page, acceptance_section, model_card
from harness.benchmark.acceptance_record import (
    AcceptanceFooter,
    AcceptanceHeader,
    AcceptanceRecord,
    Cell,
    DecodedText,
    TextAcceptance,
    read_acceptance,
)
from harness.benchmark.pages import replace_section
from harness.benchmark.record import PromptInfo, Record, Reliability
from harness.benchmark.settings import AcceptanceSettings, command_line
from harness.pairs import Pair, shipped
from properties.meta.contract import access
from properties.meta.helpers import families

STDLIB = shipped("stdlib")
ROOT = Path(__file__).parents[3]


# --- a run ------------------------------------------------------------------------------------------------------------------

SMALL = ["--k", "1,3", "--depth", "2", "--m", "4", "--budget", "3,3,6", "--tokens", "12", "--threads", "1"]
RUN = [*SMALL, "--limit", "6", "--checks", "3", "--ceiling"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    out = tmp_path_factory.mktemp("acceptance")
    done = access.invoke(["acceptance", *RUN, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture
def record(folder: Path) -> AcceptanceRecord:
    return read_acceptance(folder, whole=True)


def test_run_writes_record_and_page(folder: Path, record: AcceptanceRecord) -> None:
    assert record.header.grid == (
        Cell(k=1, depth=2, m=2), Cell(k=3, depth=2, m=4), Cell(k=3, depth=3, m=6),
    ) and record.header.budget == Cell(k=3, depth=3, m=6)  # fmt: skip
    assert len(record.of(TextAcceptance)) == 12 and len(record.of(Reliability)) == 2
    assert figures_of(record) == acceptance_figures(record.header, record.lines)
    page, summary = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "summary.md"))
    for text in (page, summary):
        assert "EAGLE-2" in text and "Length of the context" in text and "Confidence" in text
    assert {path.name for path in folder.glob("*.svg")} >= {
        "grid-0.svg",
        "depths-1.svg",
        "acceptance.svg",
        "kinds.svg",
        "contexts.svg",
    }
    assert (
        record.header.command == f"eagle2 acceptance --tokens 12 --limit 6 --threads 1 {' '.join(SMALL[:8])} --checks 3 --ceiling"
    )


def test_ceiling_is_on_the_page_in_total_and_by_kind(folder: Path, record: AcceptanceRecord) -> None:
    judged = {one.temperature: one.tau.value for one in judged_cells(record)}
    ceilings = figures_of(record).ceilings
    for t in (0.0, 1.0):
        groups = {one.group: one for one in ceilings if one.temperature == t}
        assert set(groups) == {"all"} | {prompt.kind for prompt in record.header.prompts}
        assert sum(one.texts for group, one in groups.items() if group != "all") == groups["all"].texts == 6
        assert groups["all"].tau.value > judged[t]
        row = f"| {t:g} | all | {groups['all'].tau.value:.2f} |"
        assert row in (folder / "summary.md").read_text(encoding="utf-8") and row in acceptance_section(record)


def test_section_of_a_model_card_has_the_judged_tree_by_kind(
    folder: Path, record: AcceptanceRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / model_card(record)
    card.parent.mkdir(parents=True)
    card.write_text(f"before\n<!-- acceptance-{record.header.head} -->\nold\n<!-- /acceptance-{record.header.head} -->\n")
    monkeypatch.chdir(tmp_path)
    done = access.invoke(["acceptance", "--readme", str(folder)])
    assert done.exit_code == 0 and "README.md" in done.output, done.output
    text, figures = card.read_text(), record.footer.figures if record.footer else None
    assert figures and text.startswith("before\n<!-- acceptance-") and "old" not in text
    for one in figures.kinds:
        assert f"| {one.temperature:g} | {one.group} | {one.tau.value:.2f} |" in text
    both = access.invoke(["acceptance", "--readme", str(folder), "--draw", str(folder)])
    assert both.exit_code == 2 and "give one of them" in both.stderr


@pytest.mark.parametrize("head", ["eagle2", "eagle3"])
def test_model_card_of_smollm2_has_the_section_of_the_committed_record(head: str) -> None:
    found = read_acceptance(ROOT / "reports" / "acceptance" / f"smollm2-{head}", whole=True)
    assert found.header.head == head and not disagreements(found) and not unchecked(found)
    card, section, mark = ROOT / model_card(found), acceptance_section(found), acceptance_mark(found)
    text = card.read_text(encoding="utf-8")
    assert replace_section(text, section, mark, card) == text, (
        f"run `eagle2 acceptance --readme reports/acceptance/smollm2-{head}`"
    )


def test_same_seed_gives_the_same_lines(folder: Path, tmp_path: Path) -> None:
    done = access.invoke(["acceptance", *RUN, "--out", str(tmp_path)])
    assert done.exit_code == 0 and read_acceptance(tmp_path).lines == read_acceptance(folder).lines
    done = access.invoke(["acceptance", *SMALL, "--limit", "6", "--checks", "0", "--seed", "7", "--out", str(tmp_path)])
    before, now = (
        {text.digest for text in read_acceptance(one).of(TextAcceptance) if text.temperature == 1} for one in (folder, tmp_path)
    )
    assert done.exit_code == 0 and not before & now


def test_floor_and_earlier_record_decide_the_exit_code(folder: Path, tmp_path: Path) -> None:
    """1 if τ of the judged tree is significantly below; a better earlier record is one whose texts took fewer passes."""
    draw = ["acceptance", "--draw", str(shutil.copytree(folder, tmp_path / "now"))]
    done = access.invoke([*draw, "--against", str(folder)])
    assert done.exit_code == 0 and "is not significantly lower" in done.output
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "text":
            line["passes"] = [*line["passes"][:2], (line["passes"][2] + 1) // 2]
    better = tmp_path / "better.jsonl"
    better.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = access.invoke([*draw, "--against", str(better)])
    assert done.exit_code == 1 and "is significantly lower" in done.output
    for floor, code in (("1", 0), ("99", 1), ("1,99", 1)):
        done = access.invoke(
            ["acceptance", *SMALL, "--limit", "2", "--checks", "0", "--floor", floor, "--out", str(tmp_path / "floor")]
        )
        assert done.exit_code == code, done.output
        assert ("below the floor of 99" in done.output) == (code == 1)
        assert len(below_floor(read_acceptance(tmp_path / "floor"))) == floor.count("99") * (2 if floor == "99" else 1)


def test_runs_with_other_texts_are_not_compared(record: AcceptanceRecord) -> None:
    def other(**changes: Any) -> AcceptanceRecord:
        return replace(record, header=record.header.model_copy(update=changes))

    for changes, message in (
        ({"settings": record.header.settings.model_copy(update={"tokens": 13})}, "tokens 13"),
        ({"prompts": record.header.prompts[1:]}, "same prompts"),
        ({"grid": record.header.grid[:2]}, "no tree of k = 3, depth = 3, m = 6"),
        ({"settings": record.header.settings.model_copy(update={"dtype": "bfloat16"})}, "dtype bfloat16"),
    ):
        with pytest.raises(BadInput, match=message):
            compare_with(record, other(**changes))
    same = compare_with(record, other(head="medusa"))
    assert [one.judged for one in same] == [False, False, True] * 2
    assert all(one.before == one.now and not one.is_lower for one in same)


def with_texts(record: AcceptanceRecord, temperature: float, n: int) -> AcceptanceRecord:
    """The record with another text for its first n prompts at a temperature."""
    others = {one.prompt for one in [text for text in record.of(TextAcceptance) if text.temperature == temperature][:n]}

    def changed(line: Any) -> Any:
        of_other = isinstance(line, TextAcceptance) and line.temperature == temperature and line.prompt in others
        return line.model_copy(update={"digest": "0" * 16}) if of_other else line

    return replace(record, lines=tuple(map(changed, record.lines)))


def test_only_equal_texts_are_compared(record: AcceptanceRecord) -> None:
    """Another target, or rounding, gives other texts, whose τ says nothing about the head."""
    some = compare_with(record, with_texts(record, 1.0, 2))
    assert [one.texts for one in some] == [6] * 3 + [4] * 3
    with pytest.raises(BadInput, match="4 of 6 texts at temperature 1 differ"):
        compare_with(record, with_texts(record, 1.0, 4))


def test_run_is_not_compared_with_itself(folder: Path, tmp_path: Path) -> None:
    """--against is read before the run writes to the same folder."""
    out = tmp_path / "out"
    record = read_acceptance(folder, whole=True)
    halved = [
        line.model_copy(update={"passes": tuple((n + 1) // 2 for n in line.passes)}) if isinstance(line, TextAcceptance) else line
        for line in record.lines
    ]
    shutil.copytree(folder, out)
    parts = (record.header, *halved, record.footer)
    (out / "record.jsonl").write_text("".join(f"{part.model_dump_json()}\n" for part in parts if part))
    words = ["acceptance", *SMALL, "--limit", "6", "--checks", "0", "--against", str(out), "--out", str(out)]
    done = access.invoke(words)
    assert done.exit_code == 1 and "is significantly lower" in done.output, done.output
    before = (out / "record.jsonl").read_bytes()
    done = access.invoke([*words, "--tokens", "13"])
    assert done.exit_code == 2 and "the earlier run had tokens 12" in done.stderr
    assert (out / "record.jsonl").read_bytes() == before, "it is refused before it measures"


def test_missing_figures_are_no_pass(folder: Path, tmp_path: Path) -> None:
    """A record that was cut off before temperature 1."""
    lines = (folder / "record.jsonl").read_text().splitlines(keepends=True)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "record.jsonl").write_text(lines[0] + "".join(line for line in lines if '"kind":"text","temperature":0.0' in line))
    for words, what, code in (
        (["--floor", "1"], "At temperature 1 there is no τ to compare with the floor", 3),
        (["--floor", "99,1"], "τ is below the floor of 99", 1),
        (["--against", str(folder)], "is not significantly lower", 3),
        (["--floor", "0"], "--floor has 0", 2),
        ([], "Tokens per target pass", 0),
    ):
        done = access.invoke(["acceptance", "--draw", str(cut), *words])
        assert done.exit_code == code and what in re.sub(r"\s+", " ", done.output), (words, done.output)


def test_questions_become_prompts_of_two_turns(tmp_path: Path) -> None:
    """On a checkpoint of another form, whose texts end with its end token at times."""
    pair, _ = families.FAMILIES["llama3"](tmp_path / "pair")
    file, out = tmp_path / "question.jsonl", tmp_path / "out"
    questions = ({"question_id": i, "category": "writing", "turns": ["Hi", "Bye"]} for i in (81, 82))
    file.write_text("".join(json.dumps(one) + "\n" for one in questions))
    words = ["--target", str(pair.target), "--draft", str(pair.draft), "--prompts", str(file), "--out", str(out)]
    done = access.invoke(["acceptance", *SMALL, *words])
    assert done.exit_code == 0, done.output
    found = read_acceptance(out, whole=True)
    assert [one.id for one in found.header.prompts] == ["81/1", "81/2", "82/1", "82/2"]
    assert {one.kind for one in found.header.prompts} == {"writing"}
    assert all(check.same == check.texts for check in figures_of(found).checks)


REFUSED = [
    ("--budget 8,6", "--budget has 8, 6", "8,6,25"),
    ("--k 0", "--k has 0", "1 or more"),
    ("--k 300", "k is 300", "at most 256"),
    ("--m 4,4", "--m has 4, 4", "different"),
    ("--checks -1", "checks is -1", "0 for none"),
    ("--checks 2", "can be checked on 2 prompts only", "of 3 or more, or --checks 0"),
    ("--limit 1", "can be checked on 1 prompts only", "of 3 or more, or --checks 0"),
    ("--floor -1", "--floor has -1", "1 or more"),
    ("--floor 1,2,3", "--floor has 3 numbers", "one for each"),
    ("--prompts nothing.jsonl", "nothing.jsonl", "id, kind, text"),
    ("--against nothing", "no record in nothing", "eagle2 acceptance"),
    ("--draw nothing", "no record in nothing", "eagle2 acceptance"),
    ("--target fixtures", "--draft", "both"),
    ("--pair none", "'none'", "stdlib"),
    ("--pair coin4", "do not fit into a context of 24", "give shorter prompts"),
    ("--tokens 99999", "do not fit into a context", "or fewer, or shorter prompts"),
    ("--drafter lookup", "lookup has no head", "eagle2, eagle3, medusa"),
]


@pytest.mark.parametrize(("words", "what", "hint"), REFUSED, ids=[words for words, _, _ in REFUSED])
def test_wrong_input_is_refused(words: str, what: str, hint: str, tmp_path: Path) -> None:
    done = access.invoke(["acceptance", *words.split(), "--out", str(tmp_path)])
    assert done.exit_code == 2 and what in done.output and hint in done.output, done.output


def test_damaged_record_is_refused(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(line.replace('"tree":[', '"tree":[1,', 1) for line in lines))
    with pytest.raises(BadInput, match="contradicts itself"):
        read_acceptance(tmp_path)
    (tmp_path / "record.jsonl").write_text("".join(lines[:4]))
    cut = read_acceptance(tmp_path)
    assert len(cut.of(TextAcceptance)) == 3 and len(figures_of(cut).cells) == 3
    with pytest.raises(BadInput, match="no footer"):
        read_acceptance(tmp_path, whole=True)
    (tmp_path / "record.jsonl").write_text(lines[0])
    with pytest.raises(BadInput, match="has no text"):
        read_acceptance(tmp_path)


# --- figures ----------------------------------------------------------------------------------------------------------------

BUDGET = Cell(k=2, depth=2, m=4)
HEADER = AcceptanceHeader(
    started="2026-01-02T03:04:05+00:00",
    command="eagle2 acceptance",
    commit="0123456789ab",
    settings=AcceptanceSettings(temperatures=(0.0,), floor=(2.0,)),
    machine={},
    versions={},
    prompts=tuple(PromptInfo(id=name, kind=kind, length=n, digest="00") for name, kind, n in (("a", "x", 61), ("b", "y", 4))),
    head="eagle2",
    grid=(Cell(k=1, depth=2, m=2), BUDGET),
    budget=BUDGET,
)


def text(prompt: str, tree: tuple[int, ...], tokens: int, chain_passes: int) -> TextAcceptance:
    return TextAcceptance(
        temperature=0.0, prompt=prompt, tokens=tokens, finish="length", digest="", room=tokens, repeated=0.0,
        chain=(0,) * len(tree), tree=tree, passes=(chain_passes, passes_of(tree)),
    )  # fmt: skip


def test_figures_of_known_texts() -> None:
    """Text a: roots 0, 3, 4 of a context of 62, 65 and 66 tokens; text b: two roots."""
    lines = [text("a", (2, 0, 1, 0, 1, 0), 7, 6), text("b", (1, 0, 1), 4, 3)]
    figures = acceptance_figures(HEADER, lines)
    assert [(one.cell, one.tokens, one.passes, one.tau.value) for one in figures.cells] == [
        (HEADER.grid[0], 9, 9, 1.0), (BUDGET, 9, 5, 1.8),
    ]  # fmt: skip
    assert (figures.cells[1].tau.low, figures.cells[1].tau.high) == (1.5, 2.0)  # the two texts alone
    assert [(one.group, one.passes, one.tau.value) for one in figures.kinds] == [("x", 3, 2.0), ("y", 2, 1.5)]
    assert [(one.group, one.passes, one.tau.value) for one in figures.contexts] == [("below 64", 3, 2.0), ("64 to 127", 2, 1.5)]
    depths = {one.depth: (one.positions, round(one.accepted.value, 3)) for one in figures.depths if one.shape == "tree"}
    # Depth 1 is drafted up to the last position but one: a has 2, 0, 1, 0, 1, b has 1, 0. Depth 2 of a: 2, -, 1 can be seen.
    assert depths == {1: (7, round(4 / 7, 3)), 2: (3, round(1 / 3, 3))}


def checked(passes: tuple[int, ...]) -> AcceptanceRecord:
    """A whole record of texts with three passes each, of which decoding took these."""
    names = [f"p{i}" for i in range(len(passes))]
    prompts = tuple(PromptInfo(id=name, kind="x", length=4, digest="00") for name in names)
    settings = AcceptanceSettings(temperatures=(0.0,), checks=len(passes))
    header = HEADER.model_copy(update={"prompts": prompts, "grid": (BUDGET,), "settings": settings})
    texts = [text(name, (2, 0, 1, 0, 1, 0), 7, 6).model_copy(update={"passes": (3,)}) for name in names]
    decoded = [
        DecodedText(temperature=0.0, prompt=name, cell=BUDGET, tokens=7, passes=n, same=True)
        for name, n in zip(names, passes, strict=True)
    ]
    figures = acceptance_figures(header, [*texts, *decoded])
    footer = AcceptanceFooter(finished="2026-01-02T03:04:06+00:00", seconds=1.0, memory={}, figures=figures)
    return Record(header, (*texts, *decoded), footer)


def test_one_block_more_is_rounding_and_one_more_in_every_text_is_not() -> None:
    assert not disagreements(checked((3, 3, 3, 3, 3, 4)))
    assert not disagreements(checked((3, 3, 4))), "three texts show large differences only"
    assert disagreements(checked((4, 4, 4, 4, 4, 3)))


def test_too_few_decoded_texts_are_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = checked((3, 3))
    assert unchecked(record) == [(0.0, BUDGET)] and not unchecked(checked((3, 3, 3)))
    page = acceptance_page(record)
    assert page.verdict == "inconclusive" and "the estimate is not checked" in page.warning
    parts = (record.header, *record.lines, record.footer)
    (tmp_path / "record.jsonl").write_text("".join(f"{part.model_dump_json()}\n" for part in parts if part))
    monkeypatch.chdir(tmp_path)
    done = access.invoke(["acceptance", "--readme", "."])
    assert done.exit_code == 2 and "decoding does not confirm the figures" in done.stderr
    assert access.invoke(["acceptance", "--draw", "."]).exit_code == 3


def test_floor_is_missed_where_the_whole_interval_is_below() -> None:
    record: AcceptanceRecord = Record(HEADER, tuple(text(one, (1, 0, 0, 0), 5, 4) for one in "ab"), None)
    ((cell, floor),) = below_floor(record)
    assert cell.tau.high == 4 / 3 and floor == 2
    above = replace(record, header=HEADER.model_copy(update={"settings": AcceptanceSettings(temperatures=(0.0,), floor=(1.3,))}))
    assert below_floor(above) == []


def test_command_repeats_a_run() -> None:
    settings = AcceptanceSettings(pair="x", k=(1, 8), budget=(8, 6, 25), floor=(3.0, 2.5), limit=24, prompts="mt-bench")
    own = Pair("x", STDLIB.target, STDLIB.draft, own=True)
    assert command_line(settings, own) == (
        "eagle2 acceptance --target target --draft draft --prompts mt-bench --limit 24 --k 1,8 --budget 8,6,25 --floor 3,2.5"
    )
