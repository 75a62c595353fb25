"""Engines in processes of their own: whatever they do, it is told, and never a pass; and nothing of them stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from eagle2_ref.errors import BadInput
from harness.cli import app
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.implementations.process import SERVE, EngineProcess
from harness.implementations.protocol import schema
from harness.implementations.ready import READY
from harness.pairs import FIXTURES, Pair, shipped
from harness.verdict import BROKEN
from properties.cases import SAMPLED
from properties.meta.helpers.checks import result_of
from properties.meta.helpers.command import eagle2
from properties.test_law_sampled import first_tokens_of_samples

COIN4 = shipped("coin4")
ASKED = {"temperature": 1.0, "max_new_tokens": 3}


def served(where: str) -> str:
    """The connectable of an engine behind serve.py, under this Python."""
    return f"cmd:{sys.executable} {SERVE} {where}"


def written(folder: Path, body: str, describe: str = "{}") -> str:
    """An engine in a file of its own, which imports nothing: its constructor and `generate` are `body`."""
    lines = [
        "import os, sys, time",
        "class Engine:",
        "    capabilities, version = {'temperature', 'top_k'}, 'written 1.0'",
        "    @classmethod",
        f"    def describe(cls, **options): return {describe}",
        "    def __init__(self, target, draft=None, *, depth=3): print('loading', target)",
        "    def generate(self, prompts, params, seeds):",
        f"        {body}",
    ]
    (folder / "written.py").write_text("\n".join(lines))
    return served(str(folder / "written.py") + ":Engine")


def asked(connectable: str, pair: Pair = COIN4, limit: float = 60.0) -> tuple[int, ...]:
    return connect(connectable, limit).open(pair).generate([[1]], [ASKED], [0])[0].tokens


def test_what_it_is(tmp_path: Path) -> None:
    told = "{'checkpoint': 'eagle3', 'lossy': 'typical acceptance', 'budget': {'depth': 3}}"
    found = connect(written(tmp_path, "return [[0] * 3]", told))
    assert found.version == "written 1.0" and sorted(found.capabilities) == ["temperature", "top_k"]
    assert found.takes("depth") and not found.takes("width")
    assert (found.checkpoint, found.lossy, found.budget, found.remote) == ("eagle3", "typical acceptance", {"depth": 3}, True)
    with pytest.raises(NotApplicable, match="coin4 has no checkpoint 'eagle3'"):
        found.open(COIN4)


def test_what_it_prints_is_no_answer(tmp_path: Path) -> None:
    assert asked(written(tmp_path, "print('{}'); os.write(1, b'{}'); return [[0, 1, 2]]")) == (0, 1, 2)


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        ("raise ValueError('out of pages')", AdapterError, r"ValueError: out of pages\n(.|\n)*generate"),
        (
            "sys.stderr.write('segmentation fault'); sys.stderr.flush(); os._exit(9)",
            AdapterError,
            r"code 9\n(.|\n)*segmentation",
        ),
        ("raise NotImplementedError('min_p is not supported')", NotApplicable, "refuses: min_p is not supported"),
        ("return 7", AdapterError, "is no reply"),
        ("return [['a']]", AdapterError, "is no reply"),
        ("return [[0, 1]]", AdapterError, "has 2 tokens, without an end-of-text token"),
        ("time.sleep(60)", AdapterError, "hung: .* more than 4 s"),
    ],
    ids=["raises", "dies", "refuses", "no list", "no numbers", "short", "hangs"],
)
def test_what_goes_wrong_is_told(body: str, error: type[Exception], told: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=told):
        asked(written(tmp_path, body), limit=4.0)


def test_a_hanging_process_is_gone(tmp_path: Path) -> None:
    engine = connect(written(tmp_path, "time.sleep(60)"), 2.0).open(COIN4)
    running = engine.raw._process._running
    with pytest.raises(AdapterError, match="hung"):
        engine.generate([[1]], [ASKED], [0])
    assert running.poll() is not None


def gone(pid: int) -> bool:
    """Whether a process ends within five seconds; one that outlives them is ended here."""
    for _ in range(100):
        if not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    os.kill(pid, 9)
    return False


def test_what_a_dead_engine_had_started_is_gone_too(tmp_path: Path) -> None:
    """Workers of an engine hold its memory."""
    start = "import subprocess; child = subprocess.Popen(['sleep', '60'])"
    with pytest.raises(AdapterError, match=r"code 9\n(.|\n)*child \d+") as told:
        asked(written(tmp_path, f"{start}; sys.stderr.write(f'child {{child.pid}}'); sys.stderr.flush(); os._exit(9)"))
    assert gone(int(str(told.value).rpartition("child ")[2]))


def test_an_engine_ends_with_its_harness(tmp_path: Path) -> None:
    """Even where the harness was killed: stdin ends, and so does whoever reads it."""
    connectable = written(tmp_path, "return [[0] * 3]")
    code = (
        "import time; from harness.implementations import connect; from harness.pairs import shipped\n"
        f"engine = connect({connectable!r}).open(shipped('coin4')); print(engine.raw._process._running.pid, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=FIXTURES.parent, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        harness.kill()
    assert gone(pid), "the engine outlived its harness"


def test_a_command_that_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be run"):
        connect("cmd:./no-such-program")
    with pytest.raises(AdapterError, match="'hello', which is no reply: stdout is for replies only"):
        connect("cmd:echo hello")
    with pytest.raises(AdapterError, match="which is no reply: Input should be"):
        connect(written(tmp_path, "pass", "{'logprobs': 'made up'}"))
    with pytest.raises(BadInput, match="names no program"):
        connect("cmd:")


TOLD_BADLY = """
class Refuses:
    @classmethod
    def describe(cls, **options): raise NotImplementedError("not today")
    def __init__(self, target, draft=None): pass

