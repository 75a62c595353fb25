"""transformers 5.23.0: a uniform number of 0 accepts a draft token of probability zero."""

import torch
from transformers.generation.utils import _speculative_sampling

never = -float("inf")
p = torch.tensor([[[0.0, never], [0.0, never]]])  # the target's distribution after top_k = 1: token 0 is certain
q = torch.tensor([[[never, 0.0]]])  # the assistant drafted token 1

torch.manual_seed(0)
coins = torch.rand(1 << 26)  # multiples of 2 ** -24
first = int((coins == 0).nonzero()[0])
print(f"{int((coins == 0).sum())} of {len(coins)} coins of torch.rand are 0; the first is number {first}")
del coins

torch.manual_seed(0)
torch.rand(first)  # the next random number is this zero
text, accepted = _speculative_sampling(torch.tensor([[1]]), q, 1, p)
print(f"drafted 1, whose probability is 0: accepted {int(accepted)}, emitted {text.tolist()[0]}")
