"""Load the published package `eagle` with current checkpoints: write the layout it reads, and patch it for transformers 5."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from .common import read_config


class EndToken:
    """The only part of a tokenizer that EaModel uses while it decodes."""

    eos_token_id: int | None = None


def package(path: str) -> Any:
    """The module eagle.model.ea_model of the package in `path`, or of the installed one."""
    import transformers.utils as utils

    if not hasattr(utils, "LossKwargs") and hasattr(utils, "TransformersKwargs"):
        utils.LossKwargs = utils.TransformersKwargs  # renamed in transformers 5
    if path and path not in sys.path:
        sys.path.insert(0, path)
    found = importlib.import_module("eagle.model.ea_model")
    if path and Path(path).absolute() not in Path(str(found.__file__)).parents:
        raise ImportError(f"{path} cannot be used: this process has already imported the package eagle of {found.__file__}")
    return found


def load(package: Any, target: str, draft: str | None, dtype: str, extra: int, budget: dict[str, Any]) -> tuple[Any, int]:
    """EaModel on checkpoints, and the target's context.

    Args:
        package: the module eagle.model.ea_model.
        extra: cache positions beyond the context, for the last tree. EAGLE-1 allocates as many positions as the config says.
        budget: arguments of EaModel.
    """
    import torch
    import transformers

    config = _to_transformers_4(read_config(target))
    context = int(config["max_position_embeddings"])
    config["max_position_embeddings"] = context + extra
    package.AutoTokenizer.from_pretrained = lambda *_, **__: EndToken()
    if int(transformers.__version__.split(".")[0]) >= 5:
        _patch_for_transformers_5(package, config)
    with tempfile.TemporaryDirectory() as folder:
        base, head = Path(folder) / "base", Path(folder) / "head"
        _write_target(Path(target), base, config)
        _write_head(package, draft, base, head)
        kind = getattr(torch, dtype)
        model = package.EaModel.from_pretrained(base_model_path=str(base), ea_model_path=str(head), torch_dtype=kind, **budget)
    return model.eval(), context


def _to_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with the RoPE parameters under the keys of transformers 4."""
    rope = dict(config.get("rope_parameters") or {})
    theta, kind = rope.pop("rope_theta", config.get("rope_theta", 10000.0)), rope.pop("rope_type", "default")
    scaling = config.get("rope_scaling") if kind == "default" else {"type": kind, **rope}
    return {name: value for name, value in config.items() if name not in ("rope_parameters", "dtype")} | {
        "rope_theta": theta,
        "rope_scaling": scaling,
    }


def _write_target(target: Path, base: Path, config: dict[str, Any]) -> None:
    """The target's weights with an index file, in which the package looks up the embedding for the head."""
    from safetensors import safe_open

    base.mkdir()
    (base / "config.json").write_text(json.dumps(config))
    where: dict[str, str] = {}
    for file in sorted(target.glob("*.safetensors")):
        (base / file.name).symlink_to(file.resolve())
        with safe_open(file, framework="pt") as tensors:
            where |= dict.fromkeys(tensors.keys(), file.name)
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def _write_head(package: Any, draft: str | None, base: Path, head: Path) -> None:
    """The head as pytorch_model.bin. Without speculation the package still loads a head; it gets random weights."""
    import torch

    head.mkdir()
    config = {"max_position_embeddings": read_config(base)["max_position_embeddings"], "pad_token_id": None}
    config |= _to_transformers_4(read_config(draft or base))
    config |= {} if draft else {"num_hidden_layers": 1, "bias": False}
    (head / "config.json").write_text(json.dumps(config))
    if draft:
        tensors = _load_tensors(Path(draft))
    else:
        maker = getattr(package, "Model1", package.Model)  # EAGLE-2's head; in EAGLE-1 its name is Model
        tensors = maker(package.EConfig.from_pretrained(head / "config.json"), bias=False).state_dict()
    torch.save(tensors, head / "pytorch_model.bin")


def _load_tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _patch_for_transformers_5(package: Any, config: dict[str, Any]) -> None:
    """Restore config attributes that transformers 5 removed, and load weights without overwriting RoPE's cosines and sines.

    A tied LM head is loaded as a copy: transformers 5 cannot read which weights the package ties.
    """
    import torch
    from transformers import LlamaConfig

    package.EConfig.rope_scaling = config["rope_scaling"]
    package.EConfig.rope_theta = config["rope_theta"]

    def from_pretrained(folder: str, torch_dtype: torch.dtype) -> Any:
        plain = LlamaConfig.from_pretrained(folder)
        plain.rope_scaling, plain.rope_theta = config["rope_scaling"], config["rope_theta"]
        tied, plain.tie_word_embeddings = plain.tie_word_embeddings, False
        model, tensors = package.KVLlamaForCausalLM(plain).to(torch_dtype), _load_tensors(Path(folder))
        if tied:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        missing, unexpected = model.load_state_dict(tensors, strict=False)
        if unexpected or any(not name.endswith("inv_freq") for name in missing):
            raise ValueError(f"the published code and {folder} disagree on tensors: {[*missing, *unexpected]}")
        return model

    package.KVLlamaForCausalLM.from_pretrained = from_pretrained
