"""llama-cpp-python 0.3.36: logits processors receive draft tokens as if they were text.

.engines/llama-cpp/bin/python 041-llama-cpp-logits-processor.py [seed of the weights]
"""

import itertools
import sys
import tempfile

import numpy as np
from gguf import GGUFWriter
from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

V, H, FILE, N, PROMPT = 8, 32, tempfile.mkdtemp() + "/tiny.gguf", 100, [1, 2, 3, 4, 5, 1, 6, 7]
writer, rng = GGUFWriter(FILE, "llama"), np.random.default_rng(int(sys.argv[1]) if sys.argv[1:] else 0)
numbers = {"context_length": 256, "embedding_length": H, "block_count": 1, "feed_forward_length": H, "head_count": 1}
for name, value in {**numbers, "head_count_kv": 1, "layer_norm_rms_eps": 1e-5, "rope_dimension_count": H}.items():
    getattr(writer, "add_" + name)(value)
writer.add_tokenizer_model("llama")
for name, values in (("list", [b"<%d>" % i for i in range(V)]), ("scores", [0.0] * V), ("types", [1] * V)):
    getattr(writer, "add_token_" + name)(values)
shapes = {"token_embd": (V, H), "output": (V, H), "output_norm": (H,), "blk.0.attn_norm": (H,), "blk.0.ffn_norm": (H,)}
square = {f"blk.0.{name}": (H, H) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
for name, shape in {**shapes, **square}.items():
    weight = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) * shape[1] ** -0.5
    writer.add_tensor(name + ".weight", weight.astype(np.float32))
for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
    step()
options = {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
options["logits_processor"] = [lambda text, logits: np.where(np.arange(V) == text[-1], -np.inf, logits)]  # forbids a repetition

for name, drafter in (("plain", None), ("prompt lookup", LlamaPromptLookupDecoding(num_pred_tokens=4))):
    llama, texts = Llama(FILE, n_ctx=256, logits_all=True, draft_model=drafter, verbose=False), []
    for seed in range(N):
        llama.set_seed(seed)
        texts.append([PROMPT[-1], *itertools.islice(llama.generate(PROMPT, **options), 12)])
    twice = sum(one == other for text in texts for one, other in itertools.pairwise(text))
    print(f"{name}: {twice} of {12 * N} tokens have probability zero")
