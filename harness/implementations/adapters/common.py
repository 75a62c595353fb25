"""Code that the adapters share. It uses the standard library only, since it is imported in every engine's environment."""

from __future__ import annotations

import json
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SAMPLING = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"]
"""The capabilities of an engine that supports every sampling parameter of the harness."""

PROMPT_BLOCK: dict[str, Any] = {"accepted": 0, "tokens": [], "parents": []}
"""The block of the prompt's pass, which has no draft tree."""


def check_method(method: str, methods: Collection[str]) -> None:
    if method not in methods:
        raise ValueError(f"method {method!r} is not known; known are {', '.join(methods)}")


def chain_budget(depth: int) -> dict[str, int]:
    """The budget of a drafter that proposes a chain of `depth` tokens."""
    return {"k": 1, "depth": depth, "m": depth}


def end_tokens(params: dict[str, Any]) -> list[int]:
    """The requested end-of-text tokens, which `eos_token_id` gives as a number, a list, or not at all."""
    eos = params.get("eos_token_id")
    return [] if eos is None else list(eos) if isinstance(eos, list | tuple) else [eos]


def read_config(folder: str | Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of a checkpoint."""
    config: dict[str, Any] = json.loads(Path(folder, name).read_text())
    return config


def installed_version(*packages: str) -> str:
    """Name and version of the first of these distributions that is installed; empty if none is."""
    for package in packages:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return ""
