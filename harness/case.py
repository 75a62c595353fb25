"""Settings that properties are checked on: a pair, sampling parameters and a budget of draft tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar


@dataclass(frozen=True)
class Case:
    """One setting that a property is checked on.

    Args:
        pair: name of a shipped pair, "" for the pair of the run, or "toy" for the smallest pair that the engine can load.
        params: sampling parameters.
        k, depth, m: budget of the draft tree, for implementations whose budget can be chosen.
        rule: acceptance rule, for implementations whose rule can be chosen.
        full: only the full tier runs it.
        prompt: token ids; the first depth + 2 tokens after it are judged, `window` at most.
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


class Identified(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


def by_id(cases: Iterable[T]) -> dict[str, T]:
    """Cases by their ids, as `check` takes them."""
    return {case.id: case for case in cases}


def capabilities_for(params: Iterable[str]) -> set[str]:
    """The capabilities that sampling parameters require of an implementation."""
    return {"eos" if name == "eos_token_id" else name for name in params} - {"temperature", "max_new_tokens"}
