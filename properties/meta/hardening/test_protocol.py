"""Engines in other processes that do not keep to the protocol: the first wrong line ends them, within the time limit."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from eagle2_ref.errors import BadInput
from harness.cli import app
from harness.implementations import Implementation, connect
from harness.implementations.engine import AdapterError, NotApplicable, Output
from harness.implementations.process import SERVE, EngineProcess, RemoteEngine, describe_process
from harness.pairs import shipped
from harness.verdict import BROKEN, USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import eagle2

COIN4 = shipped("coin4")
PARAMS = {"temperature": 1.0, "max_new_tokens": 3}
PYTHON = f"{sys.executable} -I -S"
REPLIES = {"describe": {"capabilities": ["temperature"]}, "open": {"opened": True}, "generate": {"outputs": [[0, 1, 2]]}}


def write_engine(folder: Path, **steps: str) -> str:
    """Write a program whose steps (describe, open, generate) run these statements, and return its connectable string."""
    lines = ["import json, os, subprocess, sys, time", "number = 0"]
    lines += ["def say(line): sys.stdout.buffer.write(line); sys.stdout.buffer.flush()"]
    lines += ["for line in sys.stdin:", "    request = json.loads(line)", "    number += 1"]
    for do, reply in REPLIES.items():
        lines += [f"    if request['do'] == {do!r}: {steps.get(do, f'say({line_of(reply)!r})')}"]
    (folder / "engine.py").write_text("\n".join(lines) + "\n")
    return f"cmd:{PYTHON} {folder / 'engine.py'}"


def line_of(reply: Any) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def generate(connectable: str, limit: float = 20.0, times: int = 1) -> list[Output]:
    engine = connect(connectable, limit).open(COIN4)
    return [output for _ in range(times) for output in engine.generate([[1]], [PARAMS], [0])]


def verify(connectable: str, limit: float = 20.0) -> tuple[Result, str]:
    """The outcome of `eagle2 verify` for an engine that fails before it is judged, and what is printed on stderr."""
    done = CliRunner().invoke(app, ["verify", connectable, "--pair", "coin4", "--time-limit", str(limit)])
    assert "Traceback" not in done.output and not isinstance(done.exception, AssertionError)
    return done, done.stderr


FRAMES = [
    case(
        "a cmd: engine writes half a line and exits",
        "exit code 4 with the half line and the exit code",
        "say(b'{\"capa'); sys.exit(3)",
        r"exit code 3 within a line: '{\"capa'",
    ),
    case(
        "a cmd: engine writes half a line and hangs",
        "exit code 4 after the time limit",
        "say(b'{\"capa'); time.sleep(60)",
        r"describe itself within 1 s",
    ),
    case(
        "a cmd: engine exits without a word",
        "exit code 4 with the exit code and the end of stderr",
        "sys.stderr.write('no GPU'); sys.exit(0)",
        r"ended with exit code 0\n  \| no GPU",
    ),
    case("a cmd: engine is killed", "exit code 4 with the signal", "os.kill(os.getpid(), 9)", r"ended by signal 9 \(Killed\)"),
    case(
        "a cmd: engine segfaults",
        "exit code 4 with the signal",
        "os.kill(os.getpid(), 11)",
        r"ended by signal 11 \(Segmentation fault\)",
    ),
    case(
        "a reply begins with a byte-order mark",
        "exit code 4; the message names the mark",
        "say(b'\\xef\\xbb\\xbf{}\\n')",
        "byte-order mark; write UTF-8",
    ),
    case("a reply is UTF-16", "exit code 4; the message says UTF-16", "say('{}\\n'.encode('utf-16'))", "UTF-16"),
    case("a reply is not UTF-8", "exit code 4 with the place", 'say(b\'{"capabilities": ["\\xff"]}\\n\')', "invalid unicode"),
    case("a reply is preceded by a blank line", "exit code 4; the message says so", "say(b'\\n{}\\n')", "the line is blank"),
    case(
        "a cmd: engine prints to stdout",
        "exit code 4; the message says where to print",
        "say(b'loading...\\n')",
        "print to stderr",
    ),
    case(
        "a reply is cut JSON",
        "exit code 4 with the place",
        "say(b'{\"capabilities\": [\\n')",
        "EOF while parsing a list at line 1 column 18",
    ),
    case(
        "a reply is nested 100,000 deep", "exit code 4", "say(b'{\"capabilities\": ' + b'[' * 100000 + b'\\n')", "recursion limit"
    ),
    case(
        "a reply has an unknown field",
        "exit code 4 with its name",
        'say(b\'{"capabilities": [], "capabilites": []}\\n\')',
        "capabilites: Extra inputs",
    ),
    case("a reply lacks a field", "exit code 4 with its name", 'say(b\'{"version": "1"}\\n\')', "capabilities: Field required"),
    case(
        "a reply is to another kind of request",
        "exit code 4 with the field that is missing",
        "say(b'{\"opened\": true}\\n')",
        "capabilities: Field required",
    ),
    case(
        "a description holds numbers as strings",
        "exit code 4 with the field",
        'say(b\'{"capabilities": [], "budget": {"k": "3"}}\\n\')',
        r"budget\.k: Input should be a valid integer",
    ),
    case(
        "a description holds numbers with a fraction",
        "exit code 4 with the field",
        'say(b\'{"capabilities": [], "budget": {"k": 3.0}}\\n\')',
        r"budget\.k: Input should be a valid integer",
    ),
    case(
        "a description holds booleans as numbers",
        "exit code 4 with the field",
        'say(b\'{"capabilities": [], "budget": {"k": true}}\\n\')',
        r"budget\.k: Input should be a valid integer",
    ),
    case(
        "a cmd: engine writes two replies at once",
        "exit code 4 with the second one",
        'say(b\'{"capabilities": []}\\n{"opened": true}\\n\')',
        "wrote '{\"opened\": true}' after its reply",
    ),
    case(
        "a cmd: engine never describes itself",
        "exit code 4 after the time limit",
        "time.sleep(60)",
        r"describe itself within 1 s",
    ),
    case(
        "a cmd: engine closes stdin and waits",
        "exit code 4 after the time limit",
        "os.close(0); time.sleep(60)",
        r"describe itself within 1 s",
    ),
    case(
        "a cmd: engine exits and leaves a child that holds stdout",
        "exit code 4 at once, with the exit code",
        "subprocess.Popen(['sleep', '60'], start_new_session=True); os._exit(5)",
        "ended with exit code 5",
    ),
    case(
        "a cmd: engine writes 50 MB without a newline",
        "exit code 4 after the time limit",
        "say(b'x' * 50_000_000); time.sleep(60)",
        "describe itself within 1 s",
    ),
    case(
        "a cmd: engine never ends a line",
        "exit code 4; the message names the largest reply",
        "[say(b'x' * 2**20) for _ in iter(int, 1)]",
        "a line of more than 64 MiB",
    ),
    case(
        "a cmd: engine writes a line of 100 MB",
        "exit code 4; the message names the largest reply",
        "say(b'{\"capabilities\": [' + b'1,' * 50_000_000 + b'1]}\\n')",
        "a line of more than 64 MiB",
    ),
]


@pytest.mark.parametrize(("describe", "message"), FRAMES)
def test_what_is_no_reply_ends_the_engine(describe: str, message: str, tmp_path: Path) -> None:
    hangs = "within 1 s" in message
    begun = time.monotonic()
    done, stderr = verify(write_engine(tmp_path, describe=describe), 1.0 if hangs else 20.0)
    assert done.exit_code == BROKEN, stderr
    assert re.search(message, stderr), stderr
    assert time.monotonic() - begun < 15 and len(stderr) < 1000


@promise("a cmd: engine writes a second reply later, before the next request", "exit code 4; the message quotes the second reply")
def test_second_reply_that_waits_in_the_pipe_ends_the_engine(tmp_path: Path) -> None:
    reply = line_of(REPLIES["generate"])
    engine = connect(write_engine(tmp_path, generate=f"say({reply!r}); time.sleep(0.05); say({reply!r})")).open(COIN4)
    engine.generate([[1]], [PARAMS], [0])
    time.sleep(0.3)
    with pytest.raises(AdapterError, match=r"wrote '{\"outputs.* after its reply"):
        engine.generate([[1]], [PARAMS], [0])


@promise("a cmd: engine writes each reply twice, judged by a command", "exit code 4; the second reply is quoted")
def test_command_shows_a_second_reply(tmp_path: Path) -> None:
    engine = write_engine(tmp_path, generate=f"say({line_of(REPLIES['generate'])!r} * 2)")
    done = eagle2(["smoke", engine, "--pair", "coin4"], tmp_path)
    assert done.returncode == BROKEN and "after its reply: write one line for each request" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


@promise("a numbered cmd: engine answers with the reply to an earlier request", "exit code 4; the message names both numbers")
def test_reply_with_the_number_of_another_request_ends_the_engine(tmp_path: Path) -> None:
    """The engine is late by one: it answers the third request, the second of `generate`, with the reply to the second."""
    say = "say(json.dumps({REPLY, 'id': {ID}}).encode() + b'\\n')"
    numbered = {
        "describe": say.replace("{REPLY", "{'capabilities': ['temperature'], 'numbered': True").replace(
            "{ID}", "request.get('id')"
        ),
        "open": say.replace("{REPLY", "{'opened': True").replace("{ID}", "request['id']"),
        "generate": say.replace("{REPLY", "{'outputs': [[0, 1, 2]]").replace("{ID}", "min(request['id'], 2)"),
    }
    with pytest.raises(AdapterError, match="the reply to request 2; request 3 is open"):
        generate(write_engine(tmp_path, **numbered), times=2)
    assert len(generate(write_engine(tmp_path, **numbered))) == 1


@promise("a cmd: engine dies in one request", "exit code 4 for that one; the next request starts it again")
def test_next_request_after_a_death_starts_the_engine_again(tmp_path: Path) -> None:
    once = tmp_path / "died"
    die = f"os.path.exists({str(once)!r}) or (open({str(once)!r}, 'w'), os._exit(7)); say({line_of(REPLIES['generate'])!r})"
    engine = connect(write_engine(tmp_path, generate=die)).open(COIN4)
    with pytest.raises(AdapterError, match="ended with exit code 7"):
        engine.generate([[1]], [PARAMS], [0])
    assert engine.generate([[1]], [PARAMS], [0])[0].tokens == (0, 1, 2)


@promise("a request of megabytes to a cmd: engine that does not read", "exit code 4 after the time limit")
def test_engine_that_does_not_read_a_long_request_meets_the_time_limit(tmp_path: Path) -> None:
    engine = connect(write_engine(tmp_path, open=f"say({line_of(REPLIES['open'])!r}); time.sleep(60)"), 1.0).open(COIN4)
    with pytest.raises(AdapterError, match="hung"):
        engine.generate([[1] * 1000] * 300, [PARAMS] * 300, [0] * 300)


@promise("a cmd: engine writes 300 MB to stderr and raises", "exit code 4 with the last lines")
def test_flood_of_stderr_is_quoted_by_its_end(tmp_path: Path) -> None:
    flood = "[sys.stderr.write('x' * 99 + chr(10)) for _ in range(300000)]; sys.stderr.write('out of pages'); sys.exit(1)"
    with pytest.raises(AdapterError, match=r"exit code 1(.|\n)*out of pages$") as caught:
        generate(write_engine(tmp_path, generate=flood))
    assert len(str(caught.value)) < 5000


@promise("cmd: engines start, fail and end", "no ResourceWarning of a file or a process that was left open")
def test_processes_and_files_of_engines_are_closed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    words = write_engine(tmp_path).removeprefix("cmd:").split()
    for command in (["cat"], ["no-such-program"], ["false"], words):
        with contextlib.suppress(AdapterError, BadInput):
            describe_process(command, {}, 20.0)
    left = EngineProcess(words)
    del left
    gc.collect()
    assert [str(each.message) for each in recwarn if issubclass(each.category, ResourceWarning)] == []


SCRIPT = {"engine.js": "#!/usr/bin/env node\n", "lost.py": "#!/no/such/python\n", "plain.txt": "no program\n"}


@pytest.mark.parametrize(
    ("connectable", "message"),
    [
        case("a cmd: with an open quote", "exit code 2, one line", 'cmd:node "x', "no closing quotation"),
        case(
            "a cmd: names a script that is not executable", "exit code 2 with chmod +x", "cmd:./engine.js", "chmod +x ./engine.js"
        ),
        case(
            "a cmd: names a script whose interpreter is missing",
            "exit code 2; the message says so",
            "cmd:./lost.py",
            "first line names an interpreter",
        ),
        case(
            "a cmd: names an executable file that is no program",
            "exit code 2; the message says so",
            "cmd:./plain.txt",
            "first line must be #!",
        ),
        case(
            "a cmd: names a file of this folder without ./",
            "exit code 2 with the right path",
            "cmd:lost.py",
            "write cmd:./lost.py",
        ),
        case("a cmd: names a folder", "exit code 2; the message says so", "cmd:.", "this is a folder"),
        case("a cmd: names no program that exists", "exit code 2", "cmd:no-such-program", "give the path of a program"),
        case("a cmd: without a program", "exit code 2", "cmd:,depth=3", "names no program"),
    ],
)
def test_command_that_cannot_be_run_is_a_usage_error(
    connectable: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in SCRIPT.items():
        Path(name).write_text(text)
        Path(name).chmod(0o644 if name == "engine.js" else 0o755)
    done, stderr = verify(connectable)
    first, *hints = stderr.splitlines()
    assert done.exit_code == USAGE and message in stderr and first.startswith("eagle2: ") and len(hints) <= 1, stderr


@promise("a cmd: names a script that is missing", "exit code 4; the message has its whole path")
def test_message_of_an_engine_that_does_not_start_has_whole_paths(tmp_path: Path) -> None:
    missing = tmp_path / "new" / "engine.py"
    done, stderr = verify(f"cmd:{PYTHON} {missing}")
    assert done.exit_code == BROKEN and str(missing) in stderr


ECHO_OPTIONS = """say(json.dumps({
        "capabilities": ["temperature"],
        "parameters": ["depth", "name"],
        "version": json.dumps([request["options"], sys.argv[1:]]),
    }).encode() + b"\\n")"""


@pytest.mark.parametrize(
    ("words", "options", "arguments"),
    [
        ("", {}, []),
        (",depth=3", {"depth": 3}, []),
        (" a -b,depth=3,name=x:y/z", {"depth": 3, "name": "x:y/z"}, ["a", "-b"]),
        (' "a,depth=3"', {}, ["a,depth=3"]),
        (r" a\,depth=3", {}, ["a,depth=3"]),
        (' "a,depth=3",name=', {"name": ""}, ["a,depth=3"]),
        (" --list=a,b", {}, ["--list=a,b"]),
        (" 'a b',depth=1.5", {"depth": 1.5}, ["a b"]),
    ],
)
def test_options_follow_the_command(words: str, options: dict[str, Any], arguments: list[str], tmp_path: Path) -> None:
    found = connect(write_engine(tmp_path, describe=ECHO_OPTIONS) + words)
    assert json.loads(found.version) == [options, arguments] and found.options == options


def test_options_reach_open(tmp_path: Path) -> None:
    told = "say(json.dumps({'error': repr(request['options'])}).encode() + b'\\n')"
    with pytest.raises(AdapterError, match=r"'depth': 3, 'name': 'n'"):
        generate(write_engine(tmp_path, describe=ECHO_OPTIONS, open=told) + ",depth=3,name=n")


@pytest.mark.parametrize("served", [False, True])
@promise("an option that a cmd: engine does not list", "exit code 2 with a near miss")
def test_option_that_the_engine_does_not_list_is_refused(served: bool, tmp_path: Path) -> None:
    """Also for an engine whose own `describe` would raise for it."""
    (tmp_path / "own.py").write_text(
        "class Engine:\n"
        "    def __init__(self, target, draft=None, *, depth=3): pass\n"
        "    @classmethod\n"
        "    def describe(cls, depth=3): return {'capabilities': ['temperature']}\n"
    )
    engine = f"cmd:{PYTHON} {SERVE} {tmp_path / 'own.py'}:Engine" if served else write_engine(tmp_path, describe=ECHO_OPTIONS)
    done, stderr = verify(f"{engine},dept=3")
    assert done.exit_code == USAGE and "there is no option 'dept'" in stderr and "did you mean depth?" in stderr


DESCRIPTION = {
    "capabilities": ["temperature", "blocks"],
    "version": "1",
    "parameters": ["depth"],
    "budget": {"k": 1},
    "numbered": False,
}
OUTPUT = {"tokens": [0, 1, 2], "blocks": [{"accepted": 0, "tokens": [1], "parents": [-1]}], "logprobs": [-1.0, -0.5, 0.0]}
ANSWERS: list[Any] = [{"outputs": [OUTPUT]}, {"outputs": [[0, 1, 2]]}]
VALID: list[dict[str, Any]] = [
    *ANSWERS,
    *ANSWERS,
    DESCRIPTION,
    {"opened": True},
    {"refused": "no"},
    {"error": "e", "traceback": "t"},
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def replies(draw: st.DrawFn, valid: list[dict[str, Any]]) -> bytes:
    """JSON of any kind, valid replies with one part changed or cut, texts in other encodings, and bytes; most are whole lines."""
    changed = json.loads(json.dumps(draw(st.sampled_from(valid))))
    place: Any = changed
    while draw(st.integers(0, 4)):
        inner = [
            value for value in (place.values() if isinstance(place, dict) else place) if isinstance(value, dict | list) and value
        ]
        if not inner:
            break
        place = draw(st.sampled_from(inner))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = draw(st.sampled_from(keys))
    match draw(st.sampled_from([0, 1, 1, 1, 1, 2, 3, 4])):
        case 1:
            place[key] = draw(st.sampled_from([True, None, "1", 1.0, 1.5, -1, 4, 10**30, [], {}]))
        case 2:
            place[key] = draw(ANYTHING)
        case 3:
            del place[key]
        case 4 if isinstance(place, dict):
            place[draw(st.text(max_size=5))] = draw(ANYTHING)
    line = json.dumps(changed).encode()
    other = (
        st.integers(0, len(line)).map(lambda cut: line[:cut])
        | ANYTHING.map(lambda value: json.dumps(value).encode())
        | st.text(max_size=20).map(lambda text: text.encode("utf-8"))
        | st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]).map(lambda encoding: line.decode().encode(encoding))
        | st.binary(max_size=20)
    )
    if draw(st.integers(0, 2)):
        return line + b"\n"
    line = draw(other)
    return line + draw(st.sampled_from([b"\n", b"\r\n", b"", b"\n\n", b"\n" + line + b"\n"]))


def write_script(folder: Path, reply: bytes, *before: str) -> list[str]:
    """A shell command that answers one request with each of the lines `before`, then one with a reply, and exits."""
    (folder / "reply").write_bytes(reply)
    lines = [*(f"read -r _; echo '{line}'" for line in before), f"read -r _; cat {folder}/reply"]
    (folder / "engine.sh").write_text("\n".join(lines) + "\n")
    return ["sh", str(folder / "engine.sh")]


def is_output(reply: bytes) -> bool:
    """Whether a reply has three tokens of coin4, checked in another way than by the harness."""
    line, newline, rest = reply.partition(b"\n")
    try:
        (output,) = json.loads(line.decode())["outputs"]
        tokens = output["tokens"] if isinstance(output, dict) else output
        return (
            newline == b"\n" and not rest and len(tokens) == 3 and all(type(token) is int and 0 <= token < 4 for token in tokens)
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


@promise(
    "random, cut and changed replies of a cmd: engine", "an error of one short message or a valid answer; no traceback, no hang"
)
@settings(max_examples=120)
@given(reply=replies(VALID))
def test_no_random_reply_is_taken_for_an_answer(reply: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    start = partial(EngineProcess, write_script(tmp_path_factory.getbasetemp(), reply, json.dumps(REPLIES["open"])), 20.0)
    engine = Implementation("random", partial(RemoteEngine, start), remote=True).open(COIN4)
    message = ""
    try:
        engine.generate([[1]], [PARAMS], [0])
    except (AdapterError, NotApplicable) as error:
        message = str(error)
    assert len(message) < 2000 and (message or is_output(reply))
    event("error" if message else "answer")


@promise("random, cut and changed descriptions of a cmd: engine", "exit code 4 or a valid description; no traceback, no hang")
@settings(max_examples=70)
@given(reply=replies([DESCRIPTION]))
def test_no_random_description_is_an_internal_error(reply: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    message, found = "", None
    try:
        found = connect("cmd:" + " ".join(write_script(tmp_path_factory.getbasetemp(), reply)), 20.0)
    except (AdapterError, NotApplicable) as error:
        message = str(error)
    assert len(message) < 2000 and (message or (found and isinstance(json.loads(reply)["capabilities"], list)))
    event("error" if message else "description")
