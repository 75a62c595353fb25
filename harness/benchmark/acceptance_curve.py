"""The learning curve of a head: τ by the amount of text that it was trained on, from several records of `eagle2 acceptance`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from eagle2_ref.errors import BadInput
from harness.benchmark.acceptance_figures import check_comparable, judged_cells
from harness.benchmark.acceptance_page import JUDGED, acceptance_settings, model_card
from harness.benchmark.acceptance_record import AcceptanceRecord, CellFigures, read_acceptance
from harness.benchmark.figures import group_by
from harness.benchmark.pages import markdown_section, write_section
from harness.benchmark.result_tables import INTERVAL, Field, T, table_of
from harness.files import write_atomic
from harness.report.canvas import Drawing
from harness.report.plots import Axis, Series, lines
from harness.report.text import interval, join_names

Point = tuple[int, CellFigures]
"""Tokens of text that a head was trained on, and its τ with the judged tree at one temperature."""

MARK = "learning-curve"


def read_curve(folders: Sequence[Path]) -> list[AcceptanceRecord]:
    """The records of heads that differ in the amount of training text, in its order.

    Raises:
        BadInput: there are fewer than two, they are of different heads or prompts, or a head has no training.json.
    """
    records = {folder: read_acceptance(folder, whole=True) for folder in folders}
    if len(records) < 2:
        raise BadInput("a learning curve needs two records or more", "give --curve FOLDER for each")
    for folder, record in records.items():
        if not record.header.trained_on:
            raise BadInput(
                f"the record of {folder} does not say how much text the head was trained on",
                "measure a head that has a training.json with training_tokens",
            )
    found = sorted(records.values(), key=lambda record: record.header.trained_on or 0)
    for before, now in pairwise(found):
        check_comparable(now.header, before.header)
        if (one := before.header.head) != (other := now.header.head):
            raise BadInput(f"one record is of a head for {one}, another of one for {other}", "give records of one kind of head")
    return found


def points(records: Sequence[AcceptanceRecord]) -> list[Point]:
    """τ of every record, by temperature and then by training text. The judged tree is that of the last record."""
    budget = records[-1].header.budget
    found = [(record.header.trained_on or 0, one) for record in records for one in judged_cells(record, budget)]
    return sorted(found, key=lambda point: (point[1].temperature, point[0]))


def curve_section(records: Sequence[AcceptanceRecord]) -> str:
    """The section of a model card, in Markdown, with the picture that `write_curve` puts next to it."""
    found, last = points(records), records[-1]
    columns: tuple[Field, ...] = (
        ("T", lambda point: T[1](point[1])),
        ("training text, tokens", lambda point: f"{point[0]:,}"),
        ("τ", lambda point: f"{point[1].tau.value:.2f}"),
        (INTERVAL, lambda point: interval(point[1].tau.low, point[1].tau.high)),
    )
    table = table_of(found, columns, caption=f"Trees of {last.header.budget}. {JUDGED}", bold=lambda _: False)
    section = markdown_section(last, acceptance_settings(last), [table], [slope_answer(found)])
    return f"![{curve_plot(found).title}]({MARK}.svg)\n\n{section}"


def slope_answer(found: Sequence[Point]) -> str:
    """What twice the text brought, by least squares over the points."""
    parts = []
    for t, of_one in group_by(found, lambda point: point[1].temperature).items():
        text, tau = np.log2([tokens for tokens, _ in of_one]), [one.tau.value for _, one in of_one]
        parts.append(f"{np.polyfit(text, tau, 1)[0]:+.2f} at temperature {t:g}")
    return f"With each doubling of text and steps τ changed by {join_names(parts, len(parts))} (least squares)."


def curve_plot(found: Sequence[Point]) -> Drawing:
    """τ over training text, a curve for each temperature."""
    series = [
        Series(
            f"T = {t:g}",
            [tokens for tokens, _ in of_one],
            [one.tau.value for _, one in of_one],
            [one.tau.low for _, one in of_one],
            [one.tau.high for _, one in of_one],
        )
        for t, of_one in group_by(found, lambda point: point[1].temperature).items()
    ]
    return lines(MARK, "Learning curve", series, x=Axis("tokens of training text", "log2"), y=Axis("τ", start=1))


def write_curve(records: Sequence[AcceptanceRecord]) -> Path:
    """Write the section of the model card of the last record's pair, and the picture. Returns the path of the card."""
    card = write_section(curve_section(records), MARK, model_card(records[-1]))
    write_atomic(card.parent / f"{MARK}.svg", curve_plot(points(records)).standalone())
    return card
