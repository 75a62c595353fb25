"""EAGLE-1 and EAGLE-2: top-p is applied before top-k (a convention, not a fault).

[PYTHONPATH=CHECKOUT] .engines/eagle/bin/python 037-eagle-top-p-before-top-k.py
"""

import torch
from eagle.model.utils import prepare_logits_processor
from transformers import TopKLogitsWarper, TopPLogitsWarper

params = {"temperature": 1.0, "top_k": 3, "top_p": 0.75}
logits = torch.tensor([[0.32, 0.22, 0.16, 0.12, 0.10, 0.08]]).log()
published = prepare_logits_processor(**params)(None, logits)
expected = TopPLogitsWarper(params["top_p"])(None, TopKLogitsWarper(params["top_k"])(None, logits))
for name, found in ("transformers", expected), ("EAGLE", published):
    print(f"{name:>12}: {[round(float(p), 3) for p in found.softmax(-1)[0]]}")
print(f"total variation {float((published.softmax(-1) - expected.softmax(-1)).abs().sum() / 2):.3f}")
