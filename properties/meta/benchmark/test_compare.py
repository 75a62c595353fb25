"""`eagle2 compare` from end to end on a tiny pair: its record, its files, its arms, and the input that it refuses."""

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
from eagle2_ref.drafters.lookup import Lookup
from eagle2_ref.methods import CHOSEN, METHODS, MethodSpec
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, reject
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import Tree
from harness.benchmark.comparison import ComparisonRun, head_measurements
from harness.benchmark.figures import method_figures_of
from harness.benchmark.greedy_equality import divergence
from harness.benchmark.methods import MethodArms, at_equal_budget, find_checkpoints, own_options
from harness.benchmark.pages import compare_section
from harness.benchmark.prompts import load_prompts
from harness.benchmark.record import (
    BudgetPoint,
    Call,
    CompareRecord,
    Counts,
    Divergence,
    Reliability,
    StepProfile,
    read_comparison,
)
from harness.benchmark.settings import CompareSettings, command_line
from harness.cli import app
from harness.pairs import Pair, Prompt, shipped
from properties.meta.helpers import families
from properties.meta.helpers.fake_clock import ticking

TWO = ["--methods", "eagle2,lookup"]
SMALL = ["--tokens", "8", "--repeats", "2", "--threads", "1", "--m", "4"]
ARMS = ["eagle2", "eagle2, equal", "lookup", "lookup, equal"]


def compare(pair: Pair, *words: str) -> Result:
    return CliRunner().invoke(app, ["compare", "--target", str(pair.target), "--draft", str(pair.draft), *words])


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Few and short texts where only counts are taken."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("harness.benchmark.comparison.NODES", (1, 8))
        patched.setattr("harness.benchmark.budgets.TOKENS", 12)
        patched.setattr("harness.benchmark.reliability.TOKENS", 24)
        yield


