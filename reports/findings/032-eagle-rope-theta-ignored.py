"""eagle-llm 1.2.1: the RoPE base is 10000 for every target.

.engines/eagle/bin/python 032-eagle-rope-theta-ignored.py
"""

import tempfile

import torch
from eagle.model.modeling_llama_kv import LlamaForCausalLM as EagleLlama
from transformers import LlamaConfig, LlamaForCausalLM

V = 64
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
torch.set_num_threads(1)
for theta in 10_000.0, 500_000.0, 1_000_000.0:  # LLaMA-2, LLaMA-3, Code Llama
    torch.manual_seed(0)
    target = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.3, rope_theta=theta)).eval()
    with tempfile.TemporaryDirectory() as folder:
        target.save_pretrained(folder)
        published = EagleLlama.from_pretrained(folder).eval()
    text = torch.randint(V, (4, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = target(text).logits, published(text).logits
    distance = (expected.softmax(-1) - found.softmax(-1)).abs().sum(-1).mean() / 2
    other = int((expected.argmax(-1) != found.argmax(-1)).sum())
    print(f"rope_theta {theta:>9,.0f}: {other} of {text.numel()} most likely tokens are others; total variation {distance:.3f}")
