"""The pytest plugin: `pytest --impl X` runs the installed checks against X and writes a record.

Every pytest of an environment that has this package loads this module. Without --impl it leaves the tests of other projects
alone. It imports nothing heavy at the top: what a check needs is imported when a check runs.

A check is a function that returns a `Result` (see harness/catalogue.py). Here it becomes a pytest item that stores the result
on its report: a fault or an inconclusive result fails, n/a is a skip, a known fault an xfail. With pytest-xdist the workers
run the checks, and the controller, which receives the reports, writes the record.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

import pytest

from eagle2_ref.errors import BadInput
from harness import activity, supervisor
from harness.catalogue import Check, is_selected, name
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.context import Context
    from harness.known import Entry
    from harness.record.model import Result
    from harness.recorder import Recorder

RESULT, RECORDING, LEFT_OUT, RUN = "eagle2-result", "eagle2-recording", "eagle2-left-out", "eagle2-run"
SETTINGS = pytest.StashKey[Settings]()
CONTEXT = pytest.StashKey["Context"]()


class CheckItem(pytest.Item):
    """One check on one of its cases."""

    def __init__(self, *, check: Check, case: str, **parent: Any) -> None:
        super().__init__(name(check.id, case), **parent)
        self.check, self.case = check, case
        self.extra_keyword_matches.add(check.function.__name__)
        if case in set(check.case_ids(full=True)) - set(check.case_ids()):
            self.add_marker("full")

    def runtest(self) -> None:
        from harness.context import run_check
        from harness.known import excuse, today

        settings, context = self.config.stash[SETTINGS], _context(self.config)
        result = run_check(self.check, self.case, context)
        result = excuse(result, _known(settings.known), context.implementation.lossy, today())
        self.user_properties.append((RESULT, result.model_dump_json()))
        if result.verdict in ("fault", "inconclusive"):
            repeat = settings.command(name(result.property, result.case), here=True)
            pytest.fail(_failure(result, self.check.requirement, repeat), pytrace=False)
        if result.excuse:
            raise pytest.xfail.Exception(f"{result.excuse.reason} {result.excuse.link}")  # pytest.xfail() is off under --runxfail
        if result.verdict == "n/a":
            pytest.skip(result.summary)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


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
    if is_worker(config) and RUN in config.workerinput:  # type: ignore[attr-defined]
        activity.join(Path(config.workerinput[RUN]), config.workerinput["workerid"])  # type: ignore[attr-defined]
    if config.option.impl:  # a project may turn warnings into errors for its own tests, but not for checks
        config.addinivalue_line("filterwarnings", "default")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the session in a supervised child process: an implementation that ends its process must not end it as green."""
    option = config.option
    looks = option.collectonly or option.version or option.help or option.usepdb or option.trace
    if not option.impl or is_worker(config) or activity.folder() or looks or not supervisor.supported():
        return None
    try:
        return supervisor.supervise(partial(_session, config))
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
    except BadInput as error:
        raise pytest.UsageError(str(error)) from None
    except Exception as error:
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"eagle2: {error}; there is no verdict", file=sys.stderr)
        return pytest.ExitCode.INTERNAL_ERROR


def _session(config: pytest.Config) -> int:
    """The session itself. Its exit code is green only if its record was finished."""
    try:
        status = int(config.hook.pytest_cmdline_main(config=config))
    except pytest.UsageError as error:
        raise BadInput(str(error)) from None
    recording = config.pluginmanager.get_plugin(RECORDING)
    if not recording or not recording.finished:
        return status or int(pytest.ExitCode.INTERNAL_ERROR)
    return status or int(bool(recording.code) and pytest.ExitCode.TESTS_FAILED)


