"""The target: a causal LM that reads a prompt, verifies draft trees, and commits the accepted path to a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import is_accelerate_available

from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache, batch_caches
from eagle2_ref.model.hf_model import HFModel
from eagle2_ref.model.llama import Llama
from eagle2_ref.model.network import ModelOutput, Network, pad_left
from eagle2_ref.tree import Tree

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}

AUTO = "auto"
"""Device name for all devices: a model that is too large for one is spread over them, layer by layer."""


class Target:
    """A causal LM. It has no state: what it knows of a sequence is in the cache that is passed in.

    The cache of a sequence holds all of its tokens but the newest. That token is the root of the next draft tree.
    """

    def __init__(self, model: Network | PreTrainedModel, name: str = "the target") -> None:
        self.network: Network = HFModel(model, name) if isinstance(model, PreTrainedModel) else model
        self.name = name

    @classmethod
    def load(cls, directory: Path | str, dtype: str = "float32", device: str = "cpu") -> Target:
        """Load a checkpoint directory of transformers. Code that it may contain is not run.

        A LLaMA on one device uses our own forward pass (llama.py); any other model uses that of transformers (hf_model.py).

        Raises:
            BadInput: the dtype or device is unknown, or the checkpoint is missing, damaged or too large.
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
        """The most tokens that a sequence can have."""
        return self.network.context

    @property
    def device(self) -> torch.device:
        return self.network.device

    def cache(self) -> KVCache:
        """An empty cache for one sequence."""
        cache: KVCache = self.network.cache()
        return cache

    @torch.inference_mode()
    def prefill(self, caches: Sequence[KVCache], texts: Sequence[Sequence[int]]) -> list[ModelOutput]:
        """Append tokens to each sequence, in one pass.

        Args:
            caches: one for each sequence.
            texts: the n tokens to append to each of them.

        Returns:
            For each sequence the logits after its last token, [1, V], and the features of its new tokens, [n, H].
        """
        if not caches:
            return []
        cache = batch_caches(caches)
        tokens, positions, mask = pad_left([torch.tensor(list(text), device=self.device) for text in texts], cache)
        output = self.network(tokens, positions, mask, cache, True)
        columns = tokens.shape[1]
        for own, text in zip(caches, texts, strict=True):
            own.keep(range(columns - len(text), columns))
        return [ModelOutput(output.logits[row], output.features[row, columns - len(text) :]) for row, text in enumerate(texts)]

    @torch.inference_mode()
    def verify(self, caches: Sequence[KVCache], trees: Sequence[Tree]) -> list[ModelOutput]:
        """Score every node of a draft tree for each sequence, in one pass. The entries of all nodes are scratch until `commit`.

        Returns:
            For each sequence logits [m + 1, V] and features [m + 1, H]: those of node i are as if only its path followed the
            sequence.
        """
        if not caches:
            return []
        cache = batch_caches(caches)
        tokens = pad([tree.tokens for tree in trees]).to(self.device)
        output = self.network(tokens, self.positions(cache, trees), self.mask(cache, trees), cache)
        if len(trees) == 1:
            return [ModelOutput(output.logits[0], output.features[0])]
        return [ModelOutput(output.logits[row, : len(tree)], output.features[row, : len(tree)]) for row, tree in enumerate(trees)]

    def positions(self, cache: KVCache, trees: Sequence[Tree]) -> Tensor:
        """Positions of the nodes, [B, m + 1]: that of the root plus the depth of the node."""
        depths = pad([torch.tensor(tree.depths) for tree in trees]).to(self.device)
        return depths + (cache.lengths[:, None] if len(trees) > 1 else cache.length)

    def mask(self, cache: KVCache, trees: Sequence[Tree]) -> Tensor | None:
        """Attention mask, boolean [B, m + 1, length + m + 1]: a node sees the sequence, its ancestors and itself.

        None where there is one sequence whose tree is the root alone: it sees everything.
        """
        if len(trees) == 1 and len(trees[0]) == 1:
            return None
        nodes = max(map(len, trees))
        if len(trees) == 1:
            tree_mask = trees[0].ancestors()[None]
        else:
            tree_mask = torch.eye(nodes, dtype=torch.bool).repeat(len(trees), 1, 1)  # padding sees itself
            for row, tree in enumerate(trees):
                tree_mask[row, : len(tree), : len(tree)] = tree.ancestors()
        text_mask = cache.valid_mask()[:, None].expand(-1, nodes, -1)
        return torch.cat([text_mask, tree_mask.to(self.device)], dim=-1)

    @torch.inference_mode()
    def commit(self, cache: KVCache, path: Sequence[int]) -> None:
        """Append the root and the nodes of a path to the sequence, and drop the entries of all other nodes."""
        cache.keep([0, *path])


def pad(rows: Sequence[Tensor]) -> Tensor:
    """Stack rows [n] of several lengths to [B, longest], padded with 0 on the right."""
    return rows[0][None] if len(rows) == 1 else pad_sequence(list(rows), batch_first=True)


def load_model(directory: Path | str, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """Load a checkpoint with transformers, but strictly: it would give random weights to tensors that are missing.

    Raises:
        BadInput: the device is unknown, or the checkpoint is missing, damaged or too large.
    """
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
    except Exception as error:  # transformers, safetensors and json raise errors of their own; to the user they are the same
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
    """Whether layers are on several devices. Hooks of accelerate then move their inputs."""
    return hasattr(model, "_hf_hook")


def torch_device(name: str) -> torch.device:
    """The device of a name such as `cpu`, `cuda` or `cuda:1`. Raises BadInput if it does not exist."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"device {name!r} is not known", "give cpu, cuda, or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "CUDA was requested, but this torch sees no CUDA device", "use --device cpu, or a torch built for your GPU"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"{name} was requested, but there are {torch.cuda.device_count()} CUDA devices", "give one of cuda:0 …")
    return device
