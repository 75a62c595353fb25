"""eagle-llm 1.2.1: the baseline decoder is greedy at every temperature.

.engines/eagle/bin/python 031-eagle-baseline-is-greedy.py
"""

import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch
from eagle.model import cnets, ea_model
from transformers import LlamaConfig, LlamaForCausalLM

V, TEXTS, PROMPT = 12, 300, [[3, 1, 4]]
torch.set_num_threads(1)
torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())
shape = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "max_position_embeddings": 128}
target = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, initializer_range=0.3)).eval()
target.save_pretrained(folder / "target")
LlamaConfig(**shape, num_hidden_layers=1, bias=False).save_pretrained(folder / "head")
head = cnets.Model(ea_model.EConfig.from_pretrained(folder / "head"), bias=False)
torch.save(head.state_dict(), folder / "head" / "pytorch_model.bin")
ea_model.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(eos_token_id=None))
model = ea_model.EaModel.from_pretrained(base_model_path=str(folder / "target"), ea_model_path=str(folder / "head")).eval()

with torch.no_grad():
    p = target(torch.tensor(PROMPT)).logits[0, -1].softmax(-1)
print("first token, expected:", {token: round(TEXTS * float(p[token]), 1) for token in range(V)})
for temperature in 1.0, 2.0:
    texts = [next(iter(model.naive_generate(torch.tensor(PROMPT), temperature=temperature, max_steps=1))) for _ in range(TEXTS)]
    print(f"temperature {temperature}:", dict(Counter(int(text[0, 3]) for text in texts)))