def pytest_sessionstart(session: pytest.Session) -> None:
    """On the controller, begin the record. Wrong input is reported before anything is written."""
    if session.config.option.impl and not is_worker(session.config) and not session.config.option.collectonly:
        from harness.catalogue import check_selectors
        from harness.implementations import connect
        from harness.implementations.engine import AdapterError, NotApplicable
        from harness.pairs import shipped
        from harness.recorder import Recorder

        settings = session.config.stash[SETTINGS]
        try:
            if settings.only:
                check_selectors(settings.only, settings.tier == "full")
            implementation = connect(settings.impl, settings.time_limit)
            pairs = [implementation.find_pair(settings), *(shipped(toy) for toy in ("coin4", "coin6", "dice8"))]
            recorder = Recorder.begin(settings, implementation, pairs)
        except (BadInput, AdapterError, NotApplicable) as error:
            raise pytest.UsageError(str(error)) from None
        session.config.pluginmanager.register(Recording(recorder), RECORDING)


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, obj: object) -> list[CheckItem] | None:
    """Turn each check of a module into items; checks that the module merely imports are ignored."""
    if not isinstance(obj, Check):
        return None
    if obj.function.__module__ != getattr(collector.obj, "__name__", None):
        return []
    return [CheckItem.from_parent(collector, check=obj, case=case) for case in obj.case_ids(full=True)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the checks that the tier or the setting `only` leaves out. Other tests stay."""
    settings = config.stash[SETTINGS]

    def wanted(item: pytest.Item) -> bool:
        if not isinstance(item, CheckItem):
            return True
        if item.get_closest_marker("full") and settings.tier != "full":
            return False
        return is_selected(settings.only, item.name)

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Store in the record which cases were left out, by this plugin or by -k.

    With pytest-xdist the controller collects nothing: the workers send their list when they end.
    """
    for item in items:
        if isinstance(item, CheckItem):
            if is_worker(item.config):
                item.config.workeroutput.setdefault(LEFT_OUT, []).append(item.name)  # type: ignore[attr-defined]
            elif recording := item.config.pluginmanager.get_plugin(RECORDING):
                recording.recorder.left_out.add(item.name)


class Recording:
    """The part of the plugin that only the controller has: it receives all results and writes the record."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.finished, self.code = False, 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker of pytest-xdist is about to start: tell it where to write what it does."""
        if folder := activity.folder():
            node.workerinput[RUN] = str(folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        """A worker has died: say how, and during what."""
        popen = getattr(getattr(report.node.gateway, "_io", None), "popen", None)
        if popen and (folder := activity.folder()):
            with suppress(TimeoutExpired):
                popen.wait(1)
            report.longrepr = supervisor.death(folder, popen.pid, popen.returncode)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended. All workers send the same list; one that died sends none."""
        self.recorder.left_out.update(getattr(node, "workeroutput", {}).get(LEFT_OUT, ()))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        from harness.record.model import Result

        if report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        sent = [Result.model_validate_json(str(value)) for key, value in report.user_properties if key == RESULT]
        for result in sent:
            self.recorder.add(result)
        # A worker that died sends no result, and a failure after a green result makes that result doubtful.
        explained = any(result.verdict in ("fault", "known", "inconclusive") for result in sent)
        check = re.search(r"::([A-Z]+-\d+)(?:\[(.*)\])?$", report.nodeid, re.DOTALL)
        if check and (not sent or (report.failed and not explained)):
            reason = _last_line(report.longreprtext) or "the check returned no result"
            case = check[2] or ""
            self.recorder.add(Result(property=check[1], case=case, verdict="inconclusive", summary=reason, broken=True))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Close the record. pytest fails if the record does: if nothing was judged, or a known failure is out of date."""
        if session.exitstatus == pytest.ExitCode.INTERRUPTED:
            self.recorder.cut_off("the run was stopped")
        self.code = self.recorder.finish()
        self.finished = True
        if self.code and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if terminalreporter.no_summary:
            return  # `eagle2 verify` prints its own summary
        from harness.known import KNOWN
        from harness.record.model import read_record
        from harness.report.sentences import excuse_sentence, verdict_sentence
        from harness.report.text import printable

        record = read_record(self.recorder.path)
        terminalreporter.write_sep("-", "eagle2")
        for result in record.results:
            if result.excuse or (result.property == KNOWN.id and result.verdict != "pass"):
                reason = excuse_sentence(result.excuse) if result.excuse else result.summary
                case = printable(name(result.property, result.case), 200)
                terminalreporter.write_line(f"{result.verdict}: {case}: {printable(reason, 400)}")
        terminalreporter.write_line(f"{record.footer.verdict}: {verdict_sentence(record)}")
        terminalreporter.write_line(f"record and report: {self.recorder.out}")


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist. Its environment variables would be inherited by child processes."""
    return hasattr(config, "workerinput")


def _context(config: pytest.Config) -> Context:
    """The context of the run, opened by the first check of a process."""
    if CONTEXT not in config.stash:
        from harness.context import Context

        # pytest-xdist gives every worker a folder inside the one of the run.
        shared = Path(config.option.basetemp).parent if is_worker(config) else None
        config.stash[CONTEXT] = Context.open_run(config.stash[SETTINGS], shared)
    return config.stash[CONTEXT]


@cache
def _known(path: str) -> tuple[Entry, ...]:
    from harness.known import read

    return read(path)


def _failure(result: Result, requirement: str, repeat: str) -> str:
    return (
        f"{result.property}  {result.case}  {result.verdict.upper()}\n"
        f"  requirement  {requirement}\n  observed     {result.summary}\n  replay       {repeat}"
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
