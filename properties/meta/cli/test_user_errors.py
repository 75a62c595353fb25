"""Errors that a user can fix: a few lines that name what is wrong and what to do, exit code 2 or 4, and no files written.

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
from harness.verdict import BROKEN, INCONCLUSIVE, USAGE
from properties.meta.helpers import tiny
from properties.meta.helpers.command import eagle2

PAIRS = FIXTURES / "pairs"
COIN_HEAD, STDLIB = str(PAIRS / "coin4" / "draft"), str(PAIRS / "stdlib" / "target")

REFUSED = [
    ("verify reff", "'reff'", "did you mean ref?"),
    ("verify ref -n x", "--jobs: x", "0 or more"),
    ("verify ref -n -1", "--jobs: -1", "0 or more"),
    ("record ref -n x", "--jobs: x", "0 or more"),
    ("verify py:no_such_module:Engine", "no_such_module", "run from the folder"),
    ("verify py:json:Lodas", "json has no Lodas", "did you mean loads?"),
    ("verify py:json", "py:json", "py:package.module:Engine"),
    ("verify ref:ruel=walk", "'ruel'", "did you mean rule?"),
    ("verify ref:walk", "'walk'", "name=value"),
    ("verify ref:rule=wlak", "'wlak'", "reject, walk"),
    ("verify ref:k=0", "ref:k=0: k must be a whole number of 1 or more, not 0", ""),
    ("verify ref:depth=0", "depth must be a whole number of 1 or more, not 0", ""),
    ("verify ref:k=2,depth=2,m=7", "m is 7", "at most 6"),
    ("verify ref:k=257", "vocabulary has 256", "at most 256"),
    ("verify --pair stdlob", "'stdlob'", "coin4, coin6, dice8, stdlib"),
    ("verify --target here", "--draft", "give both"),
    ("verify --target nowhere --draft nowhere", "nowhere", "directory of a checkpoint"),
    (f"verify --target {STDLIB} --draft {COIN_HEAD}", "fc.weight", "a head trained for this target"),
    ("verify --dtype float8", "'float8'", "bfloat16"),
    ("verify --device gpu", "'gpu'", "cuda"),
    ("verify --tier fast", "'fast'", "quick, full"),
    ("verify --oracle float16", "'float16'", "float64 or float32"),
    ("verify mutant:M4", "'M4'", "M04"),
    ("verify published:no.py", "no.py", "path of the file"),
    ("replay LAW-1.1 --record no.jsonl", "no.jsonl", "eagle2 verify"),
    ("mutants --only M4", "'M4'", "M04"),
    ("mutants --check LAWS", "chapter LAWS", "LAW, "),
    ("verify --time-limit 0", "0 s", "seconds"),
    ("verify trace:no.jsonl", "no.jsonl", "eagle2 record"),
    ("report no.jsonl", "no.jsonl", "eagle2 verify"),
    ("generate x --temperature -1", "temperature is -1.0", "0 or more"),
    ("generate x --top-p 0", "top_p is 0", "in (0, 1]"),
    ("generate x --top-p 1.5", "top_p is 1.5", "in (0, 1]"),
    ("generate x --top-k 0", "top_k is 0", "1 or more"),
    ("generate x --max-new-tokens 0", "max_new_tokens is 0", "1 or more"),
    ("generate x --rule greedy", "'greedy'", "reject, walk"),
    ("generate x --max-new-tokens 5 --show-tree --step 99", "99", "steps"),
]
"""A command, what its error names, and what its hint names."""


@pytest.mark.parametrize(("command", "wrong", "hint"), REFUSED, ids=[command for command, _, _ in REFUSED])
def test_wrong_argument_has_exit_code_2_and_a_hint(
    command: str, wrong: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    first, *rest = done.stderr.splitlines()
    assert done.exit_code == USAGE and first.startswith("eagle2: "), done.output
    assert wrong in first and hint in "\n".join(rest)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("verify ref --only LAW-99", "no property LAW-99"),
        ("verify ref --only NONE", "no chapter NONE"),
        ("verify ref --only LAW-1[none]", "no case LAW-1[none]"),
        ("record ref --only LAW-99", "no property LAW-99"),
    ],
)
def test_selector_that_selects_nothing_writes_nothing(
    command: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of a run without results."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == INCONCLUSIVE and wrong in done.stderr
    assert not list(tmp_path.iterdir())


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
    )
    done = eagle2(["smoke", "py:engines:Engine", "--pair", "coin4"], tmp_path)
    assert done.returncode == BROKEN and "no weights" in done.stdout


def test_report_refuses_a_record_without_its_footer(tmp_path: Path) -> None:
    lines = (FIXTURES.parent / "reports" / "reference" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "footer"
    (tmp_path / "record.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "record.jsonl")])
    assert done.exit_code == USAGE and [*tmp_path.iterdir()] == [tmp_path / "record.jsonl"]
