"""Tests of `eagle2 mutants`: exit codes, the stored trials, and refused arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.kill_matrix.matrix import report, run_matrix
from harness.record.model import Trial, Verdict


def trial(mutant: str, verdict: Verdict, meant: bool = False) -> Trial:
    return Trial(mutant=mutant, property="LAW-1", case="", meant=meant, verdict=verdict, summary="as seen", seconds=0.1)


@pytest.mark.parametrize(
    ("done", "code", "printed"),
    [
        ([trial("M01", "fault", meant=True), trial("C01", "pass")], 0, ""),
        ([trial("M01", "pass", meant=True), trial("C01", "pass")], 1, "M01"),
        ([trial("M01", "fault"), trial("M01", "inconclusive", meant=True)], 1, "M01"),
        ([trial("M01", "fault", meant=True), trial("C01", "fault")], 1, "C01"),
        ([trial("M01", "fault", meant=True), trial("C01", "inconclusive")], 3, "C01"),
        ([trial("M01", "fault")], 3, "M01"),
        ([], 3, ""),
    ],
    ids=["all dead", "survivor", "not killed by what is meant to", "dead control", "silent control", "nothing meant", "nothing"],
)
def test_exit_code(done: list[Trial], code: int, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(done, tmp_path) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("M", "C"))] == ([printed] if printed else [])


def test_run_stores_and_draws_its_trials(tmp_path: Path) -> None:
    """Two mutants, each in a process of its own: one dies, and the control passes."""
    assert run_matrix(["M01", "C01"], "LAW-1", quick=True, out=tmp_path, jobs=1, sign=False) == 0
    stored = [Trial.model_validate_json(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert {(one.mutant, one.verdict, one.meant) for one in stored} == {("C01", "pass", False), ("M01", "fault", True)}
    assert stored[-1].work.endswith(" executions")
    assert "M01" in (tmp_path / "index.html").read_text() and "M01" in (tmp_path / "summary.md").read_text()


def test_wrong_arguments_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'M4'"):
        run_matrix(["M4"], "", quick=True, out=tmp_path / "new", jobs=1, sign=False)
    with pytest.raises(BadInput, match="chapter LAWS"):
        run_matrix([], "LAWS", quick=True, out=tmp_path / "new", jobs=1, sign=False)
    assert not (tmp_path / "new").exists()
