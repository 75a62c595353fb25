"""Fixtures of the benchmark's tests: a tiny pair, and a file of prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.pairs import Pair
from properties.meta.helpers import tiny


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("pair"), max_position_embeddings=320)


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prompts of three kinds; one id and all kinds are hostile to HTML or Markdown."""
    file = tmp_path_factory.mktemp("prompts") / "own.jsonl"
    texts = {"one": "def f(x):", "two": "import os\n", "<b>three</b>": "class A:"}
    kinds = {"one": "o*", "two": "t*", "<b>three</b>": "<*"}
    file.write_text("".join(json.dumps({"id": i, "kind": kinds[i], "text": text}) + "\n" for i, text in texts.items()))
    return file
