"""Writes a record during a run, and the report at its end. Only the controlling process has a recorder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import harness.report
from harness import known, tracebacks
from harness.catalogue import catalogue
from harness.diagnosis import diagnose
from harness.environment import machine, versions
from harness.equivalence import false_alarm, statement
from harness.implementations import Implementation
from harness.pairs import Pair
from harness.record.jsonl import Writer
from harness.record.model import Footer, Header, Property, Result, read_record
from harness.settings import Settings
from harness.verdict import conclude, settle

FILES = ("record.jsonl", "index.html", "summary.md", "junit.xml", "badge.json")


class Recorder:
    """Writes one run. Every result is on disk as soon as it is known, so that a run that is cut off loses only its footer."""

    def __init__(self, settings: Settings, implementation: Implementation, pairs: Sequence[Pair]) -> None:
        self.settings, self.started = settings, time.monotonic()
        self.properties = {check.id: check.describe() for check in catalogue().values()}
        self.out = Path(settings.out)
        self.out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (self.out / name).unlink(missing_ok=True)
        tracebacks.clear(self.out)
        self.path = self.out / "record.jsonl"
        self.known = known.read(settings.known)
        self.left_out: set[str] = set()
        listed = [*self.properties.values(), *([known.KNOWN] if self.known else [])]
        self.header = _header(settings, implementation, pairs, listed)
        self.results: list[Result] = []
        self._writer = Writer(self.path)
        self._writer.write(self.header)

    def add(self, result: Result) -> None:
        self.results.append(result)
        self._writer.write(result)

    def finish(self) -> int:
        """Settle the verdicts, rewrite the record with its footer, and render the report.

        Returns:
            The exit code.
        """
        missing = sorted(set(self.properties) - {result.property for result in self.results}) if self.settings.whole else []
        lost = [
            Result(property=name, case="", verdict="inconclusive", summary="not run: the process that was to run it has died")
            for name in missing
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
        self._writer.finish([self.header, *results, footer])
        harness.report.render(read_record(self.path), self.out)
        return code

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
