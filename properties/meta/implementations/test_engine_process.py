"""Engines in processes of their own: every failure is reported and none is a pass, and no process is left running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.implementations.process import SERVE, EngineProcess
from harness.pairs import FIXTURES, Pair, shipped
from harness.verdict import BROKEN
from properties.cases import SAMPLED
from properties.meta.helpers.checks import result_of
from properties.meta.helpers.command import eagle2
from properties.test_law_sampled import first_tokens_of_samples

COIN4 = shipped("coin4")
PARAMS = {"temperature": 1.0, "max_new_tokens": 3}


def served(where: str) -> str:
    """The connectable string of an engine served by serve.py, under this Python."""
    return f"cmd:{sys.executable} {SERVE} {where}"


def write_engine(folder: Path, generate: str, describe: str = "{}") -> str:
    """Write an engine with these bodies of `generate` and `describe`, and return its connectable string. It imports nothing."""
    lines = [
        "import os, sys, time",
        "class Engine:",
        "    capabilities, version = {'temperature', 'top_k'}, 'written 1.0'",
        "    @classmethod",
        f"    def describe(cls, **options): return {describe}",
        "    def __init__(self, target, draft=None, *, depth=3): print('loading', target)",
        "    def generate(self, prompts, params, seeds):",
        f"        {generate}",
    ]
    (folder / "written.py").write_text("\n".join(lines))
    return served(str(folder / "written.py") + ":Engine")


def decode(connectable: str, pair: Pair = COIN4, limit: float = 60.0) -> tuple[int, ...]:
    return connect(connectable, limit).open(pair).generate([[1]], [PARAMS], [0])[0].tokens


def test_description_reaches_the_implementation(tmp_path: Path) -> None:
    description = "{'checkpoint': 'hydra', 'lossy': 'typical acceptance', 'budget': {'depth': 3}}"
    found = connect(write_engine(tmp_path, "return [[0] * 3]", description))
    assert found.version == "written 1.0" and sorted(found.capabilities) == ["temperature", "top_k"]
    assert found.takes("depth") and not found.takes("width")
    assert (found.checkpoint, found.lossy, found.budget, found.remote) == ("hydra", "typical acceptance", {"depth": 3}, True)
    with pytest.raises(NotApplicable, match="coin4 has no checkpoint 'hydra'"):
        found.open(COIN4)


def test_prints_of_the_engine_do_not_mix_with_replies(tmp_path: Path) -> None:
    assert decode(write_engine(tmp_path, "print('{}'); os.write(1, b'{}'); return [[0, 1, 2]]")) == (0, 1, 2)


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("raise ValueError('out of pages')", AdapterError, r"ValueError: out of pages \(written\.py:\d+\)$"),
        (
            "sys.stderr.write('segmentation fault'); sys.stderr.flush(); os._exit(9)",
            AdapterError,
            r"code 9\n(.|\n)*segmentation",
        ),
        ("raise NotImplementedError('min_p is not supported')", NotApplicable, "min_p is not supported"),
        ("return 7", AdapterError, "no reply"),
        ("return [['a']]", AdapterError, "token 0 of an answer is 'a', not a whole number"),
        ("return [[0, 1]]", AdapterError, "2 tokens"),
        ("time.sleep(60)", AdapterError, "hung: .* 4 s"),
    ],
    ids=["raises", "dies", "refuses", "no list", "no numbers", "short", "hangs"],
)
def test_failure_of_generate_is_an_error_with_its_cause(body: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        decode(write_engine(tmp_path, body), limit=4.0)


def test_process_that_hangs_is_ended(tmp_path: Path) -> None:
    engine = connect(write_engine(tmp_path, "time.sleep(60)"), 2.0).open(COIN4)
    running = engine.raw._process._running
    with pytest.raises(AdapterError, match="hung"):
        engine.generate([[1]], [PARAMS], [0])
    assert running.poll() is not None


def ends(pid: int) -> bool:
    """Whether a process ends within five seconds; otherwise it is ended here."""
    for _ in range(100):
        if not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    os.kill(pid, 9)
    return False


def test_children_of_an_engine_that_died_are_ended(tmp_path: Path) -> None:
    """Workers of an engine hold its memory."""
    start = "import subprocess; child = subprocess.Popen(['sleep', '60'])"
    with pytest.raises(AdapterError, match=r"code 9\n(.|\n)*child \d+") as caught:
        decode(write_engine(tmp_path, f"{start}; sys.stderr.write(f'child {{child.pid}}'); sys.stderr.flush(); os._exit(9)"))
    assert ends(int(str(caught.value).rpartition("child ")[2]))


def test_engine_ends_when_its_harness_is_killed(tmp_path: Path) -> None:
    """The engine reads the end of its standard input, and exits."""
    connectable = write_engine(tmp_path, "return [[0] * 3]")
    code = (
        "import time; from harness.implementations import connect; from harness.pairs import shipped\n"
        f"engine = connect({connectable!r}).open(shipped('coin4')); print(engine.raw._process._running.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=FIXTURES.parent, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        harness.kill()
    assert ends(pid)


def test_closed_process_is_ended() -> None:
    process = EngineProcess([sys.executable, "-c", "import time; time.sleep(60)"])
    process.close()
    assert process._running.poll() is not None


@pytest.mark.parametrize(
    ("connectable", "error", "message"),
    [
        ("cmd:", BadInput, "no program"),
        ("cmd:./no-such-program", BadInput, "cannot be run"),
        ("cmd:echo hello", AdapterError, "'hello', .*stdout"),
        ("vlm:method=eagle", BadInput, "did you mean vllm"),
        ("vllm:python=nowhere", BadInput, "no Python at nowhere"),
    ],
)
def test_command_that_is_no_engine_is_refused(connectable: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        connect(connectable)


def test_invalid_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="Input should be"):
        connect(write_engine(tmp_path, "pass", "{'logprobs': 'made up'}"))


def test_command_without_a_description_meets_the_time_limit() -> None:
    start = time.monotonic()
    with pytest.raises(AdapterError, match=r"sleep 60 .* 1 s"):
        connect("cmd:sleep 60", time_limit=1.0)
    assert time.monotonic() - start < 30


BAD_DESCRIPTIONS = """
class Refuses:
    @classmethod
    def describe(cls, **options): raise NotImplementedError("not today")
    def __init__(self, target, draft=None): pass
    def generate(self, prompts, params, seeds): pass

