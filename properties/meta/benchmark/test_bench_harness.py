"""What judging costs: campaigns are timed to their verdict, every second is somebody's, and the tables tell whose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.bench import campaigns, costs, show
from harness.bench.campaigns import Asked, campaign
from harness.bench.record import LINES, Campaign, read
from harness.bench.settings import Settings, command
from harness.cli import app
from harness.distributions.campaign import MAX_PROMPT, TEXTS_PER_CALL, TEXTS_PER_LOOK, short_prompts
from harness.distributions.scoring import TargetScorer
from harness.implementations import reference
from harness.implementations.engine import Engine
from harness.pairs import Prompt, shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_clock import ticking

COIN = shipped("coin4")
ASKED = Asked.behind(COIN, short_prompts(COIN.vocab_size), new=12, tokens=600, k=2, depth=3, m=5)


def test_every_second_is_somebodys() -> None:
    """By a clock that ticks at each look: a call to the decoder and the passes over its texts take one each, with one between."""
    found = campaign("ref", ASKED, Settings(), ticking())
    assert (found.verdict, found.texts, found.tokens) == ("pass", TEXTS_PER_LOOK, 12 * TEXTS_PER_LOOK)
    calls = TEXTS_PER_LOOK / TEXTS_PER_CALL
    assert (found.decoding, found.scoring, found.seconds) == (calls, calls, 4 * calls + 1)
    assert found.overhead == pytest.approx(1 - 4 / 9)


@pytest.mark.parametrize(
    ("owner", "name", "whose"),
    [
        (reference.Engine, "generate", "decoding"),
        (TargetScorer, "logits", "scoring"),
        (TargetScorer, "_law", "harness"),
        (Engine, "_check", "harness"),
    ],
)
def test_who_takes_longer_is_told(owner: type, name: str, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder, the target's passes, or what is made of laws and answers: the seconds of one are not another's."""
    clock, method = ticking(), getattr(owner, name)

    def slow(*asked: Any) -> Any:
        for _ in range(100):
            clock()
        return method(*asked)

    monkeypatch.setattr(owner, name, slow)
    found = campaign("ref", ASKED, Settings(), clock)
    shares = {part: getattr(found, part) / found.seconds for part in ("decoding", "scoring")} | {"harness": found.overhead}
    assert shares[whose] > 0.9


def test_a_wrong_decoder_is_convicted() -> None:
    assert campaign("mutant:M11", replace(ASKED, tokens=10_000), Settings(), ticking()).verdict == "fault"


def test_all_decoders_on_the_pair_and_on_a_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "campaign", lambda decoder, asked, *_: (decoder, asked))
    prompts = [Prompt(str(i), "kind", "", [1] * 200) for i in range(3)]
    made: list[Any] = list(campaigns.campaigns(Settings(k=2, depth=2, m=4), COIN, prompts, ticking()))
    decoders, asked = zip(*made, strict=True)
    assert decoders == campaigns.DECODERS * 2 and [one.pair.name for one in asked] == ["coin4"] * 2 + ["dice8"] * 2
    assert asked[0].plan.prompts == [[1] * MAX_PROMPT] * 3 and asked[0].budget == {"k": 2, "depth": 2, "m": 4}


TOLD = Campaign(decoder="ref", pair="coin4", verdict="pass", texts=128, tokens=4096, seconds=8.0, decoding=6.0, scoring=1.6)


def test_a_campaign_is_a_row() -> None:
    cells = show.judging([TOLD])
    told = dict(zip(cells.columns, cells.rows[0], strict=True))
    assert told["judged"] == "ref" and told["seconds"] == "8.0" and told["texts/s"] == "16.0"
    assert [told[name] for name in ("decoder", "target", "harness")] == ["75%", "20%", "5.0%"]


def test_it_travels_in_the_record() -> None:
    assert LINES.validate_json(TOLD.model_dump_json()) == TOLD


def test_it_is_asked_for_by_name() -> None:
    assert command(Settings(harness=True), shipped("stdlib")) == "eagle2 bench --harness"


def test_a_run_that_is_asked_for_it_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the record, on the terminal and on the page."""
    monkeypatch.setattr(costs, "ROWS", (1,))
    pair, out = tiny.pair(tmp_path / "pair", max_position_embeddings=320), tmp_path / "out"
    words = f"bench --target {pair.target} --draft {pair.draft} --k 2 --depth 2 --m 3 --tokens 2 --limit 1 --repeats 1 --harness"
    told = CliRunner().invoke(app, [*words.split(), "--threads", "1", "--no-transformers", "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert [one.decoder for one in read(out, whole=True).of(Campaign)] == [*campaigns.DECODERS] * 2
    for text in (told.stdout, (out / "index.html").read_text(), (out / "summary.md").read_text()):
        assert "mutant:M13" in text and "dice8" in text
