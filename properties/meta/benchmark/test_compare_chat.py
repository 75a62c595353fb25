"""`eagle2 compare` on questions for a chat model: a subset by kind, further arms, tuned arms, and other implementations."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from eagle2_ref.errors import BadInput
from harness.benchmark.arms import EngineArm
from harness.benchmark.figures import method_figures_of
from harness.benchmark.pages import SECTION_FILE, compare_mark, compare_section, is_broken, replace_section
from harness.benchmark.prompts import MT_BENCH, Question, subset, with_kinds
from harness.benchmark.record import Call, CompareRecord, StepProfile, TuningResult, read_comparison
from harness.benchmark.repetition import repeated_ngrams
from harness.benchmark.result_tables import kind_table, own_options_table, repetition_table
from harness.benchmark.settings import CompareSettings
from harness.cli import app
from harness.implementations.engine import Engine, Output
from harness.pairs import Pair
from properties.meta.helpers import families

ROOT = Path(__file__).parents[3]

QUESTIONS = [
    Question(f"{kind}-{i}", kind, ("A secret question.", "And another?")[: 1 + (kind in MT_BENCH)])
    for kind in ("writing", "math", "qa", "rag")
    for i in range(3)
]
LOOKUP, ASSISTED = "transformers:method=prompt_lookup,depth=3", "transformers:method=assisted"
ARMS = ["eagle2", "eagle2:k=2,depth=2,m=3", "lookup", "eagle2, tuned", "transformers", LOOKUP]


# --- a subset by kind -----------------------------------------------------------------------------------------------------


def test_categories_of_mt_bench_are_one_kind_among_others() -> None:
    assert Counter(one.category for one in with_kinds(QUESTIONS)) == {"mt-bench": 6, "qa": 3, "rag": 3}
    alone = [one for one in QUESTIONS if one.category in MT_BENCH]
    assert with_kinds(alone) == alone


@pytest.mark.parametrize(("n", "counts"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (8, [3, 3, 2]), (0, [6, 3, 3]), (99, [6, 3, 3])])
def test_subset_has_as_many_of_each_kind(n: int, counts: list[int]) -> None:
    questions = with_kinds(QUESTIONS)
    found = subset(questions, n, 0)
    assert list(Counter(one.category for one in found).values()) == counts
    assert found == [one for one in questions if one in found], "in the order of the file"


def test_subset_depends_on_the_seed_alone_and_grows() -> None:
    questions = with_kinds(QUESTIONS)
    assert subset(questions, 5, 1) == subset(questions, 5, 1) and set(subset(questions, 5, 1)) < set(subset(questions, 7, 1))
    assert len({tuple(subset(questions, 3, seed)) for seed in range(20)}) > 5


# --- repetition -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "share"), [([1, 2, 3], None), ([1, 2, 3, 4], 0.0), (range(9), 0.0), ([7] * 8, 0.8), ([1, 2, 3, 4] * 2, 0.2)]
)
def test_share_of_repeated_ngrams(text: list[int], share: float | None) -> None:
    """Five 4-grams in eight tokens: of a text of one token four are repeated, of a text of two equal halves one."""
    assert repeated_ngrams(text) == (None if share is None else pytest.approx(share))


# --- from end to end ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Few and short texts where only counts are taken, or a budget is chosen."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("harness.benchmark.comparison.NODES", (1,))
        patched.setattr("harness.benchmark.comparison.TUNING_TOKENS", 8)
        patched.setattr("harness.benchmark.budgets.TOKENS", 8)
        patched.setattr("harness.benchmark.reliability.TOKENS", 16)
        patched.setattr("harness.benchmark.tune.SHAPES", ((1, 3, 3), (2, 3, 5)))
        patched.setattr("harness.benchmark.tune.WIDTHS", (1, 2))
        yield


def compare(pair: Pair, file: Path, *words: str) -> Result:
    small = ["--tokens", "10", "--repeats", "1", "--threads", "1", "--m", "0", "--prompts", str(file), "--dtype", "float64"]
    return CliRunner().invoke(app, ["compare", "--target", str(pair.target), "--draft", str(pair.draft), *small, *words])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return families.vicuna(tmp_path_factory.mktemp("vicuna"))[0]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "question.jsonl"
    rows = ({"question_id": one.id, "category": one.category, "turns": one.turns} for one in QUESTIONS)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(pair: Pair, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    words = ["--methods", "eagle2,lookup", "--arm", ARMS[1], "--tune", "eagle2", "--transformers"]
    done = compare(pair, file, *words, "--beside", LOOKUP, "--beside", ASSISTED, "--limit", "4", "--out", str(out))
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def record(folder: Path) -> CompareRecord:
    return read_comparison(folder, whole=True)


def test_all_arms_are_timed_in_turns_and_have_figures(record: CompareRecord) -> None:
    assert [one.arm for one in record.header.entered] == ARMS
    assert [one.peer for one in record.header.entered] == [False] * 4 + [True] * 2
    prompts = {one.id for one in record.header.prompts}
    assert len(prompts) == 4 + 2, "two of four questions have two turns"
    texts = Counter((call.arm, call.temperature) for call in record.of(Call))
    assert texts == {(arm, t): len(prompts) for arm in ("vanilla", *ARMS) for t in (0.0, 1.0)}
    assert all(call.prefill and call.counts and call.prefill < call.seconds for call in record.of(Call))
    rows = {(row.arm, row.temperature): row for row in method_figures_of(record) if not row.prompts}
    assert rows.keys() == texts.keys()
    assert rows["transformers", 0.0].tau == rows["vanilla", 0.0].tau == rows["transformers", 0.0].rows == 1
    assert rows[LOOKUP, 0.0].tau >= 1 and rows[LOOKUP, 0.0].rows > 1
    assert {one.arm for one in record.of(StepProfile)} == {"vanilla", *ARMS[:4]}


def test_peers_emit_the_greedy_text_of_ordinary_decoding(record: CompareRecord) -> None:
    """In float64; only the methods' texts are compared by the command, but lengths and repetition show the peers'."""
    assert not is_broken(record)
    found = {(call.arm, call.prompt): (call.tokens, call.repeated) for call in record.of(Call) if call.temperature == 0}
    for arm in ARMS[4:]:
        assert all(found[arm, one.id] == found["vanilla", one.id] for one in record.header.prompts)


def test_tuned_arm_has_a_budget_for_each_temperature(record: CompareRecord, folder: Path) -> None:
    assert [(one.arm, one.temperature) for one in record.of(TuningResult)] == [("eagle2", 0.0), ("eagle2", 1.0)]
    assert all(one.tried for one in record.of(TuningResult))
    assert "EAGLE-2, tuned" in {row[1] for row in own_options_table(record).rows}
    assert "Tuned budgets" in (folder / "summary.md").read_text()


def test_implementation_without_checkpoint_is_left_out_with_the_reason(record: CompareRecord) -> None:
    assert list(record.header.left_out) == [ASSISTED] and "no checkpoint 'small'" in record.header.left_out[ASSISTED]


def test_tables_have_the_mean_over_kinds(record: CompareRecord) -> None:
    table = kind_table(record, "tau", "")
    figures = {(row.arm, row.prompts): row.tau for row in method_figures_of(record) if row.temperature == 0}
    kinds = ("mt-bench", "qa", "rag")
    assert [column.heading for column in table.columns][2:] == [*kinds, "mean"]
    row = next(row for row in table.rows if row[:2] == ("0", "EAGLE-2"))
    assert row[2:] == (
        *(f"{figures['eagle2', kind]:.2f}" for kind in kinds),
        f"{sum(figures['eagle2', k] for k in kinds) / 3:.2f}",
    )
    assert [row[0] for row in repetition_table(record).rows] == ["0", "1"] and "%" in str(repetition_table(record).rows[0][-1])


def test_there_is_no_mean_where_a_kind_is_missing(record: CompareRecord) -> None:
    """As in a record that was cut off: the mean over the other kinds would be another figure under the same name."""
    kinds = {prompt.id: prompt.kind for prompt in record.header.prompts}
    missing = [line for line in record.lines if isinstance(line, Call) and line.arm == "eagle2" and kinds[line.prompt] == "rag"]
    cut = replace(record, lines=tuple(line for line in record.lines if line not in missing), footer=None)
    row = next(row for row in kind_table(cut, "tau", "").rows if row[:2] == ("0", "EAGLE-2"))
    assert row[2] and row[3] and row[4:] == ("", "")


def test_time_of_the_prompt_leaves_some_for_the_text() -> None:
    """The two are of separate calls, and noise can make a call of one token longer than that of all."""

    class Busy:
        def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[Output]:  # noqa: ARG002
            return [Output(tuple(range(params[0]["max_new_tokens"])))]

    ticks = iter([0.0, 5.0, 10.0, 12.0])
    timed = EngineArm(cast("Engine", Busy()), lambda: next(ticks), separate=True).run([1], 0.0, 4, 0)
    assert (timed.seconds, timed.prefill, timed.tokens) == (2.0, 1.8, 4)


def test_section_of_the_real_model_is_another_one_and_has_the_kinds(record: CompareRecord) -> None:
    settings = record.header.settings
    real = replace(record, header=record.header.model_copy(update={"settings": settings.model_copy(update={"pair": "smollm2"})}))
    assert (compare_mark(record), compare_mark(real)) == ("family", "smollm2")
    assert "| mt-bench | qa | rag | mean |" in compare_section(real) and "mt-bench |" not in compare_section(record)


def test_no_text_of_a_question_is_stored(folder: Path) -> None:
    stored = "".join(path.read_text() for path in folder.iterdir() if path.is_file())
    assert "qa-" in stored and not re.search("secret|another\\?", stored, re.IGNORECASE)


def test_command_of_the_record_names_every_arm(record: CompareRecord) -> None:
    for words in ("--tune eagle2", "--transformers", f"--beside {LOOKUP}", f"--arm {ARMS[1]}"):
        assert words in record.header.command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "eagle2:q=1"], "EAGLE-2 has no option q"),
        (["--arm", "eagle2"], "--arm eagle2 has no options"),
        (["--arm", "eagle9:k=1"], "drafter 'eagle9' is not known"),
        (["--tune", "eagle"], "--tune names eagle"),
        (["--methods", "eagle2,lookup", "--tune", "lookup"], "lookup, which has no budget to choose"),
        (["--methods", "eagle2,eagle3", "--tune", "eagle3", "--limit", "4"], "--tune names eagle3, which cannot be run"),
        (["--beside", "nothing:x"], "'nothing:x' is not an implementation"),
        (["--tune", "eagle2", "--limit", "0"], "none is left to tune on"),
    ],
)
def test_wrong_arms_are_refused(words: list[str], message: str, pair: Pair, file: Path, tmp_path: Path) -> None:
    done = compare(pair, file, "--methods", "eagle2", *words, "--out", str(tmp_path / "out"))
    assert done.exit_code == 2 and message in re.sub(r"\s+", " ", done.stderr) and not (tmp_path / "out").exists()


def test_only_arms_of_the_run_are_tuned(pair: Pair) -> None:
    with pytest.raises(BadInput, match="arms of this run are eagle2, lookup"):
        CompareSettings(methods=("eagle2", "lookup"), tune=("medusa",)).check(pair)


# --- committed figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["compare", "smollm2/compare"])
def test_section_of_the_documentation_is_that_of_the_committed_record(folder: str) -> None:
    record, file = read_comparison(ROOT / "reports" / folder, whole=True), ROOT / SECTION_FILE
    text = file.read_text(encoding="utf-8")
    assert not is_broken(record)
    assert replace_section(text, compare_section(record), compare_mark(record), file) == text, (
        f"run `eagle2 compare --readme reports/{folder}`"
    )
