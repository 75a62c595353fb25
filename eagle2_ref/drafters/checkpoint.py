"""Published checkpoints of draft heads. Reading is strict and runs no code from the files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from os.path import lexists
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eagle2_ref.drafters.draft_vocabulary import check_tokens, from_offsets, marks, offsets
from eagle2_ref.drafters.eagle_head import Eagle3Config, Eagle3Head, EagleHead, HeadConfig
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
HINT3 = "an EAGLE-3 head has fc, midlayer (or layers.0) with hidden_norm and input_layernorm, norm, lm_head, d2t and t2d"

LATER = ("norm_output", "norm_before_fc", "fc_norm")
"""Fields of EAGLE-3.1 (arXiv 2605.09992), which change what an EAGLE-3 head computes."""

FIT = "give --draft a head trained for this target, or --target the model this head was trained for"

LAYER_IDS = "eagle_aux_hidden_state_layer_ids"


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


def load_eagle3_head(directory: Path | str, n_layers: int, embedding: Tensor, where_target: str = "the target") -> Eagle3Head:
    """Load a published EAGLE-3 checkpoint: .bin or safetensors, single or sharded.

    Reads the layouts of the authors (`midlayer.`), and of vLLM, SGLang and speculators (`layers.0.`, with or without
    `model.` in front, and in a configuration with the head's shape in `transformer_layer_config`).

    Args:
        directory: folder with config.json and weights.
        n_layers: number of layers of the target.
        embedding: the target's input embedding [V, H], which the head uses if the checkpoint has none.
        where_target: name of the target in error messages.

    Raises:
        BadInput: the checkpoint is missing or damaged, is an EAGLE-1/2 head, or does not fit the target.
    """
    directory = Path(directory)
    config = _read_config(directory, eagle3=True)
    stored = read_tensors(directory)
    tensors = {_eagle3_name(name): tensor for name, tensor in stored.items()}
    if twice := [name for name, n in Counter(map(_eagle3_name, stored)).items() if n > 1]:
        raise BadInput(f"{directory} has tensor {twice[0]} under two names", HINT3)
    vocab, hidden = embedding.shape
    shape = _eagle3_shape(config, n_layers, hidden, where_target)
    _must_have(directory, "vocabulary", shape.vocab_size, vocab, where_target)
    if "fc.weight" in tensors and tensors["fc.weight"].shape[-1] != 3 * hidden:
        raise BadInput(
            f"head does not fit the target: fc.weight in {directory} is {list(tensors['fc.weight'].shape)}, it must read three"
            f" states of {where_target}, 3 * {hidden} = {3 * hidden} numbers",
            FIT,
        )
    if shape.hidden_size == hidden:
        tensors.setdefault("embed_tokens.weight", embedding)
    maps: dict[str, Tensor] = {name: tensors.pop(name) for name in ("d2t", "t2d") if name in tensors}
    vocabulary = _vocabulary(maps, shape, directory)
    with torch.device("meta"):
        head = Eagle3Head(shape, torch.empty(len(vocabulary), dtype=torch.long))
    buffers = {"d2t": offsets(vocabulary), "t2d": marks(vocabulary, vocab)}
    reduced = shape.draft_vocab_size < shape.vocab_size
    fill(head, {**tensors, **(buffers if reduced else {})}, config, HINT3, dtype="fc.weight")
    head.d2t, head.t2d = buffers.values()
    return head.eval()


def _eagle3_name(name: str) -> str:
    """The name that the authors' checkpoints have for a tensor."""
    name = name.removeprefix("model.")
    return "midlayer." + name.removeprefix("layers.0.") if name.startswith("layers.0.") else name


def _eagle3_shape(config: Config, n_layers: int, target_hidden: int, where_target: str) -> Eagle3Config:
    inner = config.section("transformer_layer_config").raw
    raw = {"num_hidden_layers": 1, **inner, **{name: value for name, value in config.raw.items() if value is not None}}
    fields = Config(raw, config.path)
    if raw["num_hidden_layers"] != 1:
        raise fields.wrong("num_hidden_layers", raw["num_hidden_layers"], "an EAGLE-3 head has one layer")
    head = HeadConfig.from_json({**raw, "bias": False}, config.path)
    for name in LATER:
        if fields.raw.get(name):
            raise fields.wrong(name, fields.raw[name], "heads of EAGLE-3.1 are not supported")
    states = fields.whole("target_hidden_size", target_hidden)
    if states != target_hidden:
        raise fields.wrong("target_hidden_size", states, f"the hidden size of {where_target} is {target_hidden}")
    return Eagle3Config(
        **vars(head),
        draft_vocab_size=fields.whole("draft_vocab_size", head.vocab_size, most=head.vocab_size),
        layers=_layer_ids(fields, n_layers, where_target),
        target_hidden_size=states,
        norm_before_residual=fields.flag("norm_before_residual", False),
    )


def default_layers(n_layers: int) -> tuple[int, int, int]:
    """The layers before which heads read the state if a checkpoint lists none (EAGLE, model/modeling_llama_kv.py)."""
    return 2, n_layers // 2, n_layers - 3


def _layer_ids(config: Config, n_layers: int, where_target: str) -> tuple[int, ...]:
    """The target layers before which the head reads the state, of the configuration or else those of the published code.

    vLLM reads the field in the same way. SGLang counts layers after which it reads: its 1 is 2 here.
    """
    inner = config.section("eagle_config")
    if not inner.flag("use_aux_hidden_state", True):
        raise inner.wrong("use_aux_hidden_state", False, "only heads that read three layers are supported")
    holder = config if config.raw.get(LAYER_IDS) is not None else inner
    ids = holder.raw.get(LAYER_IDS)
    if ids is None:
        ids = list(default_layers(n_layers))
        if not 2 < ids[1] < ids[2]:
            raise BadInput(
                f"{config.path} has no {LAYER_IDS}, and the published default 2, n / 2 and n - 3 are not three layers of"
                f" {where_target}, which has {n_layers}",
                f"list the layers in {LAYER_IDS}",
            )
    elif (
        not isinstance(ids, list)
        or len(ids) != 3
        or not all(type(i) is int and 0 <= i <= n_layers for i in ids)
        or sorted(set(ids)) != ids
    ):
        raise holder.wrong(LAYER_IDS, ids, f"it must be three layers in ascending order, from 0 to {n_layers} of {where_target}")
    return tuple(ids)


def _vocabulary(maps: Mapping[str, Tensor], shape: Eagle3Config, where: Path) -> Tensor:
    """The target token of each draft token [D], checked. `d2t` is relative; `t2d` must mark the same tokens."""
    n, vocab = shape.draft_vocab_size, shape.vocab_size
    for name, size in (("d2t", n), ("t2d", vocab)):
        tensor = maps.get(name)
        if tensor is None:
            if name == "d2t" and n < vocab:
                raise BadInput(f"missing tensor d2t in {where}, expected [{n}] (draft_vocab_size is {n} of {vocab})", HINT3)
        elif tuple(tensor.shape) != (size,) or tensor.is_floating_point() or tensor.is_complex():
            field = "draft_vocab_size" if name == "d2t" else "vocab_size"
            raise BadInput(
                f"tensor {name} in {where} is {dtype_name(tensor)} {list(tensor.shape)}, expected whole numbers [{size}]"
                f" ({field} is {size})",
                HINT3,
            )
    vocabulary = from_offsets(maps.get("d2t", torch.zeros(n)).long())
    check_tokens(vocabulary, vocab, f"d2t in {where}, which is added to draft tokens,")
    if n == vocab and not torch.equal(vocabulary, torch.arange(n)):
        raise BadInput(f"d2t in {where} is not 0, though draft_vocab_size is the whole vocabulary of {vocab}", HINT3)
    if "t2d" in maps and not torch.equal(maps["t2d"].bool(), marks(vocabulary, vocab)):
        differing = (maps["t2d"].bool() != marks(vocabulary, vocab)).nonzero()[0]
        raise BadInput(
            f"t2d and d2t in {where} contradict each other: token {int(differing)} is in the draft vocabulary of one of them",
            "the checkpoint is damaged, or its d2t has token ids where it must have offsets",
        )
    return vocabulary


def save_head(head: EagleHead, directory: Path | str) -> None:
    """Write a head of any kind in the published layout: config.json and model.safetensors, with the embedding."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = dtype_name(head.fc.weight)
    (directory / "config.json").write_text(json.dumps({**head.config.to_json(), "torch_dtype": dtype}, indent=2) + "\n")
    tensors = {name: t.detach().cpu().contiguous() for name, t in head.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def is_eagle3(config: Mapping[str, Any]) -> bool:
    """Whether a configuration describes an EAGLE-3 head."""
    return "draft_vocab_size" in config or "eagle3" in str(config.get("architectures")).lower()


def _read_config(directory: Path, eagle3: bool = False) -> Config:
    kind = "an EAGLE-3 head" if eagle3 else "an EAGLE-1/2 head"
    if not lexists(directory / "config.json"):
        raise BadInput(f"no head at {directory}: config.json is missing", f"give --draft the directory of {kind}")
    config = read_config(directory)
    if is_eagle3(config.raw) and not eagle3:
        raise BadInput(
            f"{config.path} describes an EAGLE-3 head", "--drafter eagle3 drafts with it; other methods with EAGLE-1/2 heads"
        )
    if eagle3 and not is_eagle3(config.raw):
        raise BadInput(
            f"{config.path} describes no EAGLE-3 head: it has no draft_vocab_size",
            "--drafter eagle2 drafts with an EAGLE-1/2 head",
        )
    return config


def _must_fit(config: HeadConfig, tensors: dict[str, Tensor], embedding: Tensor, where: Path, where_target: str) -> None:
    vocab, hidden = embedding.shape
    if "fc.weight" in tensors and tuple(tensors["fc.weight"].shape) != (hidden, 2 * hidden):
        shape = list(tensors["fc.weight"].shape)
        raise BadInput(
            f"head does not fit the target: fc.weight in {where} is {shape}, expected {[hidden, 2 * hidden]}"
            f" (hidden size of {where_target} is {hidden})",
            FIT,
        )
    _must_have(where, "hidden size", config.hidden_size, hidden, where_target)
    _must_have(where, "vocabulary", config.vocab_size, vocab, where_target)


def _must_have(where: Path, what: str, size: int, due: int, where_target: str) -> None:
    if size != due:
        raise BadInput(f"head does not fit the target: {what} {size} in {where}, {due} in {where_target}", FIT)


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
    whole = {name for name, t in module.state_dict().items() if not t.is_floating_point()}
    floats = {name: Stored(dtype_name(t), tuple(t.shape)) for name, t in tensors.items() if name not in whole}
    require_floats(floats, where, config)
    require_finite(((name, tensors[name]) for name in floats), where)
    if dtype:
        module.to(tensors[dtype].dtype)
    module.to_empty(device="cpu").load_state_dict(tensors)
