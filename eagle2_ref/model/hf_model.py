"""Any causal LM of transformers as the target. It runs every model that llama.py does not implement, and is slower."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import CacheStorage, KVCache
from eagle2_ref.model.network import ModelOutput


class HFModel:
    """A model of transformers. Its layers may be on several devices; inputs and outputs are on that of the LM head.

    Args:
        model: the model, which is set to evaluation mode.
        name: its name in error messages.

    Raises:
        BadInput: the model cannot verify a draft tree: it ignores positions, or has layers that ignore the mask.
    """

    def __init__(self, model: PreTrainedModel, name: str = "the target") -> None:
        self.model, self.name = model.eval(), name
        text = model.config.get_text_config(decoder=True)
        self.vocab_size, self.context = int(text.vocab_size), int(getattr(text, "max_position_embeddings", 1 << 30))
        self.n_layers = int(text.num_hidden_layers)
        self.reads: tuple[int, ...] = ()  # layers before which the state is a feature
        self.dtype, self.device = model.dtype, _device_of(model.get_output_embeddings())
        self._windows = _windows(text, name)
        takes = inspect.signature(model.forward).parameters
        if "position_ids" not in takes:
            raise BadInput(f"{name} takes no positions of its tokens", "only a model that does can be verified against a tree")
        self._limits_logits = "logits_to_keep" in takes
        # Features are the output of the base model: the input of the LM head, after the final norm.
        model.base_model.register_forward_hook(self._store_features)
        self._features: list[Tensor] = []  # of the latest pass

    @property
    def embedding(self) -> Tensor:
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.to(self.device)

    def cache(self) -> HFCache:
        """An empty cache for one sequence."""
        return HFCache(CacheStorage(), self.device)

    def lm_head(self, features: Tensor) -> Tensor:
        out: Tensor = self.model.get_output_embeddings()(features)
        return out

    def lm_head_of(self, tokens: Tensor) -> Callable[[Tensor], Tensor]:
        head = self.model.get_output_embeddings()
        weight, bias = (
            None if t is None else t.detach()[tokens.to(t.device)] for t in (head.weight, getattr(head, "bias", None))
        )
        return lambda features: F.linear(features, weight, bias)

    def reading(self, layers: tuple[int, ...]) -> Self:
        network = copy(self)
        network.reads, network._layers = layers, _layers_of(self.model, self.n_layers, self.name)
        return network

    def __call__(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: HFCache, last_only: bool = False
    ) -> ModelOutput:
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._limits_logits else {}
        if mask is not None:
            options["attention_mask"] = self._masks(mask, positions, cache)
        self._features.clear()
        cache.begin_pass(tokens.shape[1])
        entries = InPlaceCache(cache)
        with self._states() as states:
            output = self.model(input_ids=tokens, position_ids=positions, past_key_values=entries, use_cache=True, **options)
        logits = output.logits
        if not entries.used:
            raise BadInput(
                f"{self.name} keeps a state that cannot be rolled back", "only attention caches can be verified against a tree"
            )
        if not self._features:
            raise BadInput(f"{self.name} does not show the features its LM head is given", "a head cannot draft for such a model")
        parts = [states[layer].to(self.device) for layer in self.reads]
        features = torch.cat(parts, dim=-1) if parts else self._features[0].to(self.device)
        return ModelOutput(logits[:, -1:] if last_only else logits, features)

    def _masks(self, mask: Tensor, positions: Tensor, cache: HFCache) -> Tensor | dict[str, Tensor]:
        """Additive masks [B, 1, n, length + n], one for each kind of layer: some layers see a window of positions only."""
        text = torch.arange(cache.length, device=mask.device).expand(len(positions), -1)
        distance = positions[..., None] - torch.cat([text, positions], dim=1)[:, None]
        lowest = torch.finfo(self.dtype).min
        masks = {
            kind: torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(
                ~(mask if window is None else mask & (distance < window)), lowest
            )[:, None]
            for kind, window in self._windows.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))

    @contextmanager
    def _states(self) -> Iterator[dict[int, Tensor]]:
        """Collect the states that are read, during a pass: outputs of layers, and the input of layer 0."""
        states = dict[int, Tensor]()

        def store(index: int, _module: object, args: tuple[Tensor, ...], output: Any) -> None:
            found = output if index else args
            states[index] = found[0] if isinstance(found, tuple) else found

        with ExitStack() as hooks:
            for index in self.reads:
                hook = self._layers[max(0, index - 1)].register_forward_hook(partial(store, index))
                hooks.callback(hook.remove)
            yield states

    def _store_features(self, _module: object, _args: object, output: Any) -> None:
        self._features[:] = [output[0] if isinstance(output, tuple) else output.last_hidden_state]


class HFCache(KVCache):
    """Keys and values of layers of any shapes: two tensors for each layer, which are created at its first write."""

    def write(self, name: int, new: Tensor) -> Tensor:
        """Write the keys, or the values, of a pass.

        Args:
            name: 2 * layer for keys, 2 * layer + 1 for values.
            new: [B, kv_heads, n, dim].

        Returns:
            All keys, or all values, of the layer, [B, kv_heads, length + n, dim].
        """
        storage = self.storage
        if name not in storage.tensors:
            storage.tensors[name] = new.new_zeros(storage.rows, new.shape[1], storage.capacity, new.shape[3])
        rows = storage.tensors[name].narrow(0, self.row, len(new))
        rows.narrow(-2, self.pass_start, new.shape[2]).copy_(new)
        return rows.narrow(-2, 0, self.pass_end)

    def entries(self) -> list[Tensor]:
        """The entries of each layer, [2, B, kv_heads, length, dim]."""
        rows = [rows.narrow(-2, 0, self.length) for rows in self.rows()]
        return [torch.stack(layer) for layer in zip(rows[::2], rows[1::2], strict=True)]


class InPlaceCache(DynamicCache):  # type: ignore[misc]
    """Lets transformers write into our cache for one pass, in place of its own, which would copy all entries."""

    def __init__(self, cache: HFCache) -> None:
        super().__init__()
        self._cache, self.used = cache, False

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        self.used = True
        return self._cache.write(2 * layer_idx, keys), self._cache.write(2 * layer_idx + 1, values)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return self._cache.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:  # noqa: ARG002
        return self._cache.length + query_length, 0


def _layers_of(model: PreTrainedModel, n: int, name: str) -> Any:
    """The decoder layers of a model."""
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n:
            return module
    raise BadInput(f"{name} does not show its {n} layers", "an EAGLE-3 head cannot draft for such a model")


def _device_of(module: torch.nn.Module) -> torch.device:
    """The device on which a module computes: that of its weights, or the one to which accelerate's hook moves them."""
    hook = getattr(module, "_hf_hook", None)
    return torch.device(hook.execution_device) if hook else next(module.parameters()).device


def _windows(config: Any, name: str) -> dict[str, int | None]:
    """The kinds of attention layers of a model, each with its window; None for full attention."""
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
