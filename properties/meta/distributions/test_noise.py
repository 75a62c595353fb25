"""The noise of low-precision arithmetic is measured, and greedy checks in bfloat16 tolerate no more than that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.model.target import Target
from eagle2_ref.tree import Tree
from harness import context
from harness.context import Context
from harness.distributions.noise import DEPTH, Noise, measure_noise
from harness.distributions.scoring import load_target
from harness.implementations import Implementation, connect
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.record.model import Result
from harness.settings import Settings
from properties import test_greedy
from properties.meta.helpers.checks import result_of
from properties.test_greedy import TOO_MANY_TIES, greedy_on_code
from properties.test_tree import laws_in_own_dtype

TEXT = [(3 * i + i // 5) % 4 for i in range(23)]
"""Nearly fills the context of coin4; long enough for two trees."""


# --- measure_noise ---------------------------------------------------------------------------------------------------


@cache
def plain(dtype: str) -> PreTrainedModel:
    return load_target(shipped("coin4"), dtype)


def measured(dtype: str) -> Noise:
    return measure_noise(plain(dtype), plain("float64"), [TEXT, TEXT[::-1]])


def test_noise_grows_with_coarser_dtypes() -> None:
    double, single, half = map(measured, ("float64", "float32", "bfloat16"))
    assert double.logits < 1e-12 < 1e-8 < single.logits < 1e-4 < 1e-3 < half.logits < 1
    assert double.flips == single.flips == 0
    assert double.tolerance < 1e-11 and half.tolerance > 2 * half.logits


def test_noise_is_measured_on_every_kind_of_pass() -> None:
    """Each text at once, token by token, and along two trees."""
    assert measured("float32").positions == 2 * (2 * len(TEXT) + 2 * (DEPTH + 1))


def test_flips_are_counted() -> None:
    """With the rows of the LM head shifted by one, another token is the likeliest at every position of every pass."""
    low = load_target(shipped("coin4"), "float64")
    with torch.no_grad():
        low.lm_head.weight.copy_(low.lm_head.weight.roll(1, 0))
    noise = measure_noise(low, plain("float64"), [TEXT])
    assert noise.flips == noise.positions == 2 * len(TEXT) + 2 * (DEPTH + 1)
    (logits,) = plain("float64")(torch.tensor([TEXT])).logits.detach()
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
def test_wrong_tree_pass_is_not_counted_as_noise(plant: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is detected in float64; otherwise it would widen the tolerance by which it is judged."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="verification of a tree in float64"):
        measure_noise(plain(dtype), plain("float64"), [[1, *TEXT[1:]]])


def test_noise_is_measured_once_per_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process of the run reads the result of the first. Other dtypes and pairs are measured anew."""

    def process(pair: str = "coin4") -> Context:
        context._noise.cache_clear()
        return Context.of(Settings(), connect("ref"), shipped(pair), tmp_path)

    first = process().noise(shipped("coin4"), "float32")
    measured = Mock(side_effect=AssertionError("measured again"))
    monkeypatch.setattr(context, "measure_noise", measured)
    assert process().noise(shipped("coin4"), "float32") == first
    for pair, dtype in (("coin4", "float64"), ("coin6", "float32")):
        with pytest.raises(AssertionError, match="measured again"):
            process(pair).noise(shipped(pair), dtype)
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".json"], "no temporary file is left"


@pytest.mark.parametrize(
    ("flips", "ties", "many"), [(8, 300, True), (8, 8, False), (8, 25, False), (0, 300, True), (0, 2, False)]
)
def test_too_many_ties_are_a_fault(flips: int, ties: int, many: bool) -> None:
    """Among 1,000 tokens, with noise measured on 1,000 positions: 30 % are too many, as many as flipped there are not."""
    assert (Noise(0.1, flips, 1000).too_many(ties, 1000) < TOO_MANY_TIES) == many


def test_no_ties_have_p_value_one() -> None:
    assert Noise(0.1, 0, 10).too_many(0, 10_000) == 1
    assert Noise(0.1, 10, 10).too_many(900, 1000) == 1, "if every position flips, ties are no evidence"


# --- greedy in bfloat16 --------------------------------------------------------------------------------------------

LOW = Settings(dtype="bfloat16")


@cache
def short_stdlib() -> tuple[Pair, list[Prompt]]:
    """The shipped pair under another name, so that other tests do not find the noise measured here on short texts."""
    shipped_pair = shipped("stdlib")
    pair = Pair("stdlib, briefly", shipped_pair.target, shipped_pair.draft)
    return pair, [replace(prompt, tokens=prompt.tokens[:90]) for prompt in prompts(pair)[::20]]


def greedy(implementation: Implementation, monkeypatch: pytest.MonkeyPatch, new: int = 64) -> Result:
    monkeypatch.setattr(test_greedy, "NEW_TOKENS", new)
    monkeypatch.setattr(context, "NOISE_TOKENS", 64)
    pair, texts = short_stdlib()
    return result_of(greedy_on_code, implementation, None, pair=pair, prompts=texts, settings=LOW)


def test_reference_is_greedy_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_planted_fault_is_detected_in_bfloat16(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance covers near ties, not a wrong mask."""
    result = greedy(connect(f"mutant:{mutant}"), monkeypatch)
    assert result.verdict == "fault", result.summary
    assert result.measured["control faults"] == 0 and result.witness is not None


@pytest.mark.parametrize(("connectable", "verdict"), [("ref", "pass"), ("mutant:M40", "fault"), ("mutant:M42", "fault")])
def test_verification_is_judged_in_bfloat16(connectable: str, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance is well below 1, the largest total variation there is."""
    monkeypatch.setattr(context, "NOISE_TOKENS", 64)
    pair, texts = short_stdlib()
    result = result_of(laws_in_own_dtype, connect(connectable), pair=pair, prompts=texts, settings=LOW)
    assert result.verdict == verdict, result.summary
    assert float(result.measured["allowed"]) < 0.5


def test_many_ties_within_the_noise_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that takes the second-best token at every near tie errs by little each time, and far too often."""
    result = greedy(Implementation("uncertain", Uncertain), monkeypatch, new=160)
    assert result.verdict == "fault" and result.measured["faults"] == 0, result.summary


class Uncertain:
    """Takes the second-best token wherever the best leads by less than `lead`. Each choice alone is within the noise."""

    lead = 0.6

    def __init__(self, target: str, draft: str | None = None) -> None:
        self.model, self.draft = load_target(short_stdlib()[0], "float64"), draft
        assert target

    @torch.inference_mode()
    def generate(self, prompts: Any, params: Any, seeds: Any) -> list[list[int]]:
        assert len(seeds) == len(prompts)
        return [self.continued(prompt, row["max_new_tokens"]) for prompt, row in zip(prompts, params, strict=True)]

    def continued(self, prompt: list[int], n: int) -> list[int]:
        text, cache = list(prompt), DynamicCache()
        for _ in range(n):
            new = torch.tensor([text[cache.get_seq_length() :]])
            best = self.model(new, past_key_values=cache, use_cache=True).logits[0, -1].topk(2)
            near = self.draft is not None and float(best.values[0] - best.values[1]) < self.lead
            text.append(int(best.indices[int(near)]))
        return text[len(prompt) :]
