"""Tiny checkpoints in the layouts of published models: files, tensor names, configurations and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.drafters.eagle_head import EagleHead
from fixtures.training.files import write_json
from fixtures.training.tokenizer import byte_symbols
from harness.pairs import Pair
from properties.meta.helpers import tiny

SENTENCEPIECE = ["<unk>", "<s>", "</s>"]
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def sentencepiece_like(folder: Path, **config: Any) -> None:
    """The tokenizer of Vicuna and LLaMA 2: a space before every text, unknown characters as bytes, <s> at the start."""
    characters = [chr(code) for code in range(32, 127) if chr(code) != " "] + ["▁"]
    vocabulary = [*SENTENCEPIECE, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(vocabulary)}, [], byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _save(made, folder, SENTENCEPIECE, "<s>", "</s>", **config)


def byte_level(folder: Path, **config: Any) -> None:
    """The tokenizer of LLaMA 3: byte-level BPE (here without merges), followed by special tokens."""
    made = Tokenizer(models.BPE({symbol: byte for byte, symbol in enumerate(byte_symbols())}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    _save(made, folder, LLAMA3, "<|begin_of_text|>", "<|eot_id|>", **config)


def _save(made: Tokenizer, folder: Path, special: list[str], bos: str, eos: str, **config: Any) -> None:
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, made.token_to_id(bos))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config_of_class = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos, "model_max_length": 2048}
    write_json(folder / "tokenizer_config.json", {**config_of_class, "clean_up_tokenization_spaces": False, **config})


VOCABULARY = 261
"""Vocabulary size of `byte_level`."""

OLD: dict[str, Any] = {"vocab_size": 3 + 256 + 95, "num_key_value_heads": 4, "max_position_embeddings": 2048}
NEW: dict[str, Any] = {"vocab_size": VOCABULARY, "num_key_value_heads": 2, "max_position_embeddings": 2048}
SCALED = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


def vicuna(folder: Path) -> tuple[Pair, PreTrainedModel]:
    """Vicuna 1.3: .bin shards that contain rotary frequencies, and a configuration without grouped-query attention."""
    model, stored = _stored(torch.float16, **OLD)
    target = _target(folder, sentencepiece_like)
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": 10000.0 ** -(torch.arange(0, 4, 2) / 4) for i in range(3)}
    write_shards(target, "pytorch_model.bin", {**stored.state_dict(), **frequencies})
    config = _configuration(stored, "num_key_value_heads", transformers_version="4.28.1")
    write_json(target / "config.json", config)
    return _pair(folder, model, bias=True, leave=("num_key_value_heads",)), model


def llama2(folder: Path) -> tuple[Pair, PreTrainedModel]:
    """LLaMA2-Chat: safetensors shards, rotary base only."""
    model, stored = _stored(torch.float16, **{**OLD, "num_key_value_heads": 2})
    target = _target(folder, sentencepiece_like)
    stored.save_pretrained(target, max_shard_size="20KB")
    write_json(target / "config.json", _configuration(stored, rope_scaling=None, pretraining_tp=1))
    return _pair(folder, model, bias=True, num_key_value_heads=2), model


def llama3(folder: Path, scaled: bool = False, tied: bool = False) -> tuple[Pair, PreTrainedModel]:
    """LLaMA3-Instruct: bfloat16 shards, grouped-query attention, own rotary base; from 3.1 scaled, small 3.2 models tied."""
    rope = {"rope_type": "llama3", **SCALED} if scaled else {"rope_type": "default"}
    parameters = {"rope_parameters": {**rope, "rope_theta": 500000.0}, "tie_word_embeddings": tied}
    model, stored = _stored(torch.bfloat16, **NEW, **parameters)
    target = _target(folder, byte_level)
    stored.save_pretrained(target, max_shard_size="20KB")
    write_json(target / "config.json", _configuration(stored, rope_theta=500000.0, rope_scaling=rope if scaled else None))
    return _pair(folder, model, bias=False, num_key_value_heads=2, rope_theta=500000.0), model


FAMILIES: dict[str, Callable[[Path], tuple[Pair, PreTrainedModel]]] = {
    "vicuna": vicuna,
    "llama2": llama2,
    "llama3": llama3,
    "llama3, scaled rope": lambda folder: llama3(folder, scaled=True),
    "llama3, tied embedding": lambda folder: llama3(folder, scaled=True, tied=True),
}


def _stored(dtype: torch.dtype, **changes: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A float64 model whose weights are representable in another dtype, and the same model in that dtype."""
    model = tiny.target(**changes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(dtype))
    return model, deepcopy(model).to(dtype)


def _target(folder: Path, tokenizer: Any) -> Path:
    tokenizer(folder / "target")
    return folder / "target"


def _configuration(model: PreTrainedModel, *leave: str, **keys: Any) -> dict[str, Any]:
    """A configuration as transformers 4 wrote it, with rotary settings as keys of their own."""
    leave = (*leave, "rope_parameters", "dtype", "architectures")
    config = {name: value for name, value in model.config.to_dict().items() if name not in leave}
    return {**config, "architectures": ["LlamaForCausalLM"], "torch_dtype": str(model.dtype).removeprefix("torch."), **keys}


def write_shards(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """Write two shards and their index, in the format of the name that one file would have."""
    stem, suffix = name.rsplit(".", 1)
    shards = [f"{stem}-{i:05}-of-00002.{suffix}" for i in (1, 2)]
    where = {tensor: shards[2 * i // len(tensors)] for i, tensor in enumerate(tensors)}
    for shard in shards:
        part = {tensor: tensors[tensor].clone() for tensor in tensors if where[tensor] == shard}
        save_file(part, folder / shard) if suffix == "safetensors" else torch.save(part, folder / shard)
    write_json(folder / f"{name}.index.json", {"metadata": {}, "weight_map": where})


def _pair(folder: Path, model: PreTrainedModel, leave: tuple[str, ...] = (), **shape: Any) -> Pair:
    """A pair of a saved target and a head in the layout of EAGLE's authors."""
    shape = {"num_key_value_heads": 4} | shape
    write_head(folder / "draft", tiny.fitting(model, **shape).half(), leave)
    return Pair(folder.name, folder / "target", folder / "draft", own=True)


def write_head(folder: Path, head: EagleHead, leave: tuple[str, ...] = ()) -> None:
    """float16 in one .bin, with the embedding; the configuration does not mention the bias."""
    folder.mkdir(parents=True)
    torch.save(dict(head.state_dict()), folder / "pytorch_model.bin")
    config = {name: value for name, value in head.config.to_json().items() if name not in ("architectures", *leave)}
    if head.config.bias:
        del config["bias"]
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"}))
