"""A target that is spread over several devices gives the same text, and no operation mixes devices."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.model.hf_model import HFModel
from eagle2_ref.model.llama import Llama
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_cuda import DEVICE, device

__all__ = ["device"]

TEXT = tiny.tokens(9)
PARAMS = [SamplingParams(0.0, max_new_tokens=8), SamplingParams(1.0, top_k=20, max_new_tokens=6)]

PARTS = ("embed_tokens", "rotary_emb", "layers.0", "layers.1", "layers.2", "norm")


def places(*there: str) -> dict[str, str]:
    """The device of each part of a model: the named ones on the device, the others on the CPU."""
    of = {f"model.{part}": part for part in PARTS} | {"lm_head": "lm_head"}
    return {name: DEVICE if part in there else "cpu" for name, part in of.items()}


SPREAD = {
    "last half on the device": (places("layers.1", "layers.2", "norm", "lm_head"), DEVICE),
    "first half on the device": (places("embed_tokens", "rotary_emb", "layers.0"), "cpu"),
    "LM head alone on the device": (places("lm_head"), DEVICE),
}
"""Where the parts are, and where the LM head is."""


def dispatched(model: PreTrainedModel, where: dict[str, str], **options: Any) -> Any:
    """The model in parts, as accelerate runs it."""
    accelerate = pytest.importorskip("accelerate")
    skip = model._skip_keys_device_placement
    return Target(accelerate.dispatch_model(deepcopy(model), where, main_device="cpu", skip_keys=skip, **options))


def drafting(model: PreTrainedModel, target: Target) -> Decoder:
    head = tiny.fitting(model).to(target.device)
    return Decoder(target, Eagle2(head, target.network.lm_head, Budget(3, 3, 8)), walk)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("kind", "how"), [*(("llama", how) for how in SPREAD), ("qwen3, sliding and full layers", "last half on the device")]
)
def test_a_spread_model_gives_the_text_of_one_device(kind: str, how: str) -> None:
    """With the head and without, alone and in a batch."""
    where, head_at = SPREAD[how]
    model = tiny.target(kind)
    target = dispatched(model, where)
    assert target.device == target.network.embedding.device == torch.device(head_at)
    whole, parts = drafting(model, Target(deepcopy(model))), drafting(model, target)
    texts, coins = [TEXT, tiny.tokens(4)], [KeyedCoins(1), KeyedCoins(2)]
    expected = [whole.generate(*request).tokens for request in zip(texts, PARAMS, coins, strict=True)]
    for arm in (parts, Decoder(target)):
        assert [arm.generate(*request).tokens for request in zip(texts, PARAMS, coins, strict=True)] == expected
    assert [row.tokens for row in parts.generate_batch(texts, PARAMS, coins, 2)] == expected


def test_weights_can_be_loaded_for_each_call(tmp_path: Path) -> None:
    """Also those of the LM head, which drafts use too."""
    model = tiny.target()
    target = dispatched(model, places() | {"model.layers.2": "disk", "lm_head": "disk"}, offload_dir=tmp_path)
    assert {weight.device.type for weight in target.network.model.parameters()} == {"cpu", "meta"}
    assert target.device == torch.device("cpu")
    expected = drafting(model, Target(deepcopy(model))).generate(TEXT, PARAMS[0], KeyedCoins(1)).tokens
    assert drafting(model, target).generate(TEXT, PARAMS[0], KeyedCoins(1)).tokens == expected


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny.target().save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def test_auto_uses_one_device_if_it_suffices(saved: Path) -> None:
    """And then our own forward pass."""
    pytest.importorskip("accelerate")
    target = Target.load(saved, "float64", "auto")
    assert isinstance(target.network, Llama)
    one_device = Target.load(saved, "float64")
    assert torch.equal(tiny.prefilled(target, TEXT).logits, tiny.prefilled(one_device, TEXT).logits)


def test_a_spread_llama_runs_in_transformers(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = dispatched(tiny.target(), places() | {"model.layers.2": "disk"}, offload_dir=tmp_path / "parts")
    monkeypatch.setattr("eagle2_ref.model.target.load_model", lambda *_: parts.network.model)
    target = Target.load(saved, device="auto")
    assert isinstance(target.network, HFModel)
    assert torch.equal(tiny.prefilled(target, TEXT).logits, tiny.prefilled(Target(tiny.target()), TEXT).logits)


def test_a_model_that_does_not_fit_into_memory_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    monkeypatch.setattr("transformers.modeling_utils._get_device_map", lambda *_: places() | {"model.norm": "disk"})
    with pytest.raises(BadInput, match="does not fit into this machine's memory\n  give a dtype of fewer bytes"):
        Target.load(saved, "float64", "auto")


def test_auto_needs_accelerate(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eagle2_ref.model.target.is_accelerate_available", lambda: False)
    with pytest.raises(BadInput, match=r"needs accelerate, which is not installed\n  pip install 'eagle2-ref\[big\]'"):
        Target.load(saved, device="auto")
    assert Target.load(saved, device="cpu").vocab_size == 64
