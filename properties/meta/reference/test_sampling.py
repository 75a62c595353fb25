"""Sampling parameters: p is what transformers' `generate` samples from, at every node with its own history."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.errors import BadInput
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny

TEXT = [*tiny.tokens(9, seed=3), 7]
TREE = DraftTree.of([7, 1, 2, 7, 1, TEXT[0], 9], [-1, 0, 0, 1, 1, 2, 3])
COMBINATIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 1.0},
    {"top_p": 1e-6},
    {"min_p": 0.0},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.6},
    {"repetition_penalty": 1.0, "temperature": 0.9},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.4, "top_p": 0.7, "min_p": 0.1},
    {"temperature": 0.8, "top_k": 7, "top_p": 0.85, "min_p": 0.05, "repetition_penalty": 1.3},
    {"temperature": 2.0, "top_k": 12, "min_p": 0.3, "repetition_penalty": 0.8},
]


@cache
def model() -> PreTrainedModel:
    """In float32, as `generate` samples in float32."""
    return tiny.target().float()


@cache
def raw() -> Tensor:
    """Logits [m + 1, V] of the nodes of TREE, each by a plain pass over its own prefix."""
    with torch.inference_mode():
        return torch.stack([model()(torch.tensor([prefix(node)])).logits[0, -1] for node in range(len(TREE))])


def prefix(node: int) -> list[int]:
    return [*TEXT, *(TREE.token(i) for i in TREE.path(node))]


def by_generate(text: list[int], params: dict[str, Any]) -> Tensor:
    """The next-token distribution of `generate`: the softmax of the scores it returns."""
    off: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    ids = torch.tensor([text])
    out = model().generate(
        ids,
        attention_mask=torch.ones_like(ids),  # or it would take token 0 for padding
        do_sample=True,
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        **{**off, **params},
    )
    return torch.as_tensor(out.scores[0][0]).softmax(-1)


@pytest.mark.parametrize("params", COMBINATIONS, ids=str)
def test_p_equals_the_distribution_of_generate(params: dict[str, Any]) -> None:
    """At every node: same order of processors, same support, and the node's own history under a repetition penalty."""
    p = target_distribution(raw(), TREE, TEXT, SamplingParams.of(params))
    for node in range(len(TREE)):
        theirs = by_generate(prefix(node), params)
        assert torch.equal(p[node] > 0, theirs > 0), node
        assert (p[node] - theirs).abs().max() <= 1e-6, node


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [4, 64, 1000])
def test_at_temperature_0_p_is_a_point_mass_at_the_first_maximum(dtype: torch.dtype, size: int) -> None:
    """Filters make no difference."""
    generator = torch.Generator().manual_seed(size)
    for _ in range(20):
        logits = torch.randn(size, generator=generator).to(dtype)
        tied = sorted(torch.randperm(size, generator=generator)[:3].tolist())
        logits[tied] = logits.max() + 1
        for params in (SamplingParams(0.0), SamplingParams(0.0, top_k=1, top_p=0.5, min_p=0.9)):
            p = target_distribution(logits[None], DraftTree.root_only(0), [0], params)[0]
            assert p[tied[0]] == 1 and p.sum() == 1


def test_p_is_in_float32_or_wider() -> None:
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
        p = target_distribution(raw().to(dtype), TREE, TEXT, SamplingParams(0.7, top_k=9, repetition_penalty=1.2))
        assert p.dtype == wide and p.shape == (len(TREE), 64)
        assert (p.sum(-1) - 1).abs().max() <= 1e-6


def test_logits_are_not_modified() -> None:
    before = raw().clone()
    target_distribution(raw(), TREE, TEXT, SamplingParams(0.7, 9, 0.9, 0.1, 1.2))
    assert torch.equal(raw(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("node", "position", "token"), [(0, 9, 7), (2, 10, 2), (6, 12, 9)])
def test_nan_logits_are_refused_with_their_position(bad: float, node: int, position: int, token: int) -> None:
    logits = raw().clone()
    logits[node, 5] = bad
    with pytest.raises(BadInput, match=rf"not numbers at position {position} \(after token {token}\)"):
        target_distribution(logits, TREE, TEXT, SamplingParams())
    logits[node] = -math.inf
    with pytest.raises(BadInput, match=f"position {position} "):
        target_distribution(logits, TREE, TEXT, SamplingParams())
    logits[node, 3] = 0.0
    assert target_distribution(logits, TREE, TEXT, SamplingParams())[node, 3] == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -0.1}, "temperature is -0.1\n  temperature must be 0 or more (0 is greedy), and at most 1e+30"),
    ({"temperature": math.nan}, "temperature is nan\n  temperature must be 0 or more (0 is greedy), and at most 1e+30"),
    ({"temperature": 1e300}, "temperature is 1e+300\n  temperature must be 0 or more (0 is greedy), and at most 1e+30"),
    ({"top_k": 0}, "top_k is 0\n  top_k must be a whole number of 1 or more"),
    ({"top_k": 2.5}, "top_k is 2.5\n  top_k must be a whole number of 1 or more"),
    ({"top_p": 0.0}, "top_p is 0.0\n  top_p must be in (0, 1]"),
    ({"top_p": 1.1}, "top_p is 1.1\n  top_p must be in (0, 1]"),
    ({"top_p": math.nan}, "top_p is nan\n  top_p must be in (0, 1]"),
    ({"min_p": -0.1}, "min_p is -0.1\n  min_p must be in [0, 1]"),
    ({"min_p": 1.5}, "min_p is 1.5\n  min_p must be in [0, 1]"),
    ({"repetition_penalty": 0}, "repetition_penalty is 0\n  repetition_penalty must be from 1e-30 to 1e+30"),
    ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0\n  repetition_penalty must be from 1e-30 to 1e+30"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0\n  max_new_tokens must be a whole number of 1 or more"),
    ({"max_new_tokens": math.inf}, "max_new_tokens is inf\n  max_new_tokens must be a whole number of 1 or more"),
    ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5\n  max_new_tokens must be a whole number of 1 or more"),
    (
        {"topk": 5},
        "unknown sampling parameter topk\n"
        "  known are eos_token_id, max_new_tokens, min_p, repetition_penalty, temperature, top_k, top_p",
    ),
]


@pytest.mark.parametrize(("params", "message"), WRONG, ids=[str(params) for params, _ in WRONG])
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        SamplingParams.of(params)
    assert str(error.value) == message


def test_end_of_text_is_one_id_or_several() -> None:
    assert SamplingParams().eos == frozenset()
    assert SamplingParams.of({"eos_token_id": 0}).eos == {0}
    assert SamplingParams.of({"eos_token_id": [3, 0, 3]}).eos == {0, 3}
    assert SamplingParams.of({"top_k": None, "temperature": 0.5}) == SamplingParams(0.5)
