"""Engines that end, hang or damage the process that they run in, change its global state, or leave something running."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness import supervisor
from harness.record.model import read_record
from harness.verdict import BROKEN, HARNESS_ERROR, USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import WIDE, eagle2, fork

ENGINES = """
import ctypes, os, random, signal, subprocess, sys, threading, time, types
import torch

class Sound:
    def __init__(self, target, draft=None, dtype="float32"):
        pass
    def generate(self, prompts, params, seeds):
        return [[random.Random(seed).randrange(8) for _ in range(p["max_new_tokens"])] for p, seed in zip(params, seeds)]

def broken(statements, where="generate"):
    class Engine(Sound):
        pass
    def method(self, *arguments, **options):
        answer = getattr(Sound, where)(self, *arguments, **options)
        exec(statements, {**globals(), "arguments": arguments})
        return answer
    setattr(Engine, where, method)
    return Engine
"""

LEAK = """
import resource
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), resource.RLIM_INFINITY))
leaked = []
while True: leaked.append(bytearray(8 << 20))
"""

BROKEN_CALLS = [
    case("calls os._exit(0)", "exit code 4; the message names the call", "os._exit(0)", "with exit code 0, in generate()"),
    case(
        "calls sys.exit(0)",
        "exit code 4; the message names the call",
        "sys.exit(0)",
        "generate() of 3 prompts on dice8: SystemExit",
    ),
    case(
        "raises KeyboardInterrupt", "exit code 4; it is not taken for the user's", "raise KeyboardInterrupt", "KeyboardInterrupt"
    ),
    case("raises pytest's own Exit", "exit code 4", "import pytest; pytest.exit('done', 0)", "Exit"),
    case(
        "kills its process",
        "exit code 4; the signal is named",
        "os.kill(os.getpid(), 9)",
        "by signal SIGKILL (as the system does when memory runs out), in generate()",
    ),
    case(
        "a segmentation fault", "exit code 4; the signal and the line are named", "ctypes.string_at(0)", "SIGSEGV at __init__.py:"
    ),
    case("closes the harness's descriptors", "exit code 4", "os.closerange(3, 256)", "closed files of the harness"),
    case("closes standard output", "exit code 4", "sys.stdout.close(); os.close(1)", "closed files of the harness"),
    case("leaks memory up to a limit of the machine", "exit code 4", LEAK, "MemoryError"),
    case(
        "copies its process, and the copy returns after the original has died",
        "exit code 4",
        "if os.fork(): os.wait(); os._exit(0)",
        "with exit code 0, in generate()",
    ),
    case(
        "copies its process and ends the original", "exit code 4", "if os.fork(): os._exit(0)", "with exit code 0, in generate()"
    ),
    case(
        "raises an error whose text is not UTF-8",
        "exit code 4; the text is escaped",
        "raise ValueError(os.fsdecode(b'caf\\xe9'))",
        "ValueError: caf",
    ),
    case(
        "raises an error whose text raises",
        "exit code 4",
        "raise type('E', (Exception,), {'__str__': lambda e: 1 / 0})",
        "its message cannot be read",
    ),
    case("recurses without end", "exit code 4", "f = lambda: f(); f()", "RecursionError"),
    case(
        "patches torch, so that the target's law changes",
        "exit code 4; the check is not judged",
        "old = torch.Tensor.softmax; torch.Tensor.softmax = lambda self, *a, **k: old(self * 1.01, *a, **k)",
        "changed what torch computes",
    ),
]

HARMLESS_CALLS = [
    case(
        "replaces standard output by an object of its own",
        "judged as if it had not",
        "sys.stdout = types.SimpleNamespace(write=len, flush=int)",
    ),
    case("stops the clock", "judged as if it had not", "time.monotonic = lambda: 0.0"),
    case("switches autocast on", "judged as if it had not", "torch.set_autocast_enabled('cpu', True)"),
    case(
        "sets torch's default device and dtype",
        "judged as if it had not",
        "torch.set_default_device('meta'); torch.set_default_dtype(torch.half)",
    ),
    case("switches gradients off", "judged as if it had not", "torch.set_grad_enabled(False)"),
    case("asks for deterministic algorithms", "judged as if it had not", "torch.use_deterministic_algorithms(True)"),
    case("seeds all global generators", "judged as if it had not", "torch.manual_seed(0); random.seed(0)"),
    case("clears its inputs", "judged as if it had not", "[x.clear() for x in arguments]"),
    case("ignores SIGALRM", "judged as if it had not", "signal.signal(signal.SIGALRM, signal.SIG_IGN)"),
    case("floods standard output", "judged as if it had not", "print('x' * 10_000_000)"),
    case("leaves a thread running", "the run ends with its verdict", "threading.Thread(target=time.sleep, args=(600,)).start()"),
]

HANGS = [
    case(
        "copies its process, and the original hangs",
        "exit code 4 after the time limit; its process is killed",
        "if os.fork():\n while True:\n  try: time.sleep(9)\n  except BaseException: pass",
    ),
    case(
        "raises an error whose text hangs",
        "exit code 4 after the time limit",
        "raise type('E', (Exception,), {'__str__': lambda e: time.sleep(600)})",
    ),
    case("a loop", "exit code 4 after the time limit", "while True: pass"),
    case(
        "sleeps and swallows every exception",
        "exit code 4 after the time limit; its process is killed",
        "while True:\n try: time.sleep(9)\n except BaseException: pass",
    ),
    case(
        "blocks all signals",
        "exit code 4 after the time limit; its process is killed",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(600)",
    ),
    case(
        "cancels the timer",
        "exit code 4 after the time limit; its process is killed",
        "signal.setitimer(signal.ITIMER_REAL, 0); time.sleep(600)",
    ),
    case(
        "hangs in C",
        "exit code 4 after the time limit; its process is killed",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [14]); ctypes.CDLL(None).sleep(600)",
    ),
]


def write_engine(folder: Path, statements: str, where: str = "generate") -> None:
    (folder / "engines.py").write_text(f"{ENGINES}\nEngine = broken({statements!r}, {where!r})\n")


def smoke(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return eagle2(["smoke", "py:engines:Engine", "--pair", "dice8", *words], folder)


@pytest.mark.parametrize(("statements", "message"), BROKEN_CALLS)
def test_engine_that_breaks_its_process_has_exit_code_4(statements: str, message: str, tmp_path: Path) -> None:
    write_engine(tmp_path, statements)
    done = smoke(tmp_path)
    assert done.returncode == BROKEN and "Traceback" not in done.stdout + done.stderr
    assert message in " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("statements", HARMLESS_CALLS)
def test_global_state_of_an_engine_does_not_reach_the_harness(statements: str, tmp_path: Path) -> None:
    write_engine(tmp_path, statements)
    start = time.monotonic()
    done = smoke(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("statements", HANGS)
def test_engine_that_hangs_meets_its_time_limit(statements: str, tmp_path: Path) -> None:
    write_engine(tmp_path, statements)
    done = fork(impatient, ["smoke", "py:engines:Engine", "--pair", "dice8", "--time-limit", "0.5"], tmp_path, 60, WIDE)
    assert done.returncode == BROKEN and "hung: generate()" in done.stdout


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [
        case("ends the process at import", "exit code 4", "import os; os._exit(0)", BROKEN, "with exit code 0, in importing"),
        case(
            "exits at import, as a script without a main guard",
            "exit code 2; the message names the guard",
            "raise SystemExit(0)",
            USAGE,
            "sys.exit(0)",
        ),
        case("hangs at import", "exit code 4 after the time limit", "import time; time.sleep(600)", BROKEN, "hung: importing"),
        case("a syntax error", "exit code 2", "def", USAGE, "SyntaxError"),
    ],
)
def test_engine_that_cannot_be_imported_is_no_pass(statement: str, code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text(statement + "\n")
    for command in (["smoke"], ["doctor"], ["record"], ["verify", "-n", "0", "--only", "SMOKE"]):
        words = [command[0], "py:engines:Engine", *command[1:], "--pair", "dice8"]
        done = eagle2([*words, *(["--time-limit", "0.5"] if command[0] != "doctor" else [])], tmp_path)
        assert done.returncode == code and message in done.stderr, done.stdout + done.stderr
        if code == BROKEN and "hung" in message:
            break
    assert not (tmp_path / "reports").exists()


@promise("its description hangs", "exit code 4 after the time limit")
def test_description_that_hangs_meets_the_time_limit(tmp_path: Path) -> None:
    text = "class Engine:\n @staticmethod\n def describe(**options):\n  import time; time.sleep(600)\n"
    (tmp_path / "engines.py").write_text(text)
    done = smoke(tmp_path, "--time-limit", "0.5")
    assert done.returncode == BROKEN and "hung: importing and describing" in done.stderr


@promise("an answer is an endless generator", "exit code 4; memory does not grow")
def test_endless_answer_meets_the_time_limit(tmp_path: Path) -> None:
    text = "import itertools\nclass Engine:\n def __init__(self, target, draft=None): pass\n"
    (tmp_path / "engines.py").write_text(text + " def generate(self, prompts, *_): return [itertools.repeat(0)] * len(prompts)\n")
    assert smoke(tmp_path, "--time-limit", "1").returncode == BROKEN


@pytest.mark.parametrize(
    ("method", "selected"),
    [
        case("its attribute `close` hangs", "exit code 4 after the time limit", "__getattr__(self, name)", "SMOKE,STOP"),
        case("its counters hang", "exit code 4 after the time limit", "counters(self)", "TOLD"),
    ],
)
def test_other_code_of_an_engine_meets_the_time_limit(method: str, selected: str, tmp_path: Path) -> None:
    text = f"import time\n{ENGINES}\nclass Engine(Sound):\n capabilities = {{'temperature', 'counters'}}\n"
    body = "if name == 'close': time.sleep(600)\n  raise AttributeError(name)" if "name" in method else "time.sleep(600)"
    (tmp_path / "engines.py").write_text(f"{text} def {method}:\n  {body}\n")
    words = [
        "verify",
        "py:engines:Engine",
        "--pair",
        "dice8",
        "--only",
        selected,
        "-n",
        "0",
        "--time-limit",
        "0.5",
        "--out",
        "out",
    ]
    done = fork(impatient, words, tmp_path, 90, WIDE)
    assert done.returncode == BROKEN and "hung: " in done.stdout, done


@promise("an answer has no token", "exit code 4; no check passes on it")
def test_empty_answers_are_no_pass(tmp_path: Path) -> None:
    """Also where the context cuts the request."""
    text = f"{ENGINES}\nclass Engine(Sound):\n def generate(self, prompts, params, seeds): return [[] for _ in prompts]\n"
    (tmp_path / "engines.py").write_text(text)
    words = ["verify", "py:engines:Engine", "--pair", "coin4", "--only", "GREEDY-1", "-n", "0", "--out", "out"]
    assert eagle2(words, tmp_path).returncode == BROKEN


@promise("declares `blocks` and returns none", "exit code 4; it is no measured fault")
def test_missing_blocks_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text(f"{ENGINES}\nclass Engine(Sound):\n capabilities = {{'temperature', 'blocks'}}\n")
    words = ["verify", "py:engines:Engine", "--pair", "dice8", "--only", "COUNT-1,TREE-1", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == BROKEN and "no blocks" in done.stdout, done


@promise("ends the process between two checks", "exit code 70; the record is inconclusive and names what did not run")
def test_process_that_ends_between_checks_leaves_no_pass(tmp_path: Path) -> None:
    write_engine(tmp_path, "threading.Thread(target=lambda: (time.sleep(0.3), os._exit(0))).start()")
    words = ["verify", "py:engines:Engine", "--pair", "dice8", "--only", "SMOKE,STOP,GREEDY", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    record = read_record(tmp_path / "out" / "record.jsonl")
    assert done.returncode in (BROKEN, HARNESS_ERROR) and record.footer.verdict == "inconclusive"
    assert any("not run" in result.summary or "ended" in result.summary for result in record.results)


@promise("options of the user's own pytest are in the environment", "they are ignored; no earlier record is shown")
def test_pytest_options_of_the_environment_are_ignored(tmp_path: Path) -> None:
    write_engine(tmp_path, "")
    words = ["verify", "py:engines:Engine", "--pair", "dice8", "--only", "SMOKE", "-n", "0", "--out", "out"]
    assert eagle2(words, tmp_path).returncode == 0
    write_engine(tmp_path, "os._exit(0)")
    assert eagle2(words, tmp_path, terminal={**WIDE, "PYTEST_ADDOPTS": "--collect-only"}).returncode == BROKEN


@promise("the implementation is given another dtype than the command", "exit code 2; both are named")
def test_dtype_that_contradicts_the_command_is_refused(tmp_path: Path) -> None:
    write_engine(tmp_path, "")
    done = eagle2(["smoke", "py:engines:Engine,dtype=float16"], tmp_path)
    assert done.returncode == USAGE and "dtype=float16 contradicts --dtype float32" in done.stderr
    assert eagle2(["smoke", "py:engines:Engine,dtype=float16", "--dtype", "float16", "--pair", "dice8"], tmp_path).returncode == 0


@promise("leaves child processes running", "they have ended when the command ends")
def test_processes_that_an_engine_leaves_are_ended(tmp_path: Path) -> None:
    write_engine(tmp_path, "subprocess.Popen(['sleep', '600.25'], start_new_session=True)")
    assert smoke(tmp_path).returncode == 0
    assert not [process for process in psutil.process_iter(["cmdline"]) if "600.25" in (process.info["cmdline"] or ())]


@promise("ends the process in the middle of a run", "the record keeps what was found, and has a report")
def test_record_of_a_run_that_an_engine_ends_is_completed(tmp_path: Path) -> None:
    write_engine(tmp_path, "'T' if arguments[1][0]['temperature'] == 0 else os._exit(0)")
    done = eagle2(["verify", "py:engines:Engine", "--pair", "dice8", "--only", "SMOKE", "-n", "0", "--out", "out"], tmp_path)
    record = read_record(tmp_path / "out" / "record.jsonl")
    assert done.returncode == record.footer.exit_code == BROKEN
    assert [(result.property, result.verdict) for result in record.results] == [("SMOKE-1", "pass"), ("SMOKE-2", "inconclusive")]
    assert "ended the process" in record.results[1].summary and (tmp_path / "out" / "index.html").exists()


@promise("ends a worker", "the next property runs in a new one")
def test_next_property_runs_in_a_clean_process(tmp_path: Path) -> None:
    write_engine(tmp_path, "os._exit(0) if arguments[1][0]['temperature'] == 0 else None")
    done = eagle2(["verify", "py:engines:Engine", "--pair", "dice8", "--only", "SMOKE", "-n", "1", "--out", "out"], tmp_path)
    first, second = read_record(tmp_path / "out" / "record.jsonl").results
    assert done.returncode == BROKEN and first.broken and "with exit code 0, in generate()" in first.summary
    assert second.verdict == "pass"


@promise("ends the process under `pytest --impl`", "the session is red")
def test_pytest_session_that_an_engine_ends_is_red(tmp_path: Path) -> None:
    write_engine(tmp_path, "os._exit(0)")
    words = [
        "--pyargs",
        "properties",
        "--impl",
        "py:engines:Engine",
        "--judge",
        "pair=dice8",
        "-k",
        "smoke",
        "-p",
        "no:cacheprovider",
    ]
    done = fork(run_pytest, words, tmp_path, 120, WIDE)
    assert done.returncode not in (0, 5) and "ended the process with exit code 0" in done.stderr


def impatient(words: list[str]) -> None:
    """Run `eagle2 WORDS` with a supervisor that waits less for a call whose time limit is over."""
    from harness.cli import main

    supervisor.GRACE = 1.0
    sys.argv = ["eagle2", *words]
    main()


def run_pytest(words: list[str]) -> None:
    sys.exit(pytest.main(words))
