"""Tiny random models of many kinds, with weights large enough that every part of them shows in the logits, and their decoders."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.drafters.eagle3 import Eagle3Drafter
from eagle2_ref.model.llama import Llama
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Rule, walk
from harness.kill_matrix.random_pair import TARGET as SHAPE
from harness.kill_matrix.random_pair import random_eagle3_head_for as fitting_eagle3
from harness.kill_matrix.random_pair import random_head as head
from harness.kill_matrix.random_pair import random_head_for as fitting
from harness.kill_matrix.random_pair import random_pair as pair
from harness.kill_matrix.random_pair import randomize as scatter

__all__ = ["SHAPE", "fitting", "fitting_eagle3", "head", "pair", "scatter"]

BUDGET = Budget(3, 4, 12)

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


def tokens(n: int, vocab_size: int = 64, seed: int = 0) -> list[int]:
    """A random text."""
    drawn: Tensor = torch.randint(vocab_size, (n,), generator=torch.Generator().manual_seed(seed))
    return [int(token) for token in drawn]


def running(model: PreTrainedModel, lean: bool = True) -> Target:
    """The model with its weights in our own forward pass, or in transformers."""
    return Target(Llama(deepcopy(model)) if lean else model)


def decoder(model: PreTrainedModel | None = None, budget: Budget = BUDGET, rule: Rule = walk, lean: bool = True) -> Decoder:
    """A decoder of a model with a random head."""
    model = model or target()
    verifier = running(model, lean)
    return Decoder(verifier, Eagle2(fitting(model), verifier.network.lm_head, budget), rule)


def eagle3_decoder(model: PreTrainedModel, budget: Budget = BUDGET, rule: Rule = walk, lean: bool = True) -> Decoder:
    """A decoder of a model with a random EAGLE-3 head."""
    return Decoder(running(model, lean), Eagle3Drafter(fitting_eagle3(model), budget), rule)


def prefilled(target: Target, text: Sequence[int]) -> ModelOutput:
    """The output of a pass over a text."""
    (output,) = target.prefill([target.cache()], [text])
    return output


def greedy(model: PreTrainedModel, text: Sequence[int], n: int, **options: Any) -> list[int]:
    """The n tokens with which `generate` of transformers continues a text."""
    ids = torch.tensor([text])
    defaults = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, **defaults, **options)
    new: list[int] = whole[0, len(text) :].tolist()
    return new
