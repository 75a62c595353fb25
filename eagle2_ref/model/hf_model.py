"""Any causal LM of transformers as a network: what llama.py does not know goes this way, and is slower."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import CacheStorage, KVCache
from eagle2_ref.model.network import ModelOutput


class HFModel:
    """A model of transformers. Each kind of its attention layers is handed a mask of its own.

    Its layers may be on several devices. Tokens are given, and logits and features told, on that of the LM head.
    """

    def __init__(self, model: PreTrainedModel, name: str = "the target") -> None:
        self.model, self.name = model.eval(), name
        text = model.config.get_text_config(decoder=True)
        self.vocab_size, self.context = int(text.vocab_size), int(getattr(text, "max_position_embeddings", 1 << 30))
        self.dtype, self.device = model.dtype, _device_of(model.get_output_embeddings())
        self._windows = _windows(text, name)
        takes = inspect.signature(model.forward).parameters
        if "position_ids" not in takes:
            raise BadInput(f"{name} takes no positions of its tokens", "only a model that does can be verified against a tree")
        self._keeps_logits = "logits_to_keep" in takes
        model.base_model.register_forward_hook(self._keep_features)
        self._features: list[Tensor] = []  # the features of the newest pass

    @property
    def embedding(self) -> Tensor:
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.to(self.device)

    def cache(self) -> HFCache:
        return HFCache(CacheStorage(), self.device)

    def lm_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.model.get_output_embeddings()(features)
        return out

    def __call__(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: HFCache, last_only: bool = False
    ) -> ModelOutput:
        asked: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._keeps_logits else {}
        if mask is not None:
            asked["attention_mask"] = self._masks(mask, positions, cache)
        self._features.clear()
        entries = cache.begin_cache(tokens.shape[1])
        logits = self.model(input_ids=tokens, position_ids=positions, past_key_values=entries, use_cache=True, **asked).logits
        if not entries.written:
            raise BadInput(
                f"{self.name} keeps a state that cannot be rolled back", "only attention caches can be verified against a tree"
            )
        if not self._features:
            raise BadInput(f"{self.name} does not show the features its LM head is given", "a head cannot draft for such a model")
        return ModelOutput(logits[:, -1:] if last_only else logits, self._features[0].to(self.device))

    def _masks(self, seen: Tensor, positions: Tensor, cache: HFCache) -> Tensor | dict[str, Tensor]:
        """Additive [texts, 1, n, columns]: 0 where a new token may look, the lowest number elsewhere; one for each kind of
        layer, some of which see only so far back."""
        text = torch.arange(cache.length, device=seen.device).expand(len(positions), -1)
        distance = positions[..., None] - torch.cat([text, positions], dim=1)[:, None]
        lowest = torch.finfo(self.dtype).min
        masks = {
            kind: torch.zeros(seen.shape, dtype=self.dtype, device=seen.device).masked_fill_(
                ~(seen if window is None else seen & (distance < window)), lowest
            )[:, None]
            for kind, window in self._windows.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _keep_features(self, _module: object, _args: object, output: Any) -> None:
        self._features[:] = [output[0] if isinstance(output, tuple) else output.last_hidden_state]


class HFCache(KVCache):
    """Keys and values of layers of any shapes: each has two tensors, made when it writes for the first time."""

    def begin_cache(self, n: int) -> InPlaceCache:
        """A pass begins that will write n entries a text; returns what transformers takes for its cache."""
        self.begin_pass(n)
        return InPlaceCache(self)

    def write(self, name: int, new: Tensor) -> Tensor:
        """Put new keys, or new values, [texts, kv_heads, n, dim] behind the kept ones; returns all of that name."""
        storage = self.storage
        if name not in storage.tensors:
            storage.tensors[name] = new.new_zeros(storage.rows, new.shape[1], storage.capacity, new.shape[3])
        rows = storage.tensors[name].narrow(0, self.row, len(new))
        rows.narrow(-2, self.pass_start, new.shape[2]).copy_(new)
        return rows.narrow(-2, 0, self.pass_end)

    def entries(self) -> list[Tensor]:
        """The kept entries of each layer, [2, texts, kv_heads, length, dim]."""
        rows = [rows.narrow(-2, 0, self.length) for rows in self.rows()]
        return [torch.stack(layer) for layer in zip(rows[::2], rows[1::2], strict=True)]


class InPlaceCache(DynamicCache):  # type: ignore[misc]
    """A cache of transformers' kind that is one of ours, for one pass: what transformers would copy stays where it is."""

    def __init__(self, cache: HFCache) -> None:
        super().__init__()
        self._cache, self.written = cache, False

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        self.written = True
        return self._cache.write(2 * layer_idx, keys), self._cache.write(2 * layer_idx + 1, values)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return self._cache.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:  # noqa: ARG002
        return self._cache.length + query_length, 0


def _device_of(module: torch.nn.Module) -> torch.device:
    """Where a module computes: where its weights are, or where a hook of accelerate brings them for each call."""
    hook = getattr(module, "_hf_hook", None)
    return torch.device(hook.execution_device) if hook else next(module.parameters()).device


def _windows(config: Any, name: str) -> dict[str, int | None]:
    """The kinds of attention layers that a model has, with the window of each (None: no limit)."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    kinds |= {"local"} & set(getattr(config, "attention_layers", None) or [])  # GPT-Neo's windows count entries, not positions
    kinds |= {"alibi"} if getattr(config, "alibi", False) else set()
    if strange := kinds - {"sliding_attention", "full_attention"}:
        raise BadInput(
            f"{name} has layers of type {', '.join(sorted(strange))}",
            "only full and sliding attention can be verified against a tree",
        )
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
