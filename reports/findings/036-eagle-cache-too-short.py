"""EAGLE-1 and EAGLE-2: decoding raises if the last draft tree does not fit into the cache.

[PYTHONPATH=CHECKOUT] .engines/eagle/bin/python 036-eagle-cache-too-short.py
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from eagle.model import cnets, ea_model
from transformers import LlamaConfig, LlamaForCausalLM

V, folder = 32, Path(tempfile.mkdtemp())
shape = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "max_position_embeddings": 64}
torch.manual_seed(0)
target = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, initializer_range=0.3)).eval()
target.save_pretrained(folder / "target")
index = json.dumps({"weight_map": {"model.embed_tokens.weight": "model.safetensors"}})
(folder / "target" / "model.safetensors.index.json").write_text(index)
LlamaConfig(**shape, num_hidden_layers=1, bias=False).save_pretrained(folder / "head")
checkout = hasattr(ea_model, "Model1")
head = getattr(ea_model, "Model1", cnets.Model)(ea_model.EConfig.from_pretrained(folder / "head"), bias=False)
torch.save(head.state_dict(), folder / "head" / "pytorch_model.bin")
ea_model.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(eos_token_id=None))
options = {"use_eagle3": False, "total_token": 26, "depth": 5, "top_k": 8} if checkout else {}
model = ea_model.EaModel.from_pretrained(base_model_path=str(folder / "target"), ea_model_path=str(folder / "head"), **options)

# The cache of EAGLE-1 has the length of the context, that of EAGLE-2 `max_length` of the first call.
for length, most in ((8, 64), (40, 64), (8, 128))[: 3 if checkout else 2]:
    limits = {"max_new_tokens": most - length, **({"max_length": most} if checkout else {})}
    try:
        result = model.eval().eagenerate(torch.randint(V, (1, length)), **limits).shape[1] - length
    except RuntimeError as error:
        result = f"RuntimeError: {error}"
    print(f"prompt of {length}, {most - length} new tokens requested:", result)
