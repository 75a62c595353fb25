"""The pytest plugin: `pytest --impl X` judges X by the chapters of properties/ and writes a record.

It is loaded by every pytest of an environment that has this package. Without --impl it does nothing to other people's tests, and
it imports nothing that takes time: what a check needs is imported where a check is met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eagle2_ref.errors import BadInput
from harness.catalogue import CHAPTERS, name, read_docstring, selects
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.known import Entry
    from harness.record.model import Property, Result, Verdict

RESULT, RECORDING, LEFT_OUT = "eagle2-result", "eagle2-recording", "eagle2-left-out"
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
    if config.option.impl:  # warnings that are errors to a project's own tests are none to these
        config.addinivalue_line("filterwarnings", "default")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests of the harness itself judge nobody."""
    return True if config.option.impl and collection_path == CHAPTERS / "meta" else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """On the controller, begin the record. Wrong input is told here, before anything is written."""
    if session.config.option.impl and not is_worker(session.config) and not session.config.option.collectonly:
        from harness.implementations import connect
        from harness.implementations.engine import AdapterError, NotApplicable
        from harness.pairs import find_pair, shipped
        from harness.record.recorder import Recorder
        from harness.recording import Recording

        settings = session.config.stash[SETTINGS]
        try:
            main = find_pair(settings.pair, settings.target or None, settings.draft or None)
            pairs = [main, *(shipped(toy) for toy in ("coin4", "coin6", "dice8"))]
            recorder = Recorder(settings, connect(settings.impl), pairs)
        except (BadInput, AdapterError, NotApplicable) as error:
            raise pytest.UsageError(str(error)) from None
        session.config.pluginmanager.register(Recording(recorder), RECORDING)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the tier or `only` leaves out. Tests of other people stay."""
    settings = config.stash[SETTINGS]

    def wanted(item: pytest.Item) -> bool:
        told = property_of(item)
        if told is None:
            return not settings.only or CHAPTERS not in item.path.parents
        if item.get_closest_marker("full") and settings.tier != "full":
            return False
        return not settings.only or selects(settings.only, name(told.id, case_of(item)))

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Tell the record what was left out, by us or by -k; workers tell when they end, since a controller collects nothing."""
    for item in items:
        if told := property_of(item):
            case, config = name(told.id, case_of(item)), item.config
            if is_worker(config):
                config.workeroutput.setdefault(LEFT_OUT, []).append(case)  # type: ignore[attr-defined]
            elif recording := config.pluginmanager.get_plugin(RECORDING):
                recording.recorder.left_out.add(case)


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


def judge_of(item: pytest.Item, lossy: str = "") -> Judge:
    """A judge whose results go with the item's report; a fault or an inconclusive check fails its test, a known fault does not.

    lossy: what the implementation's own documentation says of a law that it does not promise.
    """
    from harness.known import excuse, today

    settings, told = item.config.stash[SETTINGS], property_of(item)
    assert told is not None, f"{item.nodeid} has no docstring that begins with the id of a property"

    def hear(result: Result) -> None:
        result = excuse(result, _known(settings.known), lossy, today())
        item.user_properties.append((RESULT, result.model_dump_json()))
        if result.verdict in ("fault", "inconclusive"):
            pytest.fail(
                f"{told.id}  {result.case}  {result.verdict.upper()}\n"
                f"  requirement  {told.requirement}\n  observed     {result.summary}\n  replay       {result.replay}",
                pytrace=False,
            )
        if result.excuse:
            raise pytest.xfail.Exception(f"{result.excuse.reason} {result.excuse.link}")  # the call is silent under --runxfail
        if result.verdict == "n/a":
            pytest.skip(result.summary)

    return Judge(told, case_of(item), settings, hear)


@cache
def _known(path: str) -> tuple[Entry, ...]:
    from harness.known import read

    return read(path)


def _result(told: Property, case: str, settings: Settings, verdict: Verdict, summary: str, **evidence: Any) -> Result:
    from harness.record.model import Result
    from harness.record.recorder import command

    replay = command(settings, name(told.id, case))
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


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's workers; the environment would tell so of their own children too."""
    return hasattr(config, "workerinput")
