"""The target: a causal LM with the cache of a text; prefill, verify a tree in one pass, commit the accepted path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import is_accelerate_available

from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import Kept
from eagle2_ref.model.hf_model import Hosted
from eagle2_ref.model.llama import Llama
from eagle2_ref.model.network import Network, Rows
from eagle2_ref.tree import Tree

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}

AUTO = "auto"
"""A device's name: all there are. A model that one cannot hold is spread over them, layer by layer."""


class Target:
    """A causal LM and the cache of a text. `length` tokens are in the cache; the root, the newest emitted token, is not yet.

    A shallow copy, once reset, is the same model with a cache for another text.
    """

    def __init__(self, model: Network | PreTrainedModel, name: str = "the target") -> None:
        self.network: Network = Hosted(model, name) if isinstance(model, PreTrainedModel) else model
        self.name = name
        self.reset()

    @classmethod
    def load(cls, directory: Path | str, dtype: str = "float32", device: str = "cpu") -> Target:
        """Load a checkpoint directory; no code that it may contain is run.

        A LLaMA runs lean; any other model, and one that is spread over several devices, in transformers.
        """
        if dtype not in DTYPES:
            raise BadInput(f"dtype {dtype!r} is not known", f"known are {', '.join(DTYPES)}")
        if not (Path(directory) / "config.json").exists():
            raise BadInput(
                f"no target at {directory}: config.json is missing", "give --target the directory of a transformers checkpoint"
            )
        model = load_model(directory, dtype, device)
        return cls(Llama(model) if Llama.fits(model) and not spread(model) else model, str(directory))

    @property
    def vocab_size(self) -> int:
        return self.network.vocab_size

    @property
    def context(self) -> int:
        """How many tokens a text may have."""
        return self.network.context

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def length(self) -> int:
        return self.cache.length

    def reset(self) -> None:
        """Empty the cache."""
        self.cache: Kept = self.network.cache()
        self.passes = 0

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int]) -> Rows:
        """Put a prompt into an empty cache, or more text behind what it holds. Logits [1, V] after its last token, features
        [n, H] of all."""
        text = torch.tensor([list(tokens)], device=self.device)
        positions = torch.arange(self.length, self.length + len(tokens), device=self.device)
        rows = self._forward(text, positions[None], None, last=True)
        self.cache.keep(range(len(tokens)))
        return rows

    @torch.inference_mode()
    def verify(self, tree: Tree) -> Rows:
        """Logits [m + 1, V] and features [m + 1, H] of all nodes, each as if only its own path stood behind the text.

        A node at depth d has the root's position plus d, and sees the text, its ancestors and itself. The cache holds all
        nodes until `commit`.
        """
        positions = self.length + torch.tensor(tree.depths, device=self.device)
        seen = self._seen(tree.ancestors().to(self.device)) if len(tree) > 1 else None
        return self._forward(tree.tokens.to(self.device)[None], positions[None], seen)

    @torch.inference_mode()
    def commit(self, path: Sequence[int]) -> None:
        """Keep the root and the nodes of a path in the cache, in this order, and drop all others."""
        self.cache.keep([0, *path])

    def _forward(self, tokens: Tensor, positions: Tensor, seen: Tensor | None, last: bool = False) -> Rows:
        rows = self.network(tokens, positions, seen, self.cache, last)
        self.passes += 1
        return Rows(rows.logits[0], rows.features[0])

    def _seen(self, ancestors: Tensor) -> Tensor:
        """Boolean [1, m + 1, length + m + 1]: all nodes see the text, and each its ancestors and itself."""
        return torch.cat([ancestors.new_ones(len(ancestors), self.length), ancestors], dim=1)[None]


def load_model(directory: Path | str, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """A checkpoint by transformers alone, but strictly: it gives random weights to tensors that a checkpoint lacks."""
    where = None if device == AUTO else torch_device(device)
    if where is None and not is_accelerate_available():
        raise BadInput("device 'auto' needs accelerate, which is not installed", "pip install 'eagle2-ref[big]'")
    hint = "the checkpoint is damaged or of an unknown kind"
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(directory),
            dtype=DTYPES[dtype],
            device_map=AUTO if where is None else None,
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
    if "disk" in getattr(model, "hf_device_map", {}).values():
        raise BadInput(
            f"the target at {directory} does not fit into this machine's memory", "give a dtype of fewer bytes, or more memory"
        )
    loaded: PreTrainedModel = model if where is None else model.to(where)
    return loaded


def spread(model: PreTrainedModel) -> bool:
    """Whether layers are on several devices; hooks of accelerate then bring to each what it reads."""
    return hasattr(model, "_hf_hook")


def torch_device(name: str) -> torch.device:
    """The one device of a name such as `cpu`, `cuda` or `cuda:1`, if it is there."""
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
