"""What a newcomer meets first: the smallest pairs, smoke, and messages about an engine of one's own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from eagle2_ref.errors import BadInput
from harness import tracebacks
from harness.acceptance import doubt_of_checkpoint
from harness.catalogue import Check
from harness.context import Context, run_check
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.implementations.process import SERVE
from harness.pairs import FIXTURES, Pair, shipped
from harness.progress import Progress
from harness.record.model import read_record
from harness.settings import Settings
from harness.verdict import BROKEN
from properties.meta.hardening import case, promise
from properties.meta.helpers.checks import context
from properties.meta.helpers.command import eagle2
from properties.meta.helpers.fake_engines import Outsider, implementation
from properties.test_count import blocks_add_up as COUNT_1
from properties.test_law_unedited import law_of_generate
from properties.test_logprob import reported_counters as COUNTERS
from properties.test_smoke import answers, repeats_itself

LONG = list(range(4)) * 3
"""A prompt that fills half of coin4's context, as those of a run do."""


@pytest.mark.parametrize("pair", ["coin4", "coin6"])
@promise(
    "smoke on a pair whose context is shorter than the text that SMOKE-2 needs",
    "a shorter text is requested; a right engine passes",
)
def test_smoke_fits_small_contexts(pair: str) -> None:
    on = context(implementation(Outsider), pair=shipped(pair))
    for check in (answers, repeats_itself):
        assert run_check(check, "", on).verdict == "pass", run_check(check, "", on).summary


class Overlong(Outsider):
    """Ignores the length of the model's context."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        return [[0] * row["max_new_tokens"] for _, row, _ in zip(prompts, params, seeds, strict=True)]


@promise("an answer that is longer than the model's context", "exit code 4; the message gives the number of tokens that fit")
def test_answer_beyond_the_context_names_the_room() -> None:
    engine = implementation(Overlong).open(shipped("coin4"))
    with pytest.raises(AdapterError, match="has 24 tokens; the context leaves room for 12; at most 24 were requested"):
        engine.generate([LONG], [{"temperature": 1.0, "max_new_tokens": 24}], [0])


@pytest.mark.parametrize("drafter", ["eagle2", "eagle2-confidence"])
@promise("the reference with its default budget on a vocabulary of 4 tokens", "the budget is cut to the vocabulary; it decodes")
def test_default_budget_fits_the_vocabulary(drafter: str) -> None:
    reference, pair = connect(f"ref:drafter={drafter}"), shipped("coin4")
    reference.check(pair, "float32", "cpu")
    for check in (answers, repeats_itself):
        assert run_check(check, "", Context.of(Settings(), reference, pair)).verdict == "pass"


@promise("a requested budget that the vocabulary is too small for", "exit code 2; the message gives the largest k")
def test_requested_budget_is_never_cut() -> None:
    with pytest.raises(BadInput, match="at most 4"):
        connect("ref:k=8").check(shipped("coin4"), "float32", "cpu")


RAISES = """
class Engine:
    capabilities = {"temperature"}

    def __init__(self, target, draft=None):
        pass

    def generate(self, prompts, params, seeds):
        return [self.one(prompt) for prompt in prompts]

    def one(self, prompt):
        raise ValueError("[bold]no\\nroom[/bold] \\x1b[31m for\\n\\n" + "words " * 200)
"""
IN_PROCESS, IN_OWN_PROCESS = "py:raises:Engine", f"cmd:{sys.executable} -P {SERVE} raises.py:Engine"


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        case(
            "an engine raises under verify",
            "exit code 4; one line with its file and line; the traceback in a file",
            ["verify", IN_PROCESS, "--only", "SMOKE", "-n", "0", "--out", "out"],
            "out",
        ),
        case(
            "an engine in a process of its own raises",
            "exit code 4; one line with its file and line; the traceback in a file",
            ["verify", IN_OWN_PROCESS, "--only", "SMOKE", "-n", "0", "--out", "out"],
            "out",
        ),
        case("an engine raises under smoke", "exit code 4; the traceback is kept", ["smoke", IN_PROCESS], "reports/latest"),
    ],
)
def test_error_of_an_engine_is_one_line_and_a_file(command: list[str], folder: str, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(RAISES)
    done = eagle2(command, tmp_path)
    assert done.returncode == BROKEN and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    shown = " ".join(done.stdout.split())
    assert "ValueError: [bold]no room[/bold]" in shown and "raises.py:12" in shown, shown
    assert "\x1b" not in done.stdout and "words " * 100 not in shown
    [file] = re.findall(r"traceback in (tracebacks/SMOKE-1\S+)", shown)
    text = (tmp_path / folder / file).read_text(encoding="utf-8")
    assert "in one" in text and "raise ValueError" in text and "\x1b" not in text
    if folder == "out":
        [result] = [one for one in read_record(tmp_path / "out" / "record.jsonl").results if one.property == "SMOKE-1"]
        assert str(tmp_path) not in result.summary and "\n" not in result.summary


@promise("a run after one whose engine raised", "the old tracebacks are removed; other files stay")
def test_tracebacks_belong_to_the_last_run(tmp_path: Path) -> None:
    assert tracebacks.store("text", "SMOKE-1[a/b, T=1.0]", tmp_path) == "tracebacks/SMOKE-1-a-b-T=1.0.txt"
    (tmp_path / "tracebacks" / "mine").touch()
    tracebacks.clear(tmp_path)
    assert [path.name for path in (tmp_path / "tracebacks").iterdir()] == ["mine"]


@promise("a traceback that cannot be written", "the result is kept, without the name of a file")
def test_traceback_that_cannot_be_written_loses_no_result(tmp_path: Path) -> None:
    (tmp_path / "tracebacks").touch()
    on = replace(context(implementation(Overlong)), out=tmp_path)
    result = run_check(answers, "", replace(on, implementation=implementation(Unready)))
    assert result.verdict == "inconclusive" and result.broken and result.summary.endswith(f"({Path(__file__).name}:{UNREADY})")


class Unready(Outsider):
    """Raises."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        raise RuntimeError(f"{len(prompts)}, {len(params)}, {len(seeds)}")


