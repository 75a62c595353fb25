"""The target: any transformers causal LM, with its cache; prefill, verify a tree in one pass, commit the accepted path."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from eagle2_ref.errors import BadInput
from eagle2_ref.tree import DraftTree

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}


@dataclass(frozen=True)
class Rows:
    """What a target pass returns: logits [rows, V], and features [n, H], the inputs of the LM head at the new positions.

    Of a pass over several texts both have a dimension in front, one entry a text.
    """

    logits: Tensor
    features: Tensor


class Target:
    """A causal LM and its cache. `length` tokens are in the cache; the root, the newest emitted token, is not yet.

    A shallow copy, once reset, is the same model with a cache for another text.
    """

    def __init__(self, model: PreTrainedModel, name: str = "the target") -> None:
        self.model, self.name = model.eval(), name
        text = model.config.get_text_config(decoder=True)
        self.vocab_size, self.context = int(text.vocab_size), int(getattr(text, "max_position_embeddings", 1 << 30))
        self._masked_layers = _masked_layers(text, name)
        takes = inspect.signature(model.forward).parameters
        if "position_ids" not in takes:
            raise BadInput(f"{name} takes no positions of its tokens", "only a model that does can be verified against a tree")
        self._keeps_logits = "logits_to_keep" in takes
        model.base_model.register_forward_hook(self._keep_features)
        self._heard: list[Tensor] = []  # the features of the newest pass; copies share it, as they share the model
        self.reset()

    @classmethod
    def load(cls, directory: Path | str, dtype: str = "float32", device: str = "cpu") -> Target:
        """Load a checkpoint directory; no code that it may contain is run."""
        if dtype not in DTYPES:
            raise BadInput(f"dtype {dtype!r} is not known", f"known are {', '.join(DTYPES)}")
        where = torch_device(device)
        if not (Path(directory) / "config.json").exists():
            raise BadInput(
                f"no target at {directory}: config.json is missing", "give --target the directory of a transformers checkpoint"
            )
        return cls(load_model(directory, dtype).to(where), str(directory))

    @property
    def embedding(self) -> Tensor:
        """The input embedding, [V, H]."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def lm_head(self, features: Tensor) -> Tensor:
        """Features [n, H] -> logits [n, V]."""
        out: Tensor = self.model.get_output_embeddings()(features)
        return out

    def reset(self) -> None:
        """Empty the cache."""
        self.cache, self.length, self.passes = DynamicCache(), 0, 0

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int]) -> Rows:
        """Put a prompt into an empty cache. Logits [1, V] after its last token, features [n, H] of all."""
        rows = self._forward(torch.tensor([list(tokens)], device=self.model.device), logits_to_keep=1)
        self.length = len(tokens)
        return rows

    @torch.inference_mode()
    def verify(self, tree: DraftTree) -> Rows:
        """Logits [m + 1, V] and features [m + 1, H] of all nodes, each as if only its own path stood behind the text.

        A node at depth d has the root's position plus d, and sees the text, its ancestors and itself. The cache holds all
        nodes until `commit`.
        """
        device = self.model.device
        positions = self.length + torch.tensor(tree.depths, device=device)
        return self._forward(
            tree.tokens.to(device)[None],
            position_ids=positions[None],
            attention_mask=self._mask(tree.ancestors().to(device), positions),
        )

    @torch.inference_mode()
    def commit(self, path: Sequence[int]) -> None:
        """Keep the root and the nodes of a path in the cache, in this order, and drop all others."""
        kept = torch.tensor([*range(self.length), *(self.length + node for node in (0, *path))], device=self.model.device)
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys.index_select(-2, kept), layer.values.index_select(-2, kept)
        self.length = len(kept)

    def run(self, tokens: Tensor, cache: DynamicCache, **kwargs: Any) -> Rows:
        """One pass over n new tokens [B, n] of B texts, whose caches lie side by side in `cache`."""
        if not self._keeps_logits:
            kwargs.pop("logits_to_keep", None)
        before = cache.get_seq_length()
        self._heard.clear()
        logits = self.model(input_ids=tokens, past_key_values=cache, use_cache=True, **kwargs).logits
        stored = cache.get_seq_length()
        if stored != before + tokens.shape[1] or not all(hasattr(layer, "keys") for layer in cache.layers):
            raise BadInput(
                f"{self.name} keeps a state that cannot be rolled back", "only attention caches can be verified against a tree"
            )
        if not self._heard:
            raise BadInput(f"{self.name} does not show the features its LM head is given", "a head cannot draft for such a model")
        return Rows(logits[:, -1:] if "logits_to_keep" in kwargs else logits, self._heard[0])

    def mask(self, seen: Tensor, distance: Tensor) -> Tensor | dict[str, Tensor]:
        """Additive [B, 1, n, c]: 0 where a new token may look, the lowest number elsewhere. One for each kind of layer.

        seen [B, n, c] says where it may; distance [B, n, c] is how far back that is, for layers that see only so far.
        """
        lowest = torch.finfo(self.model.dtype).min
        masks = {
            kind: torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device).masked_fill_(
                ~(seen if window is None else seen & (distance < window)), lowest
            )[:, None]
            for kind, window in self._masked_layers.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _forward(self, tokens: Tensor, **kwargs: Any) -> Rows:
        rows = self.run(tokens, self.cache, **kwargs)
        self.passes += 1
        return Rows(rows.logits[0], rows.features[0])

    def _mask(self, ancestors: Tensor, positions: Tensor) -> Tensor | dict[str, Tensor]:
        """The mask of a tree's nodes: all see the text, and each its ancestors and itself."""
        text = torch.arange(self.length, device=positions.device)
        seen = torch.cat([ancestors.new_ones(len(ancestors), self.length), ancestors], dim=1)
        distance = positions[:, None] - torch.cat([text, positions])[None]
        return self.mask(seen[None], distance[None])

    def _keep_features(self, _module: object, _args: object, output: Any) -> None:
        self._heard[:] = [output[0] if isinstance(output, tuple) else output.last_hidden_state]


def load_model(directory: Path | str, dtype: str) -> PreTrainedModel:
    """A checkpoint by transformers alone, but strictly: it gives random weights to tensors that a checkpoint lacks."""
    hint = "the checkpoint is damaged or of an unknown kind"
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(directory),
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, safetensors and json each have their own; all mean the same to the user
        raise BadInput(f"the target at {directory} cannot be loaded: {error}", hint) from error
    problems = [
        f"tensor {name} is {list(found)}, expected {list(expected)}" for name, found, expected in sorted(info["mismatched_keys"])
    ] + [f"missing tensor {name}" for name in sorted(info["missing_keys"])]
    if problems:
        more = [f"… and {len(problems) - 8} more"] if len(problems) > 8 else []
        raise BadInput(
            f"the target at {directory} does not match its config.json:\n  " + "\n  ".join([*problems[:8], *more]), hint
        )
    loaded: PreTrainedModel = model
    return loaded


def _masked_layers(config: Any, name: str) -> dict[str, int | None]:
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


def torch_device(name: str) -> torch.device:
    """The device of a name such as `cpu`, `cuda` or `cuda:1`, if it is there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"device {name!r} is not known", "give cpu, cuda, or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "CUDA was asked for, but this torch sees no CUDA device", "use --device cpu, or a torch built for your GPU"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"{name} was asked for, but there are {torch.cuda.device_count()} CUDA devices", "give one of cuda:0 …")
    return device
