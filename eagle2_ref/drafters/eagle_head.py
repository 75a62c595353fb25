"""EAGLE's draft heads: they read the feature at a position and the next token, and estimate the next feature.

`EagleHead` is that of EAGLE and EAGLE-2, `Eagle3Head` that of EAGLE-3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from eagle2_ref.drafters.draft_vocabulary import from_offsets, marks, offsets
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import StackedKVCache
from eagle2_ref.model.config import Config
from eagle2_ref.model.llama import ForwardContext, Layer, RotaryTable, rms_norm, transposed


@dataclass(frozen=True)
class Llama3Rope:
    """Rope scaling of Llama 3.1, under the names of its `config.json`: low frequencies are divided by `factor`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class HeadConfig:
    """Shape of a head, under the names of published `config.json` files."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int = 1
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_factor: float = 1.0
    bias: bool = True
    qkv_bias: bool = False
    rope_llama3: Llama3Rope | None = None

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_json(cls, raw: dict[str, Any], where: Path | str = "config.json") -> HeadConfig:
        """Read a published configuration.

        Missing keys have the defaults of the published code: fc.bias unless `"bias": false`, as many key-value heads as heads,
        rope base 10000 (EAGLE, model/configs.py and model/cnets1.py). Raises BadInput for what is not supported.
        """
        needed = ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"]
        missing = [name for name in needed if name not in raw]
        if missing:
            raise BadInput(f"{where} lacks {', '.join(missing)}", "give --draft a directory with an EAGLE-1/2 head")
        fields = Config(raw, where)
        rope, heads = fields.section("rope_parameters"), fields.whole("num_attention_heads")
        scaling = fields.section("rope_scaling") if raw.get("rope_scaling") else rope
        config = cls(
            **{name: fields.whole(name) for name in needed},
            num_key_value_heads=fields.whole("num_key_value_heads", heads),
            num_hidden_layers=fields.whole("num_hidden_layers", 1),
            rms_norm_eps=fields.positive("rms_norm_eps", 1e-6),
            rope_theta=fields.positive("rope_theta", rope.positive("rope_theta", 10000.0)),
            rope_factor=scaling.positive("factor") if _rope_type(scaling) == "linear" else 1.0,
            bias=fields.flag("bias", True),
            qkv_bias=fields.flag("qkv_bias", False),
            rope_llama3=_llama3_rope(scaling) if _rope_type(scaling) == "llama3" else None,
        )
        config._check(where, raw.get("hidden_act", "silu"))
        if raw.get("head_dim") not in (None, config.head_dim):
            raise fields.wrong("head_dim", raw["head_dim"], f"hidden_size / num_attention_heads is {config.head_dim}")
        return config

    def _check(self, where: Path | str, activation: str) -> None:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads or heads % kv_heads:
            raise BadInput(f"{where}: {heads} heads, {kv_heads} key-value heads and hidden size {self.hidden_size} do not divide")
        if activation != "silu":
            raise BadInput(f"{where}: hidden_act {activation!r} is not supported", "only silu is")

    def to_json(self) -> dict[str, Any]:
        """The published layout, with the architecture name that other engines look for."""
        return {
            "architectures": ["EagleLlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            **({"rope_scaling": {"type": "linear", "factor": self.rope_factor}} if self.rope_factor != 1.0 else {}),
            **({"rope_scaling": {"rope_type": "llama3", **asdict(self.rope_llama3)}} if self.rope_llama3 else {}),
            "bias": self.bias,
            "qkv_bias": self.qkv_bias,
        }


def _rope_type(scaling: Config) -> str:
    kind = scaling.raw.get("rope_type", scaling.raw.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise BadInput(f"{scaling.path}: rope_scaling of type {kind!r} is not supported", "only linear and llama3 scaling are")
    return str(kind)


def _llama3_rope(scaling: Config) -> Llama3Rope:
    rope = Llama3Rope(
        factor=scaling.positive("factor"),
        low_freq_factor=scaling.positive("low_freq_factor"),
        high_freq_factor=scaling.positive("high_freq_factor"),
        original_max_position_embeddings=scaling.whole("original_max_position_embeddings"),
    )
    if rope.low_freq_factor >= rope.high_freq_factor:
        raise scaling.wrong("high_freq_factor", rope.high_freq_factor, f"it must be above low_freq_factor {rope.low_freq_factor}")
    return rope


class EagleHead(nn.Module):
    """The parameters of a head, under their published names (EAGLE, arXiv 2401.15077, section 3.1).

    fc(cat(embedding of t[i+1], feature f[i])) -> decoder layers -> an estimate of feature f[i+1]. The target's LM head turns
    features into logits. A feature is the target's hidden state *after* its final norm, therefore layer 0 has no input norm,
    and the head no final norm.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.fc = nn.Linear(2 * width, width, bias=config.bias)
        self.layers: Any = nn.ModuleList(LayerWeights(config, normed=index > 0) for index in range(config.num_hidden_layers))

    def forward(
        self, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None = None, cache: StackedKVCache | None = None
    ) -> Tensor:
        """Estimate features.

        Args:
            tokens: [B, n]; token i *follows* feature i.
            features: [B, n, H], of the target or estimated.
            positions: positions of the features, [n] or [B, n].
            mask: boolean or additive, [B or 1, n, length + n]. Without it rows see the cache, and the new rows up to themselves.
            cache: cache of B sequences, into which keys and values are written.

        Returns:
            The estimated features of the tokens, [B, n, H].
        """
        return self.fused()(tokens, features, positions, mask, cache)

    def fused(self) -> FusedHead:
        """The head with concatenated matrices, for drafting. Gradients flow to the parameters, if enabled."""
        layers = [layer.fused(index) for index, layer in enumerate(self.layers)]
        return FusedHead(self.config, self.embed_tokens.weight, self.fc.weight.t().contiguous(), self.fc.bias, layers)


