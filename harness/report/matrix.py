"""The kill matrix: which property detected which planted fault, how much work that took, and what the diagnosis named.

`Matrix` is a function of trials and of descriptions of the mutants; it imports no mutant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Protocol

from harness.record.model import Trial, Verdict
from harness.report.cases import CHAPTERS
from harness.report.layout import Facts, Item, Items, Legend, Page, Section, verdict_mark, write
from harness.report.tables import Cell, Column, Mark, Table, text_columns
from harness.report.text import join_names, number, plural, printable, seconds
from harness.verdict import gravest


class MutantDescription(Protocol):
    """What is known of a mutant or a control. law: its distribution differs from the target's."""

    @property
    def id(self) -> str: ...
    @property
    def fault(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def control(self) -> bool: ...
    @property
    def law(self) -> bool: ...


@dataclass(frozen=True)
class MatrixRow:
    """A mutant or control with its trials, in the order in which they ran."""

    mutant: MutantDescription
    trials: tuple[Trial, ...]

    @property
    def meant(self) -> list[Trial]:
        """Trials of properties that the gallery names as able to detect the fault."""
        return [trial for trial in self.trials if trial.meant]

    @property
    def killer(self) -> Trial | None:
        """The first of these trials that detected it."""
        return next((trial for trial in self.meant if trial.verdict == "fault"), None)

    @property
    def survived(self) -> bool:
        """No property that is meant to detect this fault did. A fault that met none of them is not judged."""
        return not self.mutant.control and bool(self.meant) and self.killer is None

    @property
    def false_alarms(self) -> list[Trial]:
        """Trials that called a control faulty."""
        return [trial for trial in self.trials if self.mutant.control and trial.verdict == "fault"]

    @property
    def seconds_to_kill(self) -> float:
        """Work of the properties that are meant to detect the fault, until the first did."""
        return sum(trial.seconds for trial in self.meant[: self.meant.index(self.killer) + 1]) if self.killer else 0.0

    @property
    def diagnosed_as(self) -> str:
        """The mutant that the diagnosis named; empty if there was no diagnosis."""
        return next((trial.looks_like for trial in self.trials if trial.looks_like), "")

    def mark(self, name: str) -> Mark | None:
        """The gravest case of a property; None if it was not run."""
        trials = [trial for trial in self.trials if trial.property == name]
        if not trials:
            return None
        verdict = gravest(trial.verdict for trial in trials)
        meant = any(trial.meant for trial in trials)
        if verdict == "fault":
            return KILLED if meant or self.mutant.control else KILLED_BY_CHANCE
        return ALIVE if meant else verdict_mark(verdict)


UNNAMED = "?"
"""What a trial has as its diagnosis if no mutant fits."""

KILLED = Mark("✗", "fault")
KILLED_BY_CHANCE = Mark("✗", "fault weak")
ALIVE = Mark("!", "open alive")


@dataclass(frozen=True)
class Matrix:
    """All trials, by mutant: faults first, then controls, each in the order of the gallery. Untried mutants have no row."""

    rows: tuple[MatrixRow, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], mutants: Mapping[str, MutantDescription]) -> Matrix:
        rows = [MatrixRow(mutants[name], tuple(trial for trial in trials if trial.mutant == name)) for name in mutants]
        return cls(tuple(sorted((row for row in rows if row.trials), key=lambda row: row.mutant.control)))

    @property
    def faults(self) -> list[MatrixRow]:
        return [row for row in self.rows if not row.mutant.control]

    @property
    def controls(self) -> list[MatrixRow]:
        return [row for row in self.rows if row.mutant.control]

    @property
    def killed(self) -> list[MatrixRow]:
        return [row for row in self.faults if row.killer]

    @property
    def survivors(self) -> list[MatrixRow]:
        return [row for row in self.faults if row.survived]

    @property
    def unjudged(self) -> list[MatrixRow]:
        """Faults that met no property that is meant to detect them, and controls for which a check gave no answer."""
        silent = [row for row in self.controls if any(trial.verdict in ("inconclusive", "blocked") for trial in row.trials)]
        return [row for row in self.faults if not row.meant] + silent

    @property
    def dead_controls(self) -> list[MatrixRow]:
        return [row for row in self.controls if row.false_alarms]

    @property
    def diagnosed(self) -> list[MatrixRow]:
        """Faults whose distribution differs from the target's, and for which the diagnosis named a mutant."""
        return [row for row in self.faults if row.mutant.law and row.diagnosed_as]

    @property
    def mistaken(self) -> list[MatrixRow]:
        """Faults for which the diagnosis named another mutant."""
        return [row for row in self.diagnosed if row.diagnosed_as != row.mutant.id]

    @cached_property
    def properties(self) -> list[str]:
        """Properties by chapter, then by number."""

        def place(name: str) -> tuple[int, str, int]:
            chapter, _, digits = name.partition("-")
            order = list(CHAPTERS)
            at = order.index(chapter.lower()) if chapter.lower() in order else len(order)
            return at, chapter, int(digits) if re.fullmatch("[0-9]{1,6}", digits) else 0

        return sorted({trial.property for row in self.rows for trial in row.trials}, key=place)

    @property
    def verdict(self) -> Verdict:
        """A survivor or a dead control is a fault of the checks; a row that was not judged is never a pass."""
        if self.survivors or self.dead_controls:
            return "fault"
        return "inconclusive" if self.unjudged or not self.rows else "pass"


