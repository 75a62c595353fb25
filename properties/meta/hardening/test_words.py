"""Wrong words on the command line: exit code 2 and a message, before anything runs."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner, Result

from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.tree import DraftTree
from harness.catalogue import catalogue, folders, is_selected, name, split_selectors
from harness.cli import app, main
from harness.implementations import CONNECTORS, connect
from harness.implementations.adapters.common import SAMPLING
from harness.implementations.protocol import CAPABILITIES
from harness.mutants import GALLERY
from harness.pairs import FIXTURES, find_pair, shipped
from harness.record.model import read_record
from harness.settings import Settings
from harness.verdict import BROKEN, FAULT, PASS, STOPPED, USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import eagle2, fork

TREE = DraftTree.of([0, 1, 2], [-1, 0, 0])

CHECKS = folders()[0]

COMMAND: Any = get_command(app)
BELOW: dict[str, Any] = COMMAND.commands

NUMBERS = ("nan", "inf", "-1", "1" + 30 * "0", "", "é")
"""Values that no numeric option takes."""

REQUIRED = {
    "generate": ["x", "--pair", "coin4"],
    "record": ["ref"],
    "smoke": ["ref"],
    "judge": ["run.jsonl"],
    "doctor": ["ref"],
    "calibrate": ["--out", "out"],
    "train head": ["--target", "no", "--out", "out"],
    "train target": ["--out", "out", "--corpus", "no"],
    "train stdlib": ["--out", "out", "--corpus", "no"],
    "train text": ["--target", "no", "--out", "out"],
    "train large": ["--out", "out", "--corpus", "no"],
    "train toys": ["--out", "out"],
    "train measure": ["--pair", "no"],
    "acceptance": ["--out", "out"],
    "compare": ["--out", "out"],
    "bench": ["--out", "out"],
}
"""Words without which a command is refused for another reason than a number."""

PAIRS = FIXTURES / "pairs"

LISTS = {"--temperature", "--batch", "--jobs", "--k", "--depth", "--m", "--budget", "--floor"}
"""Options of type text that hold numbers."""


def commands(command: Any = None, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that has none below it, with its words."""
    command = command or COMMAND
    below = getattr(command, "commands", {})
    yield from () if below else [(words, command)]
    for word, each in below.items():
        yield from commands(each, *words, word)