class Raises(Refuses):
    @classmethod
    def describe(cls, **options): raise ValueError("no such method")

class Misspells(Refuses):
    @classmethod
    def describe(cls, **options): return {"capabilities": ["temperature"], "checkpont": "eagle3"}
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [("Refuses", "refuses to say what it is: not today"), ("Raises", "no such method"), ("Misspells", "checkpont")],
)
def test_what_does_not_say_what_it_is_is_broken(name: str, told: str, tmp_path: Path) -> None:
    """In this process as in another; by the command it is exit code 4 and no traceback, whose exit code of 1 would be a fault."""
    file = tmp_path / f"told_{name}.py"
    file.write_text(TOLD_BADLY)
    kind = NotApplicable if name == "Refuses" else AdapterError
    with pytest.raises(kind, match="Extra inputs" if name == "Misspells" else told):
        connect(served(f"{file}:{name}"))
    done = eagle2(["verify", f"py:{file.stem}:{name}", "--only", "SMOKE", "-n", "0"], tmp_path)
    assert done.returncode == BROKEN and told in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_command_that_says_nothing_is_not_waited_for() -> None:
    begun = time.monotonic()
    with pytest.raises(AdapterError, match="sleep 60 did not describe itself within 1 s"):
        connect("cmd:sleep 60", time_limit=1.0)
    assert time.monotonic() - begun < 30


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    adapter = READY["vllm"]
    assert adapter.environment
    with pytest.raises(BadInput, match=r"no Python at .*nowhere"):
        connect(f"vllm:python={tmp_path / 'nowhere'}")
    with pytest.raises(BadInput, match="did you mean vllm"):
        connect("vlm:method=eagle")


def test_serving_in_another_language(tmp_path: Path) -> None:
    """Nothing but lines: a shell script that answers by hand is an engine."""
    script = tmp_path / "engine.sh"
    replies = [{"capabilities": ["temperature"], "version": "sh"}, {"opened": True}, {"outputs": [[3, 2, 1]]}]
    told = zip(("describe", "open", "generate"), replies, strict=True)
    cases = "\n".join(f"    *'\"do\":\"{do}\"'*) echo '{json.dumps(reply)}';;" for do, reply in told)
    script.write_text(f"#!/bin/sh\nwhile read -r line; do\n  case $line in\n{cases}\n  esac\ndone\n")
    script.chmod(0o755)
    assert asked(f"cmd:{script}") == (3, 2, 1)


def test_a_right_engine_passes_and_a_wrong_one_is_seen() -> None:
    """Through the process, the same verdicts as without it."""
    verdicts = []
    for name in ("Outsider", "TooCold"):
        implementation = connect(f"cmd:{sys.executable} -P {SERVE} properties.meta.helpers.fake_engines:{name}")
        verdicts.append(result_of(first_tokens_of_samples, implementation, SAMPLED[1]).verdict)
    assert verdicts == ["pass", "fault"]


def test_a_process_told_to_close_is_gone() -> None:
    process = EngineProcess([sys.executable, "-c", "import time; time.sleep(60)"])
    process.close()
    assert process._running.poll() is not None


def test_doctor(tmp_path: Path) -> None:
    """What it is, what it needs, whether smoke passes; and what to do where something lacks."""
    well = eagle2(["doctor", "ref:k=2,depth=2,m=4", "--pair", "coin4"], FIXTURES.parent)
    assert well.returncode == 0, well.stdout + well.stderr
    assert "SMOKE-2" in well.stdout and "draft of coin4" in well.stdout
    lacking = eagle2(["doctor", written(tmp_path, "return []", "{'checkpoint': 'eagle3'}"), "--pair", "coin4"], FIXTURES.parent)
    assert lacking.returncode == 2
    assert "coin4 has no eagle3" in lacking.stderr and "eagle2 train" in lacking.stderr
    ill = eagle2(["doctor", written(tmp_path, "return []"), "--pair", "coin4"], FIXTURES.parent)
    assert ill.returncode == 4, ill.stdout + ill.stderr


def test_the_committed_protocol_is_that_of_the_code() -> None:
    committed = FIXTURES.parent / "reports" / "schema" / "protocol.schema.json"
    assert committed.read_text(encoding="utf-8") == schema()


def test_no_folders_of_a_machine_are_told(tmp_path: Path) -> None:
    """What is quoted goes into records, and these go elsewhere."""
    with pytest.raises(AdapterError) as told:
        asked(written(tmp_path, "raise ValueError('boom')"))
    assert "written.py" in str(told.value) and "boom" in str(told.value)
    assert str(tmp_path) not in str(told.value) and str(FIXTURES.parent) not in str(told.value)


def test_convert(tmp_path: Path) -> None:
    """A checkpoint in EAGLE's own layout says what it said; what cannot be done is told, with what to do."""
    head = str(FIXTURES / "pairs" / "coin4" / "draft")
    done = CliRunner().invoke(app, ["convert", "published", head, str(tmp_path / "head")])
    assert done.exit_code == 0, done.output
    index = json.loads((tmp_path / "head" / "model.safetensors.index.json").read_text())
    written_tensors = {name for file in set(index["weight_map"].values()) for name in load_file(tmp_path / "head" / file)}
    assert written_tensors == set(load_file(Path(head, "model.safetensors")))
    for words, told in (
        (["gguff", head, "x"], "format 'gguff' is not known"),
        (["gguf", str(tmp_path), "x"], "config.json is missing"),
    ):
        refused = CliRunner().invoke(app, ["convert", *words])
        assert refused.exit_code == 2 and told in refused.output
