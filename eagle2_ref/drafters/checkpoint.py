"""Published checkpoints of draft heads. Reading is strict and runs no code from the files."""

from __future__ import annotations

import json
from os.path import lexists
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eagle2_ref.drafters.eagle_head import EagleHead, HeadConfig
from eagle2_ref.errors import BadInput
from eagle2_ref.model.config import Config, read_config
from eagle2_ref.model.weights import (
    Stored,
    dtype_name,
    listed,
    mismatches,
    read_tensors,
    require_finite,
    require_floats,
    require_layers,
)

HINT = 'fc.bias is expected unless config.json says "bias": false; layer 0 has no input_layernorm'


def load_head(directory: Path | str, embedding: Tensor | None = None, where_target: str = "the target") -> EagleHead:
    """Load a published EAGLE-1/2 checkpoint: .bin or safetensors, single or sharded.

    The published loader passes strict=False: a head with renamed tensors then decodes at a third of its acceptance length,
    without an error. Here a missing, unexpected or misshapen tensor is an error.

    Args:
        directory: folder with config.json and weights.
        embedding: the target's input embedding [V, H]. The head must fit it, and uses it if the checkpoint has none.
        where_target: name of the target in error messages.

    Raises:
        BadInput: the checkpoint is missing or damaged, is an EAGLE-3 head, or does not fit the target.
    """
    directory = Path(directory)
    config = _read_config(directory)
    shape, tensors = HeadConfig.from_json(config.raw, config.path), read_tensors(directory)
    if embedding is not None:
        _must_fit(shape, tensors, embedding, directory, where_target)
        tensors.setdefault("embed_tokens.weight", embedding)
    require_layers(shape.num_hidden_layers, tensors, config)
    with torch.device("meta"):
        head = EagleHead(shape)
    fill(head, tensors, config, HINT, dtype="fc.weight")
    return head.eval()


def save_head(head: EagleHead, directory: Path | str) -> None:
    """Write a head in the published layout: config.json and model.safetensors, with the embedding."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = dtype_name(head.fc.weight)
    (directory / "config.json").write_text(json.dumps({**head.config.to_json(), "torch_dtype": dtype}, indent=2) + "\n")
    tensors = {name: t.detach().cpu().contiguous() for name, t in head.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _read_config(directory: Path) -> Config:
    if not lexists(directory / "config.json"):
        raise BadInput(f"no head at {directory}: config.json is missing", "give --draft the directory of an EAGLE-1/2 head")
    config = read_config(directory)
    if "draft_vocab_size" in config.raw or "Eagle3" in str(config.raw.get("architectures")):
        raise BadInput(f"{config.path} describes an EAGLE-3 head", "this decoder loads EAGLE-1 and EAGLE-2 heads")
    return config


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


def fill(module: nn.Module, tensors: dict[str, Tensor], config: Config, hint: str, dtype: str = "") -> None:
    """Give a module that was built on the meta device its tensors, which must have exactly its names and shapes.

    Args:
        module: the module.
        tensors: all tensors of its checkpoint.
        config: its configuration, for error messages.
        hint: which tensors are expected.
        dtype: name of the tensor whose dtype the module gets; without it the module keeps its own.

    Raises:
        BadInput: a tensor is missing, unexpected, misshapen, quantised, or not finite.
    """
    where = Path(config.path).parent
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [f"missing tensor {name}, expected {list(shape)}" for name, shape in expected.items() if name not in tensors]
    unexpected = [f"unexpected tensor {name} {list(t.shape)}" for name, t in tensors.items() if name not in expected]
    misshapen = mismatches({name: t.shape for name, t in tensors.items()}, expected, config)
    if problems := "".join(map(listed, (missing, unexpected, misshapen))):
        raise BadInput(f"head in {where} does not match its config.json:{problems}", hint)
    require_floats({name: Stored(dtype_name(t), tuple(t.shape)) for name, t in tensors.items()}, where, config)
    require_finite(tensors.items(), where)
    if dtype:
        module.to(tensors[dtype].dtype)
    module.to_empty(device="cpu").load_state_dict(tensors)
