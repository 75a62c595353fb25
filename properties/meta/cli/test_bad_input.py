"""Whatever a user can get wrong is told in a few lines: what is wrong, where, and what to do; and nothing is half written."""

from __future__ import annotations

import json
import shutil
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
from properties.meta.helpers import tiny
from properties.meta.helpers.command import eagle2

PAIRS = FIXTURES / "pairs"
COIN_HEAD, STDLIB = str(PAIRS / "coin4" / "draft"), str(PAIRS / "stdlib" / "target")

REFUSED = [
    ("verify reff", "is not an implementation", "did you mean ref?"),
    ("verify py:no_such_module:Engine", "there is no module no_such_module", "run from the folder"),
    ("verify py:json:Lodas", "json has no Lodas", "did you mean loads?"),
    ("verify py:json", "names no class", "py:package.module:Engine"),
    ("verify ref:ruel=walk", "there is no option 'ruel'", "did you mean rule?"),
    ("verify ref:walk", "'walk' is not an option", "name=value"),
    ("verify ref:rule=wlak", "rule 'wlak' is not known", "reject, walk"),
    ("verify ref:k=0", "budget: k is 0", "1 or more"),
    ("verify ref:depth=0", "budget: depth is 0", "1 or more"),
    ("verify ref:k=2,depth=2,m=7", "m is 7", "an m of at most 6"),
    ("verify ref:k=257", "k is 257, but the vocabulary has 256", "a k of at most 256"),
    ("verify --pair stdlob", "no pair 'stdlob' is shipped", "coin4, coin6, dice8, stdlib"),
    ("verify --target here", "--target was given without --draft", "give both"),
    ("verify --target nowhere --draft nowhere", "nowhere is not a directory", "directory of a checkpoint"),
    (f"verify --target {STDLIB} --draft {COIN_HEAD}", "fc.weight", "a head trained for this target"),
    ("verify --dtype float8", "dtype 'float8' is not known", "bfloat16"),
    ("verify --device gpu", "device 'gpu' is not known", "cuda"),
    ("verify --tier fast", "tier 'fast' is not known", "quick, full"),
    ("verify --oracle float16", "oracle 'float16' is not a dtype to score in", "float64 or float32"),
    ("verify mutant:M4", "there is no mutant 'M4'", "near it are M04"),
    ("verify published:no.py", "no.py is not a Python file", "path of the file"),
    ("replay LAW-1.1 --record no.jsonl", "no record at no.jsonl", "eagle2 verify"),
    ("mutants --only M4", "there is no mutant 'M4'", "near it are M04"),
    ("mutants --check LAWS", "there is no property or chapter 'LAWS'", "LAW-1"),
    ("verify --time-limit 0", "time limit 0 s is not positive", "seconds"),
    ("verify trace:no.jsonl", "no trace at", "eagle2 record"),
    ("report no.jsonl", "no record at no.jsonl", "eagle2 verify"),
    ("generate x --temperature -1", "temperature is -1.0", "0 or more"),
    ("generate x --top-p 0", "top_p is 0", "in (0, 1]"),
    ("generate x --top-p 1.5", "top_p is 1.5", "in (0, 1]"),
    ("generate x --top-k 0", "top_k is 0", "1 or more"),
    ("generate x --max-new-tokens 0", "max_new_tokens is 0", "1 or more"),
    ("generate x --rule greedy", "rule 'greedy' is not known", "reject, walk"),
    ("generate x --max-new-tokens 5 --show-tree --step 99", "there is no step 99", "steps"),
]


@pytest.mark.parametrize(("command", "what", "hint"), REFUSED, ids=[command for command, _, _ in REFUSED])
def test_a_wrong_word_is_told(command: str, what: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2, done.output
    assert what in done.output
    assert hint in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there() -> None:
    done = CliRunner().invoke(app, ["generate", "x", "--device", "cuda"])
    assert done.exit_code == 2
    assert "sees no CUDA device" in done.output


@pytest.mark.parametrize(("text", "what"), [("", "the prompt is empty"), ("x" * 2048, "the prompt has 2048 tokens")])
def test_prompts_that_cannot_be(text: str, what: str) -> None:
    done = CliRunner().invoke(app, ["generate", text])
    assert done.exit_code == 2
    assert what in done.output


def test_a_prompt_out_of_vocabulary() -> None:
    pair = shipped("coin4")
    with pytest.raises(BadInput, match="the prompt has token 4"):
        Decoder.load(pair.target).generate([0, 4], SamplingParams(), SeededCoins(0))


def test_a_damaged_target(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    shutil.copytree(PAIRS / "coin4" / "target", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    done = CliRunner().invoke(app, ["verify", "--target", str(folder), "--draft", COIN_HEAD, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "cannot be loaded" in done.output
    assert not (tmp_path / "out").exists()


def test_logits_that_are_no_numbers() -> None:
    """The error names the position: here that of the first drafted token, whose embedding is damaged."""
    model = tiny.target()
    model.get_input_embeddings().weight.data[7] = torch.nan
    decoder = Decoder(Target(model))
    with pytest.raises(BadInput, match=r"not numbers at position 2 \(after token 7\)"):
        decoder.generate([1, 2, 7], SamplingParams(temperature=0), SeededCoins(0))


BROKEN = {
    "Raises": ("raise RuntimeError('out of memory')", "RuntimeError: out of memory"),
    "Hangs": ("while True: pass", "the implementation hung"),
    "TooFewAnswers": ("return [[0]]", "returned 1 answers for 3 prompts"),
    "TooFewTokens": ("return [[0] for p in prompts]", "without an end-of-text token"),
    "TooManyTokens": ("return [[0] * 99 for p in prompts]", "at most 1 were requested"),
    "OutOfVocabulary": ("return [[4] * p['max_new_tokens'] for p in params]", "has token 4; the vocabulary is 0 to 3"),
    "Words": ("return ['text' for p in prompts]", "not a list of token ids"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_implementation_that_does_not_answer_is_broken(name: str, tmp_path: Path) -> None:
    """Exit code 4 and never a pass; the record says what it did."""
    body, what = BROKEN[name]
    engine = f"class {name}:\n    def __init__(self, target, draft=None): pass\n"
    engine += f"    def generate(self, prompts, params, seeds):\n        {body}\n"
    (tmp_path / "engines.py").write_text(engine)
    words = ["verify", f"py:engines:{name}", "--pair", "coin4", "--only", "SMOKE", "--time-limit", "2", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    record = read_record(tmp_path / "out" / "record.jsonl")
    assert record.footer.verdict == "inconclusive"
    first = record.results[0]
    assert first.broken
    assert what in first.summary


def test_smoke_ends_with_4_too(tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text(
        "class Engine:\n    def __init__(self, target, draft=None):\n        raise OSError('no weights')\n"
    )
    done = eagle2(["smoke", "py:engines:Engine", "--pair", "coin4"], tmp_path)
    assert done.returncode == 4
    assert "no weights" in done.stdout


def test_a_record_without_its_footer_is_refused(tmp_path: Path) -> None:
    lines = (FIXTURES.parent / "reports" / "reference" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "record.jsonl")])
    assert done.exit_code == 2
    assert "the run was cut off" in done.output
    assert json.loads(lines[-1])["kind"] == "footer"
