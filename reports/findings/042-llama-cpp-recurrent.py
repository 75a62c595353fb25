"""llama-cpp-python 0.3.36: with a draft model, a recurrent model raises at the first rejected draft.

.engines/llama-cpp/bin/python 042-llama-cpp-recurrent.py
"""

import itertools
import tempfile

import numpy as np
from gguf import GGUFWriter
from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

V, H, D, S, R, K, FILE = 8, 32, 64, 16, 4, 4, tempfile.mkdtemp() + "/tiny.gguf"
writer, rng = GGUFWriter(FILE, "mamba"), np.random.default_rng(0)
numbers = {"context_length": 256, "embedding_length": H, "block_count": 1, "feed_forward_length": 0, "head_count": 0}
numbers |= {"ssm_conv_kernel": K, "ssm_inner_size": D, "ssm_state_size": S, "ssm_time_step_rank": R, "layer_norm_rms_eps": 1e-5}
for name, value in numbers.items():
    getattr(writer, "add_" + name)(value)
writer.add_tokenizer_model("llama")
for name, values in (("list", [b"<%d>" % i for i in range(V)]), ("scores", [0.0] * V), ("types", [1] * V)):
    getattr(writer, "add_token_" + name)(values)
layer = {"ssm_in.weight": (2 * D, H), "ssm_conv1d.weight": (D, K), "ssm_x.weight": (R + 2 * S, D), "ssm_dt.weight": (D, R)}
ones = {"attn_norm.weight": (H,), "ssm_conv1d.bias": (D,), "ssm_dt.bias": (D,), "ssm_d": (D,), "ssm_a": (D, S)}
inner = {f"blk.0.{name}": shape for name, shape in {**layer, **ones, "ssm_out.weight": (H, D)}.items()}
for name, shape in {"token_embd.weight": (V, H), "output.weight": (V, H), "output_norm.weight": (H,), **inner}.items():
    weight = np.ones(shape) if name.rpartition("0.")[2] in {**ones, "output_norm.weight": 0} else rng.standard_normal(shape)
    writer.add_tensor(name, (-weight if name.endswith("ssm_a") else weight).astype(np.float32))
for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()

for name, drafter in (("plain", None), ("prompt lookup", LlamaPromptLookupDecoding(num_pred_tokens=4))):
    llama, tokens = Llama(FILE, n_ctx=256, logits_all=True, draft_model=drafter, verbose=False), []
    try:
        tokens += itertools.islice(llama.generate([1, 2, 3, 1, 2], temp=0.0), 24)
        print(f"{name}: {tokens}")
    except RuntimeError as error:
        print(f"{name}: RuntimeError: {error}")
