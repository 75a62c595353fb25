"""What others measured and published, quoted with its source: speed-ups and acceptance lengths, never mixed with ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

MEAN = "mean"
"""Over all data of a source: six data sets in the EAGLE-2 paper, six tasks in Spec-Bench."""

OURS = {
    "EAGLE-2": "eagle2",
    "EAGLE": "eagle",
    "Medusa": "medusa",
    "SpS": "speculative",
    "PLD": "lookup",
    "Lookahead": "lookahead",
}
"""Methods that are here too, by the names under which they are published. Ouroboros publishes no table of this kind."""


@dataclass(frozen=True)
class Source:
    """Where figures are from, and what was measured on."""

    name: str
    where: str
    link: str
    measured: str


@dataclass(frozen=True)
class Figure:
    """One published figure: how much faster than plain decoding, and tokens per target pass.

    label: the method's name there; method: ours of the same, empty where there is none. data: a data set, or `mean`.
    doubt: why not to lean on it, if there is a reason.
    """

    source: Source
    model: str
    label: str
    method: str
    temperature: float
    data: str
    speedup: float
    tau: float
    doubt: str


def published(
    method: str | None = None, temperature: float | None = None, model: str | None = None, data: str | None = MEAN
) -> list[Figure]:
    """The figures of a method of ours, of a temperature, a model (`Preset.model`), a data set; None is any of them."""
    asked = {"method": method, "temperature": temperature, "model": model, "data": data}
    return [
        figure for figure in figures() if all(value is None or getattr(figure, name) == value for name, value in asked.items())
    ]


@lru_cache
def figures() -> tuple[Figure, ...]:
    """All of them, in the order of published.json: `speed-up/τ`, one for each of the data that the source names."""
    raw = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return tuple(figure for row in raw["rows"] for figure in _figures(row, raw["sources"][row["source"]]))


def _figures(row: dict[str, Any], told: dict[str, Any]) -> Iterator[Figure]:
    source, label = Source(told["name"], told["where"], told["link"], told["measured"]), row["method"]
    doubt = "; ".join(text for text in (told.get("doubt"), row.get("doubt")) if text)
    for data, pair in zip(told["data"], row["figures"].split(), strict=True):
        speedup, tau = map(float, pair.split("/"))
        yield Figure(source, row["model"], label, OURS.get(label, ""), float(row["temperature"]), data, speedup, tau, doubt)
