"""CUDA without a GPU: no operation mixes devices, no step waits for the device, and captured graphs stay right."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins, SeededCoins
from eagle2_ref.cuda_graph import capture
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import GRAIN, FixedShapeDecoder
from eagle2_ref.model.llama import Llama, rms_norm
from eagle2_ref.model.target import Target
from eagle2_ref.rules import RULES
from eagle2_ref.sampling import SamplingParams
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_cuda import DEVICE, Device, There, device, graphs

__all__ = ["device", "graphs"]

PARAMS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0, "top_k": 9},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 1.2},
]


def decoder(where: str, kind: str = "llama", rule: str = "walk", lean: bool = True, **changes: Any) -> Decoder:
    """A decoder whose weights are created on the CPU and moved."""
    model = tiny.target(kind, **{"num_hidden_layers": 1, **changes})
    head = tiny.fitting(model)
    moved = deepcopy(model).to(where)
    target = Target(Llama(moved) if lean else moved)
    return Decoder(target, Eagle2(head.to(where), target.network.lm_head, Budget(3, 4, 12)), RULES[rule])


def test_the_fake_device_is_strict(device: Device) -> None:
    """It refuses mixed devices, records waits, and in-place results are the same tensors."""
    x = torch.zeros(3, device=DEVICE)
    with pytest.raises(AssertionError, match="two devices"):
        x + torch.zeros(3)
    assert x.add_(1) is x and not device.waits
    assert float(x.sum()) == 3.0 and x[x > 0].tolist() == [1, 1, 1] and x[torch.tensor([2])].shape == (1,)
    assert device.waits == ["_local_scalar_dense", "index", "_to_copy", "index"]


@pytest.mark.parametrize(
    ("kind", "rule", "params"),
    [
        ("llama", "walk", PARAMS[1]),
        ("llama", "reject", PARAMS[2]),
        ("qwen3", "walk", PARAMS[0]),
        ("qwen3", "reject", PARAMS[3]),
        ("mistral, sliding window", "reject", PARAMS[0]),
    ],
)
def test_the_text_on_the_device_is_that_on_the_cpu(kind: str, rule: str, params: dict[str, Any], device: Device) -> None:
    """Single sequences and batches."""
    sampling, prompts = [SamplingParams.of({**params, "max_new_tokens": 6})] * 2, [tiny.tokens(n, seed=n) for n in (9, 1)]
    here, there = (decoder(where, kind, rule, lean=kind == "llama") for where in ("cpu", DEVICE))
    result: list[Any] = []
    for one in (here, there):
        coins: list[list[Coins]] = [[SeededCoins(1), KeyedCoins(2)] for _ in range(2)]
        result.append([one.generate(*each).tokens for each in zip(prompts, sampling, coins[0], strict=True)])
        result.append([text.tokens for text in one.generate_batch(prompts, sampling, coins[1], 2)])
    assert result[0] == result[1] == result[2] == result[3]
    assert isinstance(there.target.network.embedding, There) and device.waits


@pytest.mark.parametrize("draft", [True, False], ids=["drafted", "control"])
@pytest.mark.parametrize("params", [*PARAMS[:3], {"temperature": 1.3, "min_p": 0.05}], ids=str)
def test_a_fixed_shape_step_waits_once(params: dict[str, Any], draft: bool, device: Device) -> None:
    """When the host reads the block."""
    sampling, result = SamplingParams.of({**params, "max_new_tokens": 12}), []
    for where in ("cpu", DEVICE):
        one, waited = decoder(where), list[list[str]]()
        one.drafter = one.drafter if draft else None
        result.append(list[int]())
        for block in FixedShapeDecoder(one.target, one.drafter, graph=False).stream(tiny.tokens(9), sampling, SeededCoins(1)):
            waited.append(list(device.waits))
            result[-1] += block.tokens
            device.waits.clear()
    assert len(waited) > 2 and all(steps == ["_to_copy"] for steps in waited[1:]), waited
    assert result[0] == result[1]


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("draft", [True, False], ids=["drafted", "control"])
def test_a_captured_graph_is_right_for_later_sequences(draft: bool) -> None:
    """With other coins, lengths and parameters."""
    plain = decoder("cpu", max_position_embeddings=3 * GRAIN)
    plain.drafter = plain.drafter if draft else None
    fixed = FixedShapeDecoder(plain.target, plain.drafter, graph=True)
    for n in (10, 1, GRAIN - 20, 40):
        for params in PARAMS[:3]:
            sampling = SamplingParams.of({**params, "max_new_tokens": 20})
            texts = [one.generate(tiny.tokens(n, seed=n), sampling, SeededCoins(n)).tokens for one in (plain, fixed)]
            assert texts[0] == texts[1], (n, params)


@pytest.mark.usefixtures("graphs")
def test_rotary_tables_of_a_graph_stay_where_they_are() -> None:
    """Tables that grow after the capture do not move the old ones."""
    plain = decoder("cpu", max_position_embeddings=4096)
    fixed, sampling = FixedShapeDecoder(plain.target, plain.drafter, graph=True), SamplingParams(1.0, max_new_tokens=20)
    for reserve in (0, 3000):
        plain.target.network.rotary.reserve(reserve)  # type: ignore[attr-defined]
        texts = [one.generate(tiny.tokens(9), sampling, SeededCoins(5)).tokens for one in (plain, fixed)]
        assert texts[0] == texts[1]


@pytest.mark.usefixtures("graphs")
def test_warm_up_runs_restore_the_state() -> None:
    """They do not go on from each other, which could leave the caches."""
    cache, filled = torch.zeros(3), torch.tensor(2)

    def step() -> Tensor:
        cache.index_copy_(0, filled[None], torch.full((1,), 7.0))
        filled.add_(1)
        return cache.sum()[None]

    replay = capture(step, (cache, filled), cache.device)
    assert (cache.tolist(), int(filled)) == ([0, 0, 0], 2)
    assert (replay().tolist(), cache.tolist(), int(filled)) == ([7], [0, 0, 7], 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_norm_for_cuda_equals_the_norm_for_cpu(dtype: torch.dtype) -> None:
    """To one rounding."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator).to(dtype) for shape in ((5, 64), (64,)))
    other = torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-6)
    assert other.dtype == dtype
    torch.testing.assert_close(other, rms_norm(x, weight, 1e-6), rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("what", ["target's logits", "head's confidences"])
def test_nan_weights_are_refused(what: str) -> None:
    plain = decoder("cpu")
    fixed = FixedShapeDecoder(plain.target, plain.drafter)
    generated = fixed.generate(tiny.tokens(9), SamplingParams(0.0, max_new_tokens=8), SeededCoins(0))
    assert len(generated.tokens) == 8
    damaged = plain.target.network.unembedding if what == "target's logits" else plain.drafter.head.fc  # type: ignore[attr-defined, union-attr]
    stream = fixed.stream(tiny.tokens(9), SamplingParams(0.0, max_new_tokens=8), SeededCoins(0))
    next(stream)
    with torch.inference_mode():
        damaged.fill_(float("nan"))
    with pytest.raises(BadInput, match=f"the {what} are not numbers"):
        list(stream)
