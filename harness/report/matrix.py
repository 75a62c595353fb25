"""The kill matrix, drawn: which property saw which planted fault, what that took, and whom the diagnosis took it for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Protocol

from harness.files import write_atomic
from harness.record.model import Trial, Verdict
from harness.report.page import templates
from harness.report.summary import text
from harness.report.svg_paths import Label, Plot
from harness.report.words import CHAPTERS, SIGNS, listed, number, seconds, several, shown


class Told(Protocol):
    """What the gallery tells of a mutant."""

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
class Mark:
    """How a cell looks: ✗ killed, ! meant to be killed and alive, and otherwise the sign of the verdict."""

    symbol: str
    style: str
    meaning: str


KILLED = Mark("✗", "fault", "killed")
ALIVE = Mark("!", "open alive", "meant to see the fault, and did not")
GRAVEST: tuple[Verdict, ...] = ("fault", "inconclusive", "blocked", "tie", "pass", "n/a")


@dataclass(frozen=True)
class Row:
    """One mutant with its trials, in the order in which they were made."""

    told: Told
    trials: tuple[Trial, ...]

    @property
    def meant(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.meant]

    @property
    def killer(self) -> Trial | None:
        """The first trial that killed it among those that were meant to."""
        return next((trial for trial in self.meant if trial.verdict == "fault"), None)

    @property
    def survived(self) -> bool:
        """It is a fault, and none of the properties that are meant to see it did. One that met none of them is not judged."""
        return not self.told.control and bool(self.meant) and self.killer is None

    @property
    def died(self) -> list[Trial]:
        """For a control: what must not be."""
        return [trial for trial in self.trials if self.told.control and trial.verdict == "fault"]

    @property
    def to_death(self) -> float:
        """Seconds of work until it was killed, by properties that are meant to."""
        return sum(trial.seconds for trial in self.meant[: self.meant.index(self.killer) + 1]) if self.killer else 0.0

    @property
    def taken_for(self) -> str:
        """Whom the diagnosis named; empty where it was not asked."""
        return next((trial.looks_like for trial in self.trials if trial.looks_like), "")

    def mark(self, name: str) -> Mark | None:
        """The gravest of the cases of a property; None where it was not tried."""
        mine = [trial for trial in self.trials if trial.property == name]
        if not mine:
            return None
        verdict = min((trial.verdict for trial in mine), key=GRAVEST.index)
        if verdict == "fault":
            return KILLED
        return ALIVE if any(trial.meant for trial in mine) else Mark(SIGNS[verdict].symbol, SIGNS[verdict].style, verdict)


@dataclass(frozen=True)
class Matrix:
    """All trials, by mutant: faults first, then controls, each in the order of the gallery. Who was not tried has no row."""

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], told: Mapping[str, Told]) -> Matrix:
        rows = [Row(told[name], tuple(trial for trial in trials if trial.mutant == name)) for name in told]
        return cls(tuple(sorted((row for row in rows if row.trials), key=lambda row: row.told.control)))

    @property
    def faults(self) -> list[Row]:
        return [row for row in self.rows if not row.told.control]

    @property
    def controls(self) -> list[Row]:
        return [row for row in self.rows if row.told.control]

    @property
    def killed(self) -> list[Row]:
        return [row for row in self.faults if row.killer]

    @property
    def survivors(self) -> list[Row]:
        return [row for row in self.faults if row.survived]

    @property
    def unjudged(self) -> list[Row]:
        """Faults that met no property that is meant to see them, and controls that a check gave no answer for."""
        silent = [row for row in self.controls if any(trial.verdict in ("inconclusive", "blocked") for trial in row.trials)]
        return [row for row in self.faults if not row.meant] + silent

    @property
    def dead(self) -> list[Row]:
        return [row for row in self.controls if row.died]

    @property
    def named(self) -> list[Row]:
        """Those that the diagnosis was asked about, as far as their laws differ from the target's."""
        return [row for row in self.faults if row.told.law and row.taken_for]

    @property
    def right(self) -> list[Row]:
        return [row for row in self.named if row.taken_for == row.told.id]

    @cached_property
    def properties(self) -> list[str]:
        """Columns: by chapter, then by number."""

        def place(name: str) -> tuple[int, str, int]:
            chapter, _, digits = name.partition("-")
            known = list(CHAPTERS)
            at = known.index(chapter.lower()) if chapter.lower() in known else len(known)
            return at, chapter, int(digits) if re.fullmatch("[0-9]{1,6}", digits) else 0

        return sorted({trial.property for row in self.rows for trial in row.trials}, key=place)

    @property
    def verdict(self) -> Verdict:
        """A survivor or a dead control is a fault of the instrument; what was not judged is no pass."""
        if self.survivors or self.dead:
            return "fault"
        return "inconclusive" if self.unjudged or not self.rows else "pass"


def render_matrix(trials: Sequence[Trial], told: Mapping[str, Told], seconds: float, out: Path) -> list[Path]:
    """Write index.html and summary.md into `out`; `seconds` is how long the run took."""
    matrix = Matrix.of(trials, told)
    texts = {"index.html": page(matrix, seconds), "summary.md": summary(matrix, seconds)}
    out.mkdir(parents=True, exist_ok=True)
    return [write_atomic(out / name, made) for name, made in texts.items()]


