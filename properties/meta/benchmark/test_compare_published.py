"""Published figures: all are there, each with its source, and none that its own table contradicts goes without a doubt."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from harness.compare.published import MEAN, OURS, Figure, figures, published


def rows() -> list[list[Figure]]:
    """Of one source, model, method and temperature each."""
    by = [(figure, (figure.source, figure.model, figure.label, figure.temperature)) for figure in figures()]
    return [[figure for figure, _ in group] for _, group in groupby(by, key=lambda pair: pair[1])]


def test_a_mean_is_that_of_its_columns() -> None:
    """To the last digit, of speed-ups and of τ; where it is not, the figures are marked. A wrong digit shows here."""
    tables = [row for row in rows() if len(row) > 1]
    assert len(tables) == 32 and all(len(row) == 7 and row[-1].data == MEAN for row in tables)
    for row in tables:
        for name in ("speedup", "tau"):
            *columns, mean = (getattr(figure, name) for figure in row)
            right = abs(sum(columns) / 6 - mean) < 0.0101
            assert right or "mean" in row[0].doubt, (row[0].model, row[0].label, row[0].temperature, name)
    assert sum(bool(row[0].doubt) for row in tables) == 1


def test_every_figure_has_a_source_and_is_possible() -> None:
    for figure in figures():
        assert figure.source.where and figure.source.link.startswith("https://") and figure.source.measured
        assert 1 <= figure.speedup <= figure.tau, figure
        assert figure.method == OURS.get(figure.label, "")
    asked = [(figure.source, figure.model, figure.label, figure.temperature, figure.data) for figure in figures()]
    assert max(Counter(asked).values()) == 1


def test_what_is_asked_for_is_told() -> None:
    told = published("eagle2", 0.0, "Vicuna 13B")
    assert [(figure.source.name, figure.speedup, figure.tau) for figure in told] == [
        ("EAGLE-2", 4.04, 4.65),
        ("Spec-Bench, A100", 2.46, 4.43),
    ]
    assert [figure.tau for figure in published("eagle2", 1.0, "LLaMA2-Chat 7B", "HumanEval")] == [5.06]
    assert {figure.label for figure in published("", 0.0, "Vicuna 7B")} == {"Hydra", "SAMD with EAGLE-2", "Recycling", "REST"}
    named = {figure.method for figure in published()} - {""}
    assert named == {"eagle2", "eagle", "medusa", "speculative", "lookup", "lookahead"}
    assert published("ouroboros") == [] and len(published(data=None)) == len(figures())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_eagle2_is_the_longest_in_its_own_paper(temperature: float) -> None:
    """Of every model and data set of table 1, which rows that were mixed up would not be."""
    for model in ("Vicuna 7B", "Vicuna 13B", "LLaMA2-Chat 7B", "LLaMA2-Chat 13B"):
        own = [figure for figure in published(None, temperature, model, None) if figure.source.where == "EAGLE-2, table 1"]
        for data in {figure.data for figure in own}:
            best = max((figure for figure in own if figure.data == data), key=lambda figure: figure.tau)
            assert best.method == "eagle2"
