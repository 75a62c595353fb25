"""Checkpoints of the draft head: every published layout loads; nothing is guessed, dropped or executed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from eagle2_ref.drafters.checkpoint import load_head, save_head
from eagle2_ref.drafters.eagle_head import EagleHead, HeadConfig, Llama3Rope
from eagle2_ref.errors import BadInput
from properties.meta.helpers import tiny
from properties.meta.helpers.families import write_shards

Tensors = dict[str, Tensor]
LLAMA31 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
Change = Callable[[Tensors, dict[str, Any]], object]


def write(folder: Path, head: EagleHead, change: Change | None = None, how: str = "bin") -> Path:
    """Write a checkpoint as other software does, after `change` was applied to tensors and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.clone() for name, t in head.state_dict().items()}
    config = head.config.to_json()
    if change:
        change(tensors, config)
    (folder / "config.json").write_text(json.dumps(config))
    if how == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif how == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        name = "model.safetensors" if how == "safetensors, sharded" else "pytorch_model.bin"
        write_shards(folder, name, tensors)
    return folder


def same(a: EagleHead, b: EagleHead) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return a.config == b.config and left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("how", ["bin", "safetensors", "bin, sharded", "safetensors, sharded"])
def test_every_layout_loads_the_same_head(tmp_path: Path, how: str) -> None:
    head = tiny.head()
    assert same(load_head(write(tmp_path, head, how=how)), head)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias": False},
        {"qkv_bias": True},
        {"num_hidden_layers": 2},
        {"rope_factor": 4.0},
        {"rope_llama3": Llama3Rope(8.0, 1.0, 4.0, 64)},
    ],
)
def test_a_saved_head_loads_bit_for_bit(tmp_path: Path, dtype: torch.dtype, changes: dict[str, Any]) -> None:
    """In its own dtype."""
    head = tiny.head(rms_norm_eps=1e-5, rope_theta=500000.0, **changes).to(dtype)
    save_head(head, tmp_path)
    read = load_head(tmp_path)
    assert same(read, head) and read.fc.weight.dtype == dtype


def test_defaults_are_those_of_the_published_code() -> None:
    """fc has a bias, the rope base is 10000, there are as many key-value heads as heads."""
    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4}
    assert HeadConfig.from_json(shape) == HeadConfig(64, 16, 24, 4, 4, 1, 1e-6, 10000.0, 1.0, bias=True, qkv_bias=False)
    llama3 = {**shape, "bias": False, "rope_theta": 500000.0, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
    assert HeadConfig.from_json(llama3) == HeadConfig(64, 16, 24, 4, 2, 1, 1e-5, 500000.0, 1.0, bias=False)
    assert HeadConfig.from_json({**shape, "rope_parameters": {"rope_type": "linear", "rope_theta": 5.0, "factor": 2.0}}) == (
        HeadConfig(64, 16, 24, 4, 4, rope_theta=5.0, rope_factor=2.0)
    )
    assert HeadConfig.from_json({**shape, "rope_scaling": None, "num_key_value_heads": None}).rope_factor == 1.0
    for name in ("rope_scaling", "rope_parameters"):
        assert HeadConfig.from_json({**shape, name: LLAMA31}).rope_llama3 == Llama3Rope(8.0, 1.0, 4.0, 8192)


def test_the_targets_embedding_replaces_a_missing_one(tmp_path: Path) -> None:
    """An embedding in the checkpoint is used. Without either it is an error."""
    head, other = tiny.head(), torch.randn(64, 16, dtype=torch.float64)
    assert torch.equal(load_head(write(tmp_path / "own", head), other).embed_tokens.weight, head.embed_tokens.weight)
    without = write(tmp_path / "none", head, lambda tensors, _: tensors.pop("embed_tokens.weight"))
    assert torch.equal(load_head(without, other).embed_tokens.weight, other)
    with pytest.raises(BadInput, match=r"missing tensor embed_tokens.weight, expected \[64, 16\]"):
        load_head(without)


def _rename(tensors: Tensors, old: str, new: str) -> None:
    for name in [name for name in tensors if name.startswith(old)]:
        tensors[name.replace(old, new)] = tensors.pop(name)


STRICT: dict[str, tuple[Change, list[str]]] = {
    "a missing tensor": (
        lambda t, _: t.pop("layers.0.mlp.up_proj.weight"),
        ["missing tensor layers.0.mlp.up_proj.weight, expected [24, 16]"],
    ),
    "an unexpected tensor": (
        lambda t, _: t.update({"layers.0.input_layernorm.weight": torch.ones(16)}),
        ["unexpected tensor layers.0.input_layernorm.weight [16]", "layer 0 has no input_layernorm"],
    ),
    "a misshapen tensor": (
        lambda t, _: t.update({"layers.0.self_attn.k_proj.weight": torch.ones(16, 16)}),
        ["tensor layers.0.self_attn.k_proj.weight is [16, 16], expected [8, 16]"],
    ),
    "renamed layers": (
        lambda t, _: _rename(t, "layers.0.", "transformer."),
        [
            "missing tensor layers.0.self_attn.q_proj.weight, expected [16, 16]",
            "unexpected tensor transformer.self_attn.q_proj.weight",
        ],
    ),
    "a bias that the config denies": (lambda _, c: c.update(bias=False), ["unexpected tensor fc.bias [16]", '"bias": false']),
    "no bias though the config does not deny it": (
        lambda t, c: (t.pop("fc.bias"), c.pop("bias")),
        ["missing tensor fc.bias, expected [16]", '"bias": false'],
    ),
    "a second layer that is not there": (
        lambda _, c: c.update(num_hidden_layers=2),
        ["config.json: num_hidden_layers is 2", "the weights have 1 layer"],
    ),
    "key-value heads left out": (
        lambda _, c: c.pop("num_key_value_heads"),
        ["tensor layers.0.self_attn.k_proj.weight is [8, 16], expected [16, 16]"],
    ),
    "an EAGLE-3 head": (lambda _, c: c.update(draft_vocab_size=32), ["describes an EAGLE-3 head", "--drafter eagle3"]),
    "an EAGLE-3 head of full vocabulary": (
        lambda _, c: c.update(architectures=["LlamaForCausalLMEagle3"]),
        ["describes an EAGLE-3 head"],
    ),
    "heads that do not divide": (lambda _, c: c.update(num_attention_heads=3), ["3 heads", "hidden size 16"]),
    "a word for a number": (lambda _, c: c.update(hidden_size="wide"), ["config.json", "wide"]),
    "no hidden size": (lambda _, c: c.pop("hidden_size"), ["config.json lacks hidden_size"]),
    "another activation": (lambda _, c: c.update(hidden_act="gelu"), ["hidden_act 'gelu' is not supported"]),
    "a rope that is not known": (lambda _, c: c.update(rope_scaling={"type": "yarn"}), ["rope_scaling of type 'yarn'"]),
    "a rope of Llama 3.1 without a field": (
        lambda _, c: c.update(rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}),
        ["config.json lacks rope_scaling.high_freq_factor"],
    ),
    "a rope of Llama 3.1 whose factors are exchanged": (
        lambda _, c: c.update(rope_scaling=LLAMA31 | {"low_freq_factor": 4.0, "high_freq_factor": 1.0}),
        ["rope_scaling.high_freq_factor is 1.0", "above low_freq_factor 4.0"],
    ),
    "a rope without its factor": (lambda _, c: c.update(rope_scaling={"type": "linear"}), ["config.json", "factor"]),
}


