"""Weights of a checkpoint: read without running code, and compared with its configuration before anything is allocated."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from eagle2_ref.errors import BadInput
from eagle2_ref.model.config import DAMAGED, REFETCH, Config, read_json, require_file, shown

T = TypeVar("T")

FLOATS = ("float64", "float32", "bfloat16", "float16")
"""Dtypes of weights that are loaded. Integers and float8 are quantised weights, which mean nothing without their scales."""

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""The number of a layer in the name of a tensor."""

PARTS = {
    r"[kv]_proj": ("num_key_value_heads * head_dim", "hidden_size"),
    r"[qo]_proj": ("num_attention_heads * head_dim", "hidden_size"),
    r"attn|attention": ("num_attention_heads * head_dim", "num_key_value_heads * head_dim", "hidden_size"),
    r"mlp": ("intermediate_size", "hidden_size"),
    r"embed": ("vocab_size", "hidden_size"),
    r"lm_head": ("draft_vocab_size", "vocab_size", "hidden_size"),
}
"""The fields that give the shapes of tensors, by a part of their names."""

SHOWN = 4
"""Number of problems of one kind that an error lists."""


class Stored(NamedTuple):
    """A tensor in a file, which was not read."""

    dtype: str
    shape: tuple[int, ...]


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint.

    Raises:
        BadInput: there are no weights, a file is damaged or holds more than tensors, or the index of shards is wrong.
    """
    return _read_all(directory, read_file)


def read_shapes(directory: Path) -> dict[str, Stored]:
    """Names, dtypes and shapes of all tensors of a checkpoint. Their values are not read. Raises BadInput as `read_tensors`."""
    return _read_all(directory, _read_header)


def _read_all(directory: Path, read: Callable[[Path], dict[str, T]]) -> dict[str, T]:
    """What `read` finds in all files of weights together, by name of tensor."""
    tensors: dict[str, T] = {}
    for path, names in _weight_files(directory).items():
        held = read(path)
        if lacking := next((name for name in names if name not in held), None):
            raise BadInput(f"the index in {directory} names {lacking} in {path.name}, which has no such tensor", REFETCH)
        if twice := next((name for name in held if name in tensors), None):
            raise BadInput(f"{path} has {twice}, which another file has too", REFETCH)
        tensors.update(held)
    if not tensors:
        raise BadInput(f"the weights in {directory} have no tensors", REFETCH)
    return tensors


def _weight_files(directory: Path) -> dict[Path, list[str]]:
    """The files of weights, each with the names of tensors that an index says it has.

    The first layout that exists counts: safetensors before .bin, single files before shards.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        if os.path.lexists(directory / single):
            return {directory / single: []}
        if os.path.lexists(directory / f"{single}.index.json"):
            return _shards(directory / f"{single}.index.json")
    raise BadInput(
        f"no weights in {directory}",
        "expected model.safetensors or pytorch_model.bin, or one of them in shards with its index file",
    )


