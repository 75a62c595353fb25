"""From timed texts to figures, words and pictures, on made-up calls of which the answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.drafters.lookup import Lookup
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import CHOSEN, METHODS, MethodSpec
from eagle2_ref.model.target import Target
from harness.bench.arms import Timed
from harness.bench.record import Asked, Call, Counts, Point, Steps
from harness.bench.run import calls
from harness.compare import pictures, show
from harness.compare.arms import Arms, checkpoints, own_options, sized
from harness.compare.figures import ORDER, drafting, figures, of, ordered, spent, tau_interval
from harness.compare.published import published
from harness.compare.record import Entered, Footer, Header, Parted, Record
from harness.compare.run import Scene, budgets
from harness.compare.settings import Settings
from harness.compare.words import broken, greedy, order, sentence
from harness.pairs import Pair, Prompt
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_clock import ticking

KINDS = {"a": "code", "b": "code", "c": "prose"}


def call(arm: str, prompt: str, passes: int, seconds: float = 10.0, tokens: int = 21, repeat: int = 0) -> Call:
    """A text whose first token came with the prompt, in a second; the others in so many passes and so much time."""
    counts = Counts(target_passes=1 + passes, head_passes=3 * passes, rows=26 * passes, accepted=(passes,))
    told: dict[str, Any] = {"temperature": 0.0, "prefill": 1.0, "first": 1, "counts": counts, "repeat": repeat}
    return Call(arm=arm, prompt=prompt, seconds=1.0 + seconds, tokens=tokens, **told)


def rows(*made: Call) -> dict[tuple[str, str], Any]:
    return {(row.arm, row.prompts): row for row in figures(made, KINDS)}


def test_tau_pools_all_passes_and_speed_is_a_median_over_prompts() -> None:
    plain = [call("vanilla", prompt, 20, 20.0) for prompt in KINDS]
    ours = [call("x", "a", 4, 10.0), call("x", "a", 6, 5.0, repeat=1), call("x", "b", 20, 8.0), call("x", "c", 2, 2.0)]
    found = rows(*plain, *ours)
    every, code = found["x", ""], found["x", "code"]
    assert every.tau == 80 / 32 and code.tau == 60 / 30 and found["x", "prose"].tau == 10
    assert every.speed == pytest.approx(20 / 7.5) and code.speed == pytest.approx((20 / 7.5 + 2.5) / 2)
    assert (every.target_passes, every.draft_passes, every.tokens, every.rows) == (36, 96, 84, 26.0)
    assert found["vanilla", ""].speed == found["vanilla", ""].tau == 1.0


def test_a_text_that_its_prompt_ends_has_no_figures() -> None:
    """Nothing was decoded, and nothing is divided by nothing. Prompts that ordinary decoding has not done are not compared."""
    found = rows(
        call("vanilla", "a", 20, 20.0), call("x", "a", 5, 10.0), call("x", "b", 0, 0.0, tokens=1), call("x", "c", 1, 1.0)
    )
    assert found["x", ""].speed == 2.0 and found["x", ""].tau == 40 / 6 and ("x", "prose") not in found


def test_the_interval_of_tau() -> None:
    """Of one prompt it is tau; of two, the ends are the prompts' own; of many, that of a ratio of means."""
    assert tau_interval((np.array([20.0]), np.array([5.0]))) == (4.0, 4.0)
    assert tau_interval((np.array([20.0, 20.0]), np.array([5.0, 10.0]))) == (2.0, 4.0)
    passes = np.tile([5.0, 10.0], 50)
    low, high = tau_interval((np.full(100, 20.0), passes))
    slope = 20 / 7.5**2 * 2.5 / 10 * 1.96  # d tau / d mean passes, times two standard errors of that mean
    assert (low, high) == pytest.approx((20 / 7.5 - slope, 20 / 7.5 + slope), abs=0.03)


def entered(method: str, own: bool = True, equal: bool = True) -> Entered:
    arm = method if own else f"{method}, equal"
    told = {"title": method.upper(), "paper": "made up", "rule": "walk", "options": {"m": 25}}
    return Entered(arm=arm, method=method, own=own, equal=equal, **told)