def numeric_options() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every option that takes a number or a list of numbers, with the words of its command."""
    for words, command in commands():
        for parameter in command.params:
            if type(parameter.default) in (int, float) or parameter.opts[-1] in LISTS or _is_number(parameter):
                yield words, next(name for name in parameter.opts if name.startswith("--"))


def _is_number(parameter: Any) -> bool:
    kind = parameter.type_descriptor.annotation
    return not getattr(parameter, "is_flag", False) and bool({int, float} & {kind, *get_args(kind)})


def _plain(text: str) -> str:
    return " ".join(text.replace("-", " ").replace("_", " ").replace("│", " ").split())


@pytest.fixture
def no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, in which no run of checks may start, and none of another kind goes on for 20 seconds."""

    def refuse(*_: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr(pytest, "main", refuse)
    monkeypatch.setattr(typer.testing, "_get_command", lambda _: COMMAND)  # building it takes longer than most commands
    monkeypatch.chdir(tmp_path)
    previous = signal.signal(signal.SIGALRM, refuse)
    yield tmp_path
    signal.signal(signal.SIGALRM, previous)


def invoke(*words: str, text: bytes | None = None) -> Result:
    """Run `eagle2 WORDS` in this process."""
    signal.alarm(20)
    try:
        return CliRunner().invoke(app, words, input=text, env={"COLUMNS": "200"})
    finally:
        signal.alarm(0)


def assert_refused(done: Result, folder: Path) -> None:
    """Exit code 2, a message, no traceback, and no file."""
    assert done.exit_code == USAGE and done.stderr.strip(), f"{done.exit_code} {done.output!r} {done.exception!r}"
    assert "Traceback" not in done.output and isinstance(done.exception, SystemExit), done.exception
    assert not list(folder.iterdir())


REFUSED = [
    ("verify reff", "'reff'", "did you mean ref?"),
    ("verify ref -n x", "--jobs: x", "auto"),
    ("verify ref -n -1", "--jobs: -1", "from 0 to"),
    ("verify ref -n 99999", "--jobs: 99999", "from 0 to"),
    ("mutants -n 99999", "--jobs: 99999", "from 0 to"),
    ("calibrate --out out -n 99999", "--jobs: 99999", "from 0 to"),
    ("engines -n 99999", "--jobs: 99999", "from 0 to"),
    ("record ref -n x", "--jobs: x", "auto"),
    ("verify py:no_such_module:Engine", "no_such_module", "run from the folder"),
    ("verify py:json:Lodas", "json has no Lodas", "did you mean loads?"),
    ("verify py:json", "py:json", "py:package.module:Engine"),
    ("verify ref:ruel=walk", "'ruel'", "did you mean rule?"),
    ("verify ref:walk", "'walk'", "name=value"),
    ("verify ref:rule=wlak", "'wlak'", "reject, walk"),
    ("verify ref:k=0", "ref:k=0: k must be a whole number of 1 or more, not 0", ""),
    ("verify ref:depth=0", "depth must be a whole number of 1 or more, not 0", ""),
    ("verify ref:k=2,depth=2,m=7", "m is 7", "at most 6"),
    ("verify ref:k=257", "vocabulary has 256", "at most 256"),
    ("verify --pair stdlob", "'stdlob'", "coin4, coin6, dice8, stdlib"),
    ("verify --target here", "--draft", "give both"),
    ("generate x --target here", "--draft", "give both"),
    ("generate x --drafter lookup --target here", "here is not a directory", "directory of a checkpoint"),
    ("verify --target nowhere --draft nowhere", "nowhere", "directory of a checkpoint"),
    ("verify --target PAIRS/stdlib/target --draft PAIRS/coin4/draft", "fc.weight", "a head trained for this target"),
    ("verify --dtype float8", "'float8'", "bfloat16"),
    ("verify --device gpu", "'gpu'", "cuda"),
    ("verify --tier fast", "'fast'", "quick, full"),
    ("verify --oracle float16", "'float16'", "float64 or float32"),
    ("verify mutant:M4", "'M4'", "M04"),
    ("verify published:no.py", "no.py", "path of the file"),
    ("replay LAW-1.1 --record no.jsonl", "no.jsonl", "eagle2 verify"),
    ("mutants --only M4", "'M4'", "M04"),
    ("mutants --check LAWS", "chapter LAWS", "did you mean LAW?"),
    ("mutants --check LAW,TREE-99", "property TREE-99", "did you mean TREE-"),
    ("engines --check NOPE", "chapter NOPE", "chapters are "),
    ("verify ref --only LAW-99", "property LAW-99", "did you mean LAW-"),
    ("verify ref --only smkoe", "chapter smkoe", "did you mean SMOKE?"),
    ("verify ref --only SMOKE,NOPE-1", "property NOPE-1", "chapters are "),
    ("verify ref --only 'LAW-4[coin4, T=3]'", "case LAW-4[coin4, T=3]", "did you mean LAW-4[coin4, T="),
    ("verify ref --only 'LAW-4[coin4, T=0.6 top_p=0.85, k=2 depth=2 m=4]'", "is a case of the full tier", "--tier full"),
    ("verify ref --only ,", "','", "SMOKE,LAW-4"),
    ("record ref --only LAW-99", "property LAW-99", "did you mean LAW-"),
    ("verify --time-limit 0", "0 s", "seconds"),
    ("verify --time-limit 1e9", "1e+09 s", "a week"),
    ("verify --seed -1", "seed is -1", "from 0 to"),
    ("smoke py:harness.files:os", "os is of type module", "write_atomic"),
    ("smoke py:math:pi", "pi is of type float", "it has"),
    ("smoke py:decimal:Decimal", "Decimal has no method generate", "generate(self, prompts, params, seeds)"),
    ("""smoke 'cmd:node "x'""", "no closing quotation", "as by a shell"),
    ("generate x --drafter eagel2", "'eagel2'", "did you mean eagle2?"),
    ("verify trace:no.jsonl", "no.jsonl", "eagle2 record"),
    ("report no.jsonl", "no.jsonl", "eagle2 verify"),
    ("generate x --temperature -1", "temperature is -1.0", "0 or more"),
    ("generate x --top-p 0", "top_p is 0", "in (0, 1]"),
    ("generate x --top-p 1.5", "top_p is 1.5", "in (0, 1]"),
    ("generate x --top-k 0", "top_k is 0", "1 or more"),
    ("generate x --max-new-tokens 0", "max_new_tokens is 0", "1 or more"),
    ("generate x --rule greedy", "'greedy'", "reject, walk"),
    ("generate x --max-new-tokens 5 --show-tree --step 99", "99", "steps"),
]
"""A command, what its error names, and what its hint names."""


@pytest.mark.parametrize(
    ("command", "wrong", "hint"),
    [
        case(f"`eagle2 {command}`", f"exit code 2; the message names {wrong}", command, wrong, hint)
        for command, wrong, hint in REFUSED
    ],
)
def test_wrong_word_has_exit_code_2_and_a_hint(command: str, wrong: str, hint: str, no_run: Path) -> None:
    done = invoke(*shlex.split(command.replace("PAIRS", str(PAIRS))))
    assert_refused(done, no_run)
    first, *rest = done.stderr.splitlines()
    assert first.startswith("eagle2: ") and wrong in first and hint in "\n".join(rest), done.stderr


OPTIONS = sorted(set(numeric_options()))
EMPTY = {("bench", "--batch"), *(("acceptance", option) for option in ("--k", "--depth", "--m", "--budget", "--floor"))}
"""Lists of numbers that are empty by default."""


@promise("a number is nan, inf, -1, 10^30, empty or é, in every numeric option of every command", "exit code 2, and nothing runs")
def test_numbers_are_refused(no_run: Path) -> None:
    assert len(OPTIONS) > 60
    wrong = []
    for words, option in OPTIONS:
        for value in filter(None, NUMBERS) if (*words, option) in EMPTY else NUMBERS:
            done = invoke(*words, *REQUIRED.get(" ".join(words), []), f"{option}={value}")
            try:
                assert_refused(done, no_run)
                assert _plain(option) in _plain(done.stderr), done.stderr
            except AssertionError as error:
                shutil.rmtree("out", ignore_errors=True)
                wrong.append(f"{' '.join(words)} {option}={value}: {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)


# --- engines that are named or declare what is wrong ------------------------------------------------------------------------

ENGINE = """
class Engine:
    def __init__(self, target, draft=None): pass
    def generate(self, prompts, params, seeds): return [[0] * one["max_new_tokens"] for one in params]
"""

MODULES = [
    case(f"a module that is named by `py:` {fault}", "exit code 2; the message says so", text, wrong)
    for fault, text, wrong in (
        ("ends the process with 0 when it is imported", "import sys; sys.exit(0)", "ended the process: sys.exit(0)"),
        ("ends the process without a code", "raise SystemExit", "ended the process: sys.exit()"),
        ("raises a BaseException", "raise BaseException('odd')", "BaseException: odd"),
        ("has a syntax error", "class Engine(:", "SyntaxError"),
        ("is not UTF-8", "name = '\xff'", "SyntaxError"),
        ("has a class without generate", "class Engine: pass", "no method generate"),
    )
]


@pytest.mark.parametrize(("text", "wrong"), MODULES)
def test_module_that_cannot_be_used_has_exit_code_2(
    text: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(tmp_path, monkeypatch, text)
    done = invoke("smoke", f"py:{name}:Engine", "--pair", "coin4")
    assert done.exit_code == USAGE and isinstance(done.exception, SystemExit), done.exception
    assert name in done.stderr and wrong in done.stderr and "Traceback" not in done.output


@promise("Ctrl-C while a module is imported", "exit code 130")
def test_interrupted_import_stops(tmp_path: Path) -> None:
    """The module sends the signal to the parent process, as a terminal does."""
    (tmp_path / "slow.py").write_text("import os, time\nos.kill(os.getppid(), 2)\ntime.sleep(60)\n")
    assert eagle2(["smoke", "py:slow:Engine"], tmp_path).returncode == STOPPED


CAPABILITY = [
    case("a capability is misspelt", "exit code 4 and the nearest name", "{'temprature'}", "did you mean temperature?"),
    case("a capability lacks its underscore", "exit code 4 and the nearest name", "{'topk'}", "did you mean top_k?"),
    case("a capability is unknown", "exit code 4 and a list of all", "{'telepathy'}", "known are temperature, top_k"),
    case("capabilities are a text", "exit code 4 and what to write", "'temperature'", "write a set, {'temperature'}"),
    case("capabilities are None", "exit code 4", "None", "TypeError"),
]


@pytest.mark.parametrize(("declared", "hint"), CAPABILITY)
def test_undefined_capability_is_refused(declared: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, monkeypatch, f"{ENGINE}    capabilities = {declared}")
    done = invoke("smoke", f"py:{name}:Engine", "--pair", "coin4")
    assert done.exit_code == BROKEN and hint in done.stderr, done.output


@promise("an engine of another process declares an unknown capability", "exit code 4; the message has the nearest name")
def test_undefined_capability_of_another_process_is_refused() -> None:
    reply = json.dumps({"capabilities": ["temperature", "logprob"]})
    done = invoke("smoke", f"cmd:echo {shlex.quote(reply)}", "--pair", "coin4")
    assert done.exit_code == BROKEN and "did you mean logprobs?" in done.stderr, done.output


def test_all_engines_of_this_repository_declare_capabilities_that_exist() -> None:
    declared = {name for mutant in GALLERY.values() for name in mutant.capabilities}
    declared |= {name for method in METHODS for name in connect(f"ref:drafter={method}").capabilities} | {*SAMPLING}
    assert declared <= CAPABILITIES.keys()
    guide = (FIXTURES.parent / "docs" / "judge-your-engine.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", guide.partition("| capability | meaning |")[2].partition("\n\n")[0]))
    assert documented - {"eos_token_id"} == {*CAPABILITIES} - {*list(CAPABILITIES)[[*CAPABILITIES].index("coins") :]}


@promise("an engine declares `decoder`, but takes no dtype", "it is opened without one")
def test_decoder_without_dtype_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, monkeypatch, f"{ENGINE}    capabilities = {{'decoder'}}")
    connect(f"py:{name}:Engine").check(shipped("coin4"), "float32", "cpu")


@promise("an engine declares `decoder`, and cannot be opened", "exit code 4; the message names the exception")
def test_decoder_that_does_not_open_has_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(
        tmp_path, monkeypatch, f"{ENGINE}    capabilities = {{'decoder'}}".replace("pass", "raise OSError('no weights')")
    )
    done = invoke("verify", f"py:{name}:Engine", "--pair", "coin4")
    assert done.exit_code == BROKEN and "OSError: no weights" in done.stderr, done.output


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """Write a module into a folder, go there, and return its name, which no other module of this process has."""
    name = f"engine_{abs(hash(str(folder)))}"
    (folder / f"{name}.py").write_bytes(text.encode("latin-1"))
    monkeypatch.chdir(folder)
    importlib.invalidate_caches()
    return name


# --- selectors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "named", "selected"),
    [
        ("LAW", "LAW-4[coin4, T=1]", True),
        ("law-4", "LAW-4[coin4, T=1]", True),
        ("SMOKE, law-4", "LAW-4[coin4, T=1]", True),
        ("SMOKE,LAW-4[coin4, T=1],", "LAW-4[coin4, T=1]", True),
        ("law-4[COIN4, t=1]", "LAW-4[coin4, T=1]", True),
        ("LAW-4[toy, eos=[3, 5], k=2]", "LAW-4[toy, eos=[3, 5], k=2]", True),
        ("LAW-4[toy, eos=[3, 5], k=2],TREE", "TREE-1", True),
        ("", "TREE-1", True),
        ("LAW-40,LAW-4[coin4", "LAW-4[coin4, T=1]", False),
        (",", "LAW-4", False),
    ],
)
def test_list_selects_chapters_properties_and_cases(only: str, named: str, selected: bool) -> None:
    assert is_selected(only, named) == selected


