"""SafeAILab/EAGLE: tied scores drop the root of a draft tree, and greedy text loses tokens.

PYTHONPATH=CHECKOUT .engines/eagle/bin/python 033-eagle-tied-scores-lose-the-root.py SEED SCALE    (SCALE 1000: ties; 1: none)
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from eagle.model import cnets1, ea_model
from transformers import LlamaConfig, LlamaForCausalLM

V, NEW, folder = 64, 30, Path(tempfile.mkdtemp())
torch.manual_seed(int(sys.argv[1]))
shape = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "max_position_embeddings": 256}
target = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, initializer_range=0.3)).eval()
target.save_pretrained(folder / "target")
index = json.dumps({"weight_map": {"model.embed_tokens.weight": "model.safetensors"}})
(folder / "target" / "model.safetensors.index.json").write_text(index)
LlamaConfig(**shape, num_hidden_layers=1, bias=False).save_pretrained(folder / "head")
head = cnets1.Model(ea_model.EConfig.from_pretrained(folder / "head"), bias=False)
head.fc.weight.data *= float(sys.argv[2])  # a very certain head: log-probabilities of 0
torch.save(head.state_dict(), folder / "head" / "pytorch_model.bin")
ea_model.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(eos_token_id=None))

prompts = torch.randint(V, (12, 1, 8))
for m, depth, k in (3, 6, 3), (25, 6, 8):
    model = ea_model.EaModel.from_pretrained(False, str(folder / "target"), str(folder / "head"), m + 1, depth - 1, k).eval()
    wrong = dict.fromkeys(("naivegenerate", "eagenerate"), 0)
    for text in prompts:
        expected = text
        with torch.no_grad():
            for _ in range(NEW):
                expected = torch.cat([expected, target(expected).logits[:, -1:].argmax(-1)], dim=1)
        for decode in wrong:
            wrong[decode] += not getattr(model, decode)(text, max_new_tokens=NEW)[:, : 8 + NEW].equal(expected)
    print(f"m={m} depth={depth} k={k}: of 12 greedy texts these are not the target's: {wrong}", flush=True)