def record(taus: dict[str, list[int]], *lines: Any, arms: tuple[Entered, ...] = (), **header: Any) -> Record:
    """A run in which each method took so many passes for each prompt's 20 tokens, in as many seconds."""
    made = [call(name, prompt, n, float(n)) for name, passes in taus.items() for prompt, n in zip("abc", passes, strict=True)]
    head = Header(
        started="2026-01-02T03:04:05+00:00",
        command="eagle2 compare",
        commit="0123456789ab",
        settings=Settings(temperatures=(0.0,)),
        machine={"processor": "made up"},
        versions={"torch": "2.13"},
        prompts=tuple(Asked(id=prompt, kind=kind, length=3, digest="00") for prompt, kind in KINDS.items()),
        entered=arms or tuple(entered(name) for name in taus if name != "vanilla"),
        left_out={},
    )
    return Record(header=head.model_copy(update=header), lines=(*made, *lines), footer=None)


EXPECTED = {"eagle2": [3, 4, 3], "eagle": [4, 5, 4], "medusa": [6, 7, 6], "lookup": [9, 10, 9]}
PLAIN = {"vanilla": [20, 20, 20]}


def test_the_expected_order_where_it_holds() -> None:
    run = record(PLAIN | EXPECTED)
    assert all(one.holds for one in ordered(run)) and [one.first.method for one in ordered(run)] == ["eagle2", "eagle", "medusa"]
    told = order(run)
    assert told.startswith("Expected in τ at equal budget, m = 25: EAGLE2 > EAGLE > MEDUSA > LOOKUP.")
    assert told.endswith("at temperature 0 it holds for all 3 neighbours.")


def test_the_expected_order_where_it_does_not_hold() -> None:
    """Two that changed places are named with their figures."""
    run = record(PLAIN | EXPECTED | {"eagle2": [4, 5, 4], "eagle": [3, 4, 3]})
    assert [one.holds for one in ordered(run)] == [False, True, True]
    assert "it holds for 2 of 3 neighbours, it does not for EAGLE2 over EAGLE (4.62 and 6.00)." in order(run)
    cells = show.neighbours(ordered(run))
    assert cells.rows[0] == ("0", "EAGLE2", "EAGLE", "4.62", "6.00", "-1.38", "-1.67 to -1.00", "fails")
    assert cells.heavy == {0}


def test_the_expected_order_where_prompts_do_not_tell() -> None:
    """Each is the better one on a prompt of its own."""
    run = record(PLAIN | EXPECTED | {"eagle2": [3, 9, 3]})
    assert ordered(run)[0].holds is None and "these prompts do not tell of EAGLE2 over EAGLE (4.00 and 4.62)" in order(run)


def test_the_order_is_asked_of_equal_budgets_alone() -> None:
    """A method's arm at equal budget counts, not the one with its own options; who has none is not among the neighbours."""
    arms = (entered("eagle2"), entered("eagle", equal=False), entered("eagle", own=False), entered("medusa", equal=False))
    run = record(PLAIN | {"eagle2": [4, 4, 4], "eagle": [9, 9, 9], "eagle, equal": [3, 3, 3], "medusa": [5, 5, 5]}, arms=arms)
    (only,) = ordered(run)
    assert (only.first.arm, only.second.arm, only.holds) == ("eagle2", "eagle, equal", False) and "MEDUSA" not in order(run)
    assert order(record(PLAIN | {"eagle2": [4, 4, 4]})) == ""


def test_differences_are_of_the_same_prompts() -> None:
    """A method that is better by a little on every prompt is better, however far prompts are apart."""
    run = record(PLAIN | {"eagle2": [2, 9, 18], "eagle": [3, 10, 19]})
    assert ordered(run)[0].holds is True
    low, high = (tau_interval(spent([one for one in run.of(Call) if one.arm == arm])) for arm in ("eagle2", "eagle"))
    assert low[0] < high[1], "taken apart, their intervals overlap"


def test_the_order_names_methods_that_are_known() -> None:
    assert ORDER[0] == ("eagle2",) and len({name for tier in ORDER for name in tier}) == 6


def test_the_headline() -> None:
    told = sentence(record(PLAIN | {"eagle2": [4, 4, 4], "lookup": [5, 5, 5]}))
    assert told == (
        "At temperature 0 EAGLE2 emits the most tokens a target pass, 5.00 (5.00–5.00), and is the fastest,"
        " 5.00 times (5.00–5.00) as fast as ordinary decoding."
    )
    slow = record(
        PLAIN | {"lookup": [5, 5, 5]}, *(call("eagle2", p, 4, 8.0) for p in KINDS), arms=(entered("eagle2"), entered("lookup"))
    )
    assert "EAGLE2 emits the most tokens" in sentence(slow) and "the fastest is LOOKUP, 4.00 times" in sentence(slow)


