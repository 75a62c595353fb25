"""The target: a causal LM that reads a prompt, verifies draft trees, and commits the accepted path to a cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from logging import getLogger
from os.path import lexists
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import is_accelerate_available, logging

from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache, batch_caches
from eagle2_ref.model.config import Config, check_language_model, read_config
from eagle2_ref.model.hf_model import HFModel
from eagle2_ref.model.llama import Llama
from eagle2_ref.model.network import ModelOutput, Network, pad_left
from eagle2_ref.model.weights import (
    FLOATS,
    LAYER,
    Stored,
    layers_of,
    listed,
    mismatches,
    read_shapes,
    require_finite,
    require_floats,
    require_layers,
)
from eagle2_ref.tree import Tree

LOG = getLogger(__name__)

DTYPES = {name: getattr(torch, name) for name in FLOATS}

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
        if not lexists(Path(directory) / "config.json"):
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

    def reading(self, layers: tuple[int, ...]) -> Self:
        """The same target, whose features are the states before these layers; itself without layers."""
        if not layers:
            return self
        target = copy(self)
        target.network = self.network.reading(layers)
        return target

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
    directory = Path(directory)
    config, stored = read_config(directory), read_shapes(directory)
    if not isinstance(config.raw.get("model_type"), str):
        raise BadInput(f"{config.path} has no model_type", "the checkpoint is incomplete, or of another kind")
    check_language_model(config)
    with _loading(config):
        parsed = AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        if (layers := _layers(parsed)) > len(stored):  # building a million layers would take hours
            raise config.wrong("num_hidden_layers", layers, f"the weights have {len(stored)} tensors")
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(parsed, trust_remote_code=False)
    # Some kinds of models derive the number of layers that they build from num_hidden_layers.
    require_layers(layers_of(name for name, _ in skeleton.named_parameters()), stored, config)
    _check_stored(skeleton, stored, config)
    with _loading(config):
        model, info = AutoModelForCausalLM.from_pretrained(
            str(directory),
            dtype=DTYPES[dtype],
            device_map=AUTO if where is None else None,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_loaded(model, info, stored, config)
    if "disk" in getattr(model, "hf_device_map", {}).values():
        raise BadInput(f"{directory} does not fit into this machine's memory", "give a dtype of fewer bytes, or more memory")
    require_finite(model.named_parameters(), directory)
    loaded: PreTrainedModel = model if where is None else model.to(where)
    return loaded


@contextmanager
def _loading(config: Config) -> Iterator[None]:
    """Turn all errors of transformers into BadInput, and keep its log to errors: what it warns of is checked here."""
    directory, level = Path(config.path).parent, logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # transformers, safetensors and json raise errors of their own; to the user they are the same
        if "trust_remote_code" in str(error):
            raise BadInput(
                f"{config.path} names code of its own for a model that transformers does not know", "such code is never run"
            ) from None
        reason = str(error.args[0] if error.args and isinstance(error, KeyError) else error)
        if isinstance(error, KeyError) and (field := _field_of(config.raw, reason)):
            reason = f"{field} is {reason!r}, which transformers does not know"
        lines = [line.strip() for line in reason.splitlines() if not line.startswith("Class validation error")]
        reason = ". ".join(" ".join(lines).split(". ")[:2])[:300]  # the rest is advice, or a list of all models
        raise BadInput(f"{directory} cannot be loaded: {reason}", "the checkpoint is damaged or of an unknown kind") from error
    finally:
        logging.set_verbosity(level)


def _field_of(raw: Mapping[str, Any], value: object) -> str:
    """The name of the field that has a value."""
    for name, found in raw.items():
        if found == value:
            return name
        if isinstance(found, dict) and (inner := _field_of(found, value)):
            return f"{name}.{inner}"
    return ""


def _check_stored(model: PreTrainedModel, stored: Mapping[str, Stored], config: Config) -> None:
    """Compare the files with a model on the meta device, since transformers would allocate what a wrong configuration asks for.

    Raises:
        BadInput: a tensor has another number of elements than its parameter, or is quantised.
    """
    # Checkpoints of base models lack the prefix; names that transformers converts while loading are not compared.
    prefix = f"{model.base_model_prefix}."
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    parameters |= {name.removeprefix(prefix): shape for name, shape in parameters.items()}
    held = {name: tensor for name, tensor in stored.items() if name in parameters}
    sizes = {name: tensor.shape for name, tensor in held.items() if math.prod(tensor.shape) != math.prod(parameters[name])}
    _refuse(config, mismatches(sizes, parameters, _dimensions(model, config)))
    require_floats(held, Path(config.path).parent, config)


def _check_loaded(model: PreTrainedModel, info: Mapping[str, Any], stored: Mapping[str, Stored], config: Config) -> None:
    """Compare what transformers did with the files: it gives random values to missing tensors, and ignores unexpected ones.

    Raises:
        BadInput: a tensor is missing or misshapen, or belongs to a part of the model that the configuration denies.
    """
    wrong = {name: (found, due) for name, found, due in sorted(info["mismatched_keys"])}
    found, due = ({name: shapes[i] for name, shapes in wrong.items()} for i in (0, 1))
    missing = [f"missing tensor {name}" for name in sorted(info["missing_keys"])]
    modules, extra = dict(model.named_modules()), sorted(set(info["unexpected_keys"]) - set(dict(model.named_buffers())))
    denied = [name for name in extra if getattr(modules.get(name.rpartition(".")[0]), "weight", None) is not None]
    unexpected = [f"unexpected tensor {name} {list(stored[name].shape)}" for name in denied if name in stored]
    _refuse(config, mismatches(found, due, _dimensions(model, config)), missing, unexpected)
    unused = [match for name in extra if (match := LAYER.search(name)) and name[: match.start(1) - 1] in modules]
    if unused:
        layers = 1 + max(int(match[1]) for match in unused)
        raise config.wrong("num_hidden_layers", _layers(model.config), f"the weights have {layers} layers")
    if getattr(model.config, "tie_word_embeddings", False) and not spread(model) and not _is_tied(model):
        raise config.wrong("tie_word_embeddings", True, "the weights have another lm_head.weight than the embedding")
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        LOG.warning("%s has %d tensors that its model lacks: %s%s", Path(config.path).parent, len(extra), extra[0], more)


def _refuse(config: Config, *kinds: Sequence[str]) -> None:
    """Raise BadInput if there are problems of some kind."""
    if problems := "".join(map(listed, kinds)):
        raise BadInput(
            f"{Path(config.path).parent} does not match its config.json:{problems}",
            "correct config.json, or fetch the checkpoint again",
        )


def _dimensions(model: PreTrainedModel, config: Config) -> Config:
    """The configuration with the defaults of its kind of model."""
    return Config(model.config.get_text_config(decoder=True).to_dict(), config.path)


def _layers(parsed: PretrainedConfig) -> int:
    layers: int = parsed.get_text_config(decoder=True).num_hidden_layers
    return layers


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether the LM head and the embedding are one tensor."""
    head = model.get_output_embeddings()
    return head is None or head.weight is model.get_input_embeddings().weight


def spread(model: PreTrainedModel) -> bool:
    """Whether layers are on several devices. Hooks of accelerate then move their inputs."""
    return hasattr(model, "_hf_hook")


def torch_device(name: str) -> torch.device:
    """The device of a name such as `cpu`, `cuda` or `cuda:1`. Raises BadInput if it does not exist."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise BadInput(f"device {name!r} is not known", "give cpu, cuda, or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "CUDA was requested, but this torch sees no CUDA device", "use --device cpu, or a torch built for your GPU"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"{name} was requested, but there are {torch.cuda.device_count()} CUDA devices", "give one of cuda:0 …")
    return device