class Hanging(Unready):
    """Waits for ever."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        while prompts and params and seeds:
            time.sleep(0.01)
        return []


@promise("an engine hangs in Python", "exit code 4; the message has the file and line where it hung")
def test_place_where_an_engine_hung_is_named(tmp_path: Path) -> None:
    hanging = replace(implementation(Hanging), time_limit=0.3)
    result = run_check(answers, "", replace(context(hanging), out=tmp_path))
    line = Hanging.generate.__code__.co_firstlineno + 2
    assert result.broken and "hung" in result.summary
    assert re.search(rf"\({Path(__file__).name}:({line - 1}|{line})\); traceback in tracebacks/SMOKE-1.txt$", result.summary), (
        result.summary
    )


UNREADY = Unready.generate.__code__.co_firstlineno + 1


class WrongDraft(Outsider):
    """Cannot load the draft checkpoint that it gets."""

    def __init__(self, target: str, draft: str | None = None, depth: int = 1) -> None:
        super().__init__(target, draft, depth)
        if draft:
            raise ValueError("size mismatch")


@promise("an engine cannot load the draft checkpoint that it is given", "exit code 4; the message names the checkpoint")
def test_error_of_opening_names_the_checkpoint() -> None:
    wrong = implementation(WrongDraft)
    with pytest.raises(AdapterError, match="opening it with the checkpoint 'draft' on coin4: ValueError: size mismatch"):
        assert wrong.open(shipped("coin4")).raw
    assert wrong.open(shipped("coin4"), speculate=False).raw, "the control gets none"


@promise("an engine names a checkpoint that the pair lacks", "n/a; the message lists the checkpoints of the pair")
def test_lacking_checkpoint_is_answered_with_the_others() -> None:
    with pytest.raises(NotApplicable, match=r"has no checkpoint 'smal', .*; it has draft, small, eagle3, medusa$"):
        replace(implementation(Outsider), checkpoint="smal").open(shipped("coin4"))


@promise("smoke finds a fault", "exit code 4, and a line that says what the code means")
def test_smoke_explains_its_exit_code(tmp_path: Path) -> None:
    greedy = "def sample(self, logits, coins):\n        return int(logits.argmax())"
    guide = (FIXTURES.parent / "docs" / "judge-your-engine.md").read_text(encoding="utf-8")
    engine = guide.partition("<!-- file: my_engine.py -->")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_engine.py").write_text(engine.partition("def sample")[0] + greedy)
    done = eagle2(["smoke", "py:my_engine:Engine", "--pair", "coin6"], tmp_path)
    assert done.returncode == BROKEN and "SMOKE-2" in done.stdout and "fault" in done.stdout
    assert "broken adapter, exit code 4" in done.stdout, done.stdout


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The shipped target with what transformers makes of its EAGLE head: a language model with random weights."""
    folder, pair = tmp_path_factory.mktemp("untrained"), shipped("stdlib")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_pretrained(pair.draft).save_pretrained(folder)
    return Pair(pair.name, pair.target, folder, own=True)


@pytest.mark.parametrize(
    "check",
    [
        case(
            "a draft checkpoint that loads as random weights, where counters are reported",
            "still a pass, with a note that asks for the right checkpoint",
            COUNTERS,
        ),
        pytest.param(
            COUNT_1,
            marks=[
                pytest.mark.long,
                promise(
                    "a draft checkpoint that loads as random weights, where blocks are reported",
                    "still a pass, with a note that asks for the right checkpoint",
                ),
            ],
        ),
    ],
)
def test_untrained_drafter_is_noticed(check: Check, untrained: Pair) -> None:
    engine = connect("ref:drafter=speculative,depth=1")
    setting = next(iter(check.cases), "")
    doubted = run_check(check, setting, context(engine, pair=untrained))
    assert doubted.verdict == "pass" and "is 'small' the checkpoint for this engine?" in doubted.note
    assert not doubt_of_checkpoint(engine, 100, 10) and not doubt_of_checkpoint(engine, 99, 0), "useful drafts, or too few passes"
    assert not doubt_of_checkpoint(connect("ref:drafter=lookup"), 100, 0), "there is no checkpoint"


