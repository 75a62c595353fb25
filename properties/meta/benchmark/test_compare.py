"""`eagle2 compare` from end to end on a tiny pair: what it records and draws, whom it leaves out, what it refuses."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor
from typer.testing import CliRunner, Result

from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.methods import CHOSEN, METHODS, MethodSpec
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, reject
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import Tree
from harness.bench.counting import counted
from harness.bench.readme import put, write
from harness.bench.record import Call, Point, Reliability, Steps
from harness.bench.settings import asked_prompts
from harness.cli import app
from harness.compare import readme
from harness.compare.arms import checkpoints
from harness.compare.figures import of
from harness.compare.page import draw
from harness.compare.parting import _parted
from harness.compare.record import Parted, read
from harness.compare.settings import Settings, command
from harness.pairs import Pair, shipped
from properties.meta.helpers import families, tiny

ROOT = Path(__file__).parents[3]
TWO = ["--methods", "eagle2,lookup"]
SMALL = ["--tokens", "8", "--repeats", "2", "--threads", "1", "--m", "4"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("compare"), max_position_embeddings=320)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "own.jsonl"
    texts = {"one": "def f(x):", "two": "import os\n", "<b>three</b>": "class A:"}
    file.write_text("".join(json.dumps({"id": i, "kind": f"{i[:1]}*", "text": text}) + "\n" for i, text in texts.items()))
    return file


def compare(pair: Pair, *words: str) -> Result:
    return CliRunner().invoke(app, ["compare", "--target", str(pair.target), "--draft", str(pair.draft), *words])


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Of what no clock has a say in, little is enough."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("harness.compare.run.NODES", (1, 8))
        patched.setattr("harness.bench.budgets.TOKENS", 12)
        patched.setattr("harness.bench.reliability.TOKENS", 24)
        yield


@pytest.fixture(scope="module")
def ran(pair: Pair, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    out = tmp_path_factory.mktemp("out")
    told = compare(pair, *TWO, *SMALL, "--prompts", str(prompts), "--out", str(out))
    assert told.exit_code == 0, told.output
    assert "prompt lookup" in told.stdout and str(out / "index.html") in told.stdout.replace("\n", "")
    return out


def test_the_record_is_whole(ran: Path) -> None:
    """Ordinary decoding and every method with its own options and at equal budget, timed, taken apart and counted."""
    record, arms = read(ran, whole=True), ["eagle2", "eagle2, equal", "lookup", "lookup, equal"]
    assert [one.arm for one in record.header.entered] == arms and not record.header.left_out
    assert [(one.own, one.equal) for one in record.header.entered] == [(True, False), (False, True)] * 2
    assert [one.options.get("m", one.options["depth"]) for one in record.header.entered] == [25, 4, 10, 4]
    made = Counter((call.arm, call.temperature, call.prompt) for call in record.of(Call))
    assert len(made) == 5 * 2 * 3 and set(made.values()) == {2} and {call.tokens for call in record.of(Call)} == {8}
    every = {(arm, t) for arm in ("vanilla", *arms) for t in (0.0, 1.0)}
    assert {(one.arm, one.temperature) for one in record.of(Steps)} == every
    assert {row.arm for row in of(record)} == {"vanilla", *arms} and len(of(record)) == len(every) * (1 + 3)
    ways = {(one.temperature, one.tree, one.m) for one in record.of(Point)}
    assert ways == {(t, tree, m) for t in (0.0, 1.0) for tree in ("dynamic", "deep", "chain") for m in (1, 8)}
    assert [one.temperature for one in record.of(Reliability)] == [0.0, 1.0] and not record.of(Parted)


def test_counts_are_those_of_a_decoder_alone(pair: Pair, prompts: Path, ran: Path) -> None:
    target = Target.load(pair.target)
    asked = {prompt.id: prompt for prompt in asked_prompts(prompts, pair, 0, 8)}
    methods = {"vanilla": None, "eagle2": Budget(), "eagle2, equal": Budget(m=4)}
    decoders = {name: Decoder(target, one.drafter(target, pair.draft) if one else None, reject) for name, one in methods.items()}
    for call in read(ran).of(Call):
        if call.arm in decoders:
            params = SamplingParams(call.temperature, max_new_tokens=8)
            made = decoders[call.arm].generate(asked[call.prompt].tokens, params, SeededCoins(call.repeat))
            trees = [(len(block.tree), len(block.tokens) - 1) for block in made.blocks[1:]]
            assert call.counts == counted(trees, made.target_passes, made.draft_passes), call


def test_figures_agree_with_the_calls(ran: Path) -> None:
    """Of all prompts, and of a kind that one prompt is of."""
    record = read(ran)
    kinds = {prompt.id: prompt.kind for prompt in record.header.prompts}
    for row in of(record):
        mine = [call for call in record.of(Call) if (call.arm, call.temperature) == (row.arm, row.temperature)]
        mine = [call for call in mine if row.prompts in ("", kinds[call.prompt])]
        counts = [call.counts for call in mine if call.counts]
        passes = sum(one.target_passes - 1 for one in counts)
        assert row.tau == pytest.approx(7 * len(mine) / passes) and row.tau_low <= row.tau <= row.tau_high
        assert row.target_passes == passes + len(mine) and row.tokens == 8 * len(mine)
        assert row.rows == pytest.approx(sum(one.rows for one in counts) / passes)
        assert row.speed_low <= row.speed <= row.speed_high and (row.arm != "vanilla" or row.tau == row.speed == 1.0)


def test_what_drafting_takes_is_told_apart(ran: Path) -> None:
    for one in read(ran).of(Steps):
        assert set(one.milliseconds) == {"target pass", "cache commit", "rule", "rest"} | (
            set() if one.arm == "vanilla" else {"drafting"}
        )


@dataclass(frozen=True)
class Lacking(Budget):
    """A method that drafts with what the tiny pair has nothing of."""

    checkpoint: ClassVar[Checkpoint] = "small"


@pytest.fixture
def ghost(monkeypatch: pytest.MonkeyPatch) -> MethodSpec:
    family = MethodSpec("ghost", "the <b>ghost</b>", "unwritten", Lacking, CHOSEN)
    monkeypatch.setitem(METHODS, "ghost", family)
    return family


@pytest.mark.usefixtures("ghost")
def test_who_cannot_be_run_is_told(pair: Pair, prompts: Path, tmp_path: Path) -> None:
    """In the record, on the terminal, in the summary and in README; the others go on. With its checkpoint it is there."""
    words = ["--methods", "ghost,lookup", *SMALL, "--temperature", "0", "--prompts", str(prompts), "--out", str(tmp_path)]
    told = compare(pair, *words)
    record = read(tmp_path, whole=True)
    assert told.exit_code == 0 and [*record.header.left_out] == ["ghost"]
    assert {one.method for one in record.header.entered} == {"lookup"}
    summary = (tmp_path / "summary.md").read_text()
    for text in (re.sub(r"\s+", " ", told.stdout), summary, readme.section(record), (tmp_path / "index.html").read_text()):
        assert re.search(r"has no checkpoint .{1,6}small.{1,6}, which it drafts with", text)
    there = compare(pair, *words, "--small", str(pair.draft))
    assert there.exit_code == 0, there.output
    assert not read(tmp_path).header.left_out and "--small draft" in read(tmp_path).header.command


@pytest.mark.usefixtures("ghost")
def test_where_nobody_can_be_run_there_is_nothing_to_compare(pair: Pair, prompts: Path, tmp_path: Path) -> None:
    told = compare(pair, "--methods", "ghost", *SMALL, "--prompts", str(prompts), "--out", str(tmp_path / "out"))
    assert told.exit_code == 2 and "no method can be run" in told.stderr and "has no checkpoint 'small'" in told.stderr
    assert not (tmp_path / "out").exists()


def second(tree: Tree, p: Tensor, coins: Coins) -> Accepted:  # noqa: ARG001
    """A rule that emits what the target finds second best."""
    return Accepted([], int(p[0].topk(2).indices[1]))


def test_another_greedy_text_is_told(pair: Pair, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every prompt, where it leaves ordinary decoding's, and that it is no tie; the exit code says so too."""
    family = replace(METHODS["lookup"], name="liar", title="a liar", rules={"second": second})
    monkeypatch.setitem(METHODS, "liar", family)
    words = ["--methods", "liar,lookup", *SMALL, "--m", "0", "--prompts", str(prompts), "--out", str(tmp_path)]
    told = compare(pair, *words)
    record = read(tmp_path, whole=True)
    found = record.of(Parted)
    assert told.exit_code == 1 and {one.arm for one in found} == {"liar"} and len(found) == 3
    assert all(not one.tie and one.at == 0 and one.margin > one.noise for one in found)
    for text in (re.sub(r"\s+", " ", told.stdout), (tmp_path / "index.html").read_text(), (tmp_path / "summary.md").read_text()):
        assert "left by 0; without one by 3, of liar." in text and "BROKEN" in text
    lines = [line.replace('"margin"', '"noise":9.0,"margin"') for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    (tmp_path / "record.jsonl").write_text("".join(re.sub(r',"noise":0[^}]*', "", line) + "\n" for line in lines))
    tied = CliRunner().invoke(app, ["compare", "--draw", str(tmp_path)])
    assert tied.exit_code == 0 and "it is left by 3." in re.sub(r"\s+", " ", tied.stdout)


def test_a_text_that_parts_within_the_noise_is_a_tie(pair: Pair, prompts: Path) -> None:
    """The margin is the target's own, behind the text that both have; the noise is that of two orders of passes, of rounding."""
    target, prompt, n = Target.load(pair.target), asked_prompts(prompts, pair, 0, 64)[0], 40
    params = SamplingParams(0.0, max_new_tokens=64)
    due = tuple(Decoder(target).generate(prompt.tokens, params, SeededCoins(0)).tokens)
    other = (due[n] + 1) % 256
    one = _parted("x", prompt, (*due[:n], other, *due[n + 1 :]), due, target)
    assert (one.at, one.emitted, one.expected, one.tie) == (n, other, due[n], False) and 0 < one.noise < 1e-3
    logits = target.prefill([target.cache()], [[*prompt.tokens, *due[:n]]])[0].logits[0]
    assert one.margin == pytest.approx(float(logits[due[n]] - logits[other]), abs=1e-3)
    assert one.model_copy(update={"margin": one.noise}).tie
    shorter = _parted("x", prompt, due[:2], due, target)
    assert (shorter.at, shorter.emitted, shorter.tie) == (2, -1, False), "it has ended where the other has not"


def test_the_page_stands_alone(ran: Path) -> None:
    """One file that fetches nothing; what came from a file of prompts is shown and not obeyed."""
    page, summary = (ran / "index.html").read_text(), (ran / "summary.md").read_text()
    assert "<script" not in page and "http://" not in page and "https://" not in page and "<b>three" not in page
    pictures = sorted(path.stem for path in ran.glob("*.svg"))
    by_temperature = [f"{name}-{t}" for name in ("budgets", "kinds", "reliability") for t in (0, 1)]
    assert pictures == sorted(["methods", "equal", *by_temperature, "published-paper", "published-spec-bench"])
    for name in pictures:
        ElementTree.parse(ran / f"{name}.svg")  # noqa: S314  we wrote it
        assert f'id="{name}"' in page and f"({name}.svg)" in summary
    for text in (page, summary):
        assert text.index("Published elsewhere") < text.index("EAGLE-2, table 1")


def test_what_stands_in_a_record_is_shown_and_not_obeyed(ran: Path, tmp_path: Path) -> None:
    """A record may come from anywhere."""
    record, evil = read(ran), "<script>alert(1)</script>"
    fields: dict[str, Any] = dict.fromkeys(("command", "commit"), evil) | {"machine": {evil: evil}, "versions": {evil: evil}}
    entered = tuple(one.model_copy(update={"title": evil, "paper": evil, "rule": evil}) for one in record.header.entered)
    asked = tuple(one.model_copy(update={"kind": f"{evil}{i}"}) for i, one in enumerate(record.header.prompts))
    settings = record.header.settings.model_copy(update={"pair": evil, "prompts": evil})
    fields |= {"entered": entered, "prompts": asked, "settings": settings, "left_out": {evil: evil}}
    parted = Parted(arm=evil, prompt=evil, at=0, emitted=0, expected=1, margin=1.0, noise=0.0)
    header, lines = record.header.model_copy(update=fields), (*record.lines, parted)
    for path in draw(record.model_copy(update={"header": header, "lines": lines, "footer": None}), tmp_path):
        assert "<script" not in path.read_text() or path.suffix == ".md", path
    assert not re.search(r"(?<!\\)<script", re.sub("`.*`", "", (tmp_path / "summary.md").read_text()))


def test_drawn_again_it_is_the_same(ran: Path) -> None:
    """From the record alone."""
    before = {path.name: path.read_bytes() for path in ran.iterdir()}
    for path in ran.iterdir():
        if path.name != "record.jsonl":
            path.unlink()
    assert CliRunner().invoke(app, ["compare", "--draw", str(ran)]).exit_code == 0
    assert {path.name: path.read_bytes() for path in ran.iterdir()} == before


def test_a_run_that_was_cut_off_can_be_drawn(ran: Path, tmp_path: Path) -> None:
    """And its figures are of what there is; README's are of whole runs."""
    lines = (ran / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:8]))
    told = CliRunner().invoke(app, ["compare", "--draw", str(tmp_path)])
    assert told.exit_code == 0 and "cut off" in told.stdout and "cut off" in (tmp_path / "index.html").read_text()
    refused = CliRunner().invoke(app, ["compare", "--readme", str(tmp_path)])
    assert refused.exit_code == 2 and "no footer" in refused.stderr
    record = read(ran)
    assert of(record.model_copy(update={"footer": None})) == of(record)


