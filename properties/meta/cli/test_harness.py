"""The harness itself: what travels, what is settled, and that workers, traces and dead processes change no verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from eagle2_ref.coins import Coins, KeyedCoins
from eagle2_ref.errors import BadInput
from harness.implementations import Implementation, connect
from harness.implementations.engine import Engine, Output
from harness.pairs import FIXTURES, shipped
from harness.pytest_plugin import RESULT, Recording
from harness.record.model import Footer, Header, Property, Result, Verdict, read_record, schema
from harness.statistics.chisquare import chi_square
from harness.verdict import BROKEN, FAULT, INCONCLUSIVE, PASS, conclude, settle
from properties.meta.helpers.command import eagle2

ROOT = FIXTURES.parent
TINY = ["ref:k=2,depth=2,m=4", "--pair", "coin4"]


def result(name: str, verdict: Verdict, broken: bool = False, summary: str = "") -> Result:
    return Result(property=name, case="", verdict=verdict, summary=summary, broken=broken)


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        (["pass", "n/a"], "pass", PASS),
        (["pass", "tie"], "tie", PASS),
        (["pass", "fault", "inconclusive"], "fault", FAULT),
        (["pass", "inconclusive"], "inconclusive", INCONCLUSIVE),
        (["n/a", "n/a"], "inconclusive", INCONCLUSIVE),
        ([], "inconclusive", INCONCLUSIVE),
    ],
)
def test_verdicts_are_merged(verdicts: list[Verdict], expected: Verdict, code: int) -> None:
    assert conclude([result("LAW-1", verdict) for verdict in verdicts]) == (expected, code)


def test_texts_with_coins_of_their_own_share_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in the blocks that they come in alone; where texts cannot share passes each is alone indeed."""
    implementation, prompts = connect("ref:rule=walk,k=2,depth=3,m=5,dtype=float64"), [[2, 3, 2], [1], [0, 1, 2, 3]]
    able, unable = implementation, replace(implementation, capabilities=implementation.capabilities - {"batch"})
    alone, decode = Counter[int](), Engine.decode

    def watched(self: Engine, prompt: Sequence[int], params: dict[str, Any], coins: Coins) -> Output:
        alone.update([len(prompt)])
        return decode(self, prompt, params, coins)

    monkeypatch.setattr(Engine, "decode", watched)

    def told(one: Implementation, **options: Any) -> list[tuple[object, ...]]:
        engine, coins = one.open(shipped("coin4"), **options), [KeyedCoins(seed) for seed in (5, 6, 7)]
        made = engine.decode_all(prompts, {"temperature": 1.0, "max_new_tokens": 12}, coins)
        return [(output.tokens, output.blocks) for output in made]

    together = told(able, batch=3)
    assert not alone and len(set(together)) == 3
    assert told(unable) == together and alone == {3: 1, 1: 1, 4: 1}


def test_a_broken_adapter_is_no_pass() -> None:
    assert conclude([result("LAW-1", "pass"), result("LAW-2", "inconclusive", broken=True)]) == ("inconclusive", BROKEN)


def test_what_stands_on_a_red_foundation_is_blocked() -> None:
    """One cause, one red line; what passes all the same stays a pass."""
    known = {
        name: Property(id=name, chapter="x", requirement="", needs=needs)
        for name, needs in (("SMOKE-1", ()), ("TREE-1", ("SMOKE-1",)), ("LAW-1", ("TREE-1",)))
    }
    found = [result("SMOKE-1", "inconclusive", broken=True), result("LAW-1", "fault"), result("TREE-1", "pass")]
    settled = settle(found, known)
    assert [r.verdict for r in settled] == ["inconclusive", "blocked", "pass"]
    assert "SMOKE-1" in settled[1].summary
    assert conclude(settled) == ("inconclusive", BROKEN)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    header = Header(
        started="", implementation="ref", pair="", checksums={}, settings={}, versions={}, machine={}, command="", properties=()
    )
    hostile = result("LAW-1", "pass", summary="</script>\u2028\u0085\x00 | ` \ud7ff 🦅")
    footer = Footer(finished="", seconds=0.0, results=1, verdict="pass", exit_code=0)
    path = tmp_path / "record.jsonl"
    path.write_text("".join(line.model_dump_json() + "\n" for line in (header, hostile, footer)), encoding="utf-8")
    record = read_record(path)
    assert (record.header, record.results, record.footer) == (header, (hostile,), footer)


