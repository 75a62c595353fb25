"""What judging costs: campaigns are timed to their verdict, every second is somebody's, and the tables tell whose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.bench import campaigns, show
from harness.bench.campaigns import campaign
from harness.bench.record import LINES, Campaign
from harness.bench.settings import Settings, command
from harness.implementations.reference import Engine
from harness.laws.campaign import PER_CALL, ROUND, Plan, starts
from harness.laws.oracle import Oracle
from harness.pairs import Prompt, shipped

COIN = shipped("coin4")
PLAN = Plan.of(starts(COIN.vocab_size), [{"temperature": 1.0, "max_new_tokens": 12}])


def ticking(step: float = 1.0) -> Callable[[], float]:
    """A clock that is a step later whenever it is looked at."""
    now = iter(range(100_000))
    return lambda: step * next(now)


def timed(decoder: str, monkeypatch: pytest.MonkeyPatch, tokens: int = 600) -> Campaign:
    monkeypatch.setattr(campaigns, "TOKENS", tokens)
    return campaign(decoder, COIN, PLAN, Settings(), ticking())


def test_every_second_is_somebodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks at each look: a call to the decoder and the passes over its texts take one each, with one between."""
    found = timed("ref", monkeypatch)
    assert (found.verdict, found.texts, found.tokens) == ("pass", ROUND, 12 * ROUND)
    calls = ROUND / PER_CALL
    assert (found.decoding, found.scoring, found.seconds) == (calls, calls, 4 * calls + 1)
    assert found.overhead == pytest.approx(1 - 4 / 9)


@pytest.mark.parametrize(("owner", "name"), [(Engine, "generate"), (Oracle, "logits")])
def test_what_takes_longer_is_told_so(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder, or a target, that looks at the clock twenty times more is no overhead of the harness."""
    clock, method = ticking(), getattr(owner, name)

    def slow(*asked: object) -> object:
        for _ in range(20):
            clock()
        return method(*asked)

    monkeypatch.setattr(owner, name, slow)
    found = campaign("ref", COIN, PLAN, Settings(), clock)
    slower, other = (found.decoding, found.scoring)[:: 1 if name == "generate" else -1]
    assert slower == 21 * other and found.overhead < 0.15


def test_a_wrong_decoder_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed("mutant:M11", monkeypatch, 10_000).verdict == "fault"


def test_all_decoders_on_the_pair_and_on_a_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int, int]] = []

    def noted(decoder: str, pair: campaigns.Pair, plan: Plan, _settings: Settings, _clock: object) -> str:
        asked.append((decoder, pair.name, len(plan.prompts), int(plan.params[0]["max_new_tokens"])))
        return decoder

    monkeypatch.setattr(campaigns, "campaign", noted)
    prompts = [Prompt(str(i), "kind", "", [1, 2]) for i in range(3)]
    made = list(campaigns.campaigns(Settings(), COIN, prompts, ticking()))
    assert made == [*campaigns.DECODERS] * 2 and [where for _, where, _, _ in asked] == ["coin4"] * 2 + ["dice8"] * 2
    assert {(n, new) for _, _, n, new in asked} == {(3, campaigns.LONG), (23, campaigns.SHORT)}


TOLD = Campaign(decoder="ref", pair="coin4", verdict="pass", texts=128, tokens=4096, seconds=8.0, decoding=6.0, scoring=1.6)


def test_a_campaign_is_a_row() -> None:
    cells = show.judging([TOLD])
    told = dict(zip(cells.columns, cells.rows[0], strict=True))
    assert told["judged"] == "ref" and told["seconds to it"] == "8.0" and told["texts a second"] == "16.0"
    assert [told[name] for name in ("decoding", "scoring", "harness")] == ["75%", "20%", "5.0%"]


def test_it_travels_in_the_record() -> None:
    assert LINES.validate_json(TOLD.model_dump_json()) == TOLD


def test_it_is_asked_for_by_name() -> None:
    assert command(Settings(harness=True), shipped("stdlib")) == "eagle2 bench --harness"
