"""The forward pass of a LLaMA, without anything that decoding does not need. The target and the draft heads use it.

Logits equal those of transformers up to rounding. It is faster because matrices with the same input are one matrix, and because
keys and values are written in place.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRotaryEmbedding

from eagle2_ref.model.cache import StackedKVCache
from eagle2_ref.model.network import ModelOutput, causal


class RotaryTable:
    """Tables of the rotary embedding: cosines and sines for each position.

    One operation rotates the queries, keys and values of a token together: values are rotated by an angle of 0. The tables grow
    with the positions that are needed; old ones are not freed, since a CUDA graph may read them.
    """

    def __init__(self, frequencies: Tensor, heads: int, kv_heads: int, dtype: torch.dtype, scale: float = 1.0) -> None:
        """Args:
        frequencies: radians per position, [dim / 2], float32.
        heads, kv_heads: number of query heads, and of key-value heads.
        dtype: of the tables.
        scale: factor of cosines and sines.
        """
        self._frequencies, self._rotated, self._values = frequencies, heads + kv_heads, kv_heads
        self._dtype, self._scale = dtype, scale
        self._tables, self._outgrown = self._create(0), list[tuple[Tensor, Tensor]]()

    def reserve(self, n: int) -> None:
        """Grow the tables to at least n positions."""
        if n > len(self._tables[0]):
            self._outgrown.append(self._tables)
            self._tables = self._create(max(n, 2 * len(self._tables[0]), 256))

    def at(self, positions: Tensor) -> Rotary:
        """The rotation of positions [rows], all of which are in the tables."""
        cos, sin = self._tables
        return Rotary(cos.index_select(0, positions), sin.index_select(0, positions))

    def _create(self, n: int) -> tuple[Tensor, Tensor]:
        angles = torch.arange(n, device=self._frequencies.device).float()[:, None] * self._frequencies
        cos, sin = ((x * self._scale).to(self._dtype)[:, None] for x in (angles.cos(), angles.sin()))
        unrotated = cos.new_ones(n, self._values, 2 * len(self._frequencies))
        return (
            torch.cat([torch.cat([cos, cos], dim=-1).expand(-1, self._rotated, -1), unrotated], dim=1),
            torch.cat([torch.cat([-sin, sin], dim=-1).expand(-1, self._rotated, -1), torch.zeros_like(unrotated)], dim=1),
        )


@dataclass(frozen=True)
class Rotary:
    """The rotation of the tokens of a pass: cosines and sines, [rows, heads + 2 kv_heads, dim]."""

    cos: Tensor
    sin: Tensor

    def __call__(self, qkv: Tensor) -> Tensor:
        """Rotate queries, keys and values [rows, heads + 2 kv_heads, dim]. Sines of the first half of a head are negative."""
        return torch.addcmul(qkv * self.cos, qkv.roll(qkv.shape[-1] // 2, -1), self.sin)


@dataclass(frozen=True)
class ForwardContext:
    """What all layers of a pass share: number of sequences B, rotation, mask [B or 1, 1, n, length + n] and cache."""

    batch: int
    rotary: Rotary
    mask: Tensor | None
    cache: StackedKVCache | None

    @classmethod
    def of(cls, batch: int, n: int, rotary: Rotary, mask: Tensor | None, cache: StackedKVCache | None) -> ForwardContext:
        """The context of a pass over n tokens of each sequence.

        The mask [B or 1, n, length + n] is boolean or additive. Without it each token sees its sequence, and the new tokens up
        to itself.
        """
        length = cache.length if cache else 0
        if mask is None and n > 1 and length:
            mask = additive(causal(n, length + n, rotary.cos.device), rotary.cos.dtype)
        if cache:
            cache.begin_pass(n)
        return cls(batch, rotary, None if mask is None else mask.view(-1, 1, n, mask.shape[-1]), cache)


@dataclass
class Layer:
    """The weights of one decoder layer. Matrices are transposed, and those with the same input are concatenated.

    Attributes:
        index: index of the layer in the cache.
        heads, kv_heads: number of query heads, and of key-value heads.
        eps: epsilon of the norms.
        qkv: queries, keys and values, [width, (heads + 2 kv_heads) dim].
        qkv_bias: their bias, or None.
        out: output projection of attention, [heads dim, width].
        gate_up: the two input projections of the MLP, [width, 2 inner].
        down: its output projection, [inner, width].
        input_norm: weight of the norm before attention, [width]; None in layer 0 of an EAGLE head.
        norm: weight of the norm before the MLP, [width].
    """

    index: int
    heads: int
    kv_heads: int
    eps: float
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    gate_up: Tensor
    down: Tensor
    input_norm: Tensor | None
    norm: Tensor

    @classmethod
    def of(cls, module: Any, index: int, heads: int, kv_heads: int, eps: float, normed: bool = True) -> Layer:
        """From a module with the names of transformers' LlamaDecoderLayer. Gradients flow to its parameters, if enabled."""
        attention, mlp = module.self_attn, module.mlp
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        return cls(
            index,
            heads,
            kv_heads,
            eps,
            qkv=transposed(torch.cat([projection.weight for projection in projections])),
            qkv_bias=None if projections[0].bias is None else torch.cat([projection.bias for projection in projections]),
            out=transposed(attention.o_proj.weight),
            gate_up=transposed(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])),
            down=transposed(mlp.down_proj.weight),
            input_norm=module.input_layernorm.weight if normed else None,
            norm=module.post_attention_layernorm.weight,
        )

    def __call__(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """Apply the layer to x [B n, width], the tokens of all sequences one after another."""
        x = self.attend(x if self.input_norm is None else rms_norm(x, self.input_norm, self.eps), x, ctx)
        return self.mlp(rms_norm(x, self.norm, self.eps), x)

    def attend(self, x: Tensor, residual: Tensor, ctx: ForwardContext) -> Tensor:
        """residual + attention(x)."""
        rows, batch, heads, kv_heads = len(x), ctx.batch, self.heads, self.kv_heads
        projected = x @ self.qkv if self.qkv_bias is None else torch.addmm(self.qkv_bias, x, self.qkv)
        q, new = ctx.rotary(projected.view(rows, heads + 2 * kv_heads, -1)).split_with_sizes((heads, 2 * kv_heads), dim=1)
        q = q.view(batch, rows // batch, heads, -1).transpose(1, 2)
        new = new.view(batch, rows // batch, 2, kv_heads, -1).permute(2, 0, 3, 1, 4)
        keys, values = new.unbind() if ctx.cache is None else ctx.cache.write(self.index, new)
        is_causal = ctx.mask is None and q.shape[-2] == keys.shape[-2] > 1
        grouped = heads != kv_heads
        if grouped and q.shape[-2] == 1 and q.dtype == torch.bfloat16 and not q.is_cuda:
            # The heads that share keys are rows of one head: the same result to the last bit, by a faster kernel.
            q, grouped = q.view(batch, kv_heads, heads // kv_heads, -1), False
        seen = F.scaled_dot_product_attention(q, keys, values, ctx.mask, is_causal=is_causal, enable_gqa=grouped)
        seen = seen.reshape(batch, heads, rows // batch, -1)
        return torch.addmm(residual, seen.transpose(1, 2).reshape(rows, -1), self.out)

    def mlp(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + MLP(x)."""
        gate, up = (x @ self.gate_up).chunk(2, dim=-1)
        return torch.addmm(residual, F.silu(gate) * up, self.down)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm of x [rows, width]. The mean square is computed in float32 for every dtype, as in transformers.

    On CUDA, kernel launches dominate latency; torch's kernel replaces eight. In float32 on a CPU the mean is a product of
    matrices, which is a third faster. Otherwise operations are in the order of transformers.
    """
    if x.is_cuda and x.dtype != torch.float64:
        return F.rms_norm(x, weight.shape, weight, eps)
    if x.dtype == torch.float32:
        return x * torch.addmm(_epsilon(eps, x.device), x * x, _mean(x.shape[-1], x.device)).rsqrt() * weight
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


@lru_cache
def _mean(width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((width, 1), 1 / width, device=device)


@lru_cache
def _epsilon(eps: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((1, 1), eps, device=device)


class Llama:
    """A LLaMA with the weights of a transformers model. The model is emptied, so that no weight is in memory twice."""

    def __init__(self, model: PreTrainedModel) -> None:
        config, body = model.config, model.model
        self.vocab_size, self.context = config.vocab_size, config.max_position_embeddings
        self.heads, self.kv_heads, self.eps = config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps
        self.dtype, self.device, self.embedding = model.dtype, model.device, model.get_input_embeddings().weight.detach()
        rope = LlamaRotaryEmbedding(config)
        frequencies = rope.inv_freq.to(self.device)
        self.rotary = RotaryTable(frequencies, self.heads, self.kv_heads, self.dtype, rope.attention_scaling)
        self.layers, self.n_layers = list[Layer](), len(body.layers)
        self.reads: tuple[int, ...] = ()  # layers before which the state is a feature
        with torch.no_grad():
            for index in range(self.n_layers):
                self.layers.append(Layer.of(body.layers[index], index, self.heads, self.kv_heads, self.eps))
                body.layers[index] = torch.nn.Identity()
            self.norm, self.unembedding = body.norm.weight, transposed(model.lm_head.weight)
        self.dim = self.layers[0].out.shape[0] // self.heads

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether this forward pass implements everything that a model has."""
        config = model.config
        return isinstance(model, LlamaForCausalLM) and (
            not config.attention_bias
            and not config.mlp_bias
            and config.hidden_act == "silu"
            and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")
        )

    def cache(self) -> StackedKVCache:
        return StackedKVCache(len(self.layers), self.kv_heads, self.dim, self.dtype, self.device)

    def lm_head(self, features: Tensor) -> Tensor:
        out: Tensor = features @ self.unembedding
        return out

    def lm_head_of(self, tokens: Tensor) -> Callable[[Tensor], Tensor]:
        columns = transposed(self.unembedding.t().index_select(0, tokens.to(self.device)))
        return lambda features: features @ columns

    def reading(self, layers: tuple[int, ...]) -> Self:
        network = copy(self)
        network.reads = layers
        return network

    def __call__(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: StackedKVCache, last_only: bool = False
    ) -> ModelOutput:
        batch, n = tokens.shape
        self.rotary.reserve(cache.capacity + n)
        rotary = self.rotary.at(positions.flatten())
        if mask is not None and mask.dtype == torch.bool:
            mask = additive(mask, self.dtype)
        ctx = ForwardContext.of(batch, n, rotary, mask, cache)
        x = F.embedding(tokens.flatten(), self.embedding)
        states = dict[int, Tensor]()
        for index, layer in enumerate(self.layers):
            if index in self.reads:
                states[index] = x
            x = layer(x, ctx)
        states[self.n_layers] = x
        normed = rms_norm(x, self.norm, self.eps).view(batch, n, -1)
        logits = self.lm_head(normed[:, -1:] if last_only else normed)
        features = torch.cat([states[layer] for layer in self.reads], dim=-1).view(batch, n, -1) if self.reads else normed
        return ModelOutput(logits, features)


def transposed(weight: Tensor) -> Tensor:
    """A weight [out, in] as a matrix [in, out].

    In bfloat16 on a CPU a view is multiplied faster than a copy, most of all a large LM head, with the same result to the last
    bit, and a tied embedding is in memory once. In float32 few rows are faster with the copy.
    """
    view = weight.t()
    return view if weight.dtype == torch.bfloat16 and not weight.is_cuda else view.contiguous()


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as an additive one: 0 where true, -inf where false. Attention would convert it in every layer."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