@pytest.mark.parametrize("lost", [-1, 0, 1], ids=["no footer", "no header", "lacks a result"])
def test_a_record_that_lacks_something_is_refused(lost: int, tmp_path: Path) -> None:
    lines = (ROOT / "reports" / "reference" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    del lines[lost]
    (tmp_path / "record.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(BadInput, match="cut off"):
        read_record(tmp_path / "record.jsonl")


def test_the_committed_schema_is_that_of_the_code() -> None:
    assert (ROOT / "reports" / "schema" / "record.schema.json").read_text(encoding="utf-8") == schema()


def test_chi_square_is_calibrated() -> None:
    """Under the law itself its p-values are uniform; and it sees what it says it sees."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(40, 0.4))
    law = {i: float(w) for i, w in enumerate(weights)}
    tests = [chi_square(Counter(map(int, rng.choice(40, size=4000, p=weights))), law) for _ in range(400)]
    assert kstest([test.p for test in tests], "uniform").pvalue > 1e-3
    alpha, distance = 1e-3, tests[0].detectable_deviation(1e-3)
    flat = np.where(np.arange(40) % 2 == 0, 1.0, -1.0) * weights
    moved = np.clip(weights + 2 * distance * (flat - flat.mean()) / np.abs(flat - flat.mean()).sum(), 0, None)
    moved /= moved.sum()
    seen = [chi_square(Counter(map(int, rng.choice(40, size=4000, p=moved))), law).p < alpha for _ in range(200)]
    assert np.mean(seen) > 0.85


def test_few_cells_are_calibrated_too() -> None:
    """Of four cells three are free; the average p-value is a half."""
    rng, weights = np.random.default_rng(1), [0.4, 0.3, 0.2, 0.1]
    law = dict(enumerate(weights))
    found = [chi_square(Counter(map(int, rng.choice(4, size=1000, p=weights))), law).p for _ in range(400)]
    assert kstest(found, "uniform").pvalue > 1e-3


def test_a_rare_outcome_is_no_proof() -> None:
    """One sample where 0.06 of one was due is no fault: cells are pooled."""
    assert chi_square({0: 500, 1: 499, 2: 1}, {0: 0.5, 1: 0.49994, 2: 6e-5}).p > 0.01


def test_one_impossible_sample_is_proof() -> None:
    assert chi_square({"a": 10_000, "b": 1}, {"a": 1.0, "b": 0.0}).p == 0.0


def test_workers_change_no_verdict(tmp_path: Path) -> None:
    def told(jobs: str) -> list[tuple[str, str, str, str]]:
        done = eagle2(["verify", *TINY, "--only", "TREE", "-n", jobs, "--out", jobs], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        record = read_record(tmp_path / jobs / "record.jsonl")
        return [(r.property, r.case, r.verdict, r.summary) for r in record.results]

    assert told("0") == told("2") != []


def test_a_worker_that_dies_is_no_pass(tmp_path: Path) -> None:
    engine = "import os\nclass Engine:\n    def __init__(self, target, draft=None): pass\n"
    engine += "    def generate(self, *_):\n        os._exit(0)\n"
    (tmp_path / "engines.py").write_text(engine)
    done = eagle2(["verify", "py:engines:Engine", "--pair", "coin4", "--only", "SMOKE-1", "-n", "1", "--out", "out"], tmp_path)
    assert done.returncode == BROKEN, done.stdout + done.stderr
    assert all(r.verdict != "pass" for r in read_record(tmp_path / "out" / "record.jsonl").results)


def test_a_trace_is_judged_as_its_engine_was(tmp_path: Path) -> None:
    """And where an answer is missing, nothing is concluded."""
    recorded = eagle2(["record", *TINY, "--only", "STOP", "-n", "0", "-o", "run.jsonl", "--out", "a"], tmp_path)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    words = ["--pair", "coin4", "--only", "STOP", "-n", "0", "--out", "b"]
    assert eagle2(["verify", "trace:run.jsonl", *words], tmp_path).returncode == 0
    first, second = (read_record(tmp_path / out / "record.jsonl").results for out in "ab")
    assert [(r.property, r.verdict, r.summary) for r in first] == [(r.property, r.verdict, r.summary) for r in second]

    lines = (tmp_path / "run.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run.jsonl").write_text("".join(lines[: len(lines) // 2]))
    assert eagle2(["verify", "trace:run.jsonl", *words], tmp_path).returncode == INCONCLUSIVE


def test_help_is_quick() -> None:
    """It imports no torch."""
    program = "import sys; from harness.cli import main; sys.argv = ['eagle2', '--help']\n"
    program += "try: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("False")
    assert all(command in done.stdout for command in ("generate", "verify", "smoke", "record", "report", "train"))


def test_the_readme_names_commands_that_exist() -> None:
    from harness.cli import app

    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback} | {"train"}
    lines = [line.split() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("eagle2 ")]
    assert lines
    assert {words[1] for words in lines} <= named
    assert json.loads((ROOT / "reports" / "reference" / "badge.json").read_text())["schemaVersion"] == 1


@pytest.mark.parametrize(
    ("outcome", "sent", "added"),
    [
        ("passed", ["pass"], ["pass"]),
        ("passed", [], ["inconclusive"]),
        ("failed", [], ["inconclusive"]),
        ("failed", ["pass"], ["pass", "inconclusive"]),
        ("failed", ["fault"], ["fault"]),
    ],
)
def test_a_check_that_breaks_or_says_nothing_is_no_pass(outcome: str, sent: list[Verdict], added: list[Verdict]) -> None:
    """Also one that breaks after it has come to a verdict."""
    heard: list[Result] = []
    recording = Recording(SimpleNamespace(add=heard.append))  # type: ignore[arg-type]
    told = [(RESULT, result("LAW-2", verdict).model_dump_json()) for verdict in sent]
    place = "properties/test_law.py::LAW-2"
    longrepr = "IndexError" if outcome == "failed" else None
    report = pytest.TestReport(place, ("", 0, ""), {}, outcome, longrepr, "call", user_properties=told)  # type: ignore[arg-type]
    recording.pytest_runtest_logreport(report)
    assert [r.verdict for r in heard] == added
