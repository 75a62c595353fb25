"""eagle-llm 1.2.1: the bonus token ignores temperature, top-k and top-p.

.engines/eagle/bin/python 030-eagle-bonus-ignores-sampling.py SEED
"""

import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from eagle.model import cnets, ea_model
from transformers import LlamaConfig, LlamaForCausalLM

V, TEXTS, NEW, PROMPT = 12, 60, 40, [[3, 1, 4]]
random.seed(sys.argv[1]), torch.manual_seed(int(sys.argv[1]))
folder = Path(tempfile.mkdtemp())
shape = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "max_position_embeddings": 128}
target = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, initializer_range=0.3)).eval()
target.save_pretrained(folder / "target")
LlamaConfig(**shape, num_hidden_layers=1, bias=False).save_pretrained(folder / "head")
head = cnets.Model(ea_model.EConfig.from_pretrained(folder / "head"), bias=False)
torch.save(head.state_dict(), folder / "head" / "pytorch_model.bin")
ea_model.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(eos_token_id=None))
model = ea_model.EaModel.from_pretrained(base_model_path=str(folder / "target"), ea_model_path=str(folder / "head")).eval()

for params in {"temperature": 1.0}, {"temperature": 0.5}, {"temperature": 1.0, "top_k": 3}, {"temperature": 1.0, "top_p": 0.6}:
    impossible, hits, expected, variance = 0, 0, 0.0, 0.0
    for _ in range(TEXTS):  # count how often a token is the most likely one after its prefix
        text = model.eagenerate(torch.tensor(PROMPT), max_new_tokens=NEW, **params)[:, : 3 + NEW]
        with torch.no_grad():
            p = ea_model.prepare_logits_processor(**params)(None, target(text).logits[0, 2:-1]).softmax(-1)
        best, which = p.max(-1)
        impossible += int((p.gather(1, text[0, 3:, None]) == 0).sum())
        hits += int((which == text[0, 3:]).sum())
        expected, variance = expected + float(best.sum()), variance + float((best - best**2).sum())
    print(
        f"{params}: {impossible} impossible, {hits} of {TEXTS * NEW} most likely, expected {expected:.0f} +- {variance**0.5:.0f}"
    )
