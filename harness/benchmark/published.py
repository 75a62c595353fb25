"""Speed-ups and acceptance lengths that others published, each with its source. They are never mixed with our measurements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

MEAN = "mean"
"""The mean over all data of a source: six data sets in the EAGLE-2 paper, six tasks in Spec-Bench."""

IMPLEMENTED = {
    "EAGLE-3": "eagle3",
    "EAGLE-2": "eagle2",
    "EAGLE": "eagle",
    "Medusa": "medusa",
    "SpS": "speculative",
    "PLD": "lookup",
    "Lookahead": "lookahead",
}
"""Methods of this project, by the names under which figures are published. Ouroboros publishes no table of this kind."""


@dataclass(frozen=True)
class Source:
    """Where figures were published. measured: the hardware and software they were measured on."""

    name: str
    where: str
    link: str
    measured: str


@dataclass(frozen=True)
class Figure:
    """One published pair of figures: the speed-up over ordinary decoding, and tokens per target pass (τ).

    label: the published name of the method. method: the same method in this project, empty if there is none.
    data: a data set, or `mean`. doubt: a reason not to rely on the figure, if there is one.
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
    """The figures of a method, a temperature, a model (`Preset.model`) and a data set; None selects all of them."""
    wanted = {"method": method, "temperature": temperature, "model": model, "data": data}
    return [
        figure
        for figure in all_figures()
        if all(value is None or getattr(figure, name) == value for name, value in wanted.items())
    ]


@lru_cache
def all_figures() -> tuple[Figure, ...]:
    """All published figures, in the order of published.json: `speed-up/τ` for each data set that the source names."""
    raw = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return tuple(figure for row in raw["rows"] for figure in _figures(row, raw["sources"][row["source"]]))


def _figures(row: dict[str, Any], origin: dict[str, Any]) -> Iterator[Figure]:
    source, label = Source(origin["name"], origin["where"], origin["link"], origin["measured"]), row["method"]
    doubt = "; ".join(text for text in (origin.get("doubt"), row.get("doubt")) if text)
    for data, pair in zip(origin["data"], row["figures"].split(), strict=True):
        speedup, tau = map(float, pair.split("/"))
        yield Figure(
            source, row["model"], label, IMPLEMENTED.get(label, ""), float(row["temperature"]), data, speedup, tau, doubt
        )
