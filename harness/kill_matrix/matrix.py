"""Run the gallery: every mutant and control against every property, with the mutant that the diagnosis names for each."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eagle2_ref.errors import BadInput
from harness.catalogue import catalogue, check_selectors, is_selected, name
from harness.diagnosis import SIGNATURES, Signatures
from harness.files import write_atomic
from harness.kill_matrix.signatures import diagnosed, laws, signatures
from harness.kill_matrix.stage import QUICK, Stage, is_dead
from harness.mutants import GALLERY, Mutant, find
from harness.mutants.cases import COUPLED, ONE_LAYER, STREAM, UNEDITED
from harness.pairs import FIXTURES
from harness.record.jsonl import Writer
from harness.record.model import LawPicture, Trial
from harness.report.matrix import Matrix, matrix_sentence, render_matrix
from harness.settings import Settings
from harness.verdict import FAULT, INCONCLUSIVE, PASS

STANDARD = {"LAW-1": ONE_LAYER, "LAW-3": COUPLED, "LAW-6": UNEDITED, "LAW-7": STREAM}
"""Case of a property for mutants that name none, where it is not the first one."""


# --- one mutant ----------------------------------------------------------------------------------------------------


def trials(label: str, only: str = "", quick: bool = False) -> list[Trial]:
    """Check one mutant by the properties.

    Args:
        label: id of the mutant or control.
        only: chapters, properties and cases, separated by commas; all if empty.
        quick: of a mutant, only the properties that are meant to kill it, until one does; of a control, the cheapest ones.
    """
    mutant = GALLERY[label]
    done: list[Trial] = []
    for check_id, case in _cells(mutant, quick):
        if is_selected(only, name(check_id, case)):
            done.append(_trial(mutant, check_id, case))
            if quick and not mutant.control and done[-1].verdict == "fault":
                break
    return done


def _cells(mutant: Mutant, quick: bool) -> list[tuple[str, str]]:
    meant = list(mutant.killers.items())
    if quick:
        return QUICK if mutant.control else meant
    others = [check for check in catalogue().values() if check.id not in mutant.killers]
    return meant + [(check.id, STANDARD.get(check.id, check.case_ids()[0])) for check in others]


def _trial(mutant: Mutant, check_id: str, case: str) -> Trial:
    result = _stage(**mutant.settings).result(check_id, case, f"mutant:{mutant.id}")
    dead = result.verdict == "fault" or (check_id in mutant.killers and is_dead(result))
    return Trial(
        mutant=mutant.id,
        property=check_id,
        case=case,
        meant=check_id in mutant.killers,
        verdict="fault" if dead else result.verdict,
        summary=result.summary.replace(f"{FIXTURES.parent}/", ""),  # trials are committed: no paths of one machine
        work=str(result.work) if result.work else "",
        seconds=result.seconds,
    )


@cache
def _stage(**settings: Any) -> Stage:
    return Stage.build(Path(tempfile.mkdtemp()), replace(Settings(), **settings))


# --- the whole gallery ---------------------------------------------------------------------------------------------


def run_matrix(only: Sequence[str], check: str, quick: bool, out: Path, jobs: int, sign: bool) -> int:
    """Run the gallery or a part of it, and write trials and a report.

    Args:
        only: ids of mutants and controls; all if empty.
        check: chapters, properties and cases, separated by commas; all if empty.
        quick: see `trials`.
        out: folder to write to.
        jobs: number of processes.
        sign: store the signatures of the mutants too.

    Returns:
        The exit code: 1 if a mutant survives or a control dies.
    """
    chosen = [find(label).id for label in only] or list(GALLERY)
    if sign and (only or check or quick):
        raise BadInput("--sign stores the behaviour of the whole gallery", "leave out --only, --check and --quick")
    if check:
        check_selectors(check)
    start, done, pictures = time.monotonic(), list[Trial](), dict[str, dict[str, LawPicture]]()
    with Writer(out / "trials.jsonl") as writer:
        with _progress() as bar:
            task = bar.add_task("gallery", total=len(chosen))
            for label, new, emitted in _run(chosen, check, quick, jobs, sign):
                writer.write(*new)
                done += new
                pictures[label] = emitted
                bar.update(task, advance=1, description=f"{label}: {_killers(new)}")
        order = list(GALLERY)
        done.sort(key=lambda trial: order.index(trial.mutant))
        if sign:
            stored = signatures({label: pictures[label] for label in order if label in pictures}, done)
            write_atomic(SIGNATURES, json.dumps(stored, separators=(",", ":")) + "\n")
        names = diagnosed(Signatures.read()) if SIGNATURES.exists() else {}
        done = [trial.model_copy(update={"looks_like": names.get(trial.mutant, "")}) for trial in done]
        writer.finish(done)
    render_matrix(done, {label: GALLERY[label] for label in chosen}, time.monotonic() - start, out)
    return report(done, out)


def report(done: Sequence[Trial], out: Path) -> int:
    """Print the outcome. The exit code is 1 for a survivor or a dead control, 3 if something was not judged."""
    found = Matrix.of(done, GALLERY)
    console = Console(highlight=False)
    for row in [*found.survivors, *found.unjudged]:
        outcome = "survives" if row.survived else "was not judged"
        console.print(
            f"[bold red]{row.mutant.id} {outcome}[/]  {escape(row.mutant.fault)}  eagle2 mutants --only {row.mutant.id}"
        )
    for row in found.dead_controls:
        for trial in row.false_alarms:
            console.print(f"[bold red]{row.mutant.id} dies[/]  {trial.property} {escape(f'[{trial.case}]: {trial.summary}')}")
    console.print(matrix_sentence(found))
    console.print(f"report: {out / 'index.html'}", soft_wrap=True)
    return {"pass": PASS, "fault": FAULT}.get(found.verdict, INCONCLUSIVE)


def _killers(done: Sequence[Trial]) -> str:
    red = [trial.property for trial in done if trial.verdict == "fault"]
    return ", ".join(red[:4]) + (" …" if len(red) > 4 else "") if red else "passes"


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=True)


def _run(
    labels: Sequence[str], only: str, quick: bool, jobs: int, sign: bool
) -> Iterator[tuple[str, list[Trial], dict[str, LawPicture]]]:
    """Run mutants in several processes, controls first since they take longest; yield trials and laws as they come."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_initialize) as pool:
        order = sorted(labels, key=lambda label: not GALLERY[label].control)
        pending = {pool.submit(_run_one, label, only, quick, sign): label for label in order}
        for ready in as_completed(pending):
            yield pending[ready], *ready.result()


def _run_one(label: str, only: str, quick: bool, sign: bool) -> tuple[list[Trial], dict[str, LawPicture]]:
    return trials(label, only, quick), laws(label) if sign and not GALLERY[label].control else {}


def _initialize() -> None:
    """One thread a process, and no progress bars among the results."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
