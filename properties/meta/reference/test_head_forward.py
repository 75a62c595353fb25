"""The head's forward pass equals transformers' Llama layer, in one pass, with a cache, and under a tree mask."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from eagle2_ref.drafters.eagle_head import EagleHead, Llama3Rope
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries, other base": {"num_key_value_heads": 1, "rope_theta": 500000.0, "rms_norm_eps": 1e-3},
    "no fc bias, biased projections": {"bias": False, "qkv_bias": True},
    "linear rope": {"rope_factor": 3.0},
    "rope of Llama 3.1": {"rope_theta": 500000.0, "rope_llama3": Llama3Rope(8.0, 1.0, 4.0, 12)},
    "two layers": {"num_hidden_layers": 2},
    "wide heads": {"width": 192, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 500000.0},
}
TREE = DraftTree.of([7, 1, 2, 3, 1, 5, 9], [-1, 0, 0, 1, 1, 2, 3])


def inputs(n: int = 20, width: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens and features of n positions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(64, (n,), generator=generator), torch.randn(n, width, generator=generator, dtype=torch.float64)


def run_head(head: EagleHead, tokens: Tensor, features: Tensor, *others: Any) -> Tensor:
    """One pass over a sequence, [n, H]."""
    return torch.as_tensor(head(tokens[None], features[None], *others)[0])


def by_transformers(head: EagleHead, tokens: Tensor, features: Tensor) -> Tensor:
    """fc, then transformers' layers with the head's weights; the input norm of layer 0 is the identity."""
    shape = head.config
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    if shape.rope_factor != 1.0:
        rope = {"rope_type": "linear", "rope_theta": shape.rope_theta, "factor": shape.rope_factor}
    if shape.rope_llama3:
        rope = {"rope_type": "llama3", "rope_theta": shape.rope_theta, **asdict(shape.rope_llama3)}
    config = LlamaConfig(
        **{name: getattr(shape, name) for name in ("vocab_size", "hidden_size", "intermediate_size", "rms_norm_eps")},
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        rope_parameters=rope,
        attention_bias=shape.qkv_bias,
        attn_implementation="sdpa",
    )
    x = head.fc(torch.cat([head.embed_tokens(tokens), features], dim=-1))[None]
    positions = torch.arange(len(tokens))[None]
    for index, ours in enumerate(head.layers):
        layer = LlamaDecoderLayer(config, index).double().eval()
        missing, unexpected = layer.load_state_dict(ours.state_dict(), strict=False)
        assert not unexpected and set(missing) <= {"input_layernorm.weight", "self_attn.o_proj.bias"}
        if index == 0:
            layer.input_layernorm = nn.Identity()
        if shape.qkv_bias:
            nn.init.zeros_(layer.self_attn.o_proj.bias)
        angles = LlamaRotaryEmbedding(config)(x, positions)
        out = layer(x, attention_mask=None, position_ids=positions, position_embeddings=angles)
        x = out[0] if isinstance(out, tuple) else out
    return torch.as_tensor(x[0])


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_the_head_equals_transformers_layers(shape: str) -> None:
    """In float64; norms round to float32 in both."""
    head, (tokens, features) = tiny.head(**SHAPES[shape]), inputs(width=SHAPES[shape].get("width", 16))
    ours = run_head(head, tokens, features, torch.arange(len(tokens)))
    assert (ours - by_transformers(head, tokens, features)).abs().max() <= 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("capacity", [1, 5, 256])
@torch.inference_mode()
def test_passes_with_a_cache_equal_one_pass(shape: str, capacity: int) -> None:
    """Pieces of 1, 7, 1 and 11 positions, with a cache that must grow: outputs, and entries at the end."""
    head, (tokens, features) = tiny.head(**SHAPES[shape]), inputs(width=SHAPES[shape].get("width", 16))
    cache, once = head.fused().cache(capacity), head.fused().cache()
    whole = run_head(head, tokens, features, torch.arange(20), None, once)
    once.keep(range(20))
    for piece in torch.split(torch.arange(20), [1, 7, 1, 11]):
        out = run_head(head, tokens[piece], features[piece], piece, None, cache)
        cache.keep(range(len(piece)))
        assert (out - whole[piece]).abs().max() <= 1e-12
    assert cache.entries().shape[-2] == 20 and (cache.entries() - once.entries()).abs().max() <= 1e-12


@torch.inference_mode()
def test_a_tree_in_one_pass_equals_its_paths() -> None:
    """Entries of an earlier pass that were not kept make no difference."""
    head, (tokens, features) = tiny.head(), inputs()
    cache = head.fused().cache(capacity=4)
    run_head(head, tokens[:12], features[:12], torch.arange(12), None, cache)
    cache.keep(range(12))
    own = inputs(len(TREE), seed=1)[1]
    mask = torch.cat([torch.ones(len(TREE), 12, dtype=torch.bool), TREE.ancestors()], dim=1)
    for _ in range(2):  # the second time over entries that the first has left behind the kept ones
        in_one = run_head(head, TREE.tokens, own, 12 + torch.tensor(TREE.depths), mask, cache)
        for node in range(len(TREE)):
            path = [0, *TREE.path(node)]
            text, seen = torch.cat([tokens[:12], TREE.tokens[path]]), torch.cat([features[:12], own[path]])
            assert (in_one[node] - run_head(head, text, seen, torch.arange(len(text)))[-1]).abs().max() <= 1e-12


@torch.inference_mode()
def test_float16_and_bfloat16_are_close_to_float64() -> None:
    head, (tokens, features) = tiny.head(), inputs()
    truth = run_head(head, tokens, features, torch.arange(20))
    for dtype, near in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
        low = run_head(tiny.head().to(dtype), tokens, features.to(dtype), torch.arange(20))
        assert low.dtype == dtype and float((low.double() - truth).abs().max()) <= near * float(truth.abs().max())
