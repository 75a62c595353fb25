"""Errors that a user can fix: a few lines that name what is wrong and what to do, exit code 2 or 4, and no files written.

Wrong words of the command line are in properties/meta/hardening/test_words.py.

The wording is in the snapshots of properties/meta/contract.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.cli import app
from harness.pairs import FIXTURES, shipped
from harness.record.model import read_record
from harness.verdict import BROKEN, USAGE
from properties.meta.helpers import tiny
from properties.meta.helpers.command import eagle2

PAIRS = FIXTURES / "pairs"
COIN_HEAD = str(PAIRS / "coin4" / "draft")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_cuda_device_is_reported() -> None:
    done = CliRunner().invoke(app, ["generate", "x", "--device", "cuda"])
    assert done.exit_code == USAGE and "CUDA" in done.output


@pytest.mark.parametrize(("text", "wrong"), [("", "empty"), ("x" * 2048, "2048 tokens")])
def test_prompt_without_room_or_tokens_is_refused(text: str, wrong: str) -> None:
    done = CliRunner().invoke(app, ["generate", text])
    assert done.exit_code == USAGE and wrong in done.output


def test_prompt_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(BadInput, match="token 4"):
        Decoder.load(shipped("coin4").target).generate([0, 4], SamplingParams(), SeededCoins(0))


def test_damaged_weights_are_reported_before_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    shutil.copytree(PAIRS / "coin4" / "target", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    done = CliRunner().invoke(app, ["verify", "--target", str(folder), "--draft", COIN_HEAD, "--out", str(tmp_path / "out")])
    assert done.exit_code == USAGE and str(folder) in done.output
    assert not (tmp_path / "out").exists()


def test_nan_logits_are_reported_with_their_position() -> None:
    """The embedding of the first drafted token is damaged."""
    model = tiny.target()
    model.get_input_embeddings().weight.data[7] = torch.nan
    decoder = Decoder(Target(model))
    with pytest.raises(BadInput, match=r"position 2 \(after token 7\)"):
        decoder.generate([1, 2, 7], SamplingParams(temperature=0), SeededCoins(0))


FAILURES = {
    "Raises": ("raise RuntimeError('out of memory')", "RuntimeError: out of memory"),
    "Hangs": ("while True: pass", "hung"),
    "TooFewAnswers": ("return [[0]]", "1 answers for 3 prompts"),
    "TooFewTokens": ("return [[0] for p in prompts]", "without an end-of-text token"),
    "TooManyTokens": ("return [[0] * 99 for p in prompts]", "at most 1"),
    "OutOfVocabulary": ("return [[4] * p['max_new_tokens'] for p in params]", "token 4"),
    "Words": ("return ['text' for p in prompts]", "not a list of token ids"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_implementation_that_does_not_answer_has_exit_code_4(name: str, tmp_path: Path) -> None:
    body, cause = FAILURES[name]
    engine = f"class {name}:\n    def __init__(self, target, draft=None): pass\n"
    engine += f"    def generate(self, prompts, params, seeds):\n        {body}\n"
    (tmp_path / "engines.py").write_text(engine)
    words = ["verify", f"py:engines:{name}", "--pair", "coin4", "--only", "SMOKE", "--time-limit", "2", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == BROKEN, done.stdout + done.stderr
    record = read_record(tmp_path / "out" / "record.jsonl")
    assert record.footer.verdict == "inconclusive"
    assert record.results[0].broken and cause in record.results[0].summary


def test_engine_that_does_not_describe_itself_meets_the_time_limit() -> None:
    start = time.monotonic()
    done = CliRunner().invoke(app, ["verify", "cmd:sleep 60", "--time-limit", "1"])
    assert done.exit_code == BROKEN and "sleep 60" in done.stderr and time.monotonic() - start < 30


def test_smoke_has_exit_code_4_for_an_engine_that_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text(
        "class Engine:\n    def __init__(self, target, draft=None):\n        raise OSError('no weights')\n"
        "    def generate(self, prompts, params, seeds): return []\n"
    )
    done = eagle2(["smoke", "py:engines:Engine", "--pair", "coin4"], tmp_path)
    assert done.returncode == BROKEN and "no weights" in done.stdout


def test_report_refuses_a_record_without_its_footer(tmp_path: Path) -> None:
    lines = (FIXTURES.parent / "reports" / "reference" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "footer"
    (tmp_path / "record.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "record.jsonl")])
    assert done.exit_code == USAGE and [*tmp_path.iterdir()] == [tmp_path / "record.jsonl"]