class CountsWhatWasCut(Outsider):
    """Reports what its passes accepted, although the text was cut at max_new_tokens within the last one."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> Any:
        block = {"accepted": 4, "tokens": [0] * 5, "parents": [-1, 0, 1, 2, 3]}
        blocks = [{"accepted": 0, "tokens": [], "parents": []}, *13 * [block]]
        return [{"tokens": [0] * 64, "blocks": blocks} for _ in zip(prompts, params, seeds, strict=True)]


@promise("blocks that count tokens after the end of a text", "the message says which tokens a block counts")
def test_blocks_beyond_the_end_are_explained() -> None:
    result = run_check(COUNT_1, "", context(implementation(CountsWhatWasCut, "blocks"), pair=shipped("dice8")))
    assert result.verdict == "fault" and result.summary.endswith("it accepted 4: count only emitted tokens where a text is cut")


class SpeculativeSampling(Outsider):
    """Drafts are sampled as well, uniformly."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        torch.manual_seed(seeds[0])
        return [self.one(list(prompt), row) for prompt, row in zip(prompts, params, strict=True)]

    def one(self, text: list[int], params: dict[str, Any]) -> list[int]:
        end = len(text) + params["max_new_tokens"]
        start = len(text)
        while len(text) < end:
            q = torch.full((4,), 0.25, dtype=torch.float64)
            drafts = [int(torch.multinomial(q, 1)) for _ in range(min(self.depth, end - len(text) - 1))]
            with torch.inference_mode():
                rows = self.model(torch.tensor([text + drafts])).logits[0, len(text) - 1 :]
            laws = [self.law(row, params) for row in rows]
            for draft, p in zip(drafts, laws, strict=False):
                if torch.rand((), dtype=torch.float64) < p[draft] / q[draft]:
                    text.append(draft)
                    continue
                text.append(int(torch.multinomial((p - q).clamp(min=0), 1)))
                break
            else:
                text.append(int(torch.multinomial(laws[-1], 1)))
        return text[start:]


@promise("an engine with sampled drafts that declares temperature alone", "LAW-6 enumerates its law on the case of two tokens")
def test_engine_that_declares_little_is_enumerated() -> None:
    setting = list(law_of_generate.cases)[-1]
    result = run_check(law_of_generate, setting, context(implementation(SpeculativeSampling, depth=4)))
    assert result.verdict == "pass" and result.measured["unfinished"] == 0, result.summary


@promise("an engine that samples more than there is time to enumerate", "n/a; the message gives the probability that was covered")
def test_unfinished_enumeration_says_what_it_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("properties.test_law_unedited.LEAST_EXECUTIONS", 8)
    monkeypatch.setattr("properties.test_law_unedited.SECONDS", 0.0)
    result = run_check(law_of_generate, next(iter(law_of_generate.cases)), context(implementation(SpeculativeSampling, depth=4)))
    assert result.verdict == "n/a"
    assert re.match(r"8 executions cover a probability of 0\.\d+ of all texts of 3 tokens, none of them likelier", result.summary)


@promise("a run of minutes", "the chapter with its cases, all cases, and the time left")
def test_progress_by_chapter_with_the_time_left() -> None:
    progress = Progress(clock=iter([100.0, 104.0, 104.0, 112.0]).__next__)
    items = [f"properties/test_x.py::{name}" for name in ("LAW-1[a]", "LAW-1[b]", "LAW-2", "STOP-1", "STOP-2")]
    progress.pytest_xdist_node_collection_finished(items)
    shown = []
    for nodeid, duration in zip(items, (8.0, 16.0), strict=False):  # two processes: 8 s of work in 4 s
        progress.pytest_runtest_logstart(nodeid)
        shown.append(progress.line())
        progress.pytest_runtest_logreport(pytest.TestReport(nodeid, ("", 0, ""), {}, "passed", None, "call", duration=duration))
        shown.append(progress.line())
    assert shown == [
        "LAW 0/3   0 of 5 cases",
        "LAW 1/3   1 of 5 cases   about 16 s left",
        "LAW 1/3   1 of 5 cases   about 16 s left",
        "LAW 2/3   2 of 5 cases   about 18 s left",
    ]


@pytest.mark.long
@pytest.mark.parametrize("jobs", ["0", "2"])
@promise("a run on a terminal of 80 columns", "one line of progress instead of dots, which is removed at the end")
def test_progress_on_a_terminal(jobs: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = ["verify", "ref", "--pair", "coin4", "--only", "SMOKE", "-n", jobs, "--out", str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(FIXTURES.parent)}
    command = [sys.executable, "-m", "harness.cli", *words]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment) as running:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 65536):
                output += piece
    os.close(ours)
    text = output.decode()
    assert running.returncode == 0 and "SMOKE 1/2   1 of 2 cases   about" in text and "SMOKE-2" in text
    assert not re.search(r"^\.", text, re.MULTILINE), "dots are left out"
    assert "\x1b[?25l" not in text.rpartition("\x1b[?25h")[2], "the cursor is left visible"
