"""A model that is spread over several devices: its text is that of the model in one place. Whoever mixes up devices is told."""

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
    """Where each part of a model is; those that are named on the device, the others on the CPU."""
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
def test_a_spread_model_says_what_it_says_in_one_place(kind: str, how: str) -> None:
    """Token for token, with the head and without, alone and in a batch."""
    where, head_at = SPREAD[how]
    model = tiny.target(kind)
    target = dispatched(model, where)
    assert target.device == target.network.embedding.device == torch.device(head_at)
    whole, parts = drafting(model, Target(deepcopy(model))), drafting(model, target)
    texts, coins = [TEXT, tiny.tokens(4)], [KeyedCoins(1), KeyedCoins(2)]
    expected = [whole.generate(*asked).tokens for asked in zip(texts, PARAMS, coins, strict=True)]
    for arm in (parts, Decoder(target)):
        assert [arm.generate(*asked).tokens for asked in zip(texts, PARAMS, coins, strict=True)] == expected
    assert [told.tokens for told in parts.generate_batch(texts, PARAMS, coins, 2)] == expected


def test_weights_that_are_brought_for_each_call(tmp_path: Path) -> None:
    """A part that no device holds has no weights of its own between calls; the LM head is one that drafts ask for too."""
    model = tiny.target()
    target = dispatched(model, places() | {"model.layers.2": "disk", "lm_head": "disk"}, offload_dir=tmp_path)
    assert {weight.device.type for weight in target.network.model.parameters()} == {"cpu", "meta"}
    assert target.device == torch.device("cpu")
    expected = drafting(model, Target(deepcopy(model))).generate(TEXT, PARAMS[0], KeyedCoins(1)).tokens
    assert drafting(model, target).generate(TEXT, PARAMS[0], KeyedCoins(1)).tokens == expected


def logits(target: Target) -> torch.Tensor:
    (output,) = target.prefill([target.cache()], [TEXT])
    return output.logits


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny.target().save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def test_a_model_that_one_device_holds_is_not_spread(saved: Path) -> None:
    """`auto` then is that device, and the model runs lean."""
    pytest.importorskip("accelerate")
    target = Target.load(saved, "float64", "auto")
    assert isinstance(target.network, Llama)
    assert torch.equal(logits(target), logits(Target.load(saved, "float64")))


def test_a_model_in_several_places_is_not_taken_apart(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in transformers, though it is a LLaMA: its layers know where they are."""
    parts = dispatched(tiny.target(), places() | {"model.layers.2": "disk"}, offload_dir=tmp_path / "parts")
    monkeypatch.setattr("eagle2_ref.model.target.load_model", lambda *_: parts.network.model)
    target = Target.load(saved, device="auto")
    assert isinstance(target.network, HFModel)
    assert torch.equal(logits(target), logits(Target(tiny.target())))


def test_from_disk_nothing_is_read_for_every_token(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does not fit is refused when it is loaded."""
    pytest.importorskip("accelerate")
    monkeypatch.setattr("transformers.modeling_utils._get_device_map", lambda *_: places() | {"model.norm": "disk"})
    with pytest.raises(BadInput, match="does not fit into this machine's memory\n  give a dtype of fewer bytes"):
        Target.load(saved, "float64", "auto")


def test_auto_needs_accelerate(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra that brings it; other devices do without."""
    monkeypatch.setattr("eagle2_ref.model.target.is_accelerate_available", lambda: False)
    with pytest.raises(BadInput, match=r"needs accelerate, which is not installed\n  pip install 'eagle2-ref\[big\]'"):
        Target.load(saved, device="auto")
    assert Target.load(saved, device="cpu").vocab_size == 64
