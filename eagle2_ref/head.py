"""EAGLE's draft head: embedding and feature in, next feature out; and the strict loading of published checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
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


def load_head(directory: Path | str, embedding: Tensor | None = None, where_target: str = "the target") -> EagleHead:
    """Load a published EAGLE-1/2 checkpoint: `.bin` or safetensors, single or sharded, float32 or lower.

    Strict: a missing, unexpected or misshapen tensor is an error. The published loader passes strict=False, and with
    renamed tensors decodes on at a third of its acceptance length without a word. `embedding` [V, H] is the target's; it
    says what the head must fit, and stands in when the checkpoint brings none.
    """
    directory = Path(directory)
    config = _read_config(directory)
    tensors = _read_tensors(directory)
    if embedding is not None:
        _must_fit(config, tensors, embedding, directory, where_target)
        tensors.setdefault("embed_tokens.weight", embedding)
    head = EagleHead(config)
    _must_match(tensors, {name: tuple(t.shape) for name, t in head.state_dict().items()}, directory)
    dtype = tensors["fc.weight"].dtype
    head.to(dtype).load_state_dict({name: t.to(dtype) for name, t in tensors.items()})
    return head.eval()


def save_head(head: EagleHead, directory: Path | str) -> None:
    """Write the published layout: config.json and model.safetensors, the embedding included."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = str(head.fc.weight.dtype).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps({**head.config.to_json(), "torch_dtype": dtype}, indent=2) + "\n")
    tensors = {name: t.detach().cpu().contiguous() for name, t in head.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _read_config(directory: Path) -> HeadConfig:
    path = directory / "config.json"
    if not path.exists():
        raise BadInput(f"no head at {directory}: {path.name} is missing", "give --draft the directory of an EAGLE-1/2 head")
    raw = _read_json(path)
    if "draft_vocab_size" in raw or "Eagle3" in str(raw.get("architectures")):
        raise BadInput(f"{path} describes an EAGLE-3 head", "this decoder loads EAGLE-1 and EAGLE-2 heads")
    return HeadConfig.from_json(raw, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not JSON: {error}", "the file is damaged; fetch or train the head again") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path} is not a JSON object", "the file is damaged; fetch or train the head again")
    return raw


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint; the first layout that is there wins. Nothing in a file is executed."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (directory / single).exists():
            return _read_file(directory / single)
        index = directory / f"{single}.index.json"
        if index.exists():
            shards = _read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise BadInput(f"{index} has no weight_map", "the file is damaged; fetch or train the head again")
            return {name: t for shard in sorted(set(shards.values())) for name, t in _read_file(directory / shard).items()}
    raise BadInput(
        f"no weights in {directory}",
        "expected model.safetensors or pytorch_model.bin, or one of them in shards with its index file",
    )


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing though the index names it", "fetch the checkpoint again") from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition(". ")[0] or "it is empty"
        raise BadInput(f"{path} cannot be read: {reason}", "the file is damaged; fetch or train it again") from None
    except UnpicklingError as error:  # what weights_only raises on code; torch's own advice, to do without it, is left out
        told = [line for line in str(error).splitlines() if line.startswith(("Trying", "Unsupported"))]
        raise BadInput(
            f"{path} is refused: it holds more than tensors. {' '.join(told)}", "only plain tensors are loaded"
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise BadInput(f"{path} is refused: it is not a dictionary of tensors", "give a checkpoint as `state_dict()` has it")
    return tensors


def _must_fit(config: HeadConfig, tensors: dict[str, Tensor], embedding: Tensor, where: Path, where_target: str) -> None:
    vocab, hidden = embedding.shape
    hint = "give --draft a head trained for this target, or --target the model this head was trained for"
    if "fc.weight" in tensors and tuple(tensors["fc.weight"].shape) != (hidden, 2 * hidden):
        shape = list(tensors["fc.weight"].shape)
        raise BadInput(
            f"head does not fit the target: fc.weight in {where} is {shape}, expected {[hidden, 2 * hidden]}"
            f" (hidden size of {where_target} is {hidden})",
            hint,
        )
    if config.hidden_size != hidden:
        raise BadInput(
            f"head does not fit the target: hidden size {config.hidden_size} in {where}, {hidden} in {where_target}", hint
        )
    if config.vocab_size != vocab:
        raise BadInput(
            f"head does not fit the target: vocabulary {config.vocab_size} in {where}, {vocab} in {where_target}", hint
        )


def _must_match(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], where: Path) -> None:
    problems = [f"missing tensor {name}, expected {list(shape)}" for name, shape in expected.items() if name not in tensors]
    problems += [f"unexpected tensor {name} {list(t.shape)}" for name, t in tensors.items() if name not in expected]
    problems += [
        f"tensor {name} is {list(tensors[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise BadInput(
            f"head in {where} does not match its config.json:\n  " + "\n  ".join(problems),
            'fc.bias is expected unless config.json says "bias": false; layer 0 has no input_layernorm',
        )