@pytest.mark.parametrize("case", STRICT)
@pytest.mark.parametrize("embedding", [None, torch.zeros(64, 16)], ids=["alone", "with a target"])
def test_a_checkpoint_that_does_not_match_is_refused(tmp_path: Path, case: str, embedding: Tensor | None) -> None:
    """The error names the tensor, or the key, and what was expected."""
    change, message = STRICT[case]
    write(tmp_path, tiny.head(), change)
    with pytest.raises(BadInput) as error:
        load_head(tmp_path, embedding)
    assert all(words in str(error.value) for words in message), str(error.value)


def test_a_head_of_another_target_is_refused(tmp_path: Path) -> None:
    """The error has both sizes and what to do."""
    save_head(tiny.head(), tmp_path)
    with pytest.raises(BadInput) as error:
        load_head(tmp_path, torch.zeros(64, 32), "models/target")
    assert str(error.value) == (
        f"head does not fit the target: fc.weight in {tmp_path} is [16, 32], expected [32, 64]"
        " (hidden size of models/target is 32)\n"
        "  give --draft a head trained for this target, or --target the model this head was trained for"
    )
    with pytest.raises(BadInput, match=r"head does not fit the target: vocabulary 64 in .*, 65 in models/target"):
        load_head(tmp_path, torch.zeros(65, 16), "models/target")


class Trap:
    """A pickled call, which loading would execute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", ["zip", "bare"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, protocol: str) -> None:
    """Nothing is executed, and the error does not suggest to allow it."""
    trap = {"fc.weight": torch.ones(1), "x": Trap(tmp_path / "sprung")}
    folder = write(tmp_path / "head", tiny.head())
    weights = folder / "pytorch_model.bin"
    torch.save(trap, weights) if protocol == "zip" else weights.write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(BadInput) as error:
        load_head(folder)
    assert not (tmp_path / "sprung").exists()
    assert "pytorch_model.bin is refused" in str(error.value) and "weights_only" not in str(error.value)


@pytest.mark.parametrize("what", [[torch.ones(2)], {"fc.weight": 3}, torch.ones(2)], ids=["list", "numbers", "tensor"])
def test_a_file_without_a_dictionary_of_tensors_is_refused(tmp_path: Path, what: object) -> None:
    torch.save(what, write(tmp_path, tiny.head()) / "pytorch_model.bin")
    with pytest.raises(BadInput, match="not a dictionary of tensors"):
        load_head(tmp_path)


@pytest.mark.parametrize("how", ["bin", "safetensors", "bin, sharded", "safetensors, sharded"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, how: str, share: float) -> None:
    write(tmp_path, tiny.head(), how=how)
    weights = sorted(path for path in tmp_path.iterdir() if path.suffix in (".bin", ".safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(BadInput, match=f"{weights.name} (cannot be read|is refused)"):
        load_head(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\xff"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_damaged_json_file_is_refused(tmp_path: Path, text: str, name: str) -> None:
    write(tmp_path, tiny.head(), how="safetensors, sharded")
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=f"{name} (is not JSON|is not a JSON object|has no weight_map)"):
        load_head(tmp_path)


def test_missing_files_have_errors_of_their_own(tmp_path: Path) -> None:
    """Folder, weights, shard."""
    with pytest.raises(BadInput, match=r"no head at .*nowhere: config.json is missing"):
        load_head(tmp_path / "nowhere")
    (write(tmp_path / "empty", tiny.head()) / "pytorch_model.bin").unlink()
    with pytest.raises(BadInput, match=r"no weights in .*empty"):
        load_head(tmp_path / "empty")
    (write(tmp_path / "part", tiny.head(), how="bin, sharded") / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BadInput, match=r"00002-of-00002\.bin is missing though the index names it"):
        load_head(tmp_path / "part")
