"""Pairs on disk, a target checkpoint and a draft checkpoint: shipped pairs by name, all others by folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from os.path import lexists
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from eagle2_ref.model.config import Config, check_language_model, read_config
from fixtures.training.files import file_sha256

FIXTURES = Path(str(files("fixtures")))

DRAFTERS = ("small", "eagle3", "medusa")
"""Further drafters of shipped pairs: a small language model, an EAGLE-3 head, Medusa heads."""


@dataclass(frozen=True)
class Pair:
    """A target and a drafter for it. own: the pair was given by folders."""

    name: str
    target: Path
    draft: Path
    own: bool = False

    @cached_property
    def config(self) -> dict[str, Any]:
        """The target's config.json."""
        if not lexists(self.target / "config.json"):
            raise BadInput(f"no target at {self.target}: config.json is missing", "give --target the directory of a checkpoint")
        config = read_config(self.target)
        check_language_model(config)
        return config.raw

    @property
    def vocab_size(self) -> int:
        return Config(self.config, self.target / "config.json").whole("vocab_size")

    @property
    def weight_bytes(self) -> int:
        """Size of the target's weights on disk."""
        return sum(path.stat().st_size for suffix in ("safetensors", "bin") for path in self.target.glob(f"*.{suffix}"))

    @property
    def context(self) -> int:
        return int(self.config.get("max_position_embeddings", 1 << 30))

    def drafter(self, kind: str) -> Path | None:
        """The draft checkpoint of a kind, or None: `draft` is the EAGLE-2 head, other kinds are folders next to it.

        A pair that was given by folders has one drafter, which is used for every kind.
        """
        if self.own or kind in ("draft", "none"):
            return self.draft
        folder = self.draft.parent / kind
        return folder if folder.is_dir() else None

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file, by its path relative to the pair."""
        found = {}
        parts = [("target", self.target), *([] if self.draft == self.target else [("draft", self.draft)])]
        others = [(kind, folder) for kind in DRAFTERS if (folder := self.drafter(kind)) and not self.own]
        for part, folder in (*parts, *others):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                found[f"{self.name}/{part}/{path.relative_to(folder)}"] = file_sha256(path)
        return found


def shipped(name: str, report: Callable[[str], None] = lambda _: None) -> Pair:
    """A pair of fixtures/pairs. The target of smollm2 is built at first use; `report` gets a line of text at each step."""
    folder = FIXTURES / "pairs" / name
    if name == "smollm2":
        from fixtures import smollm2

        return Pair(name, smollm2.target(report), folder / "draft")
    known = sorted(path.name for path in (FIXTURES / "pairs").iterdir() if (path / "target").is_dir())
    if name not in known:
        raise BadInput(
            f"no pair {name!r} is shipped",
            f"shipped are {', '.join(known)}; smollm2 is built from a package; to use another pair, give --target and --draft",
        )
    return Pair(name, folder / "target", folder / "draft")


def name_of(target: Path) -> str:
    """Name of a pair: the folder of its target, or its parent if the folder is called `target`."""
    folder = target.resolve()
    return folder.parent.name if folder.name == "target" else folder.name


def find_pair(name: str, target: str | None, draft: str | None, checkpoint: str = "draft") -> Pair:
    """The pair of the options --pair, or --target with --draft.

    Args:
        checkpoint: what the method drafts with. One that drafts with none needs no --draft.

    Raises:
        BadInput: an option is missing, or names no directory.
    """
    if not target and not draft:
        return shipped(name)
    if not draft and checkpoint == "none":
        draft = target  # a method without a checkpoint of its own reads none
    if not target or not draft:
        given, lacking = ("--target", "--draft") if target else ("--draft", "--target")
        raise BadInput(f"{given} was given without {lacking}", "a pair is a target and a drafter for it: give both")
    for flag, folder in (("--target", target), ("--draft", draft)):
        if not Path(folder).is_dir():
            repository = re.fullmatch(r"[\w.-]+/[\w.-]+", folder)
            hint = f"if it is a repository: {download(flag, folder)}" if repository else "give the directory of a checkpoint"
            raise BadInput(f"{flag} {folder} is not a directory", hint)
    return Pair(name_of(Path(target)), Path(target), Path(draft), own=True)


def download(flag: str, repository: str) -> str:
    """The hint for a missing checkpoint. The harness never downloads one."""
    folder = repository.rpartition("/")[2]
    return f"nothing is downloaded here; run `hf download {repository} --local-dir {folder}` and give {flag} {folder}"


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt; every method is given the same ones."""

    id: str
    kind: str
    text: str
    tokens: list[int]


def prompts(pair: Pair) -> list[Prompt]:
    """fixtures/prompts/code.jsonl in tokens of a pair; without a tokenizer, tokens are bytes modulo the vocabulary size."""
    lines = [json.loads(line) for line in (FIXTURES / "prompts" / "code.jsonl").read_text(encoding="utf-8").splitlines()]
    encode = encoder(pair)
    return [Prompt(**line, tokens=encode(line["text"])) for line in lines]


def encoder(pair: Pair) -> Callable[[str], list[int]]:
    """The function from text to tokens of a pair."""
    tokenizer = tokenizer_of(pair)
    if tokenizer is None:
        return lambda text: [byte % pair.vocab_size for byte in text.encode()]
    return lambda text: [int(token) for token in tokenizer(text)["input_ids"]]


def tokenizer_of(pair: Pair) -> Any:
    """transformers' tokenizer of a target; None if its directory has none."""
    if not any((pair.target / name).exists() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        return None
    from transformers import AutoTokenizer
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    published = (pair.target / "tokenizer.model").exists() and not (pair.target / "tokenizer.json").exists()
    if published and not (is_sentencepiece_available() and is_protobuf_available()):
        raise BadInput(
            f"the tokenizer of {pair.target} is SentencePiece's, which is not installed", "pip install 'eagle2-ref[big]'"
        )
    try:
        return AutoTokenizer.from_pretrained(str(pair.target), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(
            f"the tokenizer of {pair.target} cannot be loaded: {error}", "repair it, or remove its files to use bytes as tokens"
        ) from None
