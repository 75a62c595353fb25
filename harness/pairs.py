"""Pairs on disk: a target checkpoint and a head checkpoint, the shipped ones by name and anybody's by folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput

FIXTURES = Path(str(files("fixtures")))


@dataclass(frozen=True)
class Pair:
    """A target and a head for it."""

    name: str
    target: Path
    draft: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The target's config.json."""
        path = self.target / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            raise BadInput(
                f"no target at {self.target}: config.json is missing", "give --target the directory of a checkpoint"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path} is not JSON: {error}", "the file is damaged") from None
        return config

    @property
    def vocab_size(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def context(self) -> int:
        return int(self.config.get("max_position_embeddings", 1 << 30))

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file, by its path below the pair."""
        found = {}
        for part, folder in (("target", self.target), ("draft", self.draft)):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                found[f"{self.name}/{part}/{path.relative_to(folder)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def shipped(name: str) -> Pair:
    """A pair of fixtures/pairs."""
    folder = FIXTURES / "pairs" / name
    known = sorted(path.name for path in (FIXTURES / "pairs").iterdir() if (path / "target").is_dir())
    if name not in known:
        raise BadInput(
            f"no pair {name!r} is shipped", f"shipped are {', '.join(known)}; others are given by --target and --draft"
        )
    return Pair(name, folder / "target", folder / "draft")


def find_pair(name: str, target: str | None, draft: str | None) -> Pair:
    """The pair that --pair, or --target with --draft, asks for."""
    if not target and not draft:
        return shipped(name)
    if not target or not draft:
        given, lacking = ("--target", "--draft") if target else ("--draft", "--target")
        raise BadInput(f"{given} was given without {lacking}", "a pair is a target and a head for it: give both")
    for flag, folder in (("--target", target), ("--draft", draft)):
        if not Path(folder).is_dir():
            raise BadInput(f"{flag} {folder} is not a directory", "give the directory of a checkpoint")
    return Pair(Path(target).resolve().name, Path(target), Path(draft))


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt: the same for every method."""

    id: str
    kind: str
    text: str

    @property
    def tokens(self) -> list[int]:
        """Its bytes, which are the tokens of the `stdlib` pair."""
        return list(self.text.encode())


def prompts() -> list[Prompt]:
    """fixtures/prompts/code.jsonl."""
    lines = (FIXTURES / "prompts" / "code.jsonl").read_text().splitlines()
    return [Prompt(**json.loads(line)) for line in lines]