def page(matrix: Matrix, took: float) -> str:
    return (
        templates()
        .get_template("matrix.html")
        .render(
            matrix=matrix,
            sign=SIGNS[matrix.verdict],
            sentence=sentence(matrix),
            facts=facts(matrix, took),
            confusion=confusion(matrix),
            marks=[
                KILLED,
                ALIVE,
                *(Mark(sign.symbol, sign.style, verdict) for verdict, sign in SIGNS.items() if verdict not in ("fault", "known")),
            ],
        )
    )


def sentence(matrix: Matrix) -> str:
    """What came of it, in one sentence."""
    if not matrix.rows:
        return "Nothing was tried."
    groups = {"survived": matrix.survivors, "died though right": matrix.dead, "not judged": matrix.unjudged}
    wrong = [
        f"{number(len(rows))} {what}: {listed((shown(row.told.id, 40) for row in rows), 12)}"
        for what, rows in groups.items()
        if rows
    ]
    killed = (
        f"{number(len(matrix.killed))} of {several(len(matrix.faults), 'planted fault')} killed by a property that is meant to"
    )
    tried = f"{killed}; {several(len(matrix.controls), 'control')} tried."
    return f"{tried} {'; '.join(wrong)}." if wrong else f"{tried} None survived, and no control died."


def facts(matrix: Matrix, took: float) -> list[tuple[str, str]]:
    """Totals; those of what was not measured are left out."""
    deaths = [row.to_death for row in matrix.killed]
    found = [
        ("trials", number(sum(len(row.trials) for row in matrix.rows))),
        ("the run took", seconds(took)),
        ("median time to death", seconds(median(deaths)) if deaths else ""),
        ("longest", seconds(max(deaths)) if deaths else ""),
        ("diagnosis", diagnosis(matrix)),
    ]
    return [(name, value) for name, value in found if value]


def diagnosis(matrix: Matrix) -> str:
    named, right = len(matrix.named), len(matrix.right)
    return f"right for {right} of {named} faults whose laws differ, {right / named:.0%}" if named else ""


def confusion(matrix: Matrix) -> Plot | None:
    """A square a mutant: its row is what it is, its column what the diagnosis took it for. On the diagonal it is right."""
    rows = matrix.named
    if not rows:
        return None
    places = {row.told.id: i for i, row in enumerate(rows)}
    others = sorted({row.taken_for for row in rows} - set(places))  # named though their laws were not asked about
    places |= {name: len(rows) + i for i, name in enumerate(others)}
    x0, y0, step = 40.0, 4.0, 11.0
    wide, high = step * len(places), step * len(rows)
    paths = {"right": "", "wrong": ""}
    labels = []
    for i, row in enumerate(rows):
        x, y = x0 + step * places[row.taken_for], y0 + step * i
        paths["right" if row.taken_for == row.told.id else "wrong"] += f"M{x + 1:g} {y + 1:g}h9v9h-9z"
        labels.append(Label(x0 - 5, y + 9, shown(row.told.id, 5), "end"))
        if row.taken_for != row.told.id:
            labels.append(Label(x + step + 2, y + 9, shown(row.taken_for, 5), "start"))
    frame = f"M{x0:g} {y0:g}h{wide:g}v{high:g}h{-wide:g}z"
    reading = (
        f"A row for each fault, a column for each that the diagnosis can name, in the same order. On the diagonal it was"
        f" {diagnosis(matrix)}; beside the others stands the name that was given."
    )
    return Plot(x0 + wide + 40, y0 + high + 6, (("frame", frame), *paths.items()), tuple(labels), reading)


def summary(matrix: Matrix, took: float) -> str:
    """Markdown: what came of it, each fault with what killed it, the controls, and whom the diagnosis mistook."""
    sign = SIGNS[matrix.verdict]
    rows = [
        f"| {text(row.told.id, 40)} | {text(row.told.part, 40)} | {text(row.told.fault, 300)} | {text(row.told.source, 100)} |"
        f" {_end(row)} | {text(row.killer.work, 60) if row.killer else ''} | {seconds(row.to_death) if row.killer else ''} |"
        for row in matrix.rows
    ]
    mistaken = [row for row in matrix.named if row not in matrix.right]
    lines = [
        f"## {sign.symbol} {sign.verdict}: the kill matrix",
        "",
        text(sentence(matrix), 2000),
        "",
        *(f"- {name}: {value}" for name, value in facts(matrix, took)),
        "",
        "| id | part | fault | source | killed by | what it took | time |",
        "|---|---|---|---|---|--:|--:|",
        *rows,
        *(["", "### Taken for another", ""] if mistaken else []),
        *(f"- {text(row.told.id, 40)} for {text(row.taken_for, 40)}" for row in mistaken),
    ]
    return "\n".join(lines) + "\n"


def _end(row: Row) -> str:
    if row.told.control:
        died = listed((f"**dead** by {text(trial.property, 40)}" for trial in row.died), 3)
        return died or "control, alive"
    return text(row.killer.property, 40) if row.killer else "**survived**" if row.survived else "not judged"
