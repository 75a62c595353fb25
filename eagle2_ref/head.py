"""EAGLE's draft head: embedding and feature in, next feature out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eagle2_ref.errors import BadInput


@dataclass(frozen=True)
class HeadConfig:
    """Shape of a head, under the names that published `config.json` files use."""

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

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_json(cls, raw: dict[str, Any], where: Path | str = "config.json") -> HeadConfig:
        """Read a published configuration, with the defaults of the published code: fc.bias unless `"bias": false`,
        as many key-value heads as heads, rope base 10000 (EAGLE, model/configs.py and model/cnets1.py)."""
        needed = ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"]
        missing = [name for name in needed if name not in raw]
        if missing:
            raise BadInput(f"{where} lacks {', '.join(missing)}", "give --draft a directory with an EAGLE-1/2 head")
        try:
            rope = raw.get("rope_parameters") or {}
            config = cls(
                **{name: int(raw[name]) for name in needed},
                num_key_value_heads=int(raw.get("num_key_value_heads") or raw["num_attention_heads"]),
                num_hidden_layers=int(raw.get("num_hidden_layers", 1)),
                rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
                rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
                rope_factor=_rope_factor(raw.get("rope_scaling") or rope, where),
                bias=bool(raw.get("bias", True)),
                qkv_bias=bool(raw.get("qkv_bias", False)),
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise error if isinstance(error, BadInput) else BadInput(f"{where} has a value of the wrong kind: {error}") from None
        config._check(where, raw.get("hidden_act", "silu"))
        return config

    def _check(self, where: Path | str, activation: str) -> None:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if min(heads, kv_heads) < 1 or self.hidden_size % heads or heads % kv_heads:
            raise BadInput(f"{where}: {heads} heads, {kv_heads} key-value heads and hidden size {self.hidden_size} do not divide")
        if activation != "silu":
            raise BadInput(f"{where}: hidden_act {activation!r} is not supported", "only silu is")

    def to_json(self) -> dict[str, Any]:
        """The published layout, with the architecture name by which other engines know it."""
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
            "bias": self.bias,
            "qkv_bias": self.qkv_bias,
        }


def _rope_factor(scaling: dict[str, Any] | None, where: Path | str) -> float:
    if not scaling:
        return 1.0
    kind = scaling.get("type", scaling.get("rope_type", "default"))
    if kind == "default":
        return 1.0
    if kind != "linear":
        raise BadInput(f"{where}: rope_scaling of type {kind!r} is not supported", "only linear scaling is")
    return float(scaling["factor"])


class HeadCache:
    """Keys and values of the head. The first `length` entries are kept; what lies behind is scratch.

    Entries computed from the target's own features are kept; those of a tree's expansion are dropped by setting
    `length` back (vllm issue 14649 tells what keeping them costs). Storage grows by doubling.
    """

    def __init__(self, config: HeadConfig, dtype: torch.dtype, device: torch.device, capacity: int = 256) -> None:
        shape = (config.num_hidden_layers, 2, config.num_key_value_heads, capacity, config.head_dim)
        self._store = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0
        self.starts = torch.zeros((), dtype=torch.long, device=device)

    @classmethod
    def beside(cls, caches: Sequence[HeadCache]) -> HeadCache:
        """What B texts keep, side by side, with a dimension [B] before the heads. All end together: shorter ones begin
        later, at `starts` [B]."""
        joined, longest = copy(caches[0]), max(cache.length for cache in caches)
        room = max(cache._store.shape[-2] for cache in caches) - longest
        starts = [longest - cache.length for cache in caches]
        padded = [F.pad(cache.kept(), (0, 0, start, room)) for cache, start in zip(caches, starts, strict=True)]
        joined._store, joined.length = torch.stack(padded, dim=2), longest
        joined.starts = torch.tensor(starts, device=joined._store.device)
        return joined

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put new entries behind the kept ones, [..., kv_heads, n, head_dim] each, and return the whole."""
        end = self._reserve(keys.shape[-2])
        self._store[layer, 0, ..., self.length : end, :] = keys
        self._store[layer, 1, ..., self.length : end, :] = values
        return self._store[layer, 0, ..., :end, :], self._store[layer, 1, ..., :end, :]

    def take(self, joined: HeadCache, row: int, n: int) -> None:
        """Keep the n newest entries of one text of several side by side."""
        end = self._reserve(n)
        self._store[..., self.length : end, :] = joined.kept()[:, :, row, :, joined.length - n :]
        self.length = end

    def kept(self) -> Tensor:
        """The kept entries, [layers, 2, ..., kv_heads, length, head_dim]."""
        return self._store[..., : self.length, :]

    def holds(self) -> Tensor:
        """Boolean [..., length]: where an entry is one of the text, not what stands before a shorter one."""
        return torch.arange(self.length, device=self.starts.device) >= self.starts[..., None]

    def _reserve(self, n: int) -> int:
        """Make room for n more entries; returns where they end."""
        while self.length + n > self._store.shape[-2]:
            self._store = torch.cat([self._store, torch.zeros_like(self._store)], dim=-2)
        return self.length + n