def test_greedy_texts_in_words() -> None:
    tie = Parted(arm="eagle2", prompt="a", at=3, emitted=1, expected=2, margin=1e-6, noise=1e-5)
    fault = tie.model_copy(update={"margin": 1.0, "arm": "eagle"})
    runs = [record(PLAIN | EXPECTED, *lines) for lines in ((), (tie,), (tie, fault))]
    assert [broken(run) for run in runs] == [False, False, True]
    assert greedy(runs[0]) == "At temperature 0 all 12 texts are ordinary decoding's, token for token."
    assert "11 of 12 texts are ordinary" in greedy(runs[1]) and greedy(runs[1]).endswith("decides, it is left by 1.")
    assert "10 of 12 texts" in greedy(runs[2]) and "left by 1; without one by 1, of eagle. A method" in greedy(runs[2])
    warm = record(PLAIN, settings=Settings(temperatures=(1.0,)), arms=(entered("eagle2"),))
    assert greedy(warm).startswith("No text of temperature 0")


def test_what_drafting_takes() -> None:
    """3 of 5 ms a step, where a step of ordinary decoding takes 2."""
    steps = [
        Steps(arm="vanilla", temperature=0.0, steps=9, milliseconds={"target pass": 1.5, "rest": 0.5}),
        Steps(arm="x", temperature=0.0, steps=9, milliseconds={"target pass": 2.0, "drafting": 3.0}),
    ]
    assert drafting(steps, "x", 0.0) == (0.6, 1.5) and drafting(steps, "vanilla", 0.0) == (0.0, 0.0)
    assert drafting(steps, "x", 1.0) is None and drafting(steps, "y", 0.0) is None


@dataclass(frozen=True)
class Guesses:
    """Options as Lookahead's: guesses of one length."""

    k: int = 7
    depth: int = 4

    checkpoint: ClassVar[Checkpoint] = "none"


@dataclass(frozen=True)
class Phrases(Guesses):
    """Options as Ouroboros': guesses behind the end of a chain."""

    k: int = 3
    depth: int = 10
    phrase: int = 4


@dataclass(frozen=True)
class Fixed:
    """Nothing to choose."""

    checkpoint: ClassVar[Checkpoint] = "none"


SIZED = {
    "a tree": (Budget, Budget(m=20)),
    "a chain": (Lookup, Lookup(depth=20)),
    "guesses": (Guesses, Guesses(k=5)),
    "guesses behind a chain": (Phrases, Phrases(k=3)),  # a chain of 6, and 3 times 4 behind it
    "no such number": (Fixed, None),
}


@pytest.mark.parametrize("what", SIZED)
def test_equal_budgets(what: str) -> None:
    make, expected = SIZED[what]
    family = MethodSpec("x", "X", "made up", make, CHOSEN)
    assert sized(family, Settings(m=20)) == expected and sized(family, Settings(m=0)) is None


def test_a_presets_budget_is_that_of_dynamic_trees() -> None:
    asked = Settings(preset="vicuna-7b", m=25)
    assert own_options(METHODS["eagle2"], asked)["m"] == 59 and own_options(METHODS["lookup"], asked) == {}
    assert sized(METHODS["eagle2"], asked) == Budget(k=10, depth=6, m=25)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("figures"), max_position_embeddings=128)


def test_what_is_as_large_already_is_run_once(pair: Pair) -> None:
    """And a tree that cannot have so many nodes is left out with its reason, where its own can be run."""
    target, found = Target.load(pair.target), checkpoints(pair)
    (both,) = Arms(Settings(methods=("eagle2",), m=25), target, found, "x").contenders
    assert both.entered.own and both.entered.equal
    arms = Arms(Settings(methods=("eagle2",), m=999), target, found, "x")
    assert [one.entered.equal for one in arms.contenders] == [False]
    assert arms.left_out["eagle2, m = 999"].startswith("budget: m is 999")


def test_all_arms_share_one_network(pair: Pair) -> None:
    """And nothing else: each has a cache of its own."""
    target = Target.load(pair.target)
    scene = Scene(target, checkpoints(pair), Arms(Settings(m=4), target, checkpoints(pair), "x"), (), ticking())
    decoders = [*scene.decoders.values()]
    assert len({id(one.target.network) for one in decoders}) == 1 and len({id(one.target.cache) for one in decoders}) == len(
        decoders
    )


