"""A record arranged for reading: chapters, properties, cases. Verdicts are taken as they stand in the record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from eagle2_ref.errors import BadInput
from harness.record.model import Picture, Property, Record, Result, Verdict
from harness.report import trees
from harness.report.words import CHAPTERS, SIGNS, Sign, listed, shown

STRANGER = "It is not in the catalogue of this run; what was measured is shown all the same."
PICTURES = 4  # drawn for one property; a run has hundreds, and the page must stay light
FEW = 4  # cases of one quiet verdict that are shown without being asked for


@dataclass(frozen=True)
class Case:
    """One result and its place on the page."""

    anchor: str
    result: Result

    @property
    def sign(self) -> Sign:
        return SIGNS[self.result.verdict]

    @property
    def replay(self) -> str:
        """The command that reproduces a fault from the record, a known one too; empty for what is none."""
        return f"eagle2 replay {self.anchor}" if self.result.verdict in ("fault", "known") else ""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those of the record; before them the tree of a witness that is a rule's instance."""
        tree = trees.witness(self.result.witness) if self.result.witness else None
        return (tree, *self.result.pictures) if tree else self.result.pictures

    @property
    def tooltip(self) -> str:
        """What a cell of the matrix says under the pointer."""
        return f"{shown(self.result.case, 120)}\n{self.result.verdict}: {shown(self.result.summary, 200)}"


@dataclass(frozen=True)
class Row:
    """A property with its cases, in the order of the run."""

    anchor: str
    claim: Property
    cases: tuple[Case, ...]

    @property
    def counts(self) -> list[tuple[Sign, int]]:
        return counts(case.result for case in self.cases)

    @cached_property
    def ranked(self) -> list[Case]:
        """The gravest first; among equals, the order of the run."""
        order = list(SIGNS)
        return sorted(self.cases, key=lambda case: order.index(case.result.verdict))

    @property
    def loud(self) -> list[Case]:
        """Cases that are never folded away: every fault, a known one too, every missing answer, and short lists of anything."""
        hidden = {sign.verdict for sign, _ in self.folded}
        return [case for case in self.ranked if case.result.verdict not in hidden]

    @property
    def folded(self) -> list[tuple[Sign, list[Case]]]:
        """Long lists of one quiet verdict, each behind its count."""
        long = [sign for sign, n in self.counts if n > FEW and sign.verdict not in ("fault", "known", "inconclusive")]
        return [(sign, [case for case in self.cases if case.sign == sign]) for sign in long]

    @property
    def pictures(self) -> list[tuple[Case, Picture]]:
        """Those that are drawn: of the gravest cases first."""
        return self.all_pictures[:PICTURES]

    @property
    def all_pictures(self) -> list[tuple[Case, Picture]]:
        return [(case, picture) for case in self.ranked for picture in case.pictures]

    @property
    def sensitivities(self) -> list[tuple[str, int]]:
        """What passes of this property would have seen, each with the number of cases that promise it."""
        passes = (case.result for case in self.cases if case.result.verdict == "pass")
        return list(Counter(result.sensitivity for result in passes if result.sensitivity).items())


@dataclass(frozen=True)
class Chapter:
    """Properties of one kind."""

    title: str
    question: str
    rows: tuple[Row, ...]


def counts(results: Iterable[Result]) -> list[tuple[Sign, int]]:
    """How many results have each verdict, the gravest first; verdicts that did not occur are left out."""
    seen: Counter[Verdict] = Counter(result.verdict for result in results)
    return [(sign, seen[verdict]) for verdict, sign in SIGNS.items() if seen[verdict]]


def chapters(record: Record) -> list[Chapter]:
    """Everything in the record: the catalogue in its order, then results that no property of the catalogue claims."""
    by_chapter: dict[str, list[Row]] = {chapter: [] for chapter in CHAPTERS}
    for place, known in enumerate(catalogue(record), start=1):
        by_chapter.setdefault(known.chapter, []).append(row(known, place, record.results))
    return [chapter(name, rows) for name, rows in by_chapter.items() if rows]


def cases(record: Record) -> list[Case]:
    """Every result with its place, in the order of the page."""
    return [case for chapter in chapters(record) for row in chapter.rows for case in row.cases]


def find(record: Record, anchor: str) -> Case:
    """The case of an anchor of the page, such as LAW-1.3: the third result of LAW-1 in the record."""
    known = {case.anchor: case for case in cases(record)}
    if anchor not in known:
        faults = [case.anchor for case in known.values() if case.replay]
        there = f"its faults are {listed(faults, 20)}" if faults else "it holds no fault"
        raise BadInput(f"the record has no result {shown(anchor, 60)!r}", there)
    return known[anchor]


def chapter(name: str, rows: Sequence[Row]) -> Chapter:
    title, question = CHAPTERS.get(name, (shown(name, 60).capitalize(), ""))
    return Chapter(title, question, tuple(rows))


def row(known: Property, place: int, results: Iterable[Result]) -> Row:
    """The anchor is the property's id where that is fit to be one, so that a link may be typed; else its place."""
    anchor = known.id if re.fullmatch(r"[A-Z]+-[0-9]+", known.id) else f"property-{place}"
    mine = [result for result in results if result.property == known.id]
    return Row(anchor, known, tuple(Case(f"{anchor}.{i}", result) for i, result in enumerate(mine, start=1)))


def catalogue(record: Record) -> list[Property]:
    """Each id once; a result of an unknown property must not be lost, so its property is made up here."""
    known = {p.id: p for p in reversed(record.header.properties)}
    known = dict(reversed(known.items()))
    for result in record.results:
        known.setdefault(result.property, Property(id=result.property, chapter="others", requirement=STRANGER))
    return list(known.values())
