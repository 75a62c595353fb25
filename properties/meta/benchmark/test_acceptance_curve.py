"""`eagle2 acceptance --curve`: the learning curve of a model card, from records of heads that were trained on more text."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.benchmark.acceptance_curve import MARK, curve_plot, curve_section, points, read_curve
from harness.benchmark.acceptance_figures import acceptance_figures, judged_cells
from harness.benchmark.acceptance_page import model_card
from harness.benchmark.acceptance_record import AcceptanceFooter, AcceptanceRecord, TextAcceptance, read_acceptance
from harness.benchmark.pages import replace_section
from harness.benchmark.runner import record_run
from properties.meta.contract import access

REPORTS = access.REPORTS / "acceptance"


@pytest.fixture(scope="module")
def record() -> AcceptanceRecord:
    return read_acceptance(REPORTS, whole=True)


def of_share(record: AcceptanceRecord, folder: Path, tokens: int | None, passes: int) -> Path:
    """A copy of a record in a folder, of a head that was trained on so many tokens and needs other numbers of passes."""
    header = record.header.model_copy(update={"trained_on": tokens})
    lines = [
        one.model_copy(update={"passes": tuple(n * passes for n in one.passes)}) if isinstance(one, TextAcceptance) else one
        for one in record.lines
    ]
    record_run(folder, header, iter(lines), AcceptanceFooter, partial(acceptance_figures, header), 0.0)
    return folder


def test_learning_curve_has_the_tau_of_every_record(
    record: AcceptanceRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order of the training text, in table and picture; twice the text that halves the passes doubles tau."""
    folders = [of_share(record, tmp_path / str(n), 1000 * n, 4 // n) for n in (4, 1, 2)]
    card = tmp_path / model_card(record)
    card.parent.mkdir(parents=True)
    card.write_text("<!-- learning-curve -->\n<!-- /learning-curve -->\n")
    monkeypatch.chdir(tmp_path)
    words = [word for folder in folders for word in ("--curve", str(folder))]
    done = access.invoke(["acceptance", *words])
    assert done.exit_code == 0, done.output
    text, judged = card.read_text(), {one.temperature: one.tau.value for one in judged_cells(record)}
    places = [text.index(f"| {t:g} | {n},000 | {judged[t] * n / 4:.2f} |") for t in (0.0, 1.0) for n in (1, 2, 4)]
    assert places == sorted(places) and (card.parent / "learning-curve.svg").read_text().startswith("<svg")
    slopes = [np.polyfit([0, 1, 2], [judged[t] * n / 4 for n in (1, 2, 4)], 1)[0] for t in (0.0, 1.0)]
    assert f"{slopes[0]:+.2f} at temperature 0 and {slopes[1]:+.2f} at temperature 1" in text


def test_model_card_of_smollm2_has_the_curve_of_the_committed_records() -> None:
    records = read_curve([REPORTS / f"smollm2-{name}" for name in ("quarter", "half", "eagle2")])
    card = access.ROOT / model_card(records[-1])
    text = card.read_text(encoding="utf-8")
    assert [record.header.trained_on for record in records] == [452_352, 904_704, 1_809_664]
    assert replace_section(text, curve_section(records), MARK, card) == text, "run `eagle2 acceptance --curve`"
    assert (card.parent / f"{MARK}.svg").read_text(encoding="utf-8") == curve_plot(points(records)).standalone()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, "needs two records"),
        ({"trained_on": None}, "does not say how much text"),
        ({"head": "eagle3"}, "one record is of a head"),
        ({"prompts": ()}, "do not have the same prompts"),
    ],
)
def test_learning_curve_of_other_records_is_refused(
    change: dict[str, Any], what: str, record: AcceptanceRecord, tmp_path: Path
) -> None:
    first, other = of_share(record, tmp_path / "first", 1000, 1), of_share(record, tmp_path / "other", 2000, 1)
    lines = (other / "record.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), **change})
    (other / "record.jsonl").write_text("\n".join(lines) + "\n")
    words = ["--curve", str(first), *(["--curve", str(other)] if change else [])]
    done = access.invoke(["acceptance", *words])
    assert done.exit_code == 2 and re.search(what, " ".join(done.stderr.split())), done.output
