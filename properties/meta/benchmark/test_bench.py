"""`eagle2 bench` from end to end on a tiny pair: its record, its files, and the input that it refuses."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from harness.benchmark.arms import OFF
from harness.benchmark.figures import figures_of
from harness.benchmark.pass_latency import ROWS
from harness.benchmark.prompts import load_prompts, spread
from harness.benchmark.record import (
    ArmFigures,
    BatchCall,
    BenchRecord,
    BudgetPoint,
    Call,
    HeadTemperature,
    PassLatency,
    StepBound,
    StepProfile,
    TuningResult,
    VerdictLatency,
    read_bench,
)
from harness.benchmark.runner import header_facts
from harness.benchmark.settings import PROMPTS, BenchSettings, command_line, portable_name
from harness.benchmark.step_profile import PARTS
from harness.benchmark.verdict_latency import DECODERS
from harness.cli import app
from harness.pairs import Pair, shipped

SMALL = "--k 2 --depth 2 --m 3 --tokens 8 --repeats 2 --threads 1"
OTHER = "ref:k=2,depth=2,m=3"
PLOTS = ["accepted-0", "accepted-1", "batches", "batches-0", "batches-1", "budgets", "costs", "prompts-0", "prompts-1"]
PLOTS += ["reliability-0", "reliability-1", "steps"]


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words])


def run(pair: Pair, prompt_file: Path, out: Path, words: str) -> Result:
    """A run that must succeed."""
    done = bench(*files_of(pair, prompt_file, out), *words.split())
    assert done.exit_code == 0, done.output
    return done


def files_of(pair: Pair, prompt_file: Path, out: Path) -> list[str]:
    """Words of a small run."""
    files = ["--target", str(pair.target), "--draft", str(pair.draft), "--prompts", str(prompt_file), "--out", str(out)]
    return [*SMALL.split(), *files]


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Copy small tensors, and tune on short texts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("harness.benchmark.roofline.COPIED", 1 << 20)
        patched.setattr("harness.benchmark.tune.TOKENS", 6)
        patched.setattr("harness.benchmark.calibrate.TOKENS", 16)
        yield


@pytest.fixture(scope="module")
def folder(pair: Pair, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with another implementation, batches and fixed shapes."""
    out = tmp_path_factory.mktemp("out")
    done = run(pair, prompt_file, out, f"--beside {OTHER} --batch 1,2 --fixed-shapes")
    assert "speculative" in done.stdout and str(out / "index.html") in done.stdout.replace("\n", "")
    return out


@pytest.fixture(scope="module")
def record(folder: Path) -> BenchRecord:
    return read_bench(folder, whole=True)


@pytest.fixture(scope="module")
def arms(record: BenchRecord) -> dict[tuple[str, float], ArmFigures]:
    return {(arm.arm, arm.temperature): arm for arm in figures_of(record).arms}


def test_every_arm_decodes_every_prompt_at_every_temperature(record: BenchRecord) -> None:
    names = ["speculative", "vanilla", "static", "static vanilla", "transformers", OTHER, OTHER + OFF]
    assert list(record.header.arms) == names
    texts = Counter((call.arm, call.temperature, call.prompt) for call in record.of(Call))
    assert len(texts) == len(names) * 2 * 3 and set(texts.values()) == {2}
    assert {call.tokens for call in record.of(Call)} == {8}
    assert all(0 < (call.prefill or 0) < call.seconds for call in record.of(Call) if call.arm in names[:5])
    assert all(call.prefill is None for call in record.of(Call) if call.arm in names[5:])


def test_every_measurement_is_recorded(record: BenchRecord) -> None:
    profiles = {(one.arm, one.temperature): set(one.milliseconds) for one in record.of(StepProfile)}
    common = {"target pass", "rule", "cache commit", "rest"}
    assert profiles == {(arm, t): parts for arm, parts in (("speculative", set(PARTS)), ("vanilla", common)) for t in (0.0, 1.0)}
    latencies = {(one.what, one.rows) for one in record.of(PassLatency)}
    assert latencies == {(what, rows) for what in ("target", "head") for rows in ROWS}
    points = record.of(BudgetPoint)
    assert {(one.temperature, one.m) for one in points} == {(t, m) for t in (0.0, 1.0) for m in (1, 2, 3, 4)}
    assert all(one.passes * one.m < one.rows <= one.passes * (one.m + 1) for one in points)
    bounds = {(one.arm, one.temperature) for one in record.of(StepBound)}
    assert bounds == {(arm, t) for arm in ("static", "static vanilla") for t in (0.0, 1.0)}