@pytest.fixture(scope="module")
def folder(pair: Pair, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    out = tmp_path_factory.mktemp("out")
    done = compare(pair, *TWO, *SMALL, "--prompts", str(prompt_file), "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "prompt lookup" in done.stdout and str(out / "index.html") in done.stdout.replace("\n", "")
    return out


@pytest.fixture(scope="module")
def record(folder: Path) -> CompareRecord:
    return read_comparison(folder, whole=True)


def test_every_method_is_measured_with_its_own_options_and_at_equal_budget(record: CompareRecord) -> None:
    entrants = record.header.entered
    assert [one.arm for one in entrants] == ARMS and not record.header.left_out
    assert [(one.own, one.equal) for one in entrants] == [(True, False), (False, True)] * 2
    assert [one.options.get("m", one.options["depth"]) for one in entrants] == [25, 4, 10, 4]
    texts = Counter((call.arm, call.temperature, call.prompt) for call in record.of(Call))
    assert len(texts) == 5 * 2 * 3 and set(texts.values()) == {2} and {call.tokens for call in record.of(Call)} == {8}
    figures = method_figures_of(record)
    assert {row.arm for row in figures} == {"vanilla", *ARMS} and len(figures) == 5 * 2 * (1 + 3)


def test_every_measurement_is_recorded(record: CompareRecord) -> None:
    common = {"target pass", "cache commit", "rule", "rest"}
    profiles = {(one.arm, one.temperature): set(one.milliseconds) for one in record.of(StepProfile)}
    assert profiles == {
        (arm, t): common | (set() if arm == "vanilla" else {"drafting"}) for arm in ("vanilla", *ARMS) for t in (0.0, 1.0)
    }
    points = {(one.temperature, one.tree, one.m) for one in record.of(BudgetPoint)}
    assert points == {(t, tree, m) for t in (0.0, 1.0) for tree in ("dynamic", "deep", "chain") for m in (1, 8)}
    assert [one.temperature for one in record.of(Reliability)] == [0.0, 1.0] and not record.of(Divergence)


def test_counts_are_those_of_a_decoder_alone(pair: Pair, prompt_file: Path, record: CompareRecord) -> None:
    target = Target.load(pair.target)
    prompts = {prompt.id: prompt for prompt in load_prompts(prompt_file, pair, 0, 8)}
    methods = {"vanilla": None, "eagle2": Budget(), "eagle2, equal": Budget(m=4)}
    decoders = {name: Decoder(target, one.drafter(target, pair.draft) if one else None, reject) for name, one in methods.items()}
    for call in record.of(Call):
        if call.arm in decoders:
            params = SamplingParams(call.temperature, max_new_tokens=8)
            text = decoders[call.arm].generate(prompts[call.prompt].tokens, params, SeededCoins(call.repeat))
            passes = [(len(block.tree), len(block.tokens) - 1) for block in text.blocks[1:]]
            assert call.counts == Counts.of(passes, text.target_passes, text.draft_passes), call


def test_figures_of_the_footer_are_those_of_the_texts(record: CompareRecord) -> None:
    assert method_figures_of(replace(record, footer=None)) == method_figures_of(record)


# --- methods that cannot be run, and methods that are wrong ---------------------------------------------------------------


@dataclass(frozen=True)
class NeedsSmallModel(Budget):
    """A method that drafts with a checkpoint that the tiny pair does not have."""

    checkpoint: ClassVar[Checkpoint] = "small"


@pytest.fixture
def ghost(monkeypatch: pytest.MonkeyPatch) -> MethodSpec:
    family = MethodSpec("ghost", "the <b>ghost</b>", "unwritten", NeedsSmallModel, CHOSEN)
    monkeypatch.setitem(METHODS, "ghost", family)
    return family


@pytest.mark.usefixtures("ghost")
def test_method_without_checkpoint_is_left_out_with_the_reason(pair: Pair, prompt_file: Path, tmp_path: Path) -> None:
    words = ["--methods", "ghost,lookup", *SMALL, "--temperature", "0", "--prompts", str(prompt_file), "--out", str(tmp_path)]
    done = compare(pair, *words)
    record = read_comparison(tmp_path, whole=True)
    assert done.exit_code == 0 and [*record.header.left_out] == ["ghost"]
    assert {one.method for one in record.header.entered} == {"lookup"}
    files = [(tmp_path / name).read_text() for name in ("summary.md", "index.html")]
    for text in (re.sub(r"\s+", " ", done.stdout), compare_section(record), *files):
        assert re.search(r"has no checkpoint .{1,6}small", text)
    again = compare(pair, *words, "--small", str(pair.draft))
    assert again.exit_code == 0, again.output
    assert not read_comparison(tmp_path).header.left_out and "--small draft" in read_comparison(tmp_path).header.command


@pytest.mark.usefixtures("ghost")
def test_comparison_without_any_method_is_refused(pair: Pair, prompt_file: Path, tmp_path: Path) -> None:
    done = compare(pair, "--methods", "ghost", *SMALL, "--prompts", str(prompt_file), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2 and "no method can be run" in done.stderr and "'small'" in done.stderr
    assert not (tmp_path / "out").exists()


def second_best(tree: Tree, p: Tensor, coins: Coins) -> Accepted:  # noqa: ARG001
    """A wrong rule: it emits the second most probable token."""
    return Accepted([], int(p[0].topk(2).indices[1]))


def test_greedy_text_that_differs_ends_with_exit_code_1(
    pair: Pair, prompt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless rounding explains the difference, as when the same record has a large noise."""
    family = replace(METHODS["lookup"], name="wrong", title="a wrong method", rules={"second": second_best})
    monkeypatch.setitem(METHODS, "wrong", family)
    words = ["--methods", "wrong,lookup", *SMALL, "--m", "0", "--prompts", str(prompt_file), "--out", str(tmp_path)]
    done = compare(pair, *words)
    found = read_comparison(tmp_path, whole=True).of(Divergence)
    assert done.exit_code == 1 and {one.arm for one in found} == {"wrong"} and len(found) == 3
    assert all(not one.is_tie and one.at == 0 and one.margin > one.noise for one in found)
    for text in (re.sub(r"\s+", " ", done.stdout), (tmp_path / "index.html").read_text(), (tmp_path / "summary.md").read_text()):
        assert "other differences: 3, of wrong." in text and "BROKEN" in text
    record = tmp_path / "record.jsonl"
    record.write_text(re.sub(r'"noise":0[^}]*', '"noise":9.0', record.read_text()))
    tied = CliRunner().invoke(app, ["compare", "--draw", str(tmp_path)])
    assert tied.exit_code == 0 and "rounding explains: 3;" in re.sub(r"\s+", " ", tied.stdout)


def test_divergence_is_measured_on_the_targets_logits(pair: Pair, prompt_file: Path) -> None:
    """The margin is that of the two tokens after the common text; the noise is that of rounding in two orders of passes."""
    target, prompt, n = Target.load(pair.target), load_prompts(prompt_file, pair, 0, 64)[0], 40
    params = SamplingParams(0.0, max_new_tokens=64)
    expected = tuple(Decoder(target).generate(prompt.tokens, params, SeededCoins(0)).tokens)
    other = (expected[n] + 1) % 256
    one = divergence("x", prompt, (*expected[:n], other, *expected[n + 1 :]), expected, target)
    assert (one.at, one.emitted, one.expected, one.is_tie) == (n, other, expected[n], False) and 0 < one.noise < 1e-3
    logits = target.prefill([target.cache()], [[*prompt.tokens, *expected[:n]]])[0].logits[0]
    assert one.margin == pytest.approx(float(logits[expected[n]] - logits[other]), abs=1e-3)
    assert one.model_copy(update={"margin": one.noise}).is_tie
    shorter = divergence("x", prompt, expected[:2], expected, target)
    assert (shorter.at, shorter.emitted, shorter.is_tie) == (2, -1, False), "a text that ends too early is a fault"


# --- arms -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guesses:
    """Options like Lookahead's: guesses of one length."""

    k: int = 7
    depth: int = 4

    checkpoint: ClassVar[Checkpoint] = "none"


@dataclass(frozen=True)
class Phrases(Guesses):
    """Options like Ouroboros': guesses after the end of a chain."""

    k: int = 3
    depth: int = 10
    phrase: int = 4


@dataclass(frozen=True)
class NoOptions:
    """Options without a size."""

    checkpoint: ClassVar[Checkpoint] = "none"


EQUAL = {
    "tree": (Budget, Budget(m=20)),
    "chain": (Lookup, Lookup(depth=20)),
    "guesses": (Guesses, Guesses(k=5)),
    "guesses after a chain": (Phrases, Phrases(k=3)),  # a chain of 6, and 3 guesses of 4
    "no size": (NoOptions, None),
}


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_budget_of_each_kind_of_method(kind: str) -> None:
    make, expected = EQUAL[kind]
    family = MethodSpec("x", "X", "invented", make, CHOSEN)
    assert at_equal_budget(family, CompareSettings(m=20)) == expected and at_equal_budget(family, CompareSettings(m=0)) is None


def test_preset_changes_the_budget_of_dynamic_trees_only() -> None:
    settings = CompareSettings(preset="vicuna-7b", m=25)
    assert own_options(METHODS["eagle2"], settings)["m"] == 59 and own_options(METHODS["lookup"], settings) == {}
    assert at_equal_budget(METHODS["eagle2"], settings) == Budget(k=10, depth=6, m=25)


def test_method_of_equal_size_is_run_once(pair: Pair) -> None:
    """A tree that cannot have m nodes is left out with the reason; the method's own tree is still run."""
    target, checkpoints = Target.load(pair.target), find_checkpoints(pair)
    (both,) = MethodArms(CompareSettings(methods=("eagle2",), m=25), target, checkpoints, "x").arms
    assert both.entrant.own and both.entrant.equal
    found = MethodArms(CompareSettings(methods=("eagle2",), m=999), target, checkpoints, "x")
    assert [one.entrant.equal for one in found.arms] == [False]
    assert "m is 999" in found.left_out["eagle2, m = 999"]


def open_run(pair: Pair, settings: CompareSettings) -> ComparisonRun:
    target, checkpoints = Target.load(pair.target), find_checkpoints(pair)
    return ComparisonRun(target, checkpoints, MethodArms(settings, target, checkpoints, "x"), (), ticking())


def test_arms_share_the_network_but_no_cache(pair: Pair) -> None:
    coins = SeededCoins(0)
    decoders = [*open_run(pair, CompareSettings(m=4)).decoders.values()]
    networks: list[Any] = [one.target.network for one in decoders]
    assert len({id(network.layers) for network in networks}) == 1  # EAGLE-3 has a view of the network
    sequences = [one.start([1], SamplingParams(), coins) for one in decoders]
    assert len({id(one.cache) for one in sequences}) == len(decoders)


@dataclass(frozen=True)
class FourNodes(Budget):
    """In place of EAGLE's static tree: a tree of 4 nodes."""

    m: int = 4


def test_points_of_a_static_tree_end_with_its_size(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.benchmark.comparison.NODES", (1, 2, 4, 8))
    monkeypatch.setattr("harness.benchmark.budgets.TOKENS", 8)
    monkeypatch.setattr("harness.benchmark.reliability.TOKENS", 16)
    monkeypatch.setitem(METHODS, "eagle", MethodSpec("eagle", "EAGLE", "", FourNodes, CHOSEN))
    prompts = [Prompt("a", "code", "", [1, 2, 3])]
    both = open_run(pair, CompareSettings(methods=("eagle2", "eagle"), m=0))
    points = [one for one in head_measurements(both, prompts, 0.0) if isinstance(one, BudgetPoint)]
    assert [one.m for one in points if one.tree == "static"] == [1, 2, 4]
    assert {one.tokens for one in points} == {7}, "at temperature 0 all budgets emit the same text"
    assert not [*head_measurements(open_run(pair, CompareSettings(methods=("lookup",), m=0)), prompts, 0.0)], "there is no head"


# --- files ----------------------------------------------------------------------------------------------------------------


def test_page_fetches_nothing_and_has_every_plot(folder: Path) -> None:
    page, summary = (folder / "index.html").read_text(), (folder / "summary.md").read_text()
    assert not any(text in page for text in ("<script", "http://", "https://", "<b>three"))
    by_temperature = [f"{name}-{t}" for name in ("budgets", "kinds", "reliability") for t in (0, 1)]
    names = sorted(["methods", "equal", *by_temperature, "published-paper", "published-spec-bench"])
    assert sorted(path.stem for path in folder.glob("*.svg")) == names
    for name in names:
        ElementTree.parse(folder / f"{name}.svg")  # noqa: S314  we wrote it
        assert f"({name}.svg)" in summary
    for text in (page, summary):
        assert text.index("Published figures") < text.index("EAGLE-2, table 1")


def test_drawing_again_gives_the_same_bytes(folder: Path) -> None:
    """From the record alone."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        if path.name != "record.jsonl":
            path.unlink()
    assert CliRunner().invoke(app, ["compare", "--draw", str(folder)]).exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_run_that_was_cut_off_can_only_be_drawn(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:8]))
    drawn = CliRunner().invoke(app, ["compare", "--draw", str(tmp_path)])
    assert drawn.exit_code == 0 and "cut off" in drawn.stdout and "cut off" in (tmp_path / "index.html").read_text()
    refused = CliRunner().invoke(app, ["compare", "--readme", str(tmp_path)])
    assert refused.exit_code == 2 and "no footer" in refused.stderr


def test_no_file_names_a_folder_of_this_machine(folder: Path, pair: Pair) -> None:
    for file in folder.iterdir():
        assert str(pair.target.parent) not in file.read_text() and str(Path.home()) not in file.read_text()


# --- settings -------------------------------------------------------------------------------------------------------------


def test_command_repeats_the_run(pair: Pair, tmp_path: Path) -> None:
    stdlib = shipped("stdlib")
    settings = CompareSettings(methods=("eagle2", "lookup"), temperatures=(1.0,), m=0)
    assert command_line(CompareSettings(), stdlib, find_checkpoints(stdlib)) == "eagle2 compare"
    expected = "eagle2 compare --temperature 1 --methods eagle2,lookup --m 0"
    assert command_line(settings, stdlib, find_checkpoints(stdlib)) == expected
    own = Pair("x", pair.target, pair.draft, own=True)
    (tmp_path / "little one").mkdir()
    found = find_checkpoints(own, small=str(tmp_path / "little one"))
    expected = "eagle2 compare --target target --draft draft --small 'little one'"
    assert command_line(CompareSettings(pair="x"), own, found) == expected


def test_preset_with_questions(tmp_path: Path) -> None:
    """Two turns make two prompts in the format of the preset's model; its budget is EAGLE-2's own."""
    pair, _ = families.FAMILIES["llama3"](tmp_path / "pair")
    file, out = tmp_path / "question.jsonl", tmp_path / "out"
    file.write_text(json.dumps({"question_id": 81, "category": "writing", "turns": ["Hi", "Bye"]}) + "\n")
    words = ["--preset", "llama3-8b", "--dtype", "float32", *TWO, *SMALL, "--prompts", str(file), "--out", str(out)]
    done = compare(pair, *words, "--system", "Be brief.")
    assert done.exit_code == 0, done.output
    record = read_comparison(out, whole=True)
    assert [(one.id, one.kind) for one in record.header.prompts] == [("81/1", "writing"), ("81/2", "writing")]
    own, equal = (one for one in record.header.entered if one.method == "eagle2")
    assert [own.options[name] for name in ("k", "depth", "m")] == [10, 6, 59] and equal.options["m"] == 4
    assert "LLaMA3-Instruct 8B" in (out / "summary.md").read_text() and "--preset llama3-8b" in record.header.command


REFUSED = [
    ("--methods eagle4", "'eagle4'", "eagle"),
    ("--methods lookup,lookup", "--methods names lookup, lookup", "once"),
    ("--m -1", "m is -1", "0"),
    ("--tokens 1", "tokens is 1", "2 or more"),
    ("--temperature hot", "--temperature hot", "0,1"),
    ("--dtype float8", "dtype 'float8'", "bfloat16"),
    ("--small nowhere", "--small nowhere", "checkpoint"),
    ("--preset gpt-5", "preset 'gpt-5'", "vicuna-7b"),
    ("--preset vicuna-7b", "--target", "lmsys/vicuna-7b-v1.3"),
    ("--prompts no.jsonl", "no.jsonl", "id, kind, text"),
    ("--methods lookup --system x", "--system was given", "--prompts"),
    ("--draw nowhere", "nowhere", "eagle2 compare --out"),
    ("--readme nowhere", "nowhere", "eagle2 compare --out"),
    ("--draw a --readme b", "given together", "give one of them"),
]


@pytest.mark.parametrize(("words", "wrong", "remedy"), REFUSED, ids=[words for words, _, _ in REFUSED])
def test_bad_input_is_refused(words: str, wrong: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a few lines, with what to do, and before anything is written."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare", *words.split()])
    assert done.exit_code == 2 and wrong in done.stderr and remedy in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4 and not (tmp_path / "reports").exists()
