"""`eagle2 bench` from end to end on a tiny pair; what it tells, and what it refuses."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from harness.bench import calibrate, readme, tune
from harness.bench.against import of
from harness.bench.costs import ROWS
from harness.bench.figures import OFF
from harness.bench.page import draw
from harness.bench.record import Calibrated, Call, Cost, Point, Record, Steps, Together, Tuned, read
from harness.bench.run import Scene, header
from harness.bench.settings import PROMPTS, Settings, asked_prompts, command, label
from harness.bench.steps import PARTS
from harness.cli import app
from harness.pairs import Pair, shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_clock import ticking

ROOT = Path(__file__).parents[3]
BATCHES = ["batches", "batches-0", "batches-1"]
RELIABLE = ["reliability-0", "reliability-1"]
SMALL = "--k 2 --depth 2 --m 3 --tokens 8 --repeats 2 --threads 1"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("bench"), max_position_embeddings=320)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "own.jsonl"
    texts = {"one": "def f(x):", "two": "import os\n", "<b>three</b>": "class A:"}
    file.write_text("".join(json.dumps({"id": i, "kind": i[:1], "text": text}) + "\n" for i, text in texts.items()))
    return file


def bench(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words])


@pytest.fixture(scope="module")
def ran(pair: Pair, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run, with another decoder beside ours."""
    out = tmp_path_factory.mktemp("out")
    words = ["--target", str(pair.target), "--draft", str(pair.draft), *SMALL.split(), "--prompts", str(prompts)]
    told = bench(*words, "--beside", "ref:k=2,depth=2,m=3", "--batch", "1,2", "--out", str(out))
    assert told.exit_code == 0, told.output
    assert "speculative" in told.stdout and str(out / "index.html") in told.stdout.replace("\n", "")
    return out


def test_all_arms_at_all_temperatures(ran: Path) -> None:
    record, name = read(ran, whole=True), "ref:k=2,depth=2,m=3"
    arms = ["speculative", "vanilla", "transformers", name, name + OFF]
    assert list(record.header.arms) == arms
    made = Counter((call.arm, call.temperature, call.prompt) for call in record.of(Call))
    assert len(made) == len(arms) * 2 * 3 and set(made.values()) == {2}
    assert {call.tokens for call in record.of(Call)} == {8}
    assert all(0 < (call.prefill or 0) < call.seconds for call in record.of(Call) if call.arm in arms[:3])
    assert all(call.prefill is None for call in record.of(Call) if call.arm in arms[3:])
    assert {(one.arm, one.temperature) for one in record.of(Steps)} == {(arm, t) for arm in arms[:2] for t in (0.0, 1.0)}
    assert {(one.what, one.rows) for one in record.of(Cost)} == {(what, rows) for what in ("target", "head") for rows in ROWS}
    points = record.of(Point)
    assert {(one.temperature, one.m) for one in points} == {(t, m) for t in (0.0, 1.0) for m in (1, 2, 3, 4)}
    assert all(one.passes * one.m < one.rows <= one.passes * (one.m + 1) for one in points)


