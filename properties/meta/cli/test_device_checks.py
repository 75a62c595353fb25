"""`eagle2 gpu` and `eagle2 train large`: all that can be wrong with them where there is no GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.main import get_command
from typer.testing import CliRunner, Result

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.sampling import SamplingParams
from fixtures.training import recipes, target
from fixtures.training.drafters import HeadRecipe
from fixtures.training.target import TargetRecipe
from harness import device_checks as gpu
from harness.cli import app

REPORTS = Path(__file__).parents[3] / "reports"


def eagle2(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("device", ["cuda", "cpu", "gpu"])
def test_without_a_device_nothing_is_begun(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(subprocess, "run", None)
    told = eagle2("gpu", "--device", device, "--out", str(tmp_path / "out"))
    assert told.exit_code == 2 and len(told.stderr.strip().splitlines()) == 2 and not (tmp_path / "out").exists()
    assert "--device cpu" not in told.stderr and "give cuda or cuda:N" in told.stderr
    assert eagle2("train", "large", "--out", str(tmp_path / "pair")).exit_code == 2 and not (tmp_path / "pair").exists()


def test_every_command_is_one(tmp_path: Path) -> None:
    """Its words are known, each with a value of its kind."""
    asked = gpu.parts("cuda", tmp_path)
    assert len({part.name for part in asked}) == len(asked) == 8
    for part in asked:
        command, words = get_command(app), list(part.words)
        while commands := getattr(command, "commands", None):
            command = commands[words.pop(0)]
        command.make_context("eagle2", words)
        assert not part.name or str(tmp_path / part.name) in part.words


class Ran:
    """Instead of processes: notes what was asked for, and leaves a record that somebody else made."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, command: Sequence[str], check: bool) -> None:
        assert not check
        words = list(command[3:])
        self.asked.append(words[0])
        if words[0] != "train":
            out = Path(words[words.index("--out") + 1])
            out.mkdir(exist_ok=True)
            shutil.copy(REPORTS / {"verify": "reference", "bench": "bench"}[words[0]] / "record.jsonl", out)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    made = Ran()
    monkeypatch.setattr(gpu, "torch_device", torch.device)
    monkeypatch.setattr(subprocess, "run", made)
    return made


def test_what_was_cut_off_goes_on(tmp_path: Path, ran: Ran) -> None:
    """A part whose record is not whole is run again, and no other; a training knows itself what it has finished."""
    out = tmp_path / "reports" / "gpu"
    assert gpu.run("cuda", out) == 0
    assert ran.asked == ["verify", "verify", "train", "bench", *["verify"] * 4]
    ran.asked.clear()
    for name in ("static-float32", "bench"):
        lines = (out / name / "record.jsonl").read_text().splitlines(keepends=True)
        (out / name / "record.jsonl").write_text("".join(lines[:-1]))
    assert gpu.run("cuda", out) == 0 and ran.asked == ["verify", "train", "bench"]


def test_the_worst_is_told(tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault comes before a part without a record, and that before an open question; the summary has a line a record."""
    assert gpu.run("cuda", tmp_path) == 0
    summary = (tmp_path / "summary.md").read_text()
    assert all(f"[{part.name}]" in summary for part in gpu.parts("cuda", tmp_path) if part.name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    _end(tmp_path / "ref-float16", 3)
    assert gpu.run("cuda", tmp_path) == 3
    (tmp_path / "bench" / "record.jsonl").unlink()
    assert gpu.run("cuda", tmp_path) == 4 and "[bench]" not in (tmp_path / "summary.md").read_text()
    _end(tmp_path / "ref-bfloat16", 1)
    assert gpu.run("cuda", tmp_path) == 1
    assert ran.asked


def _end(folder: Path, code: int) -> None:
    *lines, footer = (folder / "record.jsonl").read_text().splitlines()
    (folder / "record.jsonl").write_text("\n".join([*lines, json.dumps({**json.loads(footer), "exit_code": code})]) + "\n")


TARGET = TargetRecipe(
    hidden=32, layers=2, heads=2, kv_heads=2, mlp=64, steps=12, batch=2, length=64, warmup=2, attention="sdpa"
)  # fmt: skip
HEAD = HeadRecipe(windows=24, length=64, prompt=16, steps=4, batch=4, warmup=2, unroll=2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The large pair's training with other recipes, and nothing else of it."""
    monkeypatch.setattr(recipes, "LARGE_TARGET", TARGET)
    monkeypatch.setattr(recipes, "LARGE_HEAD", HEAD)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("small")
def test_a_large_pair_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Target and head in half precision, which decode; what is finished is kept, and another target has another head."""

    def make() -> dict[str, float]:
        told = eagle2("train", "large", "--device", "cpu", "--threads", "1", "--out", str(tmp_path))
        assert told.exit_code == 0, told.output
        return {part: (tmp_path / part / "model.safetensors").stat().st_mtime_ns for part in ("target", "draft")}

    first = make()
    assert all(t.dtype == torch.float16 for part in first for t in load_file(tmp_path / part / "model.safetensors").values())
    assert "fc.bias" not in load_file(tmp_path / "draft" / "model.safetensors") and (tmp_path / "SHA256SUMS").exists()
    drafting, alone = (Decoder.load(tmp_path / "target", draft, Budget(4, 3, 8)) for draft in (tmp_path / "draft", None))
    asked = SamplingParams(1.0, max_new_tokens=24)
    assert drafting.generate([100, 101], asked, KeyedCoins(1)).tokens == alone.generate([100, 101], asked, KeyedCoins(1)).tokens
    assert make() == first
    shutil.rmtree(tmp_path / "draft")
    second = make()
    assert second["target"] == first["target"] and second["draft"] > first["draft"]
    monkeypatch.setattr(recipes, "LARGE_TARGET", replace(TARGET, seed=1))
    third = make()
    assert third["target"] > second["target"] and third["draft"] > second["draft"]


@pytest.mark.usefixtures("small")
def test_a_target_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off between two saved states, it comes to the weights of one that was not."""
    words = ("train", "large", "--device", "cpu", "--threads", "1", "--out")
    eagle2(*words, str(tmp_path / "whole"))
    monkeypatch.setattr(target, "SAVE_EVERY", 4)
    optimizers: Any = target.set_rates

    def until(*given: Any) -> None:
        optimizers(*given)
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt

    steps: list[int] = []
    monkeypatch.setattr(target, "set_rates", until)
    eagle2(*words, str(tmp_path / "cut"))
    assert not (tmp_path / "cut" / "target").exists()
    assert eagle2(*words, str(tmp_path / "cut")).exit_code == 0 and len(steps) == 7 + 12 - 4
    made, again = (load_file(tmp_path / name / "target" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(made[name], again[name]) for name in made)


def test_the_large_pair_is_as_large_as_it_says() -> None:
    """Of one step's arithmetic in the recipes the counts can be checked: parameters, bytes a step, bytes of features."""
    asked = recipes.LARGE_TARGET
    layer = 4 * asked.hidden**2 + 3 * asked.hidden * asked.mlp
    parameters = asked.layers * layer + 2 * 256 * asked.hidden
    head = layer + 2 * asked.hidden**2 + 256 * asked.hidden
    assert round(parameters / 1e6) == 284 and round((parameters + head) / 1e6) == 292
    assert asked.batch * asked.length == 16_384 and 16e6 < asked.steps * 16_384 < 17e6
    assert 29e12 < 6 * parameters * 16_384 * 1.07 < 31e12
    assert round(recipes.LARGE_HEAD.windows * recipes.LARGE_HEAD.length * asked.hidden * 2 / 1e9, 1) == 1.6
