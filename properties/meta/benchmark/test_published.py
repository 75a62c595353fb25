"""Published figures: each has its source, and figures that contradict their own table are marked."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from harness.benchmark.published import IMPLEMENTED, MEAN, Figure, all_figures, published


def rows() -> list[list[Figure]]:
    """The figures of one source, model, method and temperature each."""
    groups = groupby(all_figures(), key=lambda one: (one.source, one.model, one.label, one.temperature))
    return [list(group) for _, group in groups]


def test_mean_is_that_of_its_columns_or_marked() -> None:
    """To the last digit, for speed-ups and τ, so that a wrong digit fails here."""
    tables = [row for row in rows() if len(row) > 1]
    assert len(tables) == 32 and all(len(row) == 7 and row[-1].data == MEAN for row in tables)
    for row in tables:
        for name in ("speedup", "tau"):
            *columns, mean = (getattr(figure, name) for figure in row)
            right = abs(sum(columns) / 6 - mean) < 0.0101
            assert right or "mean" in row[0].doubt, (row[0].model, row[0].label, row[0].temperature, name)
    assert sum(bool(row[0].doubt) for row in tables) == 1


def test_figure_has_a_source_and_is_possible() -> None:
    for figure in all_figures():
        assert figure.source.where and figure.source.link.startswith("https://") and figure.source.measured
        assert 1 <= figure.speedup <= figure.tau, figure
        assert figure.method == IMPLEMENTED.get(figure.label, "")
    keys = [(figure.source, figure.model, figure.label, figure.temperature, figure.data) for figure in all_figures()]
    assert max(Counter(keys).values()) == 1


def test_published_selects_figures() -> None:
    selected = published("eagle2", 0.0, "Vicuna 13B")
    assert [(figure.source.name, figure.speedup, figure.tau) for figure in selected] == [
        ("EAGLE-2", 4.04, 4.65),
        ("Spec-Bench, A100", 2.46, 4.43),
    ]
    assert [figure.tau for figure in published("eagle2", 1.0, "LLaMA2-Chat 7B", "HumanEval")] == [5.06]
    assert {figure.label for figure in published("", 0.0, "Vicuna 7B")} == {"Hydra", "SAMD with EAGLE-2", "Recycling", "REST"}
    named = {figure.method for figure in published()} - {""}
    assert named == {"eagle3", "eagle2", "eagle", "medusa", "speculative", "lookup", "lookahead"}
    assert published("ouroboros") == [] and len(published(data=None)) == len(all_figures())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_eagle2_has_the_highest_tau_in_its_own_paper(temperature: float) -> None:
    """For every model and data set of table 1; interchanged rows would fail here."""
    for model in ("Vicuna 7B", "Vicuna 13B", "LLaMA2-Chat 7B", "LLaMA2-Chat 13B"):
        own = [figure for figure in published(None, temperature, model, None) if figure.source.where == "EAGLE-2, table 1"]
        for data in {figure.data for figure in own}:
            best = max((figure for figure in own if figure.data == data), key=lambda figure: figure.tau)
            assert best.method == "eagle2"