class EagleHead(nn.Module):
    """fc(cat(embedding of t[i+1], feature f[i])) -> decoder layers -> an estimate of feature f[i+1].

    The target's LM head turns features into logits; the head has none of its own (EAGLE, section 4.1). Layer 0 has no
    input norm, and there is no final norm: f is the target's hidden state *after* its norm.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.fc = nn.Linear(2 * width, width, bias=config.bias)
        self.layers = nn.ModuleList(_Layer(config, index) for index in range(config.num_hidden_layers))

    def forward(
        self, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None = None, cache: HeadCache | None = None
    ) -> Tensor:
        """tokens [..., n], features [..., n, H], positions [n] or [..., n] -> [..., n, H].

        tokens[i] is the token that *follows* features[i]; positions[i] is the position of the feature. `mask` is
        boolean [..., n, kept + n], true where a row may look; without it rows see the cache and their own past.
        """
        x: Tensor = self.fc(torch.cat([self.embed_tokens(tokens).to(features.dtype), features], dim=-1))
        rope = _rope(positions, self.config, x.dtype)
        for layer in self.layers:
            x = layer(x, rope, mask, cache)
        return x


class _Layer(nn.Module):
    """One LLaMA decoder layer."""

    def __init__(self, config: HeadConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.self_attn = _Attention(config)
        self.mlp = _Mlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps) if index > 0 else nn.Identity()
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: HeadCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache, self.index)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class _Attention(nn.Module):
    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.dim = config.head_dim
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(width, width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(width, kv_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(width, kv_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.groups = config.num_attention_heads // config.num_key_value_heads

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: HeadCache | None, layer: int) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (-1, self.dim)).transpose(-3, -2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, rope), _rotate(k, rope)
        if cache is not None:
            k, v = cache.write(layer, k, v)
        if mask is None:
            mask = causal(q.shape[-2], k.shape[-2], x.device)
        k, v = (t.repeat_interleave(self.groups, dim=-3) for t in (k, v))
        mask = mask.unsqueeze(-3)  # for every head the same
        out: Tensor = self.o_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(-3, -2).flatten(-2))
        return out


class _Mlp(nn.Module):
    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class RMSNorm(nn.Module):
    """LLaMA's norm: the mean square is taken in float32 at least."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def causal(rows: int, columns: int, device: torch.device) -> Tensor:
    """Boolean [rows, columns]: the rows are the last ones of a sequence of `columns` entries."""
    return torch.ones(rows, columns, dtype=torch.bool, device=device).tril(columns - rows)


def _rope(positions: Tensor, config: HeadConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [..., 1, n, head_dim] (the 1 stands for the heads)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents / config.rope_factor  # in transformers' order, to the last bit
    angles = positions.float().unsqueeze(-1) * frequencies
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(-3)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


# --- checkpoints ---------------------------------------------------------------------------------------------------