def test_the_section_of_the_readme(ran: Path, tmp_path: Path) -> None:
    record, file = read(ran), tmp_path / "README.md"
    file.write_text("before <!-- family -->\nold\n<!-- /family --> behind\n")
    write(readme.section(record), readme.FAMILY, file)
    written = file.read_text()
    assert written.startswith("before ") and written.endswith(" behind\n") and "old" not in written
    row = next(row for row in of(record) if (row.arm, row.temperature, row.prompts) == ("eagle2", 0.0, ""))
    assert f"| **EAGLE-2** | **{row.tau:.2f}** | **{row.tau_low:.2f}–{row.tau_high:.2f}** |" in written
    assert "all 12 texts are ordinary decoding's" in written and "With m = 4 draft tokens" in written


def test_the_section_of_the_readme_is_that_of_the_committed_record() -> None:
    """And without a record there are no figures in it."""
    whole, committed = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), ROOT / "reports" / "compare"
    inner = readme.section(read(committed, whole=True)) if committed.is_dir() else ""
    assert put(whole, inner, readme.FAMILY, ROOT / "docs" / "benchmarks.md") == whole, (
        "run `eagle2 compare --readme reports/compare`"
    )


def test_no_folder_of_this_machine_is_told(ran: Path, pair: Pair) -> None:
    for file in ran.iterdir():
        assert str(pair.target.parent) not in file.read_text() and str(Path.home()) not in file.read_text()