def test_counts_of_arms_agree(arms: dict[tuple[str, float], ArmFigures]) -> None:
    """The same decoder counts alike as an arm and behind the protocol. Without drafts there is a pass for each token."""
    for temperature in (0.0, 1.0):
        ours, same = arms["speculative", temperature], arms[OTHER, temperature]
        for name in ("tau", "target_passes", "rows", "accepted", "tokens"):
            assert getattr(ours, name) == getattr(same, name), name
        plain = arms["vanilla", temperature]
        assert plain.tau == 1.0 and plain.target_passes == plain.tokens and plain.head_passes == 0
        assert arms[OTHER + OFF, temperature].rows == plain.rows
        assert ours.head_passes and (ours.rows or 0) > (plain.rows or 0) > 0


def test_fixed_shapes_count_like_the_loop(record: BenchRecord, arms: dict[tuple[str, float], ArmFigures]) -> None:
    """The blocks are the same. Only the last tree of a text is larger, which the loop limits to the remaining tokens."""
    assert "--fixed-shapes" in record.header.command
    for fixed, loop in (("static", "speculative"), ("static vanilla", "vanilla")):
        mine, theirs = arms[fixed, 0.0], arms[loop, 0.0]
        assert (mine.tau, mine.target_passes, mine.tokens) == (theirs.tau, theirs.target_passes, theirs.tokens)
    assert arms["static vanilla", 1.0].head_passes == 0 and arms["static vanilla", 1.0].tau == 1.0
    drafted = arms["static", 1.0]
    assert drafted.target_passes and drafted.head_passes == 2 * (drafted.target_passes - drafted.calls)
    assert drafted.rows == 4 * (drafted.target_passes - drafted.calls)


def test_weights_of_a_step_are_those_on_disk(record: BenchRecord, pair: Pair) -> None:
    """A pass reads everything but the embedding; a step has one pass of the target, and one of the head per layer."""

    def size(part: Path) -> int:
        tensors = load_file(part / "model.safetensors").items()
        return sum(4 * tensor.numel() for name, tensor in tensors if "embed_tokens" not in name)

    lm_head = 4 * load_file(pair.target / "model.safetensors")["lm_head.weight"].numel()
    for one in record.of(StepBound):
        head = size(pair.draft) + lm_head if one.arm == "static" else 0
        assert list(one.weights.values()) == [size(pair.target), head, head]