@dataclass(frozen=True)
class Static(Budget):
    """Stands for EAGLE's tree, of 4 nodes."""

    m: int = 4


def test_budgets_of_a_static_tree_end_with_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.bench.budgets.TOKENS", 8)
    monkeypatch.setattr("harness.bench.reliability.TOKENS", 16)
    monkeypatch.setitem(METHODS, "eagle", MethodSpec("eagle", "EAGLE", "", Static, CHOSEN))
    target = Target.load(pair.target)
    arms = Arms(Settings(methods=("eagle2", "eagle"), m=0), target, checkpoints(pair), "x")
    prompts = [Prompt("a", "code", "", [1, 2, 3])]
    points = [
        one for one in budgets(Scene(target, checkpoints(pair), arms, (), ticking()), prompts, 0.0) if isinstance(one, Point)
    ]
    assert [one.m for one in points if one.tree == "static"] == [1, 2, 4]
    assert {one.tokens for one in points} == {7}, "at temperature 0 all emit the same text"
    alone = Arms(Settings(methods=("lookup",), m=0), target, checkpoints(pair), "x")
    assert not [*budgets(Scene(target, checkpoints(pair), alone, (), ticking()), prompts, 0.0)], "there is no head to ask"


class Short:
    """An arm that emits one token less than it was asked for."""

    def __init__(self, ended: bool) -> None:
        self.ended = ended

    def run(self, prompt: Any, temperature: float, tokens: int, seed: int) -> Timed:  # noqa: ARG002
        return Timed(1.0, 0.5, tokens - 1, 1, None, (), self.ended)


def test_a_text_may_end_where_an_answer_does() -> None:
    """And only there: an arm that just stops would be compared with others on another text."""
    asked, prompts = Settings(temperatures=(0.0,), repeats=1), [Prompt("a", "code", "", [1])]
    (made,) = calls(asked, prompts, {"x": Short(ended=True)}, lambda *_: None)
    assert made.tokens == asked.tokens - 1
    with pytest.raises(BadInput, match="stop of its own accord"):
        list(calls(asked, prompts, {"x": Short(ended=False)}, lambda *_: None))


def test_bars_are_as_long_as_their_figures() -> None:
    """And those that are quoted look otherwise than those that were measured."""
    run = record(PLAIN | {"eagle2": [4, 4, 4], "lookup": [8, 8, 8]})
    drawn = {name: plot for name, _, plot in (*pictures.pictures(run), *pictures.quoted())}
    (bars,) = (path for style, path in drawn["methods"].paths if style == "own")
    wide = [float(part.split("v")[0]) for part in bars.split("h")[1::2]]
    assert wide[0] == pytest.approx(2 * wide[2], abs=0.2), "τ of 5 beside τ of 2.5"
    assert "own" not in dict(drawn["published-paper"].paths) and dict(drawn["published-paper"].paths)["quoted"]
    texts = [label.text for label in drawn["methods"].labels]
    assert texts.count("5.00") == 2 and "T = 0" in texts and "EAGLE2" in texts


def test_a_heat_map_is_darkest_where_tau_is_highest() -> None:
    run = record(PLAIN | {"eagle2": [2, 2, 20], "lookup": [5, 5, 5]})
    plot = next(plot for name, _, plot in pictures.pictures(run) if name == "kinds-0")
    cells = {style: path.count("M") for style, path in plot.paths}
    assert cells == {"heat0": 1, "heat1": 2, "heat2": 0, "heat3": 0, "heat4": 1}  # τ of 1; twice 4; 10


def test_quoted_figures_are_those_that_are_published() -> None:
    """Every mean of a method that is here, with its source, and nothing that was measured here."""
    cells = show.quoted()
    assert len(cells.rows) == sum(bool(one.method) for one in published()) > 20
    assert ("EAGLE-2, table 1", "Vicuna 13B", "0", "EAGLE-2", "4.65", "4.04") in cells.rows
    assert all(row[0] for row in cells.rows)


def test_a_whole_record_has_the_figures_of_its_calls() -> None:
    run = record(PLAIN | EXPECTED)
    told = of(run)
    footer = Footer(finished="", seconds=1.0, memory={}, figures=told[:1])
    assert len(told) > 3 and of(run.model_copy(update={"footer": footer})) == told[:1]
