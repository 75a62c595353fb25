"""`eagle2 bench` from end to end on a tiny pair; what is timed, in which order; and what it refuses."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.target import load_model
from harness.bench import calibrate, readme, tune
from harness.bench.against import of
from harness.bench.arms import FirstToken, Ours, Timed, Transformers
from harness.bench.batches import batches
from harness.bench.costs import ROWS, WARM, costs
from harness.bench.figures import OFF
from harness.bench.page import draw
from harness.bench.record import Calibrated, Call, Cost, Point, Record, Steps, Together, Tuned, read
from harness.bench.run import Scene, calls, header
from harness.bench.settings import PROMPTS, Settings, asked_prompts, command, label
from harness.bench.steps import PARTS, Stopwatch, steps
from harness.cli import app
from harness.pairs import Pair, Prompt, shipped
from properties.meta import tiny

ROOT = Path(__file__).parents[2]
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
    whole = (ROOT / "README.md").read_text(encoding="utf-8")
    record = read(ROOT / "reports" / "bench", whole=True)
    assert readme.put(whole, readme.section(record), ROOT / "README.md") == whole, "run `eagle2 bench --readme reports/bench`"


def test_a_section_is_put_between_its_marks(ran: Path, tmp_path: Path) -> None:
    record, file = read(ran), tmp_path / "README.md"
    file.write_text(f"before {readme.BEGIN}\nold\n{readme.END} behind\n")
    readme.write(record, file)
    written = file.read_text()
    assert written.startswith("before ") and written.endswith(" behind\n")
    assert "old" not in written and "| **speculative** |" in written
    assert readme.put(written, "another", file) != written
    for wrong in ("no marks", f"{readme.END} {readme.BEGIN}", f"{readme.BEGIN}{readme.BEGIN}{readme.END}"):
        with pytest.raises(BadInput, match="no section"):
            readme.put(wrong, "", file)


class Noted:
    """An arm that notes when it was asked, for which seed."""

    def __init__(self, name: str, asked: list[tuple[str, int]], tokens: int = 8) -> None:
        self.name, self.asked, self.tokens = name, asked, tokens

    def run(self, prompt: Any, temperature: float, tokens: int, seed: int) -> Timed:  # noqa: ARG002
        self.asked.append((self.name, seed))
        return Timed(1.0, 0.1, self.tokens, 1, None)


def noted(arms: dict[str, Noted], settings: Settings, n: int) -> list[Call]:
    prompts = [Prompt(str(i), "kind", "", [1]) for i in range(n)]
    return list(calls(settings, prompts, dict(arms), lambda *_: None))


def test_arms_take_turns() -> None:
    """All arms do a prompt before any does the next; each is first as often; all have the seed of the repeat."""
    asked: list[tuple[str, int]] = []
    settings = Settings(tokens=8, repeats=3, temperatures=(0.0, 1.0), seed=7)
    noted({name: Noted(name, asked) for name in "abc"}, settings, 4)
    rounds = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    assert all({name for name, _ in one} == set("abc") and len({seed for _, seed in one}) == 1 for one in rounds)
    assert Counter(one[0][0] for one in rounds) == {"a": 8, "b": 8, "c": 8}
    assert [one[0][1] for one in rounds] == [7] * 8 + [8] * 8 + [9] * 8


def test_texts_of_another_length_are_not_compared() -> None:
    with pytest.raises(BadInput, match="b emitted 7 tokens of 0, not 8"):
        noted({"a": Noted("a", []), "b": Noted("b", [], 7)}, Settings(tokens=8), 1)


def ticking() -> Any:
    """A clock that is a second later whenever it is looked at."""
    now = iter(range(10_000))
    return lambda: float(next(now))


def test_a_part_inside_a_part_is_counted_once() -> None:
    class Nested:
        def outer(self) -> int:
            return self.inner() + 1

        def inner(self) -> int:
            return 1

    nested, watch = Nested(), Stopwatch(ticking())
    watch.stand_at(nested, "outer", "outer")
    watch.stand_at(nested, "inner", "inner")
    assert nested.outer() == 2
    assert watch.spent == {"outer": 2.0, "inner": 1.0}  # looked at 0 1 2 3: three seconds in all, one of them inside


def loaded(pair: Pair) -> Decoder:
    return Decoder.load(pair.target, pair.draft, Budget(2, 2, 3))


def test_parts_make_up_the_step(pair: Pair) -> None:
    """The text is the same, with clocks in it; the decoder that is measured is left as it was."""
    decoder, prompt = loaded(pair), Prompt("a", "kind", "", list(b"def f(x):"))
    before = dict(vars(decoder.target))
    found = steps(decoder, "speculative", [prompt], SamplingParams(temperature=0.0, max_new_tokens=8), 0, ticking())
    blocks = decoder.generate(prompt.tokens, SamplingParams(temperature=0.0, max_new_tokens=8), SeededCoins(0)).blocks
    assert found.steps == len(blocks) - 1 and all(spent >= 0 for spent in found.milliseconds.values())
    assert set(vars(decoder.target)) == set(before) and "_accept" not in vars(decoder)


def test_a_pass_is_measured_behind_a_text_that_stays(pair: Pair) -> None:
    """What the first turns took is not looked at."""
    decoder, clock = loaded(pair), ticking()
    found = list(costs(decoder, list(b"def f(x):"), clock, times=2))
    assert {cost.behind for cost in found} == {200} and all(cost.median == 1000.0 for cost in found)
    assert clock() == len(found) * (WARM + 2 * 2)
    assert decoder.target.length == 0


def test_transformers_is_asked_for_the_same(pair: Pair) -> None:
    """Greedy, it emits the text that ours does; above 0 it samples at that temperature, with nothing else on."""
    model, prompt, decoder = load_model(pair.target, "float32").eval(), list(b"import os"), loaded(pair)
    heard: list[tuple[dict[str, Any], list[int]]] = []
    generate = model.generate

    def listening(text: torch.Tensor, **asked: Any) -> Any:
        out = generate(text, **asked)
        heard.append((asked, out[0, text.shape[1] :].tolist()))
        return out

    model.generate = listening
    arm = Transformers(model, ticking())
    timed = arm.run(prompt, 0.0, 8, 0)
    greedy = decoder.generate(prompt, SamplingParams(temperature=0.0, max_new_tokens=8), SeededCoins(0))
    assert heard[0][1] == greedy.tokens and timed.tokens == 8 and not model.generation_config.do_sample
    assert (timed.prefill, timed.seconds) == (1.0, 2.0)  # looked at: before, at the first token, at the end
    arm.run(prompt, 0.5, 8, 0)
    assert {name: heard[1][0][name] for name in ("do_sample", "temperature", "top_k", "top_p")} == {
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
    }


def test_the_first_token_comes_after_the_prompt() -> None:
    heard, seen = FirstToken(ticking()), []
    for _ in range(3):
        heard.put(None)
        seen.append(heard.at)
    assert seen == [-1.0, 0.0, 0.0]


def test_ours_is_timed_to_its_first_block(pair: Pair) -> None:
    timed = Ours(loaded(pair), ticking()).run(list(b"import os"), 0.0, 8, 0)
    assert (timed.prefill, timed.seconds, timed.first, timed.tokens) == (1.0, 2.0, 1, 8)


def test_a_batch_is_timed_from_when_all_have_begun(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at before, when the first trees are asked for, and at the end; repeats have seeds of their own."""
    seeds: list[int] = []

    def noting(seed: int) -> SeededCoins:
        seeds.append(seed)
        return SeededCoins(seed)

    monkeypatch.setattr("harness.bench.batches.SeededCoins", noting)
    arms: dict[str, Any] = {name: Ours(loaded(pair), ticking()) for name in ("speculative", "vanilla")}
    arms["transformers"] = Noted("transformers", [])
    settings = Settings(temperatures=(0.0,), tokens=3, repeats=2, batch=(2, 1), seed=7)
    prompts = [Prompt(str(i), "kind", "", [1 + i]) for i in range(3)]
    lines = list(batches(settings, prompts, arms, ticking(), lambda *_: None))
    assert {(one.prefill, one.seconds, one.tokens) for one in lines} == {(1.0, 2.0, 3), (1.0, 2.0, 6)}
    rounds = [lines[i : i + 2] for i in range(0, len(lines), 2)]
    assert [(one[0].arm, one[0].prompts) for one in rounds] == [
        ("speculative", ("0", "2")),
        ("speculative", ("0",)),
        ("vanilla", ("2",)),
        ("vanilla", ("0", "2")),
        ("vanilla", ("0",)),
        ("speculative", ("2",)),
    ]
    assert seeds == [7] * (2 * 2 + 2 * 4) + [8] * (2 * 4)  # of two arms: two texts for nothing, then four texts a repeat
    assert all(one.prompts == other.prompts and {one.arm, other.arm} == {"speculative", "vanilla"} for one, other in rounds)


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
    assert "/home" not in header(asked, [], Scene(loaded(pair), {}, {}, ticking()), "").model_dump_json()
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
