"""Writes a record during a run, and the report at its end. Only the controlling process has a recorder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import harness.report
from harness import known, tracebacks
from harness.catalogue import catalogue, is_selected, split_selectors
from harness.diagnosis import diagnose
from harness.environment import machine, versions
from harness.equivalence import false_alarm, statement
from harness.implementations import Implementation
from harness.pairs import Pair
from harness.record import ledger
from harness.record.jsonl import Writer, read_parts
from harness.record.model import LINES, Footer, Header, Property, Result, read_record
from harness.settings import Settings
from harness.verdict import conclude, gravity, settle

REPORT = ("index.html", "summary.md", "junit.xml", "badge.json")


class Recorder:
    """Writes one run. Every result is on disk as soon as it is known, so that a run that is cut off loses only its footer.

    Args:
        settings: the settings of the run.
        header: the first line of the record.
        resume: results that the run has stored already; None begins a record, and removes the report of an earlier run.
    """

    def __init__(self, settings: Settings, header: Header, resume: Sequence[Result] | None = None) -> None:
        self.settings, self.header, self.started = settings, header, time.monotonic()
        self.properties = {check.id: check.describe() for check in catalogue().values()}
        self.known = known.read(settings.known)
        self.out = Path(settings.out)
        self.path = self.out / "record.jsonl"
        self.left_out: set[str] = set()
        self.unfinished = False
        self.results: list[Result] = []
        for result in resume or ():
            self._keep(result)
        # Wrong options have been reported: from here on, the report of an earlier run is gone.
        stale = [self.out / name for name in REPORT] if resume is None else []
        self._writer = Writer(self.path, resume=resume is not None, stale=stale)
        if resume is None:
            tracebacks.clear(self.out)
            self._writer.write(header)

    @classmethod
    def begin(cls, settings: Settings, implementation: Implementation, pairs: Sequence[Pair]) -> Recorder:
        """The recorder of a run that begins."""
        listed = [check.describe() for check in catalogue().values()]
        if known.read(settings.known):
            listed.append(known.KNOWN)
        if settings.evidence:
            ledger.check(Path(settings.evidence), implementation)
        return cls(settings, _header(settings, implementation, pairs, listed))

    @classmethod
    def reopen(cls, settings: Settings) -> Recorder:
        """The recorder of a run whose process has ended before its footer was written."""
        path = Path(settings.out) / "record.jsonl"
        header, results, _ = read_parts(path, LINES, Header, Footer, command="`eagle2 verify`", whole=False)
        found = cls(settings, header, results)
        found.started -= (datetime.now(UTC) - datetime.fromisoformat(header.started)).total_seconds()
        return found

    def cut_off(self, reason: str, check: str = "", broken: bool = False) -> None:
        """State that the run has ended before its end: what was being checked, and what was not checked, is inconclusive.

        Args:
            reason: why it ended.
            check: the check that was running, or empty.
            broken: the implementation ended it.
        """
        name, _, case = check.partition("[")
        if not check:  # which cases are missing is not known
            name, case = (self.results[-1].property if self.results else "SMOKE-1"), "the rest of the run"
        self.unfinished = True
        self.add(Result(property=name, case=case.removesuffix("]"), verdict="inconclusive", summary=reason, broken=broken))

    def add(self, result: Result) -> None:
        """Store a result. Of two results for one case, such as a pass and a crash after it, the graver one counts."""
        self._writer.write(result)
        self._keep(result)

    def _keep(self, result: Result) -> None:
        same = next((i for i, one in enumerate(self.results) if (one.property, one.case) == (result.property, result.case)), None)
        if same is None:
            self.results.append(result)
        elif gravity(result.verdict) < gravity(self.results[same].verdict):
            self.results[same] = result

    def finish(self) -> int:
        """Settle the verdicts, rewrite the record with its footer, and render the report.

        Returns:
            The exit code.
        """
        lost = [
            Result(property=name, case="", verdict="inconclusive", summary="not run: the run ended before it")
            for name in self._missing()
        ]
        found = sorted(settle([*self.results, *lost], self.properties), key=self._place)
        results = [*found, *known.judged(self.known, found, self.left_out, self.properties, known.today())]
        verdict, code = conclude(results)
        seconds = round(time.monotonic() - self.started, 1)
        footer = Footer(
            finished=_now(),
            seconds=seconds,
            results=len(results),
            verdict=verdict,
            exit_code=code,
            false_alarm=false_alarm(found),
            statement=statement(found),
            likenesses=diagnose(found),
        )
        with self._writer:  # no other run can begin in this folder until the report is there
            self._writer.finish([self.header, *results, footer])
            if self.settings.draw:
                harness.report.render(read_record(self.path), self.out)
        return code

    def _missing(self) -> list[str]:
        """Properties that were to be checked and have no result: of a whole run, and of one that was cut off."""
        if not self.settings.whole and not self.unfinished:
            return []
        only = ",".join(part.partition("[")[0] for part in split_selectors(self.settings.only))
        seen = {result.property for result in self.results}
        return sorted(name for name in self.properties if name not in seen and is_selected(only, name))

    def _place(self, result: Result) -> tuple[int, str]:
        order = list(self.properties)
        return (order.index(result.property) if result.property in order else len(order), result.case)


def _header(settings: Settings, implementation: Implementation, pairs: Sequence[Pair], properties: list[Property]) -> Header:
    return Header(
        started=_now(),
        implementation=implementation.name,
        implementation_version=implementation.version,
        capabilities=tuple(sorted(implementation.capabilities)),
        pair=pairs[0].name,
        checksums={name: digest for pair in pairs for name, digest in pair.checksums().items()},
        settings={name: str(getattr(settings, name)) for name in ("tier", "device", "dtype", "oracle", "seed")},
        versions=versions(),
        machine=machine(settings.device),
        command=settings.command(),
        properties=tuple(properties),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
