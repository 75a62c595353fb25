"""Published checkpoints of draft heads. Reading is strict and runs no code from the files."""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eagle2_ref.drafters.eagle_head import EagleHead, HeadConfig
from eagle2_ref.errors import BadInput

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
    tensors = read_tensors(directory)
    if embedding is not None:
        _must_fit(config, tensors, embedding, directory, where_target)
        tensors.setdefault("embed_tokens.weight", embedding)
    head = EagleHead(config)
    must_match(tensors, head, directory, HINT)
    dtype = tensors["fc.weight"].dtype
    head.to(dtype).load_state_dict({name: t.to(dtype) for name, t in tensors.items()})
    return head.eval()


def save_head(head: EagleHead, directory: Path | str) -> None:
    """Write a head in the published layout: config.json and model.safetensors, with the embedding."""
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
    raw = read_json(path)
    if "draft_vocab_size" in raw or "Eagle3" in str(raw.get("architectures")):
        raise BadInput(f"{path} describes an EAGLE-3 head", "this decoder loads EAGLE-1 and EAGLE-2 heads")
    return HeadConfig.from_json(raw, path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises BadInput if there is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not JSON: {error}", "the file is damaged; fetch or train the head again") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path} is not a JSON object", "the file is damaged; fetch or train the head again")
    return raw


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint: of the first layout that exists, safetensors before .bin, single files before shards.

    Raises:
        BadInput: there are no weights, or a file is damaged or holds more than tensors.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (directory / single).exists():
            return _read_file(directory / single)
        index = directory / f"{single}.index.json"
        if index.exists():
            shards = read_json(index).get("weight_map")
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
    except UnpicklingError as error:  # raised by weights_only for code; torch's advice to switch it off is left out
        reasons = [line for line in str(error).splitlines() if line.startswith(("Trying", "Unsupported"))]
        raise BadInput(
            f"{path} is refused: it holds more than tensors. {' '.join(reasons)}", "only plain tensors are loaded"
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


def must_match(tensors: dict[str, Tensor], module: nn.Module, where: Path, hint: str) -> None:
    """Raise BadInput unless the tensors have exactly the names and shapes of a module's."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = [f"missing tensor {name}, expected {list(shape)}" for name, shape in expected.items() if name not in tensors]
    problems += [f"unexpected tensor {name} {list(t.shape)}" for name, t in tensors.items() if name not in expected]
    problems += [
        f"tensor {name} is {list(tensors[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise BadInput(f"head in {where} does not match its config.json:\n  " + "\n  ".join(problems), hint)
