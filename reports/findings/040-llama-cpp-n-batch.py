"""llama-cpp-python 0.3.36: with a draft model, a text longer than `n_batch` raises.

.engines/llama-cpp/bin/python 040-llama-cpp-n-batch.py
"""

import tempfile

import numpy as np
from gguf import GGUFWriter
from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

V, H, FILE = 8, 32, tempfile.mkdtemp() + "/tiny.gguf"
writer, rng = GGUFWriter(FILE, "llama"), np.random.default_rng(0)
numbers = {"context_length": 2048, "embedding_length": H, "block_count": 1, "feed_forward_length": H, "head_count": 1}
for name, value in {**numbers, "head_count_kv": 1, "layer_norm_rms_eps": 1e-5, "rope_dimension_count": H}.items():
    getattr(writer, "add_" + name)(value)
writer.add_tokenizer_model("llama")
for name, values in (("list", [b"<%d>" % i for i in range(V)]), ("scores", [0.0] * V), ("types", [1] * V)):
    getattr(writer, "add_token_" + name)(values)
shapes = {"token_embd": (V, H), "output": (V, H), "output_norm": (H,), "blk.0.attn_norm": (H,), "blk.0.ffn_norm": (H,)}
square = {f"blk.0.{name}": (H, H) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
for name, shape in {**shapes, **square}.items():
    weight = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape)
    writer.add_tensor(name + ".weight", weight.astype(np.float32))
for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()

for name, drafter in (("plain", None), ("prompt lookup", LlamaPromptLookupDecoding(num_pred_tokens=10))):
    for prompt in ([1, 2, 3], [1, 2, 3] * 200):
        llama, tokens = Llama(FILE, n_ctx=2048, draft_model=drafter, verbose=False), 0
        try:
            for tokens, _ in enumerate(llama.generate(prompt, temp=0.0), 1):
                if tokens == 700:
                    break
            print(f"{name}, n_batch {llama.n_batch}, prompt of {len(prompt)}: {tokens} of 700 tokens")
        except ValueError as error:
            print(f"{name}, n_batch {llama.n_batch}, prompt of {len(prompt)}: after {tokens} tokens ValueError: {error}")
