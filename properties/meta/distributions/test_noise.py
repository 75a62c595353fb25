"""What arithmetic in a dtype may do is measured and no more is forgiven: by the teacher, and by greedy checks in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import DynamicCache

from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.model.target import Target
from eagle2_ref.tree import Tree
from harness.distributions import teacher
from harness.distributions.teacher import WAY, Noise, Teacher, load_plain
from harness.implementations import Implementation, connect
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.record.model import Result
from harness.settings import Settings
from properties import subject, test_greedy
from properties.meta.helpers.run_check import heard
from properties.subject import Subject
from properties.test_greedy import CROWD

TEXT = [(3 * i + i // 5) % 4 for i in range(23)]
"""It nearly fills the context of coin4, with room for two trees."""


# --- the teacher ---------------------------------------------------------------------------------------------------


@cache
def measured(dtype: str) -> Noise:
    return Teacher(shipped("coin4"), dtype).noise([TEXT, TEXT[::-1]])


def test_the_coarser_a_dtype_the_more_noise() -> None:
    double, single, half = map(measured, ("float64", "float32", "bfloat16"))
    assert double.logits < 1e-12 < 1e-8 < single.logits < 1e-4 < 1e-3 < half.logits < 1
    assert double.flips == single.flips == 0
    assert double.tolerance < 1e-11 and half.tolerance > 2 * half.logits


def test_every_pass_is_measured() -> None:
    """Of each text: at once, one by one, and along two trees."""
    assert measured("float32").positions == 2 * (2 * len(TEXT) + 2 * (WAY + 1))


def test_flips_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rows of the LM head are moved by one another token is the likeliest, at every position of every pass."""
    low = load_plain(shipped("coin4"), "float64")
    with torch.no_grad():
        low.lm_head.weight.copy_(low.lm_head.weight.roll(1, 0))
    one = Teacher(shipped("coin4"), "float32")
    monkeypatch.setattr(teacher, "load_plain", lambda *_: low)
    noise = one.noise([TEXT])
    assert noise.flips == noise.positions == 2 * len(TEXT) + 2 * (WAY + 1)
    (logits,) = one.model(torch.tensor([TEXT])).logits.detach()
    assert noise.logits == pytest.approx(float((logits - logits.roll(1, -1)).abs().max()))


def sees_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_mask(monkeypatch, lambda ancestors: torch.ones_like(ancestors).tril())


