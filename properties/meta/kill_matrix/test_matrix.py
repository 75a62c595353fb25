"""`eagle2 mutants`: a survivor and a dead control are told and end with 1, what was not judged with 3; trials are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.record.model import Result, Trial, Verdict
from properties.meta.helpers.matrix import conclude, matrix, work


def trial(mutant: str, verdict: Verdict, meant: bool = False) -> Trial:
    return Trial(mutant=mutant, property="LAW-1", case="", meant=meant, verdict=verdict, summary="as seen", seconds=0.1)


@pytest.mark.parametrize(
    ("done", "code", "told"),
    [
        ([trial("M01", "fault", meant=True), trial("C01", "pass")], 0, "1 of 1 planted fault killed"),
        ([trial("M01", "pass", meant=True), trial("C01", "pass")], 1, "M01 survives"),
        ([trial("M01", "fault"), trial("M01", "inconclusive", meant=True)], 1, "M01 survives"),
        ([trial("M01", "fault", meant=True), trial("C01", "fault")], 1, "C01 dies  LAW-1"),
        ([trial("M01", "fault", meant=True), trial("C01", "inconclusive")], 3, "C01 was not judged"),
        ([trial("M01", "fault")], 3, "M01 was not judged"),
        ([], 3, "Nothing was tried"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_how_it_ends(done: list[Trial], code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(done, tmp_path) == code
    assert told in " ".join(capsys.readouterr().out.split()).replace("  ", " ").replace("dies LAW", "dies  LAW")


def test_a_run_keeps_its_trials_and_draws_them(tmp_path: Path) -> None:
    """A mutant dies, a control lives, each in a process of its own; every trial is a line."""
    assert matrix(["M01", "C01"], "LAW-1", quick=True, out=tmp_path, jobs=1, sign=False) == 0
    kept = [Trial.model_validate_json(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert {(one.mutant, one.verdict, one.meant) for one in kept} == {("C01", "pass", False), ("M01", "fault", True)}
    assert kept[-1].work.endswith("executions")
    assert "M01" in (tmp_path / "index.html").read_text() and "M01" in (tmp_path / "summary.md").read_text()


def test_wrong_words_are_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no mutant 'M4'"):
        matrix(["M4"], "", quick=True, out=tmp_path / "new", jobs=1, sign=False)
    with pytest.raises(BadInput, match="no property or chapter 'LAWS'"):
        matrix([], "LAWS", quick=True, out=tmp_path / "new", jobs=1, sign=False)
    assert not (tmp_path / "new").exists()


def test_work_is_told_in_what_a_property_counts() -> None:
    told = Result(property="LAW-1", case="", verdict="fault", summary="", measured={"executions": 1081, "total variation": 0.2})
    assert work(told) == "1,081 executions"
    assert work(told.model_copy(update={"measured": {}})) == ""
