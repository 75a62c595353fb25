"""Tiny models of many kinds, with weights large enough that every part of them shows in the logits, and pairs made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from eagle2_ref.drafters.eagle_head import EagleHead, HeadConfig
from eagle2_ref.model.checkpoint import save_head
from harness.pairs import Pair

M = TypeVar("M", bound=nn.Module)

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied embedding": ("llama", {"tie_word_embeddings": True}),
    "llama, scaled rope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 4}),
    "qwen3, sliding and full layers": (
        "qwen3",
        {
            "head_dim": 4,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    "mistral, sliding window": ("mistral", {"sliding_window": 5, "head_dim": 4}),
    "gemma2, capped logits": (
        "gemma2",
        {
            "head_dim": 4,
            "sliding_window": 5,
            "final_logit_softcapping": 2.0,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "granite, scaled logits": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5}),
}
"""Model type and the keys in which it departs from SHAPE."""


def target(kind: str = "llama", seed: int = 5, **changes: Any) -> PreTrainedModel:
    """A random causal LM in float64."""
    model_type, departures = KINDS[kind]
    config = AutoConfig.for_model(model_type, **{**SHAPE, **departures, **changes})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return scatter(model.double(), seed).eval()


def head(vocab_size: int = 64, width: int = 16, seed: int = 1, **changes: Any) -> EagleHead:
    """A random head in float64."""
    shape = {"intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2} | changes
    return scatter(EagleHead(HeadConfig(vocab_size, width, **shape)).double(), seed).eval()


def scatter(model: M, seed: int) -> M:
    """Weights from a seed: norms around 1, biases around 0, matrices that neither shrink nor blow up what they map."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            if weight.ndim == 1:
                weight.copy_(0.3 * noise + (0.0 if "bias" in name else 1.0))
            else:
                weight.copy_(noise if "embed" in name else noise * 1.5 * weight.shape[-1] ** -0.5)
    return model


def fitting(model: PreTrainedModel, seed: int = 1, **changes: Any) -> EagleHead:
    """A head for a target: its embedding is the target's."""
    embedding = model.get_input_embeddings().weight
    vocab_size, width = embedding.shape
    made = head(vocab_size, width, seed, **changes).to(embedding.dtype)
    with torch.no_grad():
        made.embed_tokens.weight.copy_(embedding)
    return made


def pair(folder: Path, vocab_size: int = 256, **changes: Any) -> Pair:
    """A target and a head for it, on disk; with 256 tokens it can be asked to continue any bytes."""
    model = target("llama", vocab_size=vocab_size, **changes)
    model.save_pretrained(folder / "target")
    save_head(fitting(model), folder / "draft")
    return Pair("target", folder / "target", folder / "draft")


def tokens(n: int, vocab_size: int = 64, seed: int = 0) -> list[int]:
    """A random text."""
    drawn: Tensor = torch.randint(vocab_size, (n,), generator=torch.Generator().manual_seed(seed))
    return [int(token) for token in drawn]
