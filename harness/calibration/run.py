"""`eagle2 calibrate`: simulation shards in several processes. Each result is written at once, so that a run can be resumed."""

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
from typing import Any

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
from harness.calibration.figures import LINES, Figures, Header, ShardLine
from harness.calibration.toy_pairs import BUDGETS
from harness.record.jsonl import Writer, read_lines

Shard = Correct | Broken | Covered | Promised

RECORD = "calibration.jsonl"
PRESENTATION = ("run.py", "report.py", "figures.py", "claims.py")
"""Files of this folder that compute no figure: a change of them does not restart a calibration."""


def calibrate(out: Path, quick: bool = False, jobs: int = 1) -> list[Path]:
    """Simulate, write calibration.jsonl, index.html and summary.md into `out`, and return their paths.

    Shards that an earlier run of the same code and plan left in `out` are not run again.
    """
    shards, path = plan(quick), out / RECORD
    header, lines = resume(path, new_header(quick, len(shards)))
    finished = {_key(line.shard) for line in lines}
    rest = [shard for shard in shards if _key(fields(shard)) not in finished]
    writer = Writer(path, resume=bool(lines))
    with writer, _progress() as bar:
        if not lines:
            writer.write(header)
        task = bar.add_task("calibration", total=len(shards), completed=len(shards) - len(rest))
        for line in results(rest, jobs):
            writer.write(line)
            lines.append(line)
            bar.update(task, advance=1, description=line.shard["kind"])
        order = {_key(fields(shard)): i for i, shard in enumerate(shards)}
        writer.finish([header, *sorted(lines, key=lambda line: order[_key(line.shard)])])
    return [path, *report.render(path, out)]


def plan(quick: bool) -> list[Shard]:
    """All shards, the slowest first."""
    each, limit, runs, times = (4, 512, 8, 200) if quick else (40, 4096, RUNS, 2000)
    return [
        *(Broken(vocab, fault, limit, runs) for fault in range(len(FAULTS)) for vocab in BUDGETS),
        *(Correct(vocab, number) for vocab in BUDGETS for number in range(each)),
        *(Covered(*case, times) for case in CASES),
        *(Promised(n, 2 * times) for n in (8192, 65536, 2**20)),
    ]


def fields(shard: Shard) -> Figures:
    """Kind and fields of a shard, as a record has them."""
    return {"kind": type(shard).__name__, **vars(shard)}


def results(shards: Iterable[Shard], jobs: int) -> Iterator[ShardLine]:
    """Lines of shards, in the order in which they finish."""
    if jobs == 1:
        yield from map(work, shards)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        for future in as_completed([pool.submit(work, shard) for shard in shards]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def work(shard: Shard) -> ShardLine:
    """Run one shard."""
    started = time.process_time()
    figures = shard.run()
    return ShardLine(shard=fields(shard), figures=figures, seconds=round(time.process_time() - started, 2))


def new_header(quick: bool, shards: int) -> Header:
    """The header of a run of this code that starts now."""
    versions = {"eagle2-ref": __version__, "python": platform.python_version()}
    return Header(
        tier="quick" if quick else "full",
        shards=shards,
        code=fingerprint(),
        versions={**versions, "numpy": np.__version__, "scipy": scipy.__version__},
        command="eagle2 calibrate" + (" --quick" if quick else ""),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def fingerprint() -> str:
    """SHA-256 of the code that computes the figures: the statistics, and the simulations."""
    here = Path(__file__).parent
    files = [*sorted(Path(harness.statistics.__file__).parent.glob("*.py")), *sorted(here.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.name not in PRESENTATION)).hexdigest()


def resume(path: Path, new: Header) -> tuple[Header, list[ShardLine]]:
    """Header and lines of an earlier run of the same code and plan; otherwise `new` and no lines.

    Raises:
        BadInput: a quick run would replace a full one.
    """
    lines: list[Any] = read_lines(path, LINES, command="eagle2 calibrate") if path.exists() else [new]
    header, earlier = lines[0], lines[1:]
    if (header.tier, new.tier) == ("full", "quick"):
        raise BadInput(f"{path} holds a full calibration, which a quick one would replace", "give another --out")
    same = header.model_copy(update={"started": new.started}) == new
    return (header, earlier) if same else (new, [])


def _key(shard: Figures) -> str:
    return json.dumps(shard)


def _progress() -> Progress:
    return Progress(TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
