"""Any causal LM of transformers as a network: what llama.py does not know goes this way, and is slower."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.errors import BadInput
from eagle2_ref.network import Rows


class Hosted:
    """A model of transformers. Each kind of its attention layers is handed a mask of its own."""

    def __init__(self, model: PreTrainedModel, name: str = "the target") -> None:
        self.model, self.name = model.eval(), name
        text = model.config.get_text_config(decoder=True)
        self.vocab_size, self.context = int(text.vocab_size), int(getattr(text, "max_position_embeddings", 1 << 30))
        self.dtype, self.device = model.dtype, model.device
        self.embedding: Tensor = model.get_input_embeddings().weight
        self._windows = _windows(text, name)
        takes = inspect.signature(model.forward).parameters
        if "position_ids" not in takes:
            raise BadInput(f"{name} takes no positions of its tokens", "only a model that does can be verified against a tree")
        self._keeps_logits = "logits_to_keep" in takes
        model.base_model.register_forward_hook(self._keep_features)
        self._heard: list[Tensor] = []  # the features of the newest pass

    def cache(self) -> HostedCache:
        return HostedCache()

    def beside(self, caches: Sequence[HostedCache]) -> HostedCache:
        return HostedCache.beside(caches, self.device)

    def lm_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.model.get_output_embeddings()(features)
        return out

    def __call__(self, tokens: Tensor, positions: Tensor, seen: Tensor | None, cache: HostedCache, last: bool = False) -> Rows:
        cache.drop()
        asked: dict[str, Any] = {"logits_to_keep": 1} if last and self._keeps_logits else {}
        if seen is not None:
            asked["attention_mask"] = self._masks(seen, positions, cache)
        self._heard.clear()
        entries = cache.entries
        logits = self.model(input_ids=tokens, position_ids=positions, past_key_values=entries, use_cache=True, **asked).logits
        stored = entries.get_seq_length()
        if stored != cache.length + tokens.shape[1] or not all(hasattr(layer, "keys") for layer in entries.layers):
            raise BadInput(
                f"{self.name} keeps a state that cannot be rolled back", "only attention caches can be verified against a tree"
            )
        if not self._heard:
            raise BadInput(f"{self.name} does not show the features its LM head is given", "a head cannot draft for such a model")
        cache.end = stored
        return Rows(logits[:, -1:] if last else logits, self._heard[0])

    def _masks(self, seen: Tensor, positions: Tensor, cache: HostedCache) -> Tensor | dict[str, Tensor]:
        """Additive [texts, 1, n, columns]: 0 where a new token may look, the lowest number elsewhere; one for each kind of
        layer, some of which see only so far back."""
        text = torch.arange(cache.length, device=seen.device) - cache.starts.to(seen.device)[:, None]
        distance = positions[..., None] - torch.cat([text.expand(len(positions), -1), positions], dim=1)[:, None]
        lowest = torch.finfo(self.dtype).min
        masks = {
            kind: torch.zeros(seen.shape, dtype=self.dtype, device=seen.device).masked_fill_(
                ~(seen if window is None else seen & (distance < window)), lowest
            )[:, None]
            for kind, window in self._windows.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _keep_features(self, _module: object, _args: object, output: Any) -> None:
        self._heard[:] = [output[0] if isinstance(output, tuple) else output.last_hidden_state]


class HostedCache:
    """transformers' own cache, of layers of any shapes; what lies behind `length` is the newest pass's."""

    def __init__(self) -> None:
        self.entries = DynamicCache()
        self.length = self.end = 0
        self.starts = torch.zeros(1, dtype=torch.long)

    @classmethod
    def beside(cls, caches: Sequence[HostedCache], device: torch.device) -> HostedCache:
        joined, longest = cls(), max(cache.length for cache in caches)
        starts = [longest - cache.length for cache in caches]
        for index, layers in enumerate(zip(*(cache.kept() for cache in caches), strict=True)):
            padded = [F.pad(kept, (0, 0, start, 0)) for kept, start in zip(layers, starts, strict=True)]
            joined.entries.update(*torch.cat(padded, dim=1), index)
        joined.length = joined.end = longest
        joined.starts = torch.tensor(starts, device=device)
        return joined

    def keep(self, entries: Sequence[int]) -> None:
        kept = torch.tensor([*range(self.length), *(self.length + entry for entry in entries)])
        for layer in self.entries.layers:
            chosen = kept.to(layer.keys.device)
            layer.keys, layer.values = layer.keys.index_select(-2, chosen), layer.values.index_select(-2, chosen)
        self.length = self.end = len(kept)

    def take(self, joined: HostedCache, row: int, first: int, n: int) -> None:
        new, before = slice(joined.length + first, joined.length + first + n), self.entries
        self.entries = DynamicCache()
        for index, layer in enumerate(joined.entries.layers):
            keys, values = layer.keys[row : row + 1, :, new], layer.values[row : row + 1, :, new]
            if self.length:
                old = before.layers[index]
                keys, values = (
                    torch.cat([kept[..., : self.length, :], added], dim=-2)
                    for kept, added in ((old.keys, keys), (old.values, values))
                )
            self.entries.update(keys, values, index)
        self.end = self.length + n

    def drop(self) -> None:
        """Forget what lies behind the kept entries."""
        if self.end > self.length:
            self.keep([])

    def kept(self) -> list[Tensor]:
        return [
            torch.stack([layer.keys[..., : self.length, :], layer.values[..., : self.length, :]]) for layer in self.entries.layers
        ]


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
