"""Fixed shapes in `eagle2 bench`: what they count, what they are compared with, and the least that a step can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from eagle2_ref.coins import SeededCoins
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.bench import bound
from harness.bench.figures import compared
from harness.bench.record import Arm, Bound, Record, read
from harness.bench.settings import Settings, command
from harness.bench.show import bounds
from harness.cli import app
from harness.pairs import Pair, Prompt, shipped
from properties.meta.benchmark.test_bench import SMALL
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_clock import ticking

ARMS = ["speculative", "vanilla", "static", "static vanilla"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("pair"), max_position_embeddings=320)


@pytest.fixture(scope="module")
def folder(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with fixed shapes."""
    out = tmp_path_factory.mktemp("out")
    file = out / "prompts.jsonl"
    file.write_text("".join(json.dumps({"id": text, "kind": "k", "text": text}) + "\n" for text in ("import os", "def f(x):\n")))
    words = ["--target", str(pair.target), "--draft", str(pair.draft), *SMALL.split(), "--prompts", str(file)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bound, "COPIED", 1 << 20)
        told = CliRunner().invoke(app, ["bench", *words, "--fixed-shapes", "--no-transformers", "--out", str(out)])
    assert told.exit_code == 0 and "no clock can tell" in told.stdout, told.output
    return out


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return read(folder, whole=True)


def arms(record: Record) -> dict[tuple[str, float], Arm]:
    assert record.footer
    return {(arm.arm, arm.temperature): arm for arm in record.footer.figures.arms}


def test_they_are_arms_with_a_control_of_their_own(record: Record) -> None:
    assert list(record.header.arms) == ARMS and "--fixed-shapes" in record.header.command
    assert record.footer and ("static", "static vanilla") in {(one.arm, one.over) for one in record.footer.figures.ratios}
    names = [*ARMS, "transformers"]
    assert [pair for pair in compared(names) if "static vanilla" in pair] == [
        ("static vanilla", "vanilla"),
        ("static", "static vanilla"),
    ]
    assert ("static", "transformers") in compared(names)


def test_greedy_they_count_as_the_loop_does(record: Record) -> None:
    """The same blocks; the trees of the last ones alone are larger, which the loop cuts to what is left to emit."""
    found = arms(record)
    for ours, theirs in (("static", "speculative"), ("static vanilla", "vanilla")):
        mine, plain = found[ours, 0.0], found[theirs, 0.0]
        assert (mine.tau, mine.target_passes, mine.tokens) == (plain.tau, plain.target_passes, plain.tokens)
    assert found["static vanilla", 1.0].head_passes == 0 and found["static vanilla", 1.0].tau == 1.0
    drafted = found["static", 1.0]
    assert drafted.target_passes and drafted.head_passes == 2 * (drafted.target_passes - drafted.calls)
    assert drafted.rows == 4 * (drafted.target_passes - drafted.calls)


def test_the_weights_of_a_step_are_those_on_disk(record: Record, pair: Pair) -> None:
    """All that a pass reads but the embedding; a step has one pass of the target, and of the head one a layer."""

    def size(part: Path) -> int:
        found = load_file(part / "model.safetensors").items()
        return sum(4 * tensor.numel() for name, tensor in found if "embed_tokens" not in name)

    lm_head = 4 * load_file(pair.target / "model.safetensors")["lm_head.weight"].numel()
    for one in record.of(Bound):
        head = size(pair.draft) + lm_head if one.arm == "static" else 0
        assert list(one.weights.values()) == [size(pair.target), head, head]
    assert {(one.arm, one.temperature) for one in record.of(Bound)} == {(arm, t) for arm in ARMS[2:] for t in (0.0, 1.0)}


def test_a_step_is_what_lies_between_two_blocks(pair: Pair) -> None:
    """The first of a text, which has the prompt in it, is not one."""
    fixed = FixedShapeDecoder.load(pair.target, pair.draft, Budget(2, 2, 3), walk)
    prompt, params = Prompt("a", "k", "", list(b"import os")), SamplingParams(0.0, max_new_tokens=12)
    blocks = fixed.generate(prompt.tokens, params, SeededCoins(0)).blocks
    found = bound.bound(fixed, "static", [prompt, prompt], params, 0, ticking(), 1e9)
    assert found.steps == 2 * (len(blocks) - 2) and found.milliseconds == 1000.0


def test_bandwidth_is_bytes_read_and_written_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "COPIED", 1000)
    assert bound.bandwidth(torch.device("cpu"), ticking()) == 2000.0


def test_the_least_stands_beside_the_step(folder: Path) -> None:
    """1 GB at 500 GB/s takes 2 ms; a step of 3 ms takes 1.5 times as long. The page says why there are no parts."""
    weights = dict(zip(bound.READS, (600_000_000, 100_000_000, 300_000_000), strict=True))
    one = Bound(arm="static", temperature=0.0, steps=9, milliseconds=3.0, weights=weights, bandwidth=500e9)
    assert one.least == 2.0
    assert bounds([one]).rows == (("0", "static", "3.000 ms", "2.000 ms", "1.50", "500", "600.0 MB", "100.0 MB", "300.0 MB"),)
    for page in ("index.html", "summary.md"):
        assert "no clock can tell its parts apart" in (folder / page).read_text()


@pytest.mark.parametrize(
    ("asked", "static", "told"),
    [
        ({}, False, "eagle2 bench"),
        ({"device": "cuda"}, True, "eagle2 bench --device cuda"),
        ({"fixed_shapes": True}, True, "eagle2 bench --fixed-shapes"),
        ({"device": "cuda", "fixed_shapes": False}, False, "eagle2 bench --device cuda --no-fixed-shapes"),
        ({"tune": True, "transformers": False}, False, "eagle2 bench --no-transformers --tune"),
    ],
    ids=str,
)
def test_on_cuda_they_are_timed_unless_told(asked: dict[str, Any], static: bool, told: str) -> None:
    settings = Settings(**asked)
    assert settings.static is static and command(settings, shipped("stdlib")) == told
