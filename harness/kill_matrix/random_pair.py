"""A random pair: a small LLaMA target with EAGLE-2 and EAGLE-3 heads; weights are so large that all parts show in the logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from eagle2_ref.drafters.checkpoint import save_head
from eagle2_ref.drafters.eagle_head import Eagle3Config, Eagle3Head, EagleHead, HeadConfig
from harness.pairs import Pair

M = TypeVar("M", bound=nn.Module)

TARGET: dict[str, Any] = {
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
HEAD: dict[str, Any] = {"intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}


def random_pair(folder: Path, vocab_size: int = 256, **changes: Any) -> Pair:
    """Save a random target and a head for it; with 256 tokens they can continue any bytes."""
    target = randomize(LlamaForCausalLM(LlamaConfig(**{**TARGET, "vocab_size": vocab_size, **changes})).double(), seed=5).eval()
    target.save_pretrained(folder / "target")
    save_head(random_head_for(target), folder / "draft")
    save_head(random_eagle3_head_for(target), folder / "eagle3")
    return Pair("target", folder / "target", folder / "draft")


def random_head(vocab_size: int = 64, width: int = 16, seed: int = 1, **changes: Any) -> EagleHead:
    """A random head in float64."""
    return randomize(EagleHead(HeadConfig(vocab_size, width, **{**HEAD, **changes})).double(), seed).eval()


def random_head_for(model: PreTrainedModel, seed: int = 1, **changes: Any) -> EagleHead:
    """A random head with the embedding of a target."""
    embedding = model.get_input_embeddings().weight
    vocab_size, width = embedding.shape
    head = random_head(vocab_size, width, seed, **changes).to(embedding.dtype)
    with torch.no_grad():
        head.embed_tokens.weight.copy_(embedding)
    return head


def random_eagle3_head_for(model: PreTrainedModel, seed: int = 1, **changes: Any) -> Eagle3Head:
    """A random EAGLE-3 head with the embedding of a target. It proposes three tokens of four, and reads the embedding and the
    outputs of the last two layers."""
    embedding, n = model.get_input_embeddings().weight, model.config.num_hidden_layers
    vocab_size, width = embedding.shape
    vocabulary = torch.tensor([token for token in range(vocab_size) if token % 4 != 1])
    shape = {"draft_vocab_size": len(vocabulary), "layers": (0, n - 1, n), "target_hidden_size": width}
    head = Eagle3Head(Eagle3Config(vocab_size, width, **{**HEAD, **shape, **changes}), vocabulary).double()
    head = randomize(head, seed).to(embedding.dtype).eval()
    with torch.no_grad():
        head.embed_tokens.weight.copy_(embedding)
    return head


def randomize(model: M, seed: int) -> M:
    """Set all weights from a seed: norms around 1, biases around 0, matrices that neither shrink nor enlarge what they map."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            if weight.ndim == 1:
                weight.copy_(0.3 * noise + (0.0 if "bias" in name else 1.0))
            else:
                weight.copy_(noise if "embed" in name else noise * 1.5 * weight.shape[-1] ** -0.5)
    return model