def render_matrix(
    trials: Sequence[Trial], mutants: Mapping[str, MutantDescription], seconds_taken: float | None, out: Path
) -> list[Path]:
    """Write index.html and summary.md into `out`; `seconds_taken` by the whole run, None if unknown."""
    matrix = Matrix.of(trials, mutants)
    sections = [
        Section("What killed what", (_grid(matrix), _legend()), id="matrix"),
        Section("Totals", (Facts(totals(matrix, seconds_taken)),)),
        *([_diagnosis(matrix)] if matrix.diagnosed else []),
    ]
    answer = matrix_sentence(matrix)
    page = Page("The kill matrix", answer, (*sections, _gallery(matrix)), matrix.verdict, eyebrow="eagle2 mutants")
    short = Page("the kill matrix", answer, (_kills(matrix), *sections[1:]), matrix.verdict)
    return write(page, out, summary=short)


def matrix_sentence(matrix: Matrix) -> str:
    """The outcome in one sentence."""
    if not matrix.rows:
        return "Nothing was tried."
    groups = {"survived": matrix.survivors, "died although correct": matrix.dead_controls, "not judged": matrix.unjudged}
    wrong = [
        f"{number(len(rows))} {what}: {join_names((printable(row.mutant.id, 40) for row in rows), 12)}"
        for what, rows in groups.items()
        if rows
    ]
    faults, controls = plural(len(matrix.faults), "planted fault"), plural(len(matrix.controls), "control")
    killed = f"{number(len(matrix.killed))} of {faults} were detected by a property that is meant to; {controls} tried."
    return f"{killed} {'; '.join(wrong)}." if wrong else f"{killed} None survived, and no control died."


def totals(matrix: Matrix, seconds_taken: float | None) -> tuple[tuple[str, str], ...]:
    """Totals that are known."""
    times = [row.seconds_to_kill for row in matrix.killed]
    right = len(matrix.diagnosed) - len(matrix.mistaken)
    share = f"{right} of {len(matrix.diagnosed)} faults whose distribution differs" if matrix.diagnosed else ""
    pairs = (
        ("trials", number(sum(len(row.trials) for row in matrix.rows))),
        ("time of all trials", seconds(sum(trial.seconds for row in matrix.rows for trial in row.trials))),
        ("time of the run", seconds(seconds_taken) if seconds_taken is not None else ""),
        ("median time to detect a fault", seconds(median(times)) if times else ""),
        ("longest", seconds(max(times)) if times else ""),
        ("diagnosis correct for", f"{share}, {right / len(matrix.diagnosed):.0%}" if share else ""),
    )
    return tuple((name, value) for name, value in pairs if value)