@dataclass
class FusedHead:
    """A head for drafting: plain matrices, and those with the same input concatenated."""

    config: HeadConfig
    embedding: Tensor
    fc: Tensor
    fc_bias: Tensor | None
    layers: list[Layer]

    def __call__(
        self, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None = None, cache: StackedKVCache | None = None
    ) -> Tensor:
        """As `EagleHead.forward`."""
        batch, n = tokens.shape
        ctx = forward_context(self.config, positions.expand(batch, n), mask, cache, features.dtype)
        embedded = F.embedding(tokens.flatten(), self.embedding).to(features.dtype)
        pairs = torch.cat([embedded, features.flatten(0, 1)], dim=-1)
        x = pairs @ self.fc if self.fc_bias is None else torch.addmm(self.fc_bias, pairs, self.fc)
        for layer in self.layers:
            x = layer(x, ctx)
        return x.view(batch, n, -1)

    def cache(self, capacity: int = 256) -> StackedKVCache:
        """An empty cache for one sequence."""
        config = self.config
        shape = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        return StackedKVCache(*shape, self.fc.dtype, self.fc.device, capacity)


@dataclass(frozen=True)
class Eagle3Config(HeadConfig):
    """Shape of an EAGLE-3 head.

    Attributes:
        draft_vocab_size: number of tokens D that the head can propose.
        layers: target layers before which it reads the state.
        target_hidden_size: width of those states.
        norm_before_residual: whether the residual connection of attention starts after `hidden_norm`, as in heads that
            `speculators` trained; in those of the authors it starts before.
    """

    bias: bool = False
    draft_vocab_size: int = 0
    layers: tuple[int, ...] = ()
    target_hidden_size: int = 0
    norm_before_residual: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            **super().to_json(),
            "architectures": ["LlamaForCausalLMEagle3"],
            "draft_vocab_size": self.draft_vocab_size,
            **({"target_hidden_size": self.target_hidden_size} if self.target_hidden_size != self.hidden_size else {}),
            **({"norm_before_residual": True} if self.norm_before_residual else {}),
            "eagle_config": {"eagle_aux_hidden_state_layer_ids": list(self.layers)},
        }


class Eagle3Head(EagleHead):
    """The parameters of an EAGLE-3 head, under their published names (EAGLE-3, arXiv 2503.01840, section 3.1).

    `fc` fuses the states of three target layers into one. The layer reads embedding and state, each normed, next to each other,
    and adds to the state. Its output is the state of the next pass and, after `norm`, the input of the head's own `lm_head`.

    Args:
        config: the shape.
        vocabulary: the target token of each draft token, [D]. Draft token i is target token i + d2t[i]; t2d [V] marks the tokens
            of the draft vocabulary. A head of the whole vocabulary is stored without the two.
    """

    d2t: Tensor
    t2d: Tensor

    def __init__(self, config: Eagle3Config, vocabulary: Tensor) -> None:
        nn.Module.__init__(self)
        width, eps = config.hidden_size, config.rms_norm_eps
        self.config: Eagle3Config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.midlayer: Any = LayerWeights(config, normed=True, reads=2 * width)
        self.midlayer.hidden_norm = nn.RMSNorm(width, eps)
        self.fc = nn.Linear(3 * config.target_hidden_size, width, bias=False)
        self.norm = nn.RMSNorm(width, eps)
        self.lm_head = nn.Linear(width, len(vocabulary), bias=False)
        reduced = len(vocabulary) < config.vocab_size
        self.register_buffer("d2t", offsets(vocabulary), persistent=reduced)
        self.register_buffer("t2d", marks(vocabulary, config.vocab_size), persistent=reduced)

    def fused(self) -> FusedEagle3Head:
        return FusedEagle3Head(
            self.config,
            self.embed_tokens.weight,
            self.fc.weight.t().contiguous(),
            None,
            [self.midlayer.fused(0)],
            self.midlayer.hidden_norm.weight,
            self.norm.weight,
            transposed(self.lm_head.weight),
            from_offsets(self.d2t),
        )