def sees_no_ancestors(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_mask(monkeypatch, lambda ancestors: torch.eye(len(ancestors), dtype=torch.bool))


def plant_mask(monkeypatch: pytest.MonkeyPatch, changed: Callable[[torch.Tensor], torch.Tensor]) -> None:
    mask = Target.mask

    def other(self: Target, cache: KVCache, trees: Sequence[Tree]) -> torch.Tensor | None:
        given = mask(self, cache, trees)
        n = cache.length
        return None if given is None else torch.cat([given[..., :n], changed(given[0, :, n:])[None]], dim=-1)

    monkeypatch.setattr(Target, "mask", other)


def rows_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = Target.verify
    monkeypatch.setattr(Target, "verify", lambda self, caches, trees: [shifted(one) for one in verify(self, caches, trees)])


def shifted(rows: ModelOutput) -> ModelOutput:
    return replace(rows, logits=rows.logits.roll(-1, 0))


def prefix_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = Target.prefill

    def without_first(self: Target, caches: Sequence[KVCache], texts: Sequence[Sequence[int]]) -> list[ModelOutput]:
        return prefill(self, caches, [[0, *text[1:]] for text in texts])

    monkeypatch.setattr(Target, "prefill", without_first)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("plant", [sees_siblings, sees_no_ancestors, rows_shifted, prefix_lost])
def test_a_wrong_tree_pass_is_no_noise(plant: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen in float64, where it cannot be arithmetic; else it would widen the very tolerance that it is judged by."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="a tree is verified wrongly"):
        Teacher(shipped("coin4"), dtype).noise([[1, *TEXT[1:]]])


def test_noise_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check of a run judges by the same."""
    one = Teacher(shipped("coin4"), "float32")
    first = one.noise([TEXT])
    monkeypatch.setattr(teacher, "load_plain", None)
    assert one.noise([TEXT[::-1]]) is first


def test_noise_is_measured_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of the run reads what the first has written; of another dtype or pair nothing is known yet."""

    def process(pair: str = "coin4") -> Subject:
        subject._teacher.cache_clear()
        return Subject.of(Settings(), connect("ref"), shipped(pair), tmp_path)

    first = process().noise(shipped("coin4"), "float32")
    measured = Mock(side_effect=AssertionError("measured again"))
    monkeypatch.setattr(teacher, "_calibrate", measured)
    assert process().noise(shipped("coin4"), "float32") == first
    for pair, dtype in (("coin4", "float64"), ("coin6", "float32")):
        with pytest.raises(AssertionError, match="measured again"):
            process(pair).noise(shipped(pair), dtype)
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".json"], "nothing unfinished is left"


@pytest.mark.parametrize(
    ("flips", "ties", "many"), [(8, 300, True), (8, 8, False), (8, 25, False), (0, 300, True), (0, 2, False)]
)
def test_a_crowd_of_ties_is_no_noise(flips: int, ties: int, many: bool) -> None:
    """Of 1,000 tokens, after a calibration on 1,000 positions: 30 % are a crowd, as many as flipped there are none."""
    assert (Noise(0.1, flips, 1000).too_many(ties, 1000) < CROWD) == many


def test_without_ties_there_is_no_crowd() -> None:
    assert Noise(0.1, 0, 10).too_many(0, 10_000) == 1
    assert Noise(0.1, 10, 10).too_many(900, 1000) == 1, "where everything flips, ties say nothing"


# --- greedy in bfloat16 --------------------------------------------------------------------------------------------

LOW = Settings(dtype="bfloat16")


@cache
def learnt() -> tuple[Pair, list[Prompt]]:
    """The shipped pair by a name of its own: what is measured here on short texts is not for other tests to find."""
    shipped_pair = shipped("stdlib")
    pair = Pair("stdlib, briefly", shipped_pair.target, shipped_pair.draft)
    return pair, [replace(prompt, tokens=prompt.tokens[:90]) for prompt in prompts(pair)[::20]]


def greedy(implementation: Implementation, monkeypatch: pytest.MonkeyPatch, new: int = 64) -> Result:
    monkeypatch.setattr(test_greedy, "NEW", new)
    monkeypatch.setattr(subject, "CALIBRATION", 64)
    pair, texts = learnt()
    return heard("GREEDY-1", implementation, pair, texts, LOW, penalty=None)


def test_the_reference_is_greedy_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    result = greedy(connect("ref"), monkeypatch)
    assert result.verdict in ("pass", "tie"), result.summary
    assert 0.01 < float(result.measured["tolerance"]) < 1


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param("M40", id="positions lag"),
        pytest.param("M41", id="sees siblings"),
        pytest.param("M42", id="sees no ancestors"),
        pytest.param("M44", id="cache cut"),
    ],
)
def test_a_planted_fault_is_one_in_bfloat16_too(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise excuses a near tie, not a wrong mask."""
    result = greedy(connect(f"mutant:{mutant}"), monkeypatch)
    assert result.verdict == "fault", result.summary
    assert result.measured["control faults"] == 0 and result.witness is not None


@pytest.mark.parametrize(("connectable", "verdict"), [("ref", "pass"), ("mutant:M40", "fault"), ("mutant:M42", "fault")])
def test_laws_of_a_verification_in_bfloat16(connectable: str, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the dtype allows is far from everything: no law is further than 1 from another."""
    monkeypatch.setattr(subject, "CALIBRATION", 64)
    result = heard("TREE-5", connect(connectable), *learnt(), LOW)
    assert result.verdict == verdict, result.summary
    assert float(result.measured["allowed"]) < 0.5


def test_many_excusable_ties_are_no_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that takes the second best wherever it is near errs by little each time, and far too often."""
    result = greedy(Implementation("uncertain", Uncertain), monkeypatch, new=160)
    assert result.verdict == "fault" and result.measured["faults"] == 0, result.summary
    assert "each within the noise" in result.summary


class Uncertain:
    """Takes the second best token wherever the best leads by less than a tolerance: each of its choices alone is excusable."""

    lead = 0.6

    def __init__(self, target: str, draft: str | None = None) -> None:
        self.model, self.draft = load_plain(learnt()[0], "float64"), draft
        assert target

    @torch.inference_mode()
    def generate(self, asked: Any, params: Any, seeds: Any) -> list[list[int]]:
        assert len(seeds) == len(asked)
        return [self.continued(prompt, row["max_new_tokens"]) for prompt, row in zip(asked, params, strict=True)]

    def continued(self, prompt: list[int], n: int) -> list[int]:
        text, cache = list(prompt), DynamicCache()
        for _ in range(n):
            new = torch.tensor([text[cache.get_seq_length() :]])
            best = self.model(new, past_key_values=cache, use_cache=True).logits[0, -1].topk(2)
            near = self.draft is not None and float(best.values[0] - best.values[1]) < self.lead
            text.append(int(best.indices[int(near)]))
        return text[len(prompt) :]