class Raises(Refuses):
    @classmethod
    def describe(cls, **options): raise ValueError("no such method")

class Misspells(Refuses):
    @classmethod
    def describe(cls, **options): return {"capabilities": ["temperature"], "checkpont": "eagle3"}
"""


@pytest.mark.parametrize(
    ("name", "message"), [("Refuses", "not today"), ("Raises", "no such method"), ("Misspells", "checkpont")]
)
def test_failure_of_describe_has_exit_code_4(name: str, message: str, tmp_path: Path) -> None:
    """In this process as in another one, and without a traceback, whose exit code of 1 would mean a fault."""
    file = tmp_path / f"described_{name}.py"
    file.write_text(BAD_DESCRIPTIONS)
    error = NotApplicable if name == "Refuses" else AdapterError
    with pytest.raises(error, match="Extra inputs" if name == "Misspells" else message):
        connect(served(f"{file}:{name}"))
    done = eagle2(["verify", f"py:{file.stem}:{name}", "--only", "SMOKE", "-n", "0"], tmp_path)
    assert done.returncode == BROKEN and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_shell_script_can_be_an_engine(tmp_path: Path) -> None:
    script = tmp_path / "engine.sh"
    replies = [{"capabilities": ["temperature"], "version": "sh"}, {"opened": True}, {"outputs": [[3, 2, 1]]}]
    pairs = zip(("describe", "open", "generate"), replies, strict=True)
    cases = "\n".join(f"    *'\"do\":\"{do}\"'*) echo '{json.dumps(reply)}';;" for do, reply in pairs)
    script.write_text(f"#!/bin/sh\nwhile read -r line; do\n  case $line in\n{cases}\n  esac\ndone\n")
    script.chmod(0o755)
    assert decode(f"cmd:{script}") == (3, 2, 1)


@pytest.mark.parametrize(("name", "verdict"), [("Outsider", "pass"), ("TooCold", "fault")])
def test_process_and_direct_calls_give_the_same_verdict(name: str, verdict: str) -> None:
    implementation = connect(f"cmd:{sys.executable} -P {SERVE} properties.meta.helpers.fake_engines:{name}")
    assert result_of(first_tokens_of_samples, implementation, SAMPLED[1]).verdict == verdict


def test_quoted_traceback_names_no_folders(tmp_path: Path) -> None:
    """Quotes are stored in records, which travel to other machines."""
    with pytest.raises(AdapterError) as caught:
        decode(write_engine(tmp_path, "raise ValueError('boom')"))
    assert "written.py" in str(caught.value) and "boom" in str(caught.value)
    assert str(tmp_path) not in str(caught.value) and str(FIXTURES.parent) not in str(caught.value)