@dataclass
class FusedEagle3Head(FusedHead):
    """An EAGLE-3 head for drafting.

    Attributes:
        hidden_norm: weight of the norm of the state, [H].
        norm: weight of the norm before the LM head, [H].
        unembedding: the head's own LM head, [H, D].
        vocabulary: the target token of each draft token, [D].
    """

    config: Eagle3Config
    hidden_norm: Tensor
    norm: Tensor
    unembedding: Tensor
    vocabulary: Tensor

    def fuse(self, states: Tensor) -> Tensor:
        """States of the target [..., 3 H] to features [..., H]."""
        return states @ self.fc

    def __call__(
        self, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None = None, cache: StackedKVCache | None = None
    ) -> Tensor:
        """As `EagleHead.forward`. `features` are fused states, or the output of an earlier pass: neither is normed."""
        batch, n = tokens.shape
        layer, ctx = self.layers[0], forward_context(self.config, positions.expand(batch, n), mask, cache, features.dtype)
        embedded, x = F.embedding(tokens.flatten(), self.embedding).to(features.dtype), features.flatten(0, 1)
        normed = rms_norm(x, self.hidden_norm, layer.eps)
        pairs = torch.cat([rms_norm(embedded, self.input_norm, layer.eps), normed], dim=-1)
        x = layer.attend(pairs, normed if self.config.norm_before_residual else x, ctx)
        return layer.mlp(rms_norm(x, layer.norm, layer.eps), x).view(batch, n, -1)

    @property
    def input_norm(self) -> Tensor:
        """Weight of the norm of the embedding, [H]."""
        weight = self.layers[0].input_norm
        assert weight is not None, "the layer of an EAGLE-3 head has one"
        return weight

    def lm_head(self, features: Tensor) -> Tensor:
        """Features [..., H] to logits [..., D] of the draft vocabulary."""
        rows = features.flatten(0, -2)
        out = rms_norm(rows, self.norm, self.config.rms_norm_eps) @ self.unembedding
        return out.view(*features.shape[:-1], -1)


class LayerWeights(nn.Module):
    """The parameters of one LLaMA decoder layer, under their published names. `reads` is the width of attention's input."""

    def __init__(self, config: HeadConfig, normed: bool, reads: int | None = None) -> None:
        super().__init__()
        width, inner, kv_width = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
        self.config = config
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name, rows in (("q_proj", width), ("k_proj", kv_width), ("v_proj", kv_width)):
            self.self_attn.add_module(name, nn.Linear(reads or width, rows, bias=config.qkv_bias))
        self.self_attn.o_proj = nn.Linear(width, width, bias=False)
        self.mlp.gate_proj = nn.Linear(width, inner, bias=False)
        self.mlp.up_proj = nn.Linear(width, inner, bias=False)
        self.mlp.down_proj = nn.Linear(inner, width, bias=False)
        if normed:
            self.input_layernorm = nn.RMSNorm(width, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(width, config.rms_norm_eps)

    def fused(self, index: int) -> Layer:
        config, normed = self.config, hasattr(self, "input_layernorm")
        return Layer.of(self, index, config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps, normed)


def forward_context(
    config: HeadConfig, positions: Tensor, mask: Tensor | None, cache: StackedKVCache | None, dtype: torch.dtype
) -> ForwardContext:
    """The context of a pass over positions [B, n]."""
    batch, n = positions.shape
    rotary = rotary_table(config, dtype, positions.device)
    rotary.reserve(cache.capacity + n if cache else int(positions.max()) + 1)
    return ForwardContext.of(batch, n, rotary.at(positions.flatten()), mask, cache)


@lru_cache
def rotary_table(config: HeadConfig, dtype: torch.dtype, device: torch.device) -> RotaryTable:
    """The table of rotations, shared by all heads of one shape."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents / config.rope_factor  # in transformers' order, to the last bit
    if config.rope_llama3:
        frequencies = _llama3_frequencies(config)
    return RotaryTable(frequencies.to(device), config.num_attention_heads, config.num_key_value_heads, dtype)


def _llama3_frequencies(config: HeadConfig) -> Tensor:
    """Radians per position [dim / 2], by transformers."""
    assert config.rope_llama3
    rope = {"rope_type": "llama3", "rope_theta": config.rope_theta, **asdict(config.rope_llama3)}
    shape = {"hidden_size": config.hidden_size, "num_attention_heads": config.num_attention_heads}
    frequencies: Tensor = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=rope)).inv_freq
    return frequencies
