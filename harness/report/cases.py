"""A record arranged for reading: chapters of properties, properties with their cases. Verdicts are those of the record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from eagle2_ref.errors import BadInput
from harness.record.model import Picture, Property, Record, Result, Verdict
from harness.report.text import join_names, printable
from harness.report.trees import witness_tree
from harness.verdict import SIGNS, gravity

CHAPTERS = {
    "law": ("Law", "Does it sample from the target model's distribution?"),
    "greedy": ("Greedy", "At temperature 0, are its tokens the target model's?"),
    "batch": ("Batch", "Is each text of a call the text that it would be alone?"),
    "tree": ("Tree", "Is the draft tree what it claims to be?"),
    "cache": ("Cache", "Does the target's cache hold exactly what was accepted?"),
    "stop": ("Stopping", "Does it end where it must?"),
    "count": ("Counts", "Are its tokens per pass counted correctly, and as many as they should be?"),
    "theory": ("Theory", "Does it accept as much as theory predicts?"),
    "told": ("Log-probabilities", "Are the log-probabilities that it reports the target's?"),
    "smoke": ("Smoke", "Does it answer at all?"),
    "known": ("Known failures", "Is the list of known failures up to date?"),
}
"""Id of a chapter: its title and the question that it answers, in the order of a report."""

UNLISTED = "This property is not in the catalogue of the run; its results are shown nevertheless."
FOLDED_FROM = 5
"""Number of cases from which those of one harmless verdict are folded into a line that counts them."""


@dataclass(frozen=True)
class Case:
    """A result and its anchor on the page, such as LAW-1.3: the third result of LAW-1 in the record."""

    anchor: str
    result: Result

    @property
    def replay(self) -> str:
        """The command that reproduces a fault from the record, known or not; empty for any other verdict."""
        return f"eagle2 replay {self.anchor}" if self.result.verdict in ("fault", "known") else ""

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that show the result again."""
        return tuple(command for command in (self.replay, self.result.replay) if command)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of the record, after the tree of the witness if it has one."""
        tree = witness_tree(self.result.witness) if self.result.witness else None
        return (tree, *self.result.pictures) if tree else self.result.pictures


@dataclass(frozen=True)
class JudgedProperty:
    """A property with its cases, in the order of the run."""

    anchor: str
    claim: Property
    cases: tuple[Case, ...]

    @property
    def counts(self) -> list[tuple[Verdict, int]]:
        return verdict_counts(case.result for case in self.cases)

    @cached_property
    def by_gravity(self) -> list[Case]:
        """The gravest cases first; equally grave ones in the order of the run."""
        return sorted(self.cases, key=lambda case: gravity(case.result.verdict))

    @property
    def folded(self) -> list[tuple[Verdict, list[Case]]]:
        """Long lists of one harmless verdict. Faults, known faults and missing answers are never folded."""
        harmless = [v for v, n in self.counts if n >= FOLDED_FROM and v not in ("fault", "known", "inconclusive")]
        return [(verdict, [case for case in self.cases if case.result.verdict == verdict]) for verdict in harmless]

    @property
    def unfolded(self) -> list[Case]:
        """All other cases, the gravest first."""
        folded = {verdict for verdict, _ in self.folded}
        return [case for case in self.by_gravity if case.result.verdict not in folded]

    @property
    def pictures(self) -> list[tuple[Case, Picture]]:
        """All pictures, those of the gravest cases first."""
        return [(case, picture) for case in self.by_gravity for picture in case.pictures]

    @property
    def sensitivities(self) -> list[tuple[str, int]]:
        """What passing cases would have detected, each with the number of cases that state it."""
        passes = (case.result for case in self.cases if case.result.verdict == "pass")
        return list(Counter(result.sensitivity for result in passes if result.sensitivity).items())


@dataclass(frozen=True)
class Chapter:
    """Properties of one kind."""

    title: str
    question: str
    properties: tuple[JudgedProperty, ...]


def verdict_counts(results: Iterable[Result]) -> list[tuple[Verdict, int]]:
    """How many results have each verdict, the gravest first; verdicts that did not occur are left out."""
    counter: Counter[Verdict] = Counter(result.verdict for result in results)
    return [(verdict, counter[verdict]) for verdict in SIGNS if counter[verdict]]


def chapters(record: Record) -> list[Chapter]:
    """All of a record: its catalogue in order, then results of properties that are not in the catalogue."""
    by_chapter: dict[str, list[JudgedProperty]] = {chapter: [] for chapter in CHAPTERS}
    for place, one in enumerate(catalogue(record), start=1):
        # An id that is fit to be an anchor is one, so that a link can be typed.
        anchor = one.id if re.fullmatch(r"[A-Z]+-[0-9]+", one.id) else f"property-{place}"
        results = [result for result in record.results if result.property == one.id]
        found = tuple(Case(f"{anchor}.{i}", result) for i, result in enumerate(results, start=1))
        by_chapter.setdefault(one.chapter, []).append(JudgedProperty(anchor, one, found))
    titles = {name: CHAPTERS.get(name, (printable(name, 60).capitalize(), "")) for name in by_chapter}
    return [Chapter(*titles[name], tuple(inside)) for name, inside in by_chapter.items() if inside]


def properties(record: Record) -> list[JudgedProperty]:
    """Every property, in the order of the page."""
    return [one for chapter in chapters(record) for one in chapter.properties]


def cases(record: Record) -> list[Case]:
    """Every result with its anchor, in the order of the page."""
    return [case for one in properties(record) for case in one.cases]


def find_case(record: Record, anchor: str) -> Case:
    """The case of an anchor.

    Raises:
        BadInput: the record has no such case.
    """
    by_anchor = {case.anchor: case for case in cases(record)}
    if anchor not in by_anchor:
        faults = [case.anchor for case in by_anchor.values() if case.replay]
        hint = f"its faults are {join_names(faults, 20)}" if faults else "the record has no faults to replay"
        raise BadInput(f"the record has no result {printable(anchor, 60)!r}", hint)
    return by_anchor[anchor]


def catalogue(record: Record) -> list[Property]:
    """Each property once; a result of an unlisted property gets a property, so that it is not lost."""
    listed: dict[str, Property] = {}
    for one in record.header.properties:
        listed.setdefault(one.id, one)
    for result in record.results:
        listed.setdefault(result.property, Property(id=result.property, chapter="others", requirement=UNLISTED))
    return list(listed.values())