def test_a_tuned_budget_is_an_arm(pair: Pair, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen first, for each temperature, timed next in line, and told in the record, the tables and the summary; so is the best
    of what the paper knows."""
    monkeypatch.setattr(tune, "TOKENS", 6)
    monkeypatch.setattr(calibrate, "TOKENS", 16)
    words = ["--target", str(pair.target), "--draft", str(pair.draft), *SMALL.split(), "--prompts", str(prompts), "--tune"]
    told = bench(*words, "--no-transformers", "--out", str(tmp_path))
    assert told.exit_code == 0, told.output
    record = read(tmp_path, whole=True)
    assert "--tune" in record.header.command and set(record.header.arms) == {
        "speculative",
        "vanilla",
        "tuned",
        "tuned as published",
    }
    tuned = record.of(Tuned)
    assert [one.temperature for one in tuned] == [0.0, 1.0] and all(len(one.tried) > 10 for one in tuned)
    assert list(dict.fromkeys(call.arm for call in record.of(Call))) == ["speculative", "tuned as published", "tuned", "vanilla"]
    arms = {(arm.arm, arm.temperature): arm for arm in record.footer.figures.arms}  # type: ignore[union-attr]
    for one in tuned:
        for name, tried in (("tuned", one.chosen), ("tuned as published", one.paper)):
            arm = arms[name, one.temperature]
            assert (arm.head_passes == 0) == (tried is None) and (arm.tau == 1.0) == (tried is None)
    assert len(record.of(Calibrated)) >= 8 and {one.prompts for one in record.of(Calibrated)} == {3}
    assert "times as fast, expected" in (tmp_path / "summary.md").read_text() and "head temperature" in told.stdout


def test_texts_that_share_passes_cost_what_they_cost_alone(ran: Path) -> None:
    """Batches of every size, of the same prompts, by every arm of ours; the text of a repeat is that of the timed calls."""
    record = read(ran, whole=True)
    alone = {(call.arm, call.temperature, call.prompt, call.repeat): call.counts for call in record.of(Call)}
    lines = record.of(Together)
    assert Counter((one.arm, len(one.prompts)) for one in lines) == {
        (arm, size): 2 * 2 * (2 // size) for arm in ("speculative", "vanilla") for size in (1, 2)
    }
    for one in lines:
        counts: Any = [alone[one.arm, one.temperature, prompt, one.repeat] for prompt in one.prompts]
        assert 0 < one.prefill < one.seconds and one.tokens == 8 * len(one.prompts)
        assert one.rows == sum(own.rows for own in counts) and one.passes == max(own.target_passes for own in counts) - 1
    said = [(one.temperature, one.texts, one.arm) for one in of(record).batches]
    assert said == [(t, n, arm) for t in (0.0, 1.0) for n in (1, 2) for arm in ("speculative", "vanilla")]
    assert "| tokens/s |" in (ran / "summary.md").read_text()
    assert "times as fast as the same batch" in readme.section(record) and "batch" in record.header.command


def test_counts_agree_with_each_other(ran: Path) -> None:
    """Ours and the same decoder behind the protocol count alike; without drafts there is a pass a token."""
    found = {(arm.arm, arm.temperature): arm for arm in read(ran).footer.figures.arms}  # type: ignore[union-attr]
    for temperature in (0.0, 1.0):
        ours, same = found["speculative", temperature], found["ref:k=2,depth=2,m=3", temperature]
        for name in ("tau", "target_passes", "rows", "accepted", "tokens"):
            assert getattr(ours, name) == getattr(same, name), name
        bare = found["vanilla", temperature]
        assert bare.tau == 1.0 and bare.target_passes == bare.tokens and bare.head_passes == 0
        assert found["ref:k=2,depth=2,m=3" + OFF, temperature].rows == bare.rows
        assert ours.head_passes and (ours.rows or 0) > (bare.rows or 0) > 0


def test_the_head_is_what_costs_beside_the_target(ran: Path) -> None:
    parts = {one.arm: set(one.milliseconds) for one in read(ran).of(Steps)}
    assert parts == {"speculative": set(PARTS), "vanilla": {"target pass", "rule", "cache commit", "rest"}}


def test_no_folder_of_this_machine_is_told(ran: Path, pair: Pair) -> None:
    for file in ran.iterdir():
        assert str(pair.target.parent) not in file.read_text() and str(Path.home()) not in file.read_text()


def test_the_page_stands_alone(ran: Path) -> None:
    """One file that fetches nothing; what came from a file of prompts is shown and not obeyed."""
    page = (ran / "index.html").read_text()
    assert "<script" not in page and "http://" not in page and "https://" not in page and "<b>three" not in page
    pictures = sorted(path.stem for path in ran.glob("*.svg"))
    expected = ["accepted-0", "accepted-1", *BATCHES, "budgets", "costs", "prompts-0", "prompts-1", *RELIABLE, "steps"]
    assert pictures == expected
    for name in pictures:
        ElementTree.parse(ran / f"{name}.svg")  # noqa: S314  we wrote it
        assert f'id="{name}"' in page and f"({name}.svg)" in (ran / "summary.md").read_text()


def test_what_stands_in_a_record_is_shown_and_not_obeyed(ran: Path, tmp_path: Path) -> None:
    """A record may come from anywhere."""
    record, evil = read(ran), "<script>alert(1)</script>"
    fields = {"command": evil, "commit": evil, "machine": {evil: evil}, "versions": {evil: evil}, "arms": {evil: evil}}
    settings = record.header.settings.model_copy(update={"pair": evil, "prompts": evil})
    header = record.header.model_copy(update={**fields, "settings": settings})
    for path in draw(record.model_copy(update={"header": header}), tmp_path):
        assert "<script" not in path.read_text() or path.suffix == ".md"
    assert not re.search(r"(?<!\\)<script", re.sub("`.*`", "", (tmp_path / "summary.md").read_text()))


def test_drawn_again_it_is_the_same(ran: Path) -> None:
    before = {path.name: path.read_bytes() for path in ran.iterdir()}
    assert bench("--draw", str(ran)).exit_code == 0
    assert {path.name: path.read_bytes() for path in ran.iterdir()} == before


def test_a_run_that_was_cut_off_can_be_drawn(ran: Path, tmp_path: Path) -> None:
    lines = (ran / "record.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_text("".join(lines[:8]))
    told = bench("--draw", str(tmp_path))
    assert told.exit_code == 0 and "cut off" in told.stdout and "cut off" in (tmp_path / "index.html").read_text()
    for words in (["--readme", str(tmp_path)], ["--draw", str(ran), "--against", str(tmp_path)]):
        assert bench(*words).exit_code == 2


def test_against_itself_and_against_another(ran: Path, tmp_path: Path) -> None:
    assert bench("--draw", str(ran), "--against", str(ran)).exit_code == 0
    text = (ran / "record.jsonl").read_text().rstrip("\n")
    before, footer = text.rsplit("\n", 1)
    told = json.loads(footer)
    told["figures"]["arms"][0]["head_passes"] *= 2
    (tmp_path / "record.jsonl").write_text(f"{before}\n{json.dumps(told)}\n")
    moved = bench("--draw", str(ran), "--against", str(tmp_path))
    assert moved.exit_code == 1 and "head passes" in moved.stdout and "moved by more than 2 %" in moved.stdout


def test_what_cannot_be_compared_is_told_before_it_is_run(
    pair: Pair, prompts: Path, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same settings run and come to no moved count; others are refused at once, and nothing is written."""
    words = ["--target", str(pair.target), "--draft", str(pair.draft), *SMALL.split(), "--prompts", str(prompts)]
    words += ["--against", str(ran), "--no-transformers", "--out", str(tmp_path / "out")]
    same = bench(*words)
    assert same.exit_code == 0 and "no count moved" in same.stdout
    monkeypatch.setattr("harness.bench.run.bench", None)
    (tmp_path / prompts.name).write_text(prompts.read_text().replace("class A", "class B"))
    for other in (["--m", "2"], ["--seed", "1"], ["--limit", "2"], ["--prompts", str(tmp_path / prompts.name)]):
        refused = bench(*words[:-1], str(tmp_path / "other"), *other)
        assert (refused.exit_code == 2 and "earlier run" in refused.stderr) or "same prompts" in refused.stderr
        assert not (tmp_path / "other").exists()


def test_the_section_of_the_readme_is_that_of_the_committed_record() -> None:
    """Seen red by `readme.put` of another text, below."""
    whole = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    record = read(ROOT / "reports" / "bench", whole=True)
    again = readme.put(whole, readme.section(record), readme.SPEED, ROOT / "docs" / "benchmarks.md")
    assert again == whole, "run `eagle2 bench --readme reports/bench`"


def test_a_section_is_put_between_its_marks(ran: Path, tmp_path: Path) -> None:
    record, file = read(ran), tmp_path / "README.md"
    begin, end = "<!-- speed -->", "<!-- /speed -->"
    file.write_text(f"before {begin}\nold\n{end} behind\n")
    readme.write(readme.section(record), readme.SPEED, file)
    written = file.read_text()
    assert written.startswith("before ") and written.endswith(" behind\n")
    assert "old" not in written and "| **speculative** |" in written
    assert readme.put(written, "another", readme.SPEED, file) != written
    for wrong in ("no marks", f"{end} {begin}", f"{begin}{begin}{end}"):
        with pytest.raises(BadInput, match="no section"):
            readme.put(wrong, "", readme.SPEED, file)


def test_prompts_are_spread_over_the_file() -> None:
    stdlib = shipped("stdlib")
    assert len({prompt.kind for prompt in asked_prompts(PROMPTS, stdlib, 6, 8)}) == 6
    assert len(asked_prompts(PROMPTS, stdlib, 0, 8)) == len(asked_prompts(PROMPTS, stdlib, 99, 8)) == 32


def test_the_command_that_has_it_again(pair: Pair) -> None:
    stdlib = shipped("stdlib")
    assert command(Settings(), stdlib) == "eagle2 bench"
    asked = Settings(temperatures=(0.5,), beside=("ref", "vllm:method=eagle"), transformers=False, head_temperature=0.7)
    told = "eagle2 bench --temperature 0.5 --head-temperature 0.7 --beside ref --beside vllm:method=eagle --no-transformers"
    assert command(asked, stdlib) == told
    there = "eagle:method=eagle2,path=/home/me/EAGLE,python=/home/me/bin/python,k=4"
    assert label(there) == "eagle:method=eagle2,path=EAGLE,k=4" and label("ref:k=4") == "ref:k=4"
    assert command(Settings(batch=(1, 8)), stdlib) == "eagle2 bench --batch 1,8"
    asked = Settings(beside=(there,))
    assert "/home" not in command(asked, stdlib)
    assert (
        "/home"
        not in header(
            asked, [], Scene(Decoder.load(pair.target, pair.draft, Budget(2, 2, 3)), {}, {}, ticking()), ""
        ).model_dump_json()
    )
    assert (
        command(Settings(pair="x"), Pair("x", pair.target, pair.draft, own=True)) == "eagle2 bench --target target --draft draft"
    )


REFUSED = [
    ("--tokens 1", "tokens is 1", "2 or more"),
    ("--repeats 0", "repeats is 0", "1 or more"),
    ("--threads 0", "threads is 0", "1 or more"),
    ("--limit -1", "limit is -1", "0 for all"),
    ("--rule greedy", "rule 'greedy' is not known", "reject, walk"),
    ("--dtype float8", "dtype 'float8' is not known", "bfloat16"),
    ("--device gpu", "device 'gpu' is not known", "cuda"),
    ("--temperature hot", "--temperature hot is not a list of numbers", "0,1"),
    ("--temperature -1", "temperatures are -1", "0 or more"),
    ("--temperature 1,1", "temperatures are 1, 1", "different"),
    ("--m 2000", "m is 2000", "an m of at most"),
    ("--pair stdlob", "no pair 'stdlob' is shipped", "stdlib"),
    ("--tokens 4000", "do not fit into a context of", "--tokens"),
    ("--batch 1,two", "--batch 1,two is not a list of whole numbers", "1,2,4,8"),
    ("--batch 0,1", "--batch has 0, 1", "1 or more"),
    ("--batch 2,2", "--batch has 2, 2", "different"),
    ("--batch 8 --limit 6", "--batch has 8, but there are 6 prompts", "smaller sizes"),
    ("--prompts no.jsonl", "no prompts at no.jsonl", "id, kind, text"),
    ("--prompts README.md", "line 1 is no prompt", "id, kind, text"),
    ("--beside ref --beside ref", "--beside names ref, ref", "once"),
    ("--limit 1 --beside reff", "'reff' is not an implementation", "did you mean ref?"),
    ("--against no.jsonl", "no record at no.jsonl", "eagle2 bench --out"),
    ("--draw nowhere", "no record at nowhere", "eagle2 bench --out"),
    ("--readme nowhere", "no record at nowhere", "eagle2 bench --out"),
    ("--draw a --counts", "given together", "give one of them"),
]


@pytest.mark.parametrize(("words", "wrong", "mend"), REFUSED, ids=[words for words, _, _ in REFUSED])
def test_bad_input_is_told(words: str, wrong: str, mend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is wrong and what to do, in a few lines; nothing is half written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("not a prompt\n")
    told = bench(*words.split())
    assert told.exit_code == 2 and wrong in told.stderr and mend in told.stderr, told.stderr
    assert len(told.stderr.strip().splitlines()) <= 4 and not (tmp_path / "reports").exists()


def test_whatever_is_cut_off_counts_as_it_stands(ran: Path) -> None:
    """Figures of a run without its footer are those of its calls."""
    record = read(ran)
    assert of(Record(header=record.header, lines=record.lines, footer=None)) == of(record)
