"""The calibration as one command: shards over processes, each written down as it ends, so that a run that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import scipy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import harness.statistics
from eagle2_ref import __version__
from eagle2_ref.errors import BadInput
from harness.calibration import report
from harness.calibration.campaigns import RUNS, Broken, Correct
from harness.calibration.coverage import CASES, Covered, Promised
from harness.calibration.faults import FAULTS
from harness.calibration.figures import Line, whole_lines
from harness.calibration.worlds import BUDGETS
from harness.files import write_atomic

Shard = Correct | Broken | Covered | Promised

RECORD = "calibration.jsonl"


def calibrate(out: Path, quick: bool = False, jobs: int = 1) -> list[Path]:
    """Simulate, write calibration.jsonl, index.html and summary.md into `out`, and return their paths.

    What an earlier run of the same code and plan left in `out` is not done again.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards, path = plan(quick), out / RECORD
    lines = resume(path, header(quick, len(shards)))
    known = {json.dumps(line["shard"]) for line in lines[1:]}
    rest = [shard for shard in shards if json.dumps(told(shard)) not in known]
    with path.open("a", encoding="utf-8") as file, progress() as bar:
        task = bar.add_task("calibration", total=len(shards), completed=len(shards) - len(rest))
        for line in finished(rest, jobs):
            file.write(json.dumps(line) + "\n")
            file.flush()
            lines.append(line)
            bar.update(task, advance=1, description=line["shard"]["kind"])
    order = {json.dumps(told(shard)): i for i, shard in enumerate(shards)}
    whole = [lines[0], *sorted(lines[1:], key=lambda line: order[json.dumps(line["shard"])])]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in whole))
    return [path, *report.render(path, out)]


def plan(quick: bool) -> list[Shard]:
    """All that is simulated, what takes longest first."""
    each, limit, runs, times = (4, 512, 8, 200) if quick else (40, 4096, RUNS, 2000)
    return [
        *(Broken(vocab, fault, limit, runs) for fault in range(len(FAULTS)) for vocab in BUDGETS),
        *(Correct(vocab, number) for vocab in BUDGETS for number in range(each)),
        *(Covered(*case, times) for case in CASES),
        *(Promised(n, 2 * times) for n in (8192, 65536, 2**20)),
    ]


def told(shard: Shard) -> Line:
    return {"kind": type(shard).__name__, **vars(shard)}


def finished(shards: Iterable[Shard], jobs: int) -> Iterator[Line]:
    """Lines of shards, in the order in which they end."""
    if jobs == 1:
        yield from map(work, shards)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        for future in as_completed([pool.submit(work, shard) for shard in shards]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def work(shard: Shard) -> Line:
    started = time.process_time()
    figures = shard.run()
    return {"shard": told(shard), "figures": figures, "seconds": round(time.process_time() - started, 2)}


def header(quick: bool, shards: int) -> Line:
    """What the figures belong to."""
    return {
        "tier": "quick" if quick else "full",
        "shards": shards,
        "code": fingerprint(),
        "versions": {
            "eagle2-ref": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "command": "eagle2 calibrate" + (" --quick" if quick else ""),
    }


def fingerprint() -> str:
    """SHA-256 of the code that makes the figures: the statistics, and what is simulated here."""
    here = Path(__file__).parent
    files = [*sorted(Path(harness.statistics.__file__).parent.glob("*.py")), *sorted(here.glob("*.py"))]
    made = (file for file in files if file.name not in ("run.py", "report.py", "figures.py", "drawings.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in made)).hexdigest()


def resume(path: Path, expected: Line) -> list[Line]:
    """The header and the lines of an earlier run, if of the same code and plan; else a new file. A torn line is dropped."""
    lines = list(whole_lines(path)) if path.exists() else []
    if lines and (lines[0]["tier"], expected["tier"]) == ("full", "quick"):
        raise BadInput(f"{path} holds a full calibration, which a quick one would replace", "give another --out")
    same = bool(lines) and {name: value for name, value in lines[0].items() if name != "started"} == expected
    lines = lines if same else [{**expected, "started": datetime.now(UTC).isoformat(timespec="seconds")}]
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def progress() -> Progress:
    return Progress(TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
