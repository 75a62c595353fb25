"""`eagle2 gpu`, as far as it can be tested without a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from harness import device_checks
from harness.cli import app
from harness.device_checks import parts, run_all
from harness.verdict import BROKEN, FAULT, INCONCLUSIVE, PASS, USAGE

REPORTS = Path(__file__).parents[3] / "reports"


@pytest.mark.parametrize("device", ["cuda", "cpu", "gpu"])
def test_gpu_without_a_cuda_device_starts_nothing(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(subprocess, "run", None)
    done = CliRunner().invoke(app, ["gpu", "--device", device, "--out", str(tmp_path / "out")])
    assert done.exit_code == USAGE and not (tmp_path / "out").exists()
    assert len(done.stderr.strip().splitlines()) == 2 and "cuda:N" in done.stderr and "--device cpu" not in done.stderr


def test_every_part_is_a_valid_command(tmp_path: Path) -> None:
    """Its options exist and have values of their kinds."""
    found = parts("cuda", tmp_path)
    assert len({part.name for part in found}) == len(found) == 8
    for part in found:
        command, words = get_command(app), list(part.arguments)
        while commands := getattr(command, "commands", None):
            command = commands[words.pop(0)]
        command.make_context("eagle2", words)
        assert not part.name or str(tmp_path / part.name) in part.arguments


class FakeRun:
    """In place of subprocess.run: notes the commands, and copies a committed record to where the command would write one."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def __call__(self, command: Sequence[str], check: bool) -> None:
        assert not check
        words = list(command[3:])
        self.commands.append(words[0])
        if words[0] != "train":
            out = Path(words[words.index("--out") + 1])
            out.mkdir(exist_ok=True)
            shutil.copy(REPORTS / {"verify": "reference", "bench": "bench"}[words[0]] / "record.jsonl", out)


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr(device_checks, "torch_device", torch.device)
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def test_interrupted_run_repeats_only_incomplete_parts(tmp_path: Path, fake_run: FakeRun) -> None:
    """Training has no record here, and knows itself what it has finished."""
    out = tmp_path / "reports" / "gpu"
    assert run_all("cuda", out) == PASS
    assert fake_run.commands == ["verify", "verify", "train", "bench", *["verify"] * 4]
    fake_run.commands.clear()
    for name in ("static-float32", "bench"):
        lines = (out / name / "record.jsonl").read_text().splitlines(keepends=True)
        (out / name / "record.jsonl").write_text("".join(lines[:-1]))
    assert run_all("cuda", out) == PASS and fake_run.commands == ["verify", "train", "bench"]


@pytest.mark.usefixtures("fake_run")
def test_exit_code_and_summary_are_those_of_the_worst_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault precedes a part without a record, which precedes an inconclusive one."""
    assert run_all("cuda", tmp_path) == PASS
    summary = (tmp_path / "summary.md").read_text()
    assert all(f"[{part.name}]" in summary for part in parts("cuda", tmp_path) if part.name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    _set_verdict(tmp_path / "ref-float16", "inconclusive", INCONCLUSIVE)
    assert run_all("cuda", tmp_path) == INCONCLUSIVE
    (tmp_path / "bench" / "record.jsonl").unlink()
    assert run_all("cuda", tmp_path) == BROKEN and "[bench]" not in (tmp_path / "summary.md").read_text()
    _set_verdict(tmp_path / "ref-bfloat16", "fault", FAULT)
    assert run_all("cuda", tmp_path) == FAULT


def _set_verdict(folder: Path, verdict: str, code: int) -> None:
    """Give the first result this verdict, so that it is that of the run."""
    header, first, *lines, footer = (folder / "record.jsonl").read_text().splitlines()
    results = [json.dumps(json.loads(first) | {"verdict": verdict}), *lines]
    last = json.dumps(json.loads(footer) | {"verdict": verdict, "exit_code": code})
    (folder / "record.jsonl").write_text("\n".join([header, *results, last]) + "\n")
