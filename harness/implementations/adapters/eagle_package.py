"""The published package `eagle` on today's checkpoints: the layout that it reads, and what it misses in transformers 5."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


class Ends:
    """All that EaModel asks of a tokenizer while it decodes: the end-of-text token."""

    eos_token_id: int | None = None


def package(path: str) -> Any:
    """The module eagle.model.ea_model of the package in `path`, or of the one that is installed."""
    import transformers.utils as utils

    if not hasattr(utils, "LossKwargs") and hasattr(utils, "TransformersKwargs"):
        utils.LossKwargs = utils.TransformersKwargs  # its name in transformers 5
    if path and path not in sys.path:
        sys.path.insert(0, path)
    found = importlib.import_module("eagle.model.ea_model")
    if path and Path(path).absolute() not in Path(str(found.__file__)).parents:
        raise ImportError(f"{path} cannot be used: the package eagle was imported from elsewhere before, {found.__file__}")
    return found


def load(package: Any, target: str, draft: str | None, dtype: str, room: int, budget: dict[str, Any]) -> tuple[Any, int]:
    """EaModel on checkpoints, and the target's context. `package` is the module eagle.model.ea_model.

    room: places that the cache has beyond the context, for the last tree: EAGLE-1 gives it as many as the config says.
    """
    import torch
    import transformers

    config = _of_transformers_4(json.loads(Path(target, "config.json").read_text()))
    context = int(config["max_position_embeddings"])
    config["max_position_embeddings"] = context + room
    package.AutoTokenizer.from_pretrained = lambda *_, **__: Ends()
    if int(transformers.__version__.split(".")[0]) >= 5:
        _make_do_with_transformers_5(package, config)
    with tempfile.TemporaryDirectory() as folder:
        base, head = Path(folder) / "base", Path(folder) / "head"
        _lay_out_target(Path(target), base, config)
        _lay_out_head(package, draft, base, head)
        kind = getattr(torch, dtype)
        model = package.EaModel.from_pretrained(base_model_path=str(base), ea_model_path=str(head), torch_dtype=kind, **budget)
    return model.eval(), context


def _of_transformers_4(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with RoPE's parameters where transformers 4 has them."""
    rope = dict(config.get("rope_parameters") or {})
    theta, kind = rope.pop("rope_theta", config.get("rope_theta", 10000.0)), rope.pop("rope_type", "default")
    scaling = config.get("rope_scaling") if kind == "default" else {"type": kind, **rope}
    return {name: value for name, value in config.items() if name not in ("rope_parameters", "dtype")} | {
        "rope_theta": theta,
        "rope_scaling": scaling,
    }


def _lay_out_target(target: Path, base: Path, config: dict[str, Any]) -> None:
    """The target's weights with an index file, from which the head's embedding is found."""
    from safetensors import safe_open

    base.mkdir()
    (base / "config.json").write_text(json.dumps(config))
    where: dict[str, str] = {}
    for file in sorted(target.glob("*.safetensors")):
        (base / file.name).symlink_to(file.resolve())
        with safe_open(file, framework="pt") as tensors:
            where |= dict.fromkeys(tensors.keys(), file.name)
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def _lay_out_head(package: Any, draft: str | None, base: Path, head: Path) -> None:
    """The head as pytorch_model.bin; without one, a head of noise that is loaded and never asked."""
    import torch
    from safetensors.torch import load_file

    head.mkdir()
    config = _of_transformers_4(json.loads(Path(draft or base, "config.json").read_text()))
    target = json.loads((base / "config.json").read_text())
    config = {"max_position_embeddings": target["max_position_embeddings"], "pad_token_id": None, **config}
    config |= {} if draft else {"num_hidden_layers": 1, "bias": False}
    (head / "config.json").write_text(json.dumps(config))
    if draft:
        tensors = {name: tensor for file in Path(draft).glob("*.safetensors") for name, tensor in load_file(file).items()}
    else:
        maker = getattr(package, "Model1", package.Model)  # EAGLE-2's head, where there are EAGLE-3's too
        tensors = maker(package.EConfig.from_pretrained(head / "config.json"), bias=False).state_dict()
    torch.save(tensors, head / "pytorch_model.bin")


def _make_do_with_transformers_5(package: Any, config: dict[str, Any]) -> None:
    """Attributes that configs no longer have, and a loading that does not wipe the cosines and sines of RoPE."""
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaConfig

    package.EConfig.rope_scaling = config["rope_scaling"]
    package.EConfig.rope_theta = config["rope_theta"]

    def from_pretrained(folder: str, torch_dtype: torch.dtype) -> Any:
        plain = LlamaConfig.from_pretrained(folder)
        plain.rope_scaling, plain.rope_theta = config["rope_scaling"], config["rope_theta"]
        model = package.KVLlamaForCausalLM(plain).to(torch_dtype)
        tensors = {name: tensor for file in Path(folder).glob("*.safetensors") for name, tensor in load_file(file).items()}
        lacking, strange = model.load_state_dict(tensors, strict=False)
        if strange or any(not name.endswith("inv_freq") for name in lacking):
            raise ValueError(f"the published code and {folder} disagree on tensors: {[*lacking, *strange]}")
        return model

    package.KVLlamaForCausalLM.from_pretrained = from_pretrained