def test_every_case_is_selected_by_its_name_and_splits_as_one() -> None:
    names = [name(check.id, case) for check in catalogue().values() for case in check.case_ids(full=True)]
    assert split_selectors(",".join(names)) == names


@promise("`--only` is a list in any case of letters", "exactly these properties run; the record's command repeats them")
def test_list_runs_exactly_its_properties(tmp_path: Path) -> None:
    words = ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "stop-1,SMOKE", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == PASS, done.stdout + done.stderr
    record = read_record(tmp_path / "out" / "record.jsonl")
    assert {result.property for result in record.results} == {"STOP-1", "SMOKE-1", "SMOKE-2"}
    assert shlex.split(record.header.command)[-2:] == ["--only", "stop-1,SMOKE"]


@promise("`pytest --judge only=` of something unknown", "a usage error of pytest; nothing is written")
def test_pytest_refuses_an_unknown_selector(tmp_path: Path) -> None:
    words = ["-p", "no:cacheprovider", str(CHECKS), "--impl", "ref", "--judge", "only=SMOKE,NOPE", "--judge", "out=out"]
    done = fork(_pytest, words, tmp_path, 60, {})
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and "no chapter NOPE" in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def _pytest(words: list[str]) -> None:
    sys.exit(pytest.main(words))


# --- temperatures -----------------------------------------------------------------------------------------------------------