def test_texts_of_a_batch_count_like_single_texts(record: BenchRecord) -> None:
    alone = {(call.arm, call.temperature, call.prompt, call.repeat): call.counts for call in record.of(Call)}
    batches = record.of(BatchCall)
    assert Counter((one.arm, len(one.prompts)) for one in batches) == {
        (arm, size): 2 * 2 * (2 // size) for arm in ("speculative", "vanilla") for size in (1, 2)
    }
    for one in batches:
        counts: Any = [alone[one.arm, one.temperature, prompt, one.repeat] for prompt in one.prompts]
        assert 0 < one.prefill < one.seconds and one.tokens == 8 * len(one.prompts)
        assert one.rows == sum(own.rows for own in counts) and one.passes == max(own.target_passes for own in counts) - 1
    figures = [(one.temperature, one.texts, one.arm) for one in figures_of(record).batches]
    assert figures == [(t, n, arm) for t in (0.0, 1.0) for n in (1, 2) for arm in ("speculative", "vanilla")]


def test_tuned_budgets_and_verdicts(pair: Pair, prompt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned budgets are arms after the first one. A tuned arm without a budget decodes without drafts."""
    monkeypatch.setattr("harness.benchmark.pass_latency.ROWS", (1, 4))
    run(pair, prompt_file, tmp_path, "--tune --harness --no-transformers")
    record = read_bench(tmp_path, whole=True)
    order = ["speculative", "tuned as published", "tuned", "vanilla"]
    assert "--tune --harness" in record.header.command and set(record.header.arms) == set(order)
    assert list(dict.fromkeys(call.arm for call in record.of(Call))) == order
    results = record.of(TuningResult)
    assert [one.temperature for one in results] == [0.0, 1.0] and all(len(one.tried) > 10 for one in results)
    arms = {(arm.arm, arm.temperature): arm for arm in figures_of(record).arms}
    for one in results:
        for name, trial in (("tuned", one.chosen), ("tuned as published", one.paper)):
            arm = arms[name, one.temperature]
            assert (arm.head_passes == 0) == (trial is None) and (arm.tau == 1.0) == (trial is None)
    assert len(record.of(HeadTemperature)) >= 8 and {one.prompts for one in record.of(HeadTemperature)} == {3}
    assert [one.decoder for one in record.of(VerdictLatency)] == [*DECODERS] * 2


# --- files ----------------------------------------------------------------------------------------------------------------


def test_page_fetches_nothing_and_has_every_plot(folder: Path) -> None:
    page, summary = (folder / "index.html").read_text(), (folder / "summary.md").read_text()
    assert not any(text in page for text in ("<script", "http://", "https://", "<b>three"))
    assert sorted(path.stem for path in folder.glob("*.svg")) == PLOTS
    for name in PLOTS:
        ElementTree.parse(folder / f"{name}.svg")  # noqa: S314  we wrote it
        assert f"({name}.svg)" in summary


def test_no_file_names_a_folder_of_this_machine(folder: Path, pair: Pair) -> None:
    for file in folder.iterdir():
        assert str(pair.target.parent) not in file.read_text() and str(Path.home()) not in file.read_text()


def test_drawing_again_gives_the_same_bytes(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert bench("--draw", str(folder)).exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_run_that_was_cut_off_can_only_be_drawn(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:8]))
    drawn = bench("--draw", str(tmp_path))
    assert drawn.exit_code == 0 and "cut off" in drawn.stdout and "cut off" in (tmp_path / "index.html").read_text()
    for words in (["--readme", str(tmp_path)], ["--draw", str(folder), "--against", str(tmp_path)]):
        assert bench(*words).exit_code == 2


# --- comparison with an earlier run ---------------------------------------------------------------------------------------


def test_changed_count_ends_with_exit_code_1(pair: Pair, prompt_file: Path, folder: Path, tmp_path: Path) -> None:
    """Also where the run writes to the folder of the earlier record, which is read first."""
    assert bench("--draw", str(folder), "--against", str(folder)).exit_code == 0
    *lines, footer = (folder / "record.jsonl").read_text().splitlines()
    changed = json.loads(footer)
    changed["figures"]["arms"][0]["head_passes"] *= 2
    (tmp_path / "record.jsonl").write_text("\n".join([*lines, json.dumps(changed)]) + "\n")
    done = bench("--draw", str(folder), "--against", str(tmp_path))
    assert done.exit_code == 1 and "A count changed" in done.stdout
    done = bench(*files_of(pair, prompt_file, tmp_path), "--against", str(tmp_path), "--no-transformers")
    assert done.exit_code == 1 and "A count changed" in done.stdout


def test_runs_of_other_texts_are_refused_before_they_start(
    pair: Pair, prompt_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"--against {folder} --no-transformers"
    assert "No count changed" in run(pair, prompt_file, tmp_path / "same", words).stdout
    monkeypatch.setattr("harness.benchmark.bench.run_bench", None)
    (tmp_path / prompt_file.name).write_text(prompt_file.read_text().replace("class A", "class B"))
    files = ["--target", str(pair.target), "--draft", str(pair.draft), "--out", str(tmp_path / "other")]
    for other in (["--m", "2"], ["--seed", "1"], ["--limit", "2"], ["--prompts", str(tmp_path / prompt_file.name)]):
        refused = bench(*SMALL.split(), *files, *words.split(), "--prompts", str(prompt_file), *other)
        assert refused.exit_code == 2 and ("earlier run" in refused.stderr or "same prompts" in refused.stderr)
        assert not (tmp_path / "other").exists()


# --- settings -------------------------------------------------------------------------------------------------------------


def test_prompts_are_spread_over_the_file() -> None:
    stdlib = shipped("stdlib")
    assert len({prompt.kind for prompt in load_prompts(PROMPTS, stdlib, 6, 8)}) == 6
    assert len(load_prompts(PROMPTS, stdlib, 0, 8)) == len(load_prompts(PROMPTS, stdlib, 99, 8)) == 32
    assert spread(range(9), 3) == [1, 4, 7] and spread("ab", 3) == ["a", "b"]


HERE = "eagle:method=eagle2,path=/home/me/EAGLE,python=/home/me/bin/python,k=4"
COMMANDS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (
        {"temperatures": (0.5,), "beside": ("ref", "vllm:method=eagle"), "transformers": False, "head_temperature": 0.7},
        " --temperature 0.5 --head-temperature 0.7 --beside ref --beside vllm:method=eagle --no-transformers",
    ),
    ({"batch": (1, 8)}, " --batch 1,8"),
    ({"harness": True}, " --harness"),
    ({"beside": (HERE,)}, " --beside eagle:method=eagle2,path=EAGLE,k=4"),
    ({"device": "cuda"}, " --device cuda"),
    ({"fixed_shapes": True}, " --fixed-shapes"),
    ({"device": "cuda", "fixed_shapes": False}, " --device cuda --no-fixed-shapes"),
    ({"tune": True, "transformers": False}, " --no-transformers --tune"),
]


@pytest.mark.parametrize(("changes", "options"), COMMANDS, ids=[options or "defaults" for _, options in COMMANDS])
def test_command_repeats_the_run(changes: dict[str, Any], options: str) -> None:
    assert command_line(BenchSettings(**changes), shipped("stdlib")) == f"eagle2 bench{options}"


def test_command_and_header_have_no_paths(pair: Pair) -> None:
    assert portable_name(HERE) == "eagle:method=eagle2,path=EAGLE,k=4" and portable_name("ref:k=4") == "ref:k=4"
    assert "/home" not in str(header_facts(BenchSettings(beside=(HERE,)), [], "")["settings"])
    own = Pair("x", pair.target, pair.draft, own=True)
    assert command_line(BenchSettings(pair="x"), own) == "eagle2 bench --target target --draft draft"


@pytest.mark.parametrize(
    ("changes", "timed"),
    [({}, False), ({"device": "cuda"}, True), ({"fixed_shapes": True}, True), ({"device": "cuda", "fixed_shapes": False}, False)],
    ids=str,
)
def test_fixed_shapes_are_timed_on_cuda_by_default(changes: dict[str, Any], timed: bool) -> None:
    assert BenchSettings(**changes).with_fixed_shapes is timed


REFUSED = [
    ("--tokens 1", "tokens is 1", "2 or more"),
    ("--repeats 0", "repeats is 0", "1 or more"),
    ("--threads 0", "threads is 0", "1 or more"),
    ("--limit -1", "limit is -1", "0 for all"),
    ("--rule greedy", "rule 'greedy'", "reject, walk"),
    ("--dtype float8", "dtype 'float8'", "bfloat16"),
    ("--device gpu", "device 'gpu'", "cuda"),
    ("--temperature hot", "--temperature hot", "0,1"),
    ("--temperature -1", "temperatures are -1", "0 or more"),
    ("--temperature 1,1", "temperatures are 1, 1", "different"),
    ("--m 2000", "m is 2000", "m"),
    ("--pair stdlob", "'stdlob'", "stdlib"),
    ("--tokens 4000", "context of", "--tokens"),
    ("--batch 1,two", "--batch 1,two", "1,2,4"),
    ("--batch 0,1", "--batch has 0, 1", "1 or more"),
    ("--batch 2,2", "--batch has 2, 2", "different"),
    ("--batch 8 --limit 6", "--batch has 8, but there are 6 prompts", "smaller sizes"),
    ("--prompts no.jsonl", "no.jsonl", "id, kind, text"),
    ("--prompts README.md", "README.md, line 1", "id, kind, text"),
    ("--beside ref --beside ref", "--beside names ref, ref", "once"),
    ("--limit 1 --beside reff", "'reff'", "ref?"),
    ("--against no.jsonl", "no.jsonl", "eagle2 bench --out"),
    ("--draw nowhere", "nowhere", "eagle2 bench --out"),
    ("--readme nowhere", "nowhere", "eagle2 bench --out"),
    ("--draw a --counts", "given together", "give one of them"),
]


@pytest.mark.parametrize(("words", "wrong", "remedy"), REFUSED, ids=[words for words, _, _ in REFUSED])
def test_bad_input_is_refused(words: str, wrong: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a few lines, with what to do, and before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("not a prompt\n")
    done = bench(*words.split())
    assert done.exit_code == 2 and wrong in done.stderr and remedy in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4 and not (tmp_path / "reports").exists()