def _shards(index: Path) -> dict[Path, list[str]]:
    """The shards of an index, each with the names of its tensors."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{index} has no weight_map", DAMAGED)
    shards: dict[Path, list[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not name:
            raise BadInput(f"{index} has {shown(name)} for the file of {tensor}", DAMAGED)
        if Path(name).name != name:
            raise BadInput(f"{index} names {shown(name)}, which is outside of its folder", "such files are not loaded")
        path = index.parent / name
        if path not in shards and not os.path.lexists(path):
            raise BadInput(f"{path} is missing though the index names it", REFETCH)
        shards.setdefault(path, []).append(tensor)
    return shards


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. Raises BadInput if it is damaged or holds more than tensors."""
    if path.suffix != ".safetensors":
        return _unpickle(path, "cpu")
    with _reading(path):
        tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_header(path: Path) -> dict[str, Stored]:
    if path.suffix != ".safetensors":
        return {name: Stored(dtype_name(t), tuple(t.shape)) for name, t in _unpickle(path, "meta").items()}
    with _reading(path), safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: Stored(_dtype(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}


def _unpickle(path: Path, device: str) -> dict[str, Tensor]:
    with _reading(path), warnings.catch_warnings(action="ignore"):
        tensors = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise BadInput(f"{path} is refused: it is not a dictionary of tensors", "give a checkpoint as `state_dict()` has it")
    return tensors


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of the libraries that read a file into BadInput."""
    require_file(path)
    try:
        yield
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition(". ")[0] or "it is empty"
        raise BadInput(f"{path} cannot be read: {reason}", DAMAGED) from None
    except UnpicklingError as error:  # raised by weights_only for code; torch's advice to switch it off is left out
        reasons = [line for line in str(error).splitlines() if line.startswith(("Trying", "Unsupported"))]
        raise BadInput(
            f"{path} is refused: it holds more than tensors. {' '.join(reasons)}", "only plain tensors are loaded"
        ) from None


def dtype_name(tensor: Tensor) -> str:
    """float32, int8 …"""
    return str(tensor.dtype).removeprefix("torch.")


def _dtype(name: str) -> str:
    """The name that torch has for a dtype of safetensors, such as I32 or F8_E4M3."""
    kinds = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "C": "complex"}
    kind, rest = re.fullmatch(r"([A-Z]+)(.*)", name).groups()  # type: ignore[union-attr]
    return kinds.get(kind, kind.lower()) + rest.lower()


# --- what the weights must be ----------------------------------------------------------------------------------------


def layers_of(names: Iterable[str]) -> int:
    """The number of layers that tensors of these names belong to."""
    return 1 + max((int(number) for name in names for number in LAYER.findall(name)), default=-1)


def require_layers(layers: int, names: Collection[str], config: Config) -> None:
    """Raise BadInput if a model has more layers than its weights, before any layer is built."""
    held = layers_of(names)
    if layers > (held or len(names)):
        count = f"{held} layer{'s' * (held > 1)}" if held else f"{len(names)} tensors"
        raise config.wrong("num_hidden_layers", layers, f"the weights have {count}")


def require_floats(tensors: Mapping[str, Stored], where: Path | str, config: Config) -> None:
    """Raise BadInput unless all tensors are of a dtype that is loaded."""
    for name, (dtype, _) in tensors.items():
        if dtype not in FLOATS:
            quantised = config.raw.get("quantization_config")
            method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else None
            by = f": it is quantised by {shown(method)}, which is not supported" if method else ""
            raise BadInput(
                f"tensor {name} in {where} is {dtype}{by}", "give a checkpoint in float64, float32, bfloat16 or float16"
            )


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: Path | str) -> None:
    """Raise BadInput for a tensor with NaN or infinity."""
    for name, tensor in tensors:
        if tensor.is_meta or not tensor.numel():
            continue
        lowest, highest = tensor.aminmax()  # NaN if one is; needs no memory, unlike isfinite()
        if not (lowest.isfinite() and highest.isfinite()):
            value = "NaN" if lowest.isnan() else "an infinite value"
            half = dtype_name(tensor) in ("float16", "bfloat16")
            raise BadInput(
                f"tensor {name} in {where} has {value}",
                f"the weights are damaged, or do not fit {dtype_name(tensor)}: try float32"
                if half
                else "the weights are damaged",
            )


def mismatches(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]], config: Config) -> list[str]:
    """Tensors whose shape is not the expected one, each with the fields of the configuration that the shape contradicts."""
    return [
        f"tensor {name} is {list(found[name])}, expected {list(shape)}{_fields(name, found[name], shape, config.raw)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]


def _fields(name: str, found: Sequence[int], expected: Sequence[int], raw: Mapping[str, Any]) -> str:
    """The fields that have the expected size where it differs from the one found: ` (vocab_size is 5)`."""
    named = ("vocab_size", "draft_vocab_size", "hidden_size", "intermediate_size")
    sizes: dict[str, Any] = {field: raw.get(field) for field in named}
    heads, width = raw.get("num_attention_heads"), raw.get("hidden_size")
    if isinstance(heads, int) and isinstance(width, int):
        dim, kv_heads = raw.get("head_dim") or width // heads, raw.get("num_key_value_heads") or heads
        if isinstance(dim, int) and isinstance(kv_heads, int):  # otherwise they are lists, of a size for each layer
            sizes |= {"num_attention_heads * head_dim": heads * dim, "num_key_value_heads * head_dim": kv_heads * dim}
    part = next((fields for pattern, fields in PARTS.items() if re.search(pattern, name)), tuple(sizes))
    off = [n for i, n in enumerate(expected) if i >= len(found) or found[i] != n]
    agreed = [n for n, other in zip(expected, found, strict=False) if n == other]
    guilty = [
        f"{field} is {sizes[field]}"
        for field in part
        if sizes.get(field) in off and not (field == "hidden_size" and sizes[field] in agreed)
    ]
    return f" ({' or '.join(guilty)})" if guilty else ""


def listed(problems: Sequence[str]) -> str:
    """Some problems of one kind, a line each."""
    more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "".join(f"\n  {problem}" for problem in [*problems[:SHOWN], *more])
