"""Convert a Llama checkpoint of transformers to GGUF in float32, llama.cpp's own format. Runs in the engine's environment."""

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
"""A layer's tensors: transformers' name to GGUF's name."""


def write(checkpoint: Path, file: Path) -> None:
    """Write `file` from a folder with config.json and model.safetensors.

    The vocabulary has placeholder texts, since only token ids are passed to the engine and returned.

    Raises:
        NotImplementedError: the checkpoint is not a plain Llama.
    """
    config = json.loads((checkpoint / "config.json").read_text())
    _check_plain(config)
    import gguf
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(str(file), "llama")
    _write_metadata(writer, config)
    for name, tensor in _tensors(load_file(checkpoint / "model.safetensors"), config):
        writer.add_tensor(name, np.ascontiguousarray(tensor.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: Array, heads: int) -> Array:
    """Reorder the rows of a query or key projection for llama.cpp's rotary embedding.

    transformers rotates the coordinates i and i + head_dim / 2 of a head together, llama.cpp 2 i and 2 i + 1.

    Args:
        weight: [heads * head_dim, hidden].
        heads: number of heads.
    """
    halves = weight.reshape(heads, 2, -1, weight.shape[-1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the rotary embedding; older and newer releases of transformers store them under different keys."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = found.get("rope_type", found.get("type", "default"))
    return {"rope_theta": config.get("rope_theta", 10000.0), **found, "rope_type": kind}


def _check_plain(config: dict[str, Any]) -> None:
    departures = {
        "model_type": config["model_type"] != "llama",
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        "rope_type": rope(config)["rope_type"] != "default",
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    if found := [name for name, departs in departures.items() if departs]:
        shown = ", ".join(f"{name} {rope(config).get(name, config.get(name))}" for name in found)
        raise NotImplementedError(f"only a plain Llama can be converted to GGUF; this model has {shown}")


def _write_metadata(writer: Any, config: dict[str, Any]) -> None:
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
    """Every tensor with its GGUF name. A tied LM head is omitted, as llama.cpp requires."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads", config["num_attention_heads"])}
    found = [("token_embd.weight", weights["model.embed_tokens.weight"]), ("output_norm.weight", weights["model.norm.weight"])]
    if "lm_head.weight" in weights and not config.get("tie_word_embeddings"):
        found.append(("output.weight", weights["lm_head.weight"]))
    for layer in range(config["num_hidden_layers"]):
        for name, gguf_name in NAMES.items():
            weight = weights[f"model.layers.{layer}.{name}.weight"]
            rotated = heads.get(name.rpartition(".")[2])
            found.append((f"blk.{layer}.{gguf_name}.weight", interleaved(weight, rotated) if rotated else weight))
    return found


if __name__ == "__main__":  # run by `eagle2 convert gguf`, under the engine's Python
    write(Path(sys.argv[1]), Path(sys.argv[2]))
