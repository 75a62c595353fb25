"""The command line: every command with its options, and the exit code of one invocation of each kind.

The options are read from the command objects, not from the help text, so that wording is free.
Regenerate after an intended addition: python -m properties.meta.contract commands
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from properties.meta.contract import access
from properties.meta.contract.golden import check_golden, read_golden

PASS, FAULT, USAGE, INCONCLUSIVE, BROKEN = range(5)
REF = "ref:k=2,depth=2,m=4 --pair coin4"


def describe_commands() -> dict[str, Any]:
    """All commands by their full name, each with its arguments in order and its options by their first name."""
    return dict(_walk(access.root_command(), "eagle2"))


def _walk(command: Any, name: str) -> list[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and "completion" not in one.name]
    described = {
        "arguments": [_describe(one) for one in arguments],
        "options": {one.opts[0]: _describe(one) for one in sorted(options, key=lambda one: str(one.opts[0]))},
    }
    return [(name, described), *(found for key in sorted(below) for found in _walk(below[key], f"{name} {key}"))]


def _describe(parameter: Any) -> dict[str, Any]:
    facts = {"required": parameter.required, "default": _plain(parameter.default)}
    if parameter.param_type_name == "argument":
        return {"name": parameter.name, "kind": "argument", **facts}
    kind = "flag" if parameter.is_flag else "repeatable value" if parameter.multiple else "value"
    return {"names": [*parameter.opts, *parameter.secondary_opts], "kind": kind, **facts}


def _plain(default: Any) -> Any:
    return default if default is None or isinstance(default, bool | int | float | str) else str(default)


def test_commands_and_options_are_unchanged() -> None:
    check_golden("commands", describe_commands())


def test_golden_commands_are_complete() -> None:
    golden = read_golden("commands")
    commands = {name.removeprefix("eagle2").strip() for name in golden}
    assert {"verify", "smoke", "report", "replay", "bench", "compare", "mutants", "train head", "convert"} <= commands
    assert golden["eagle2 verify"]["options"]["--jobs"]["names"] == ["--jobs", "-n"]
    assert [one["required"] for one in golden["eagle2 convert"]["arguments"]] == [True, True, True]


# --- exit codes -----------------------------------------------------------------------------------------------------------

IN_PROCESS = [
    ("--version", PASS),
    ("--help", PASS),
    ("verify -h", PASS),
    ("train --help", PASS),
    ("generate x --pair stdlib --max-new-tokens 2 --temperature 0", PASS),
    ("generate x --drafter lookup --rule walk --max-new-tokens 2", PASS),
    ("convert published {pairs}/coin4/draft head", PASS),
    ("report {reports}/reference/record.jsonl --out page", PASS),
    ("report {reports}/planted/record.jsonl --out page", PASS),  # a record of a fault: drawing it is no fault
    ("acceptance --draw acceptance", PASS),
    ("compare --draw compare", PASS),
    ("engines --draw --out nothing", PASS),
    ("", USAGE),
    ("no-such-command", USAGE),
    ("verify --no-such-option", USAGE),
    ("verify --seed one", USAGE),
    ("verify ref extra", USAGE),
    ("verify nothing:", USAGE),
    ("verify ref:no=1", USAGE),
    ("verify ref:rule=none", USAGE),
    ("verify --pair none", USAGE),
    ("verify --target here", USAGE),
    ("verify --tier none", USAGE),
    ("verify --oracle none", USAGE),
    ("verify --dtype none", USAGE),
    ("verify --device none", USAGE),
    ("verify --time-limit 0", USAGE),
    ("verify --only NONE-1", USAGE),
    ("verify --known none.toml", USAGE),
    ("verify mutant:M0", USAGE),
    ("verify trace:none.jsonl", USAGE),
    ("verify py:none:Engine", USAGE),
    ("smoke py:json:None", USAGE),
    ("record", USAGE),
    ("judge none.jsonl", USAGE),
    ("report", USAGE),
    ("report none.jsonl", USAGE),
    ("report cut.jsonl", USAGE),
    ("report damaged.jsonl", USAGE),
    ("replay", USAGE),
    ("replay LAW-1.1 --record none.jsonl", USAGE),
    ("replay LAW-1.99 --record {reports}/planted/record.jsonl", USAGE),
    ("generate", USAGE),
    ("generate x --temperature -1", USAGE),
    ("generate x --drafter none", USAGE),
    ("doctor", USAGE),
    ("doctor vllm:python=none", USAGE),
    ("convert none {pairs}/coin4/draft head", USAGE),
    ("convert published none head", USAGE),
    ("engines --only none", USAGE),
    ("engines --only ref --dtype none", USAGE),
    ("mutants --only M0", USAGE),
    ("mutants --check NONE", USAGE),
    ("mutants --sign --quick", USAGE),
    ("bench --draw a --readme b", USAGE),
    ("bench --draw none", USAGE),
    ("bench --rule none", USAGE),
    ("bench --temperature none", USAGE),
    ("acceptance --draw none", USAGE),
    ("acceptance --budget 1,2", USAGE),
    ("acceptance --prompts mt-bnech", USAGE),
    ("compare --draw a --readme b", USAGE),
    ("compare --draw none", USAGE),
    ("compare --methods none", USAGE),
    ("compare --preset none", USAGE),
    ("unedited --published none.py", USAGE),
    ("train", USAGE),
    ("train head", USAGE),
    ("train head --kind none --target here --out there", USAGE),
    ("calibrate", USAGE),
]
"""Invocations that do not start pytest. Words in braces are folders of this repository."""

IN_CHILD = [
    (f"smoke {REF}", PASS),
    (f"verify {REF} --only STOP-1 -n 0 --out out", PASS),
    ("verify mutant:M54,k=2,depth=2,m=4 --pair coin4 --only TREE-1 -n 0 --out out", FAULT),
    ("verify py:engines:Broken --pair coin4 --only SMOKE -n 0 --out out", BROKEN),
    ("verify cmd:echo --pair coin4", BROKEN),
]
"""Invocations that start pytest or another process."""

ENGINE = """
class Broken:
    def __init__(self, target, draft=None): raise OSError("no weights")
    def generate(self, prompts, params, seeds): return []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with an engine that does not open, and with records that are damaged, cut off and whole."""
    found = tmp_path_factory.mktemp("commands")
    (found / "engines.py").write_text(ENGINE)
    lines = (access.REPORTS / "planted" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (found / "cut.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    (found / "damaged.jsonl").write_text("".join(lines[:2]) + lines[2][:50] + "\n" + "".join(lines[3:]), encoding="utf-8")
    for kind in ("acceptance", "compare"):
        (found / kind).mkdir()
        shutil.copy(access.REPORTS / kind / "record.jsonl", found / kind)
    return found


@pytest.mark.parametrize(("words", "code"), IN_PROCESS, ids=[words or "no arguments" for words, _ in IN_PROCESS])
def test_exit_code(words: str, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = access.invoke(shlex.split(words.format(reports=access.REPORTS, pairs=access.ROOT / "fixtures" / "pairs")))
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("words", "code"), IN_CHILD, ids=[words for words, _ in IN_CHILD])
def test_exit_code_of_a_judgement(words: str, code: int, folder: Path) -> None:
    done = access.run(shlex.split(words), folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_trace_with_missing_answers_is_inconclusive(folder: Path) -> None:
    """`record` and `judge`: the same verdict from the recorded answers, and never a pass without them."""
    recorded = access.run(shlex.split(f"record {REF} --only SMOKE -n 0 --out recorded -o run.jsonl"), folder)
    assert recorded.returncode == PASS, recorded.stdout + recorded.stderr
    for chapter, code in (("SMOKE", PASS), ("STOP-1", INCONCLUSIVE)):
        judged = access.run(shlex.split(f"judge run.jsonl --pair coin4 --only {chapter} -n 0 --out judged"), folder)
        assert judged.returncode == code, judged.stdout + judged.stderr


def test_bench_against_other_counts_is_a_fault(tmp_path: Path) -> None:
    """`bench --against` ends with 0 against the same record, and with 1 where the number of target passes changed by 25 %."""
    record = access.REPORTS / "bench" / "temperatures" / "record.jsonl"
    (tmp_path / "bench").mkdir()
    shutil.copy(record, tmp_path / "bench")
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        for arm in line.get("figures", {}).get("arms", []):
            arm["target_passes"] = int(arm["target_passes"] * 1.25)
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for against, code in ((record, PASS), (changed, FAULT)):
        done = access.invoke(["bench", "--draw", str(tmp_path / "bench"), "--against", str(against)])
        assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