@promise("a temperature so small that logits over it overflow", "the law of float64, and greedy below 1.2e-38")
def test_cold_laws_agree_in_float32_and_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    for scale, temperature in itertools.product((1, 1e2, 1e8), (1e-300, 1e-45, 1e-39, 1.2e-38, 1e-37, 1e-30, 1e-9, 9e-5, 1e-3)):
        logits = scale * torch.randn(3, 50, generator=generator)
        logits[0, :9] = -torch.inf
        for filters in ({}, {"top_k": 5, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.3}):
            params = SamplingParams(temperature, **filters)  # type: ignore[arg-type]
            p, wide = (target_distribution(each, TREE, [0], params) for each in (logits, logits.double()))
            assert (p - wide).abs().max() < 1e-5, (scale, temperature, filters)
            assert temperature > 1e-9 or torch.equal(p.argmax(-1), logits.argmax(-1)) or filters


@pytest.mark.parametrize("cold", ["1e-39", "1e-300", "1e-37"])
@promise("`generate --temperature` of 1e-37 to 1e-300", "the greedy text")
def test_cold_text_is_the_greedy_text(cold: str) -> None:
    texts = {invoke("generate", "def f(", "--max-new-tokens", "8", "--temperature", each).stdout for each in (cold, "0")}
    assert len(texts) == 1 and "endoftext" not in texts.pop()


