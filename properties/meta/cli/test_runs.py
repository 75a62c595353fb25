"""Runs of `eagle2 verify` as a whole: workers, workers that die, and traces do not change a verdict."""

from __future__ import annotations

from pathlib import Path

from harness.record.model import read_record
from harness.verdict import BROKEN, INCONCLUSIVE, PASS
from properties.meta.helpers.command import eagle2

TINY = ["ref:k=2,depth=2,m=4", "--pair", "coin4"]


def run(words: list[str], folder: Path, code: int) -> list[tuple[str, str, str, str]]:
    """Run `eagle2` with records in `folder`/out, and check its exit code; property, case, verdict and summary of every result."""
    done = eagle2([*words, "--out", "out"], folder)
    assert done.returncode == code, done.stdout + done.stderr
    return [(r.property, r.case, r.verdict, r.summary) for r in read_record(folder / "out" / "record.jsonl").results]


def test_number_of_workers_does_not_change_results(tmp_path: Path) -> None:
    alone, together = (run(["verify", *TINY, "--only", "TREE", "-n", jobs], tmp_path, PASS) for jobs in ("0", "2"))
    assert alone == together != []


def test_worker_that_dies_is_no_pass(tmp_path: Path) -> None:
    engine = "import os\nclass Engine:\n    def __init__(self, target, draft=None): pass\n"
    engine += "    def generate(self, *_):\n        os._exit(0)\n"
    (tmp_path / "engines.py").write_text(engine)
    words = ["verify", "py:engines:Engine", "--pair", "coin4", "--only", "SMOKE-1", "-n", "1"]
    assert "pass" not in [verdict for _, _, verdict, _ in run(words, tmp_path, BROKEN)]


def test_trace_gets_the_results_of_its_engine(tmp_path: Path) -> None:
    """A trace without some answers is inconclusive."""
    words = [*TINY[1:], "--only", "STOP", "-n", "0"]
    recorded = run(["record", TINY[0], *words, "-o", "run.jsonl"], tmp_path, PASS)
    assert run(["verify", "trace:run.jsonl", *words], tmp_path, PASS) == recorded
    lines = (tmp_path / "run.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run.jsonl").write_text("".join(lines[: len(lines) // 2]))
    run(["verify", "trace:run.jsonl", *words], tmp_path, INCONCLUSIVE)
