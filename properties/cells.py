"""Fixed lists of what the properties are checked on. Statistics never meet Hypothesis: it would hunt unlucky seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

TOY = "toy"
"""Instead of a pair's name: coin4, or dice8 for engines that cannot load heads as small as the coins'."""


@dataclass(frozen=True)
class Cell:
    """One setting: a pair, sampling parameters, and a budget for implementations that let it be chosen.

    prompt: of sampled texts, of which the first depth + 2 tokens are judged, `window` at most.
    """

    pair: str
    params: dict[str, Any]
    k: int
    depth: int
    m: int
    rule: str = ""
    full: bool = False
    prompt: tuple[int, ...] = (2, 3, 2)
    window: int = 8

    @property
    def budget(self) -> dict[str, Any]:
        return {"k": self.k, "depth": self.depth, "m": self.m}

    @property
    def id(self) -> str:
        names = {"temperature": "T", "repetition_penalty": "penalty", "eos_token_id": "eos"}
        params = " ".join(f"{names.get(name, name)}={value}" for name, value in self.params.items())
        short = "prompt of one token" if len(self.prompt) == 1 else ""
        return ", ".join(filter(None, [self.pair, params, short, self.rule, f"k={self.k} depth={self.depth} m={self.m}"]))


def needs(params: Iterable[str]) -> set[str]:
    """The capabilities that parameters ask for."""
    return {"eos" if name == "eos_token_id" else name for name in params} - {"temperature", "max_new_tokens"}


def parametrize(cells: Iterable[Cell]) -> pytest.MarkDecorator:
    marks = pytest.mark.full
    return pytest.mark.parametrize("cell", [pytest.param(c, id=c.id, marks=marks if c.full else ()) for c in cells])


def both_rules(*cells: Cell) -> list[Cell]:
    return [Cell(c.pair, c.params, c.k, c.depth, c.m, rule, c.full) for rule in ("reject", "walk") for c in cells]


# The window is depth + 2 tokens: the prompt's own token, a path of full depth, and the bonus token behind it.
EXACT = both_rules(
    Cell("coin4", {"temperature": 1.0}, 2, 2, 4),
    Cell("coin4", {"temperature": 0.5}, 2, 2, 6),
    Cell("coin4", {"temperature": 1.3}, 4, 1, 4),
    Cell("coin4", {"temperature": 1.0}, 1, 1, 1),
    Cell("coin4", {"temperature": 0.5, "top_k": 3}, 1, 3, 3),
    Cell("coin4", {"temperature": 1.0, "top_k": 2}, 2, 3, 7),
    Cell("coin4", {"temperature": 1.0, "top_p": 0.8}, 3, 2, 9),
    Cell("coin4", {"temperature": 1.0, "min_p": 0.08}, 2, 2, 4),
    Cell("coin4", {"temperature": 1.0, "repetition_penalty": 1.6}, 2, 2, 5),
    Cell("coin4", {"temperature": 1.0, "eos_token_id": [0, 2]}, 2, 3, 8),
    Cell("coin4", {"temperature": 0.8, "eos_token_id": [0, 2]}, 3, 1, 3),
    Cell("coin6", {"temperature": 0.7, "top_k": 3}, 3, 2, 8),
    Cell("coin6", {"temperature": 0.8, "top_k": 4, "top_p": 0.75, "repetition_penalty": 1.2}, 3, 2, 6),
    Cell("coin6", {"temperature": 0.0}, 4, 4, 20),
    Cell("coin4", {"temperature": 1.0}, 2, 3, 7, full=True),
    Cell("coin4", {"temperature": 1.3}, 3, 3, 16, full=True),
    Cell("coin6", {"temperature": 1.0}, 3, 2, 8, full=True),
    Cell("coin6", {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 0.8}, 2, 3, 9, full=True),
    Cell("coin6", {"temperature": 0.5, "top_p": 0.9}, 6, 2, 12, full=True),
)

UNEDITED = [
    Cell("coin4", {"temperature": 1.0}, 2, 2, 4),
    Cell("coin4", {"temperature": 0.5, "top_k": 3}, 1, 1, 1),
    Cell("coin6", {"temperature": 0.8, "top_p": 0.9}, 3, 2, 6, full=True),
]

COUPLED = [
    Cell("", {"temperature": 1.0}, 8, 6, 25),
    Cell("", {"temperature": 0.5}, 8, 6, 25),
    Cell("", {"temperature": 1.3}, 1, 1, 1),
    Cell("", {"temperature": 0.8}, 1, 6, 6),
    Cell("", {"temperature": 1.0}, 4, 3, 8),
    Cell("", {"temperature": 0.7, "top_k": 20}, 4, 6, 16),
    Cell("", {"temperature": 1.0, "top_p": 0.9}, 8, 4, 60),
    Cell("", {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 1.2}, 6, 5, 30),
]

SAMPLED = [
    Cell("coin4", {"temperature": 1.0}, 2, 2, 4),
    Cell("coin4", {"temperature": 1.3}, 4, 1, 4),
    Cell("coin6", {"temperature": 0.8, "top_k": 4}, 3, 2, 8),
    Cell("coin6", {"temperature": 1.0}, 3, 2, 8, full=True),
    Cell("coin4", {"temperature": 0.6, "top_p": 0.85}, 2, 2, 4, full=True),
    Cell("coin4", {"temperature": 1.3, "min_p": 0.1}, 1, 3, 3, full=True),
    Cell("coin4", {"temperature": 1.0, "repetition_penalty": 1.5}, 4, 2, 8, full=True),
]


# What is asked of engines whose trees we cannot choose, on the smallest pair that they can load.
SETTINGS = [
    Cell(TOY, params, 2, 3, 6)
    for params in (
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
        {"temperature": 1.0, "min_p": 0.1},
        {"temperature": 1.0, "repetition_penalty": 1.5},
        {"temperature": 1.0, "eos_token_id": [3, 5]},
    )
]

# A prompt of one token that joins a running batch may be taken for a row of it, which has drafts to verify. Few tokens, so that
# the first one counts, but enough for texts of a call to end in different passes.
JOINING = Cell("dice8", {"temperature": 1.0}, 2, 3, 6, prompt=(4,), window=3)


@dataclass(frozen=True)
class Campaign:
    """What is asked of a sampling campaign. tokens: in the quick tier; the full tier takes ten times as many.

    Without a pair it is the run's own, and its prompts; the toys are asked from every start. Several params are mixed in a call.
    """

    name: str
    params: tuple[dict[str, Any], ...]
    tokens: int
    pair: str = ""
    budget: dict[str, int] = field(default_factory=dict)
    full: bool = False

    @property
    def needs(self) -> set[str]:
        return needs({name for params in self.params for name in params})


CAMPAIGNS = [
    Campaign("coin4, T=1", ({"temperature": 1.0, "max_new_tokens": 20},), 4_000, "coin4", {"k": 2, "depth": 3, "m": 5}),
    Campaign(
        "coin6, T=0.8 top_k=4, mixed with T=1.3 and T=0.6",
        (
            {"temperature": 0.8, "top_k": 4, "max_new_tokens": 20},
            {"temperature": 1.3, "max_new_tokens": 17},
            {"temperature": 0.6, "top_k": 5, "max_new_tokens": 9},
        ),
        4_000,
        "coin6",
        {"k": 3, "depth": 4, "m": 10},
    ),
    Campaign(
        "dice8, T=0.7 top_k=5, mixed with T=1 and T=0",
        (
            {"temperature": 0.7, "top_k": 5, "max_new_tokens": 20},
            {"temperature": 1.0, "max_new_tokens": 17},
            {"temperature": 0.0, "max_new_tokens": 9},
        ),
        4_000,
        "dice8",
        {"k": 3, "depth": 4, "m": 10},
    ),
    Campaign("prompts of code, T=1", ({"temperature": 1.0, "max_new_tokens": 48},), 1_500),
    Campaign(
        "prompts of code, T=0.7 top_p=0.9, mixed with T=1.2",
        (
            {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 40},
            {"temperature": 1.2, "max_new_tokens": 24},
            {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 13},
        ),
        3_000,
        full=True,
    ),
]
