"""The part of the plugin that only a controller has: it hears all results, and closes the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.catalogue import catalogue, name
from harness.known import KNOWN
from harness.pytest_plugin import LEFT_OUT, RESULT
from harness.record.model import Property, Result, read_record
from harness.record.recorder import Recorder
from harness.report.words import excused, sentence, shown


class Recording:
    """The plugin of the controller: keeps the record while results come in, and closes it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended; one that died tells nothing, and the others tell the same."""
        self.recorder.left_out.update(getattr(node, "workeroutput", {}).get(LEFT_OUT, ()))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        sent = [str(value) for name, value in report.user_properties if name == RESULT]
        for value in sent:
            result = Result.model_validate_json(value)
            self.recorder.add(result.model_copy(update={"seconds": round(report.duration, 2)}))
        # A worker that died sends nothing; a check that broke after its verdict has sent one that no longer holds.
        told_so = any(Result.model_validate_json(value).verdict in ("fault", "known", "inconclusive") for value in sent)
        lacking = not sent or (report.failed and not told_so)
        if lacking and (told := _by_nodeid(report.nodeid)):
            why, case = _last_line(report.longreprtext) or "the check came to no verdict", _bracket(report.nodeid)
            self.recorder.add(Result(property=told.id, case=case, verdict="inconclusive", summary=why, broken=True))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """No pytest is green whose record is not: where nothing was judged, or the list of known failures no longer holds."""
        if self.recorder.finish() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if terminalreporter.no_summary:
            return  # as `eagle2 verify` has it, which tells more
        record = read_record(self.recorder.path)
        terminalreporter.write_sep("-", "eagle2")
        for result in record.results:
            if result.excuse or (result.property == KNOWN.id and result.verdict != "pass"):
                told = excused(result.excuse) if result.excuse else result.summary
                terminalreporter.write_line(
                    f"{result.verdict}: {shown(name(result.property, result.case), 200)}: {shown(told, 400)}"
                )
        terminalreporter.write_line(f"{record.footer.verdict}: {sentence(record)}")
        terminalreporter.write_line(f"record and report: {self.recorder.out}")


def _by_nodeid(nodeid: str) -> Property | None:
    path, _, function = nodeid.partition("[")[0].rpartition("::")
    return catalogue().get(f"{Path(path).name}::{function}")


def _bracket(nodeid: str) -> str:
    return nodeid.partition("[")[2].removesuffix("]")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
