"""On a GPU, as far as that shows without one: nothing mixed up with the CPU, no step that waits, and graphs that go on right."""

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
from eagle2_ref.rules import RULES, walk
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
    """Weights are made here, and moved."""
    model = tiny.target(kind, **{"num_hidden_layers": 1, **changes})
    head = tiny.fitting(model)
    moved = deepcopy(model).to(where)
    target = Target(Llama(moved) if lean else moved)
    return Decoder(target, Eagle2(head.to(where), target.network.lm_head, Budget(3, 4, 12)), RULES[rule])


def test_the_device_is_strict(device: Device) -> None:
    """What it refuses, and what the host waits for; in-place results are the very tensors."""
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
def test_the_text_there_is_the_text_here(kind: str, rule: str, params: dict[str, Any], device: Device) -> None:
    """No operation is given tensors of two devices; alone, and several texts in a pass."""
    asked, prompts = [SamplingParams.of({**params, "max_new_tokens": 6})] * 2, [tiny.tokens(n, seed=n) for n in (9, 1)]
    here, there = (decoder(where, kind, rule, lean=kind == "llama") for where in ("cpu", DEVICE))
    made: list[Any] = []
    for one in (here, there):
        coins: list[list[Coins]] = [[SeededCoins(1), KeyedCoins(2)] for _ in range(2)]
        made.append([one.generate(*each).tokens for each in zip(prompts, asked, coins[0], strict=True)])
        made.append([text.tokens for text in one.generate_batch(prompts, asked, coins[1], 2)])
    assert made[0] == made[1] == made[2] == made[3]
    assert isinstance(there.target.network.embedding, There) and device.waits


@pytest.mark.parametrize("draft", [True, False], ids=["drafted", "control"])
@pytest.mark.parametrize("params", [*PARAMS[:3], {"temperature": 1.3, "min_p": 0.05}], ids=str)
def test_a_step_waits_for_nothing(params: dict[str, Any], draft: bool, device: Device) -> None:
    """The host hears of a step once, when it asks what was emitted. The text is the one of here."""
    asked, made = SamplingParams.of({**params, "max_new_tokens": 12}), []
    for where in ("cpu", DEVICE):
        one, waited = decoder(where), list[list[str]]()
        one.drafter = one.drafter if draft else None
        made.append(list[int]())
        for block in FixedShapeDecoder(one.target, one.drafter, graph=False).stream(tiny.tokens(9), asked, SeededCoins(1)):
            waited.append(list(device.waits))
            made[-1] += block.tokens
            device.waits.clear()
    assert len(waited) > 2 and all(steps == ["_to_copy"] for steps in waited[1:]), waited
    assert made[0] == made[1]


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("draft", [True, False], ids=["drafted", "control"])
def test_a_graph_goes_on_as_the_loop_does(draft: bool) -> None:
    """What was recorded once, with all that Python knew then, is right for every later text: other coins, lengths, parameters."""
    plain = decoder("cpu", max_position_embeddings=3 * GRAIN)
    plain.drafter = plain.drafter if draft else None
    fixed = FixedShapeDecoder(plain.target, plain.drafter, graph=True)
    for n in (10, 1, GRAIN - 20, 40):
        for params in PARAMS[:3]:
            asked = SamplingParams.of({**params, "max_new_tokens": 20})
            texts = [one.generate(tiny.tokens(n, seed=n), asked, SeededCoins(n)).tokens for one in (plain, fixed)]
            assert texts[0] == texts[1], (n, params)


@pytest.mark.usefixtures("graphs")
def test_a_graph_finds_its_tables_where_they_were() -> None:
    """A longer prompt, and tables of positions that grow for it, after a graph was recorded that reads the old ones."""
    plain = decoder("cpu", max_position_embeddings=4096)
    fixed, asked = FixedShapeDecoder(plain.target, plain.drafter, graph=True), SamplingParams(1.0, max_new_tokens=20)
    for reserve in (0, 3000):
        plain.target.network.rotary.reserve(reserve)  # type: ignore[attr-defined]
        texts = [one.generate(tiny.tokens(9), asked, SeededCoins(5)).tokens for one in (plain, fixed)]
        assert texts[0] == texts[1]


@pytest.mark.usefixtures("graphs")
def test_a_step_is_recorded_within_its_room() -> None:
    """Runs before the recording do not go on from each other, as a text may end with the next step; the state stays as it was."""
    room, filled = torch.zeros(3), torch.tensor(2)

    def step() -> Tensor:
        room.index_copy_(0, filled[None], torch.full((1,), 7.0))
        filled.add_(1)
        return room.sum()[None]

    replay = capture(step, (room, filled), room.device)
    assert (room.tolist(), int(filled)) == ([0, 0, 0], 2)
    assert (replay().tolist(), room.tolist(), int(filled)) == ([7], [0, 0, 7], 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_norm_of_a_gpu_is_the_norm(dtype: torch.dtype) -> None:
    """The kernel that is used there, run here: the same numbers up to one rounding."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator).to(dtype) for shape in ((5, 64), (64,)))
    other = torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-6)
    assert other.dtype == dtype
    torch.testing.assert_close(other, rms_norm(x, weight, 1e-6), rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("what", ["target's logits", "head's confidences"])
def test_damage_is_told(what: str) -> None:
    """Weights that are no numbers: fixed shapes look for them too."""
    plain = decoder("cpu")
    fixed = FixedShapeDecoder(plain.target, plain.drafter)
    generated = fixed.generate(tiny.tokens(9), SamplingParams(0.0, max_new_tokens=8), SeededCoins(0))
    assert len(generated.tokens) == 8
    damaged = plain.target.network.unembedding if what == "target's logits" else plain.drafter.head.fc  # type: ignore[attr-defined, union-attr]
    asked = fixed.stream(tiny.tokens(9), SamplingParams(0.0, max_new_tokens=8), SeededCoins(0))
    next(asked)
    with torch.inference_mode():
        damaged.fill_(float("nan"))
    with pytest.raises(BadInput, match=f"the {what} are not numbers"):
        list(asked)


def test_walk_is_the_only_rule() -> None:
    """Another rule is refused, not ignored."""
    text, asked, plain = tiny.tokens(9), SamplingParams(1.0, max_new_tokens=20), decoder("cpu")
    fixed = FixedShapeDecoder(plain.target, plain.drafter).generate(text, asked, SeededCoins(1)).tokens
    assert fixed == Decoder(plain.target, None, walk).generate(text, asked, SeededCoins(1)).tokens
    with pytest.raises(BadInput, match="do not implement the rule reject"):
        FixedShapeDecoder(plain.target, plain.drafter, RULES["reject"])