def test_the_command_that_has_it_again(pair: Pair, tmp_path: Path) -> None:
    stdlib = shipped("stdlib")
    assert command(Settings(), stdlib, checkpoints(stdlib)) == "eagle2 compare"
    asked = Settings(methods=("eagle2", "lookup"), temperatures=(1.0,), m=0)
    assert command(asked, stdlib, checkpoints(stdlib)) == "eagle2 compare --temperature 1 --methods eagle2,lookup --m 0"
    own = Pair("x", pair.target, pair.draft, own=True)
    (tmp_path / "little one").mkdir()
    told = command(Settings(pair="x"), own, checkpoints(own, small=str(tmp_path / "little one")))
    assert told == "eagle2 compare --target target --draft draft --small 'little one'"


def test_a_preset_and_its_questions(tmp_path: Path) -> None:
    """Two turns make two prompts, in the words of the preset's family; its budget is EAGLE-2's own."""
    pair, _ = families.FAMILIES["llama3"](tmp_path / "pair")
    file, out = tmp_path / "question.jsonl", tmp_path / "out"
    file.write_text(json.dumps({"question_id": 81, "category": "writing", "turns": ["Hi", "Bye"]}) + "\n")
    words = ["--preset", "llama3-8b", "--dtype", "float32", *TWO, *SMALL, "--prompts", str(file), "--out", str(out)]
    told = compare(pair, *words)
    assert told.exit_code == 0, told.output
    record = read(out, whole=True)
    assert [(one.id, one.kind) for one in record.header.prompts] == [("81/1", "writing"), ("81/2", "writing")]
    own, equal = (one for one in record.header.entered if one.method == "eagle2")
    assert [own.options[name] for name in ("k", "depth", "m")] == [10, 6, 59] and equal.options["m"] == 4
    assert "LLaMA3-Instruct 8B" in (out / "summary.md").read_text() and "--preset llama3-8b" in record.header.command


