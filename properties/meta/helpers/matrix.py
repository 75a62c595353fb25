"""The kill matrix: every mutant and control of the gallery before every property, and what the diagnosis makes of each."""

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
from harness.catalogue import catalogue
from harness.diagnosis import SIGNATURES, Signatures
from harness.files import write_atomic
from harness.mutants import GALLERY, Mutant, find
from harness.mutants.cases import ONE_LAYER
from harness.pairs import FIXTURES
from harness.record.model import LawPicture, Result, Trial
from harness.report.matrix import Matrix, matrix_sentence, render_matrix
from harness.settings import Settings
from harness.verdict import FAULT, INCONCLUSIVE, PASS
from properties.meta.helpers.mutant_stage import SHOWN, Scene, cases_of, is_dead
from properties.meta.helpers.signatures import laws, named, signatures

STANDARD = {
    "LAW-1": ONE_LAYER,
    "LAW-6": "coin4, T=0.5 top_k=3, k=1 depth=1 m=1",
    "LAW-3": "T=1.0, k=4 depth=3 m=8",
    "LAW-7": "coin6, T=0.8 top_k=4, mixed with T=1.3 and T=0.6",
}
"""The case of a property that a mutant meets which names no case of its own, where it is not the first."""


def trials(mutant: str, only: str = "", quick: bool = False) -> list[Trial]:
    """One mutant before the properties; `only` a chapter or a property. quick: before those that are meant to see it, until
    one does; a control before a few of each kind."""
    told = GALLERY[mutant]
    done: list[Trial] = []
    for name, case in _cells(told, quick):
        if only in ("", name, name.partition("-")[0]):
            done.append(_trial(told, name, case))
            if quick and not told.control and done[-1].verdict == "fault":
                break
    return done


def _cells(told: Mutant, quick: bool) -> list[tuple[str, str]]:
    meant = list(told.killers.items())
    if quick:
        return SHOWN if told.control else meant
    others = [p.id for p in catalogue().values() if p.id not in told.killers]
    return meant + [(name, STANDARD.get(name, cases_of(name)[0])) for name in others]


def _trial(told: Mutant, name: str, case: str) -> Trial:
    result = _scene(**told.settings).verdict(name, case, f"mutant:{told.id}")
    dead = result.verdict == "fault" or (name in told.killers and is_dead(result))
    return Trial(
        mutant=told.id,
        property=name,
        case=case,
        meant=name in told.killers,
        verdict="fault" if dead else result.verdict,
        summary=result.summary.replace(f"{FIXTURES.parent}/", ""),  # the matrix is committed, and paths are one machine's
        work=work(result),
        seconds=round(result.seconds, 3),
    )


def work(result: Result) -> str:
    """What a verdict took: the number that the property counts in."""
    for unit in ("executions", "samples", "tokens", "instances", "texts an arm", "texts", "trees", "nodes", "passes", "blocks"):
        if isinstance(count := result.measured.get(unit), int):
            return f"{count:,} {unit}"
    return ""


@cache
def _scene(**settings: Any) -> Scene:
    return Scene.set(Path(tempfile.mkdtemp()), replace(Settings(), **settings))


# --- the whole gallery -------------------------------------------------------------------------------------------------


def matrix(only: Sequence[str], check: str, quick: bool, out: Path, jobs: int, sign: bool) -> int:
    """Run the gallery, or some of it, and write trials and report; exit code 1 if a mutant survives or a control dies."""
    chosen = [find(label).id for label in only] or list(GALLERY)
    if sign and (only or check or quick):
        raise BadInput("--sign keeps what the whole gallery does", "leave out --only, --check and --quick")
    if check and not any(check in (p.id, p.id.partition("-")[0]) for p in catalogue().values()):
        raise BadInput(f"there is no property or chapter {check!r}", "give LAW, or LAW-1")
    out.mkdir(parents=True, exist_ok=True)
    begun, done, pictures = time.monotonic(), list[Trial](), dict[str, dict[str, LawPicture]]()
    with (out / "trials.jsonl").open("w", encoding="utf-8") as file, _progress() as bar:
        task = bar.add_task("gallery", total=len(chosen))
        for name, mine, laws in _run(chosen, check, quick, jobs, sign):
            file.writelines(trial.model_dump_json() + "\n" for trial in mine)
            file.flush()
            done += mine
            pictures[name] = laws
            bar.update(task, advance=1, description=f"{name}: {_end(mine)}")
    order = list(GALLERY)
    done.sort(key=lambda trial: order.index(trial.mutant))
    if sign:
        kept = signatures({name: pictures[name] for name in order if name in pictures}, done)
        write_atomic(SIGNATURES, json.dumps(kept, separators=(",", ":")) + "\n")
    looks = named(Signatures.read()) if SIGNATURES.exists() else {}
    done = [trial.model_copy(update={"looks_like": looks.get(trial.mutant, "")}) for trial in done]
    write_atomic(out / "trials.jsonl", "".join(trial.model_dump_json() + "\n" for trial in done))
    render_matrix(done, {name: GALLERY[name] for name in chosen}, time.monotonic() - begun, out)
    return conclude(done, out)


def conclude(done: Sequence[Trial], out: Path) -> int:
    """Tell what came of it; 1 for a survivor or a dead control, 3 where something was not judged."""
    found = Matrix.of(done, GALLERY)
    console = Console(highlight=False)
    for row in [*found.survivors, *found.unjudged]:
        told = "survives" if row.survived else "was not judged"
        console.print(f"[bold red]{row.mutant.id} {told}[/]  {escape(row.mutant.fault)}  eagle2 mutants --only {row.mutant.id}")
    for row in found.dead_controls:
        for trial in row.false_alarms:
            console.print(f"[bold red]{row.mutant.id} dies[/]  {trial.property} {escape(f'[{trial.case}]: {trial.summary}')}")
    console.print(matrix_sentence(found))
    console.print(f"report: {out / 'index.html'}", soft_wrap=True)
    return {"pass": PASS, "fault": FAULT}.get(found.verdict, INCONCLUSIVE)


def _end(mine: Sequence[Trial]) -> str:
    red = [trial.property for trial in mine if trial.verdict == "fault"]
    return ", ".join(red[:4]) + (" …" if len(red) > 4 else "") if red else "passes"


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=True)


def _run(
    mutants: Sequence[str], only: str, quick: bool, jobs: int, sign: bool
) -> Iterator[tuple[str, list[Trial], dict[str, LawPicture]]]:
    """All mutants in several processes; what each came to, as it comes. What takes longest, a control, goes first."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_alone) as pool:
        first = sorted(mutants, key=lambda name: not GALLERY[name].control)
        waiting = {pool.submit(_one, name, only, quick, sign): name for name in first}
        for ready in as_completed(waiting):
            yield waiting[ready], *ready.result()


def _one(mutant: str, only: str, quick: bool, sign: bool) -> tuple[list[Trial], dict[str, LawPicture]]:
    return trials(mutant, only, quick), laws(mutant) if sign and not GALLERY[mutant].control else {}


def _alone() -> None:
    """One thread a process, and no bars among the results."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