@pytest.mark.parametrize(
    ("dtype", "advice"), [(torch.bfloat16, "--dtype float32"), (torch.float32, "--dtype float64"), (torch.float64, "are damaged")]
)
def test_advice_for_logits_that_are_no_numbers_is_a_wider_dtype(dtype: torch.dtype, advice: str) -> None:
    with pytest.raises(BadInput) as error:
        target_distribution(torch.full((3, 4), torch.nan, dtype=dtype), TREE, [0], SamplingParams())
    assert error.value.hint.endswith(advice)


# --- texts and encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text", "wrong"),
    [
        case("a prompt on the command line is not UTF-8", "exit code 2", ("generate", "\udcff"), None, "not UTF-8"),
        case("a prompt on stdin is not UTF-8", "exit code 2", ("generate", "-"), b"\xff\xfe", "not UTF-8"),
        case("an implementation's name is not UTF-8", "exit code 2", ("verify", "py:\udcff:E"), None, "not UTF-8"),
        case("a prompt is too long", "exit code 2, before it is printed", ("generate", "x" * 2048), None, "2048 tokens"),
        case("a prompt is empty", "exit code 2", ("generate", "-"), b"", "empty"),
    ],
)
def test_text_that_is_none_is_refused(words: tuple[str, ...], text: bytes | None, wrong: str, no_run: Path) -> None:
    done = invoke(*words, text=text)
    assert_refused(done, no_run)
    assert wrong in done.stderr and not done.stdout


@promise("a terminal of ASCII alone: `--help`, a prompt `é`, an unknown engine `é`", "escape sequences, and the usual exit codes")
def test_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, code in ((["--help"], 0), (["generate", "é", "--max-new-tokens", "2"], 0), (["verify", "é", "-n", "0"], USAGE)):
        stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict") for _ in range(2))
        monkeypatch.setattr(sys, "argv", ["eagle2", *words])
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        stdout.flush()
        assert stdout.buffer.getvalue() or code


# --- commands that are printed ----------------------------------------------------------------------------------------------


@promise(
    "a fault on a pair of one's own, in a folder with a space", "the printed command reproduces it; the record has no folder"
)
def test_printed_command_runs_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "my pair"
    shutil.copytree(PAIRS / "coin4", own)
    pair = ["--target", str(own / "target"), "--draft", str(own / "draft")]
    judged = ["mutant:M12,k=2,depth=2,m=4", *pair, "--only", "STOP-1", "--time-limit", "50", "-n", "0", "--out", "out"]
    done = eagle2(["verify", *judged], tmp_path)
    assert done.returncode == FAULT, done.stdout + done.stderr
    [printed] = [line for line in done.stdout.splitlines() if line.startswith("eagle2 ")]
    again = eagle2(shlex.split(printed)[1:], tmp_path)
    assert again.returncode == FAULT and "Reproduced" in again.stdout, again.stdout + again.stderr
    record = read_record(tmp_path / "out" / "record.jsonl")
    assert str(tmp_path) not in (tmp_path / "out" / "record.jsonl").read_text(encoding="utf-8")
    expected = "eagle2 verify mutant:M12,k=2,depth=2,m=4 --target target --draft draft --time-limit 50 --only STOP-1"
    assert record.header.command == record.results[0].replay == expected