REFUSED = [
    ("--methods eagle3", "'eagle3' is not known", "did you mean eagle"),
    ("--methods lookup,lookup", "--methods names lookup, lookup", "once"),
    ("--m -1", "m is -1", "0"),
    ("--tokens 1", "tokens is 1", "2 or more"),
    ("--temperature hot", "--temperature hot is not a list of numbers", "0,1"),
    ("--dtype float8", "dtype 'float8' is not known", "bfloat16"),
    ("--small nowhere", "--small nowhere is not a directory", "checkpoint"),
    ("--preset gpt-5", "preset 'gpt-5' is not known", "vicuna-7b"),
    ("--preset vicuna-7b", "Vicuna 7B needs --target", "lmsys/vicuna-7b-v1.3"),
    ("--prompts no.jsonl", "no prompts at no.jsonl", "id, kind, text"),
    ("--draw nowhere", "no record at nowhere", "eagle2 compare --out"),
    ("--readme nowhere", "no record at nowhere", "eagle2 compare --out"),
    ("--draw a --readme b", "given together", "give one of them"),
]


@pytest.mark.parametrize(("words", "wrong", "mend"), REFUSED, ids=[words for words, _, _ in REFUSED])
def test_bad_input_is_told(words: str, wrong: str, mend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is wrong and what to do, in a few lines; nothing is half written."""
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["compare", *words.split()])
    assert told.exit_code == 2 and wrong in told.stderr and mend in told.stderr, told.stderr
    assert len(told.stderr.strip().splitlines()) <= 4 and not (tmp_path / "reports").exists()