def _grid(matrix: Matrix) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for i, row in enumerate(matrix.rows, start=1):
        marks = [row.mark(name) for name in matrix.properties]
        cells = [Cell(marks=(mark,)) if mark else "" for mark in marks]
        rows.append((Cell(printable(row.mutant.id, 12), link=f"#row-{i}"), *cells))
    return Table(text_columns("", *(printable(name, 20) for name in matrix.properties)), tuple(rows), kind="grid")


def _legend() -> Legend:
    verdicts: tuple[Verdict, ...] = ("inconclusive", "blocked", "tie", "pass", "n/a")
    marks = (
        (KILLED, "detected by a property that is meant to"),
        (KILLED_BY_CHANCE, "detected by another property"),
        (ALIVE, "meant to detect the fault, and did not"),
        *((verdict_mark(verdict), verdict) for verdict in verdicts),
    )
    return Legend(marks, "The last rows are controls, which must pass.")


def _diagnosis(matrix: Matrix) -> Section:
    """The faults that the diagnosis took for another."""
    named = {UNNAMED: "no mutant was named"}
    pairs = [(row.mutant.id, named.get(row.diagnosed_as, row.diagnosed_as)) for row in matrix.mistaken]
    items = tuple(Item(f"{printable(mutant, 40)} → {printable(name, 40)}") for mutant, name in pairs)
    return Section("Faults that the diagnosis does not name", (Items(items),) if items else (), id="diagnosis")


def _gallery(matrix: Matrix) -> Section:
    rows = []
    for row in matrix.rows:
        mutant = row.mutant
        if mutant.control:
            notes = [f"{printable(t.property, 40)}: {printable(t.summary, 300)}" for t in row.false_alarms]
            outcome = "dead" if notes else f"alive after {plural(len(row.trials), 'trial')}"
            cell = Cell(outcome, "fault" if notes else "", notes=tuple(notes))
        else:
            notes = [_attempt(trial) for trial in row.meant]
            notes += [f"diagnosis: {printable(row.diagnosed_as, 40)}"] if row.diagnosed_as else []
            cell = Cell(_end(row), "" if row.killer else "open", notes=tuple(notes))
        kind = "control" if mutant.control else mutant.part
        about = Cell(printable(mutant.fault, 400), notes=(printable(mutant.source, 200),))
        rows.append((Cell(printable(mutant.id, 40), notes=(printable(kind, 40),)), about, cell))
    ids = tuple(f"row-{i}" for i in range(1, len(rows) + 1))
    columns = text_columns("id", "fault, and where it was reported", "detected by")
    return Section("The gallery", (Table(columns, tuple(rows), ids=ids),), id="gallery")


def _attempt(trial: Trial) -> str:
    outcome = "detected it" if trial.verdict == "fault" else trial.verdict
    parts = (f"{printable(trial.property, 40)} {outcome}", printable(trial.work, 60), seconds(trial.seconds))
    return f"{', '.join(part for part in parts if part)}: {printable(trial.summary, 200)}"


def _kills(matrix: Matrix) -> Section:
    rows = []
    for row in matrix.rows:
        mutant, killer = row.mutant, row.killer
        limits = ((mutant.id, 40), (mutant.part, 40), (mutant.fault, 300), (mutant.source, 100))
        work = (printable(killer.work, 60), seconds(row.seconds_to_kill)) if killer else ("", "")
        rows.append((*(printable(text, limit) for text, limit in limits), _end(row), *work))
    columns = (*text_columns("id", "part", "fault", "source", "detected by"), Column("work"), Column("time"))
    return Section("Planted faults", (Table(columns, tuple(rows)),))


def _end(row: MatrixRow) -> str:
    if row.mutant.control:
        dead = join_names((printable(trial.property, 40) for trial in row.false_alarms), 3)
        return f"dead, by {dead}" if dead else "control, alive"
    return printable(row.killer.property, 40) if row.killer else "survived" if row.survived else "not judged"