def test_command_of_this_machine_has_all_options_and_paths() -> None:
    chosen = Settings("ref", target="/a b/t", draft="/a b/d", evidence="/e/counts", known="/k/known.toml", time_limit=2.5, seed=3)
    here = ["--target", "/a b/t", "--draft", "/a b/d", "--seed", "3", "--time-limit", "2.5", "--evidence", "/e/counts"]
    assert shlex.split(chosen.command(here=True)) == ["eagle2", "verify", "ref", *here, "--known", "/k/known.toml"]
    assert "/" not in chosen.command()
    assert shlex.split(chosen.command("LAW-1[a, b]"))[-2:] == ["--only", "LAW-1[a, b]"]


# --- recorded, and judged elsewhere ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace on coin4 with seed 7."""
    folder = tmp_path_factory.mktemp("trace")
    words = ["record", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--seed", "7", "--only", "SMOKE", "-n", "0", "-o", "run.jsonl"]
    done = eagle2(words, folder)
    assert done.returncode == PASS, done.stdout + done.stderr
    return folder / "run.jsonl"


@promise("`judge` is given a trace and no options", "pair, tier, dtype and seed of the recording are used")
def test_judge_takes_its_settings_from_the_trace(trace: Path, tmp_path: Path) -> None:
    done = eagle2(["judge", str(trace), "--only", "SMOKE", "-n", "0", "--out", "out"], tmp_path)
    assert done.returncode == PASS, done.stdout + done.stderr
    header = read_record(tmp_path / "out" / "record.jsonl").header
    assert header.pair == "coin4" and header.settings["seed"] == "7"


@pytest.mark.parametrize(
    ("words", "values"),
    [
        case("`judge --pair` contradicts the trace", "exit code 2; both pairs are named", "--pair dice8", ("dice8", "coin4")),
        case("`judge --seed` contradicts the trace", "exit code 2; both seeds are named", "--seed 0", ("0", "7")),
        case("`judge --tier` contradicts the trace", "exit code 2; both tiers are named", "--tier full", ("full", "quick")),
        case(
            "`judge --target` contradicts the trace",
            "exit code 2; both pairs are named",
            "--target PAIRS/dice8/target --draft PAIRS/dice8/draft",
            ("dice8", "coin4"),
        ),
    ],
)
def test_options_that_contradict_the_trace_are_refused(words: str, values: tuple[str, str], trace: Path, no_run: Path) -> None:
    done = invoke("judge", str(trace), *words.replace("PAIRS", str(PAIRS)).split())
    assert_refused(done, no_run)
    assert all(f" {value}" in done.stderr for value in values)


@promise("a trace of an earlier version, without settings", "it is judged with the options that are given")
def test_trace_of_an_earlier_version_is_judged(trace: Path, tmp_path: Path) -> None:
    head, *lines = trace.read_text(encoding="utf-8").splitlines()
    fields = json.loads(head)
    assert fields.pop("recorded") == {"pair": "coin4", "tier": "quick", "dtype": "float32", "seed": 7}
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join([json.dumps(fields), *lines]), encoding="utf-8")
    words = ["judge", str(old), "--pair", "coin4", "--seed", "7", "--only", "SMOKE", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == PASS, done.stdout + done.stderr


# --- a target alone ----------------------------------------------------------------------------------------------------------


@promise("`--target` without `--draft`, for a method that needs no checkpoint", "it is decoded and judged")
def test_method_without_a_checkpoint_needs_no_draft(tmp_path: Path) -> None:
    generated = invoke(
        "generate", "def f(", "--drafter", "lookup", "--target", str(PAIRS / "stdlib" / "target"), "--max-new-tokens", "4"
    )
    assert generated.exit_code == 0, generated.output
    target = str(PAIRS / "dice8" / "target")
    done = eagle2(["verify", "ref:drafter=lookup", "--target", target, "--only", "SMOKE", "-n", "0", "--out", "out"], tmp_path)
    assert done.returncode == PASS, done.stdout + done.stderr
    assert read_record(tmp_path / "out" / "record.jsonl").header.pair == "dice8"
    assert {file.split("/")[1] for file in find_pair("", target, None, "none").checksums()} == {"target"}


# --- help --------------------------------------------------------------------------------------------------------------------


def test_help_shows_no_type_of_a_flag_and_all_exit_codes() -> None:
    for words, _ in commands():
        assert "<bool>" not in invoke(*words, "--help").stdout
    text = " ".join(invoke("--help").stdout.split())
    assert "<bool>" not in text and all(f"{code} " in text.partition("Exit codes")[2] for code in (0, 1, 2, 3, 4, 70, 130))


@pytest.mark.parametrize(
    ("package", "code", "said"),
    [("harness", 0, "eagle2-ref"), ("harness.cli", 0, "eagle2-ref"), ("eagle2_ref", USAGE, "python -m harness")],
)
def test_packages_that_are_run(package: str, code: int, said: str) -> None:
    words = [sys.executable, "-m", package, "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=FIXTURES.parent)
    assert done.returncode == code and said in done.stdout + done.stderr


# --- random words ------------------------------------------------------------------------------------------------------------

ANY_NUMBERS = (
    st.sampled_from([*NUMBERS, "0", "1", "2.5", "1e-9", "1e400", "true"]) | st.integers().map(str) | st.floats().map(str)
)
CONNECTABLES = st.builds(
    "{}:{}".format,
    st.sampled_from(sorted(CONNECTORS.keys() - {"cmd"})),
    st.sampled_from(["", "x", "=", "é", "a:b", "os:path", "json:loads,k=1", "no.py:f", "M04,k=inf", "M04,k=2,depth=2,m=4"])
    | st.builds(
        "{}={}".format, st.sampled_from(["k", "m", "rule", "drafter", "batch", "node", "python", "method", "K", ""]), ANY_NUMBERS
    ),
) | st.sampled_from(["ref", "reff", "cmd:", "cmd:'", "cmd:no-such-program", "cmd:false", "", ":", "py"])
TEXTS = st.sampled_from(["", "é", "\udcff", "[", "LAW-4[", "coin4", ",", "-", "\x1b[31m", "x" * 5000]) | st.text(
    st.characters(exclude_characters="\0"), max_size=6
)
LATE = {
    "verify": ["--only", "NOPE-1"],
    "record": ["--only", "NOPE-1"],
    "smoke": ["--pair", "nope"],
    "doctor": ["--pair", "nope"],
    "generate": ["--pair", "coin4", "--k", "2", "--depth", "2", "--m", "4"],
    "judge": ["no.jsonl"],
    "replay": ["LAW-1.1", "--record", "no.jsonl"],
    "report": ["no.jsonl"],
}
"""Commands that load nothing large, each with words that are refused after all others: coin4 has no tokenizer."""


@st.composite
def refused_commands(draw: st.DrawFn) -> list[str]:
    """A command with its own options, values of their types, and the words of LATE."""
    command = draw(st.sampled_from(sorted(LATE)))
    words = [command]
    for parameter in draw(st.lists(st.sampled_from(BELOW[command].params), max_size=4, unique=True)):
        option = next((option for option in parameter.opts if option.startswith("--")), "")
        if option and not getattr(parameter, "is_flag", False) and option not in LATE[command]:
            numeric = _is_number(parameter) or option == "--jobs"
            words.append(f"{option}={draw(ANY_NUMBERS if numeric else TEXTS)}")
    if command in ("verify", "record", "smoke", "doctor"):
        words.append(draw(CONNECTABLES))
    return [*words, *([draw(TEXTS)] if command == "generate" else []), *LATE[command]]


@promise("150 commands of random options, values and texts, of which one is refused late", "exit code 2 or 4; nothing runs")
def test_random_words_are_refused(no_run: Path) -> None:
    @settings(max_examples=150, database=None)
    @given(refused_commands())
    def check(words: list[str]) -> None:
        done = invoke(*words)
        assert done.exit_code in (USAGE, BROKEN) and isinstance(done.exception, SystemExit), (words, done.exception)
        assert done.stderr.strip() and "Traceback" not in done.output and not list(no_run.iterdir()), (words, done.output)

    check()
