"""`eagle2 doctor` and `eagle2 convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from harness.cli import app
from harness.pairs import FIXTURES
from harness.verdict import BROKEN, PASS, USAGE
from properties.meta.helpers.command import eagle2

HEAD = FIXTURES / "pairs" / "coin4" / "draft"
ENGINE = """
class Engine:
    version = "1.0"
    @classmethod
    def describe(cls, checkpoint="draft"): return {"checkpoint": checkpoint}
    def __init__(self, target, draft=None, *, checkpoint="draft"): pass
    def generate(self, prompts, params, seeds): return []
"""


@pytest.mark.parametrize(
    ("impl", "code", "facts"),
    [
        ("ref:k=2,depth=2,m=4", PASS, ("SMOKE-2", "draft of coin4", "eagle2_ref")),
        ("py:engines:Engine", BROKEN, ("1.0", "0 answers for 3 prompts")),
        ("py:engines:Engine,checkpoint=hydra", USAGE, ("coin4 has no hydra", "eagle2 train")),
    ],
)
def test_doctor_exit_code_says_whether_an_engine_is_ready(impl: str, code: int, facts: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text(ENGINE)
    done = eagle2(["doctor", impl, "--pair", "coin4"], tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert all(fact in done.stdout + done.stderr for fact in facts), done.stdout + done.stderr


def test_convert_published_writes_all_tensors_with_an_index(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", "published", str(HEAD), str(tmp_path / "head")])
    assert done.exit_code == PASS, done.output
    index = json.loads((tmp_path / "head" / "model.safetensors.index.json").read_text())
    written = {name for file in set(index["weight_map"].values()) for name in load_file(tmp_path / "head" / file)}
    assert written == set(load_file(HEAD / "model.safetensors"))


@pytest.mark.parametrize(("kind", "source", "fact"), [("gguff", str(HEAD), "gguff"), ("gguf", ".", "config.json")])
def test_convert_refuses_unknown_formats_and_folders(kind: str, source: str, fact: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", kind, source, str(tmp_path / "x")])
    assert done.exit_code == USAGE and fact in done.output
    assert not (tmp_path / "x").exists()
