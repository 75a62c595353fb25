"""The pytest plugin: `pytest --impl X` judges X by the chapters of properties/ and writes a record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eagle2_ref.errors import BadInput
from harness.catalogue import CHAPTERS, catalogue, read_docstring
from harness.evidence import Property, Result, Verdict
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.recorder import Recorder

RESULT = "eagle2-result"
SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("eagle2", "judging speculative decoders")
    group.addoption("--impl", metavar="IMPL", help="implementation to judge: ref, py:package.module:Engine, trace:run.jsonl")
    group.addoption(
        "--judge", metavar="NAME=VALUE", action="append", default=[], help="setting of the run, such as tier=full or device=cuda"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: left out of the quick tier")
    try:
        settings = Settings.parse(config.option.impl or "ref", config.option.judge)
    except BadInput as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[SETTINGS] = settings


def pytest_sessionstart(session: pytest.Session) -> None:
    """On the controller, begin the record. Wrong input is told here, before anything is written."""
    if session.config.option.impl and not is_worker(session.config) and not session.config.option.collectonly:
        from harness.implementations import connect
        from harness.pairs import find_pair, shipped
        from harness.recorder import Recorder

        settings = session.config.stash[SETTINGS]
        try:
            main = find_pair(settings.pair, settings.target or None, settings.draft or None)
            pairs = [main, shipped("coin4"), shipped("coin6")]
            recorder = Recorder(settings, connect(settings.impl), pairs)
        except BadInput as error:
            raise pytest.UsageError(str(error)) from None
        session.config.pluginmanager.register(Recording(recorder), "eagle2-recording")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the tier, `only`, or judging somebody else's decoder leaves out."""
    settings = config.stash[SETTINGS]
    judging = bool(config.option.impl)

    def wanted(item: pytest.Item) -> bool:
        told = property_of(item)
        if told is None:
            return not judging and not settings.only
        if item.get_closest_marker("full") and settings.tier != "full":
            return False
        return settings.only in ("", told.id.partition("-")[0], told.id, f"{told.id}[{case_of(item)}]")

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever stops a check becomes a result too: a crash is never silence, and never a pass."""
    report = yield
    told = property_of(item)
    if told and call.excinfo is not None and not any(name == RESULT for name, _ in item.user_properties):
        result = _from_exception(item, told, call)
        if result is not None:
            item.user_properties.append((RESULT, result.model_dump_json()))
            if result.verdict == "n/a":
                report.outcome, report.longrepr = "skipped", (str(item.path), 0, result.summary)
            elif result.broken:
                report.longrepr = f"{result.property}  {result.case}  {result.summary}"
            report.user_properties = list(item.user_properties)
    return report


class Recording:
    """The plugin of the controller: keeps the record while results come in, and closes it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        sent = [str(value) for name, value in report.user_properties if name == RESULT]
        for value in sent:
            result = Result.model_validate_json(value)
            self.recorder.add(result.model_copy(update={"seconds": round(report.duration, 2)}))
        # A worker that died sends nothing; a check that broke after its verdict has sent one that no longer holds.
        told_so = any(Result.model_validate_json(value).verdict in ("fault", "inconclusive") for value in sent)
        lacking = not sent or (report.failed and not told_so)
        if lacking and (told := _by_nodeid(report.nodeid)):
            why, case = _last_line(report.longreprtext) or "the check came to no verdict", _bracket(report.nodeid)
            self.recorder.add(Result(property=told.id, case=case, verdict="inconclusive", summary=why, broken=True))

    def pytest_sessionfinish(self) -> None:
        self.recorder.finish()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.write_sep("-", "eagle2")
        terminalreporter.write_line(f"record and report: {self.recorder.out}")


# --- what a property test is given ---------------------------------------------------------------------------------


class Judge:
    """Ends a check: makes its result and hands it on."""

    def __init__(self, told: Property, case: str, settings: Settings, hear: Callable[[Result], None]) -> None:
        self.property, self.case, self._settings, self._hear = told, case, settings, hear

    def seed(self, salt: int = 0) -> int:
        """A seed that depends on the property, the case and --seed, not on the worker or the order."""
        text = f"{self.property.id}[{self.case}] {self._settings.seed} {salt}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    def __call__(self, verdict: Verdict, summary: str, **evidence: Any) -> None:
        """Say what was seen; `evidence` are fields of Result. Nothing is judged after a fault: the check ends here."""
        self._hear(_result(self.property, self.case, self._settings, verdict, summary, **evidence))


def judge_of(item: pytest.Item) -> Judge:
    """A judge whose results go with the item's report; a fault or an inconclusive check fails its test."""
    told = property_of(item)
    assert told is not None, f"{item.nodeid} has no docstring that begins with the id of a property"

    def hear(result: Result) -> None:
        item.user_properties.append((RESULT, result.model_dump_json()))
        if result.verdict in ("fault", "inconclusive"):
            pytest.fail(
                f"{told.id}  {result.case}  {result.verdict.upper()}\n"
                f"  requirement  {told.requirement}\n  observed     {result.summary}\n  replay       {result.replay}",
                pytrace=False,
            )
        if result.verdict == "n/a":
            pytest.skip(result.summary)

    return Judge(told, case_of(item), item.config.stash[SETTINGS], hear)


def _result(told: Property, case: str, settings: Settings, verdict: Verdict, summary: str, **evidence: Any) -> Result:
    from harness.recorder import command

    replay = command(settings, f"{told.id}[{case}]" if case else told.id)
    return Result(property=told.id, case=case, verdict=verdict, summary=summary, replay=replay, **evidence)


def _from_exception(item: pytest.Item, told: Property, call: pytest.CallInfo[None]) -> Result | None:
    """The result that an exception stands for."""
    from harness.implementations.engine import AdapterError, Missing, NotApplicable

    assert call.excinfo is not None
    error, case, settings = call.excinfo.value, case_of(item), item.config.stash[SETTINGS]
    if isinstance(error, pytest.skip.Exception):
        return None
    if isinstance(error, NotApplicable):
        return _result(told, case, settings, "n/a", str(error))
    if isinstance(error, AdapterError | BadInput):
        return _result(told, case, settings, "inconclusive", str(error), broken=True)
    if isinstance(error, Missing):
        return _result(told, case, settings, "inconclusive", str(error))
    where = call.excinfo.traceback[-1]
    place = f"{Path(where.path).name}:{where.lineno + 1}"
    return _result(told, case, settings, "inconclusive", f"the check itself failed: {type(error).__name__}: {error} ({place})")


def property_of(item: pytest.Item) -> Property | None:
    """The property that a test function judges; None for the harness's own tests."""
    function: Callable[..., Any] | None = getattr(item, "function", None)
    if function is None or item.path.parent != CHAPTERS:
        return None
    return read_docstring(function.__doc__)


def case_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.id) if callspec else ""


def _by_nodeid(nodeid: str) -> Property | None:
    path, _, function = nodeid.partition("[")[0].rpartition("::")
    return catalogue().get(f"{Path(path).name}::{function}")


def _bracket(nodeid: str) -> str:
    return nodeid.partition("[")[2].removesuffix("]")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's workers; the environment would tell so of their own children too."""
    return hasattr(config, "workerinput")
