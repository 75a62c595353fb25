"""A Llama checkpoint of transformers as a GGUF file in float32, llama.cpp's own format. Runs in the engine's environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""A layer's tensors, by transformers' name and by GGUF's."""


def write(checkpoint: Path, file: Path) -> None:
    """Write `file` from a folder with config.json and model.safetensors.

    The vocabulary is one of nameless tokens: only token ids go in and out. NotImplementedError for what is not a plain Llama.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    _must_be_plain(config)
    import gguf
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(str(file), "llama")
    _describe(writer, config)
    for name, tensor in _tensors(load_file(checkpoint / "model.safetensors"), config):
        writer.add_tensor(name, np.ascontiguousarray(tensor.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: Array, heads: int) -> Array:
    """Rows of a query or key projection, so that the two coordinates which a rotary embedding turns together are neighbours.

    transformers turns coordinates i and i + head_dim / 2 of a head, llama.cpp 2 i and 2 i + 1. weight is [heads * head_dim, H].
    """
    halves = weight.reshape(heads, 2, -1, weight.shape[-1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the rotary embedding, where older and newer releases of transformers keep them."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = found.get("rope_type", found.get("type", "default"))
    return {"rope_theta": config.get("rope_theta", 10000.0), **found, "rope_type": kind}


def _must_be_plain(config: dict[str, Any]) -> None:
    unlike = {
        "model_type": config["model_type"] != "llama",
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        "rope_type": rope(config)["rope_type"] != "default",
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    if lost := [name for name, differs in unlike.items() if differs]:
        told = ", ".join(f"{name} {rope(config).get(name, config.get(name))}" for name in lost)
        raise NotImplementedError(f"only a plain Llama is converted to GGUF here; this model has {told}")


def _describe(writer: Any, config: dict[str, Any]) -> None:
    import gguf

    hidden, heads, vocabulary = config["hidden_size"], config["num_attention_heads"], config["vocab_size"]
    head_dim = config.get("head_dim") or hidden // heads
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope(config)["rope_theta"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{token}>".encode() for token in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([gguf.TokenType.NORMAL] * vocabulary)
    writer.add_add_bos_token(False)


def _tensors(weights: dict[str, Array], config: dict[str, Any]) -> list[tuple[str, Array]]:
    """Every tensor under its GGUF name; a tied LM head is left out, as llama.cpp wants it."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads", config["num_attention_heads"])}
    found = [("token_embd.weight", weights["model.embed_tokens.weight"]), ("output_norm.weight", weights["model.norm.weight"])]
    if "lm_head.weight" in weights and not config.get("tie_word_embeddings"):
        found.append(("output.weight", weights["lm_head.weight"]))
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in NAMES.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            turned = heads.get(ours.rpartition(".")[2])
            found.append((f"blk.{layer}.{theirs}.weight", interleaved(weight, turned) if turned else weight))
    return found


if __name__ == "__main__":  # `eagle2 convert gguf` runs it so, under the engine's Python
    write(Path(sys.argv[1]), Path(sys.argv[2]))
