"""EAGLE-1 and EAGLE-2: top-p is applied before top-k, transformers applies it after: two laws where both are asked for.

[PYTHONPATH=CHECKOUT] .engines/eagle/bin/python 037-eagle-top-p-before-top-k.py
"""

import torch
from eagle.model.utils import prepare_logits_processor
from transformers import TopKLogitsWarper, TopPLogitsWarper

asked = {"temperature": 1.0, "top_k": 3, "top_p": 0.75}
logits = torch.tensor([[0.32, 0.22, 0.16, 0.12, 0.10, 0.08]]).log()
published = prepare_logits_processor(**asked)(None, logits)
due = TopPLogitsWarper(asked["top_p"])(None, TopKLogitsWarper(asked["top_k"])(None, logits))
for told, found in ("transformers", due), ("EAGLE", published):
    print(f"{told:>12}: {[round(float(p), 3) for p in found.softmax(-1)[0]]}")
print(f"total variation {float((published.softmax(-1) - due.softmax(-1)).abs().sum() / 2):.3f}")
