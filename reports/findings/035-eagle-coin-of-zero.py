"""EAGLE-1 and EAGLE-2: a uniform number of exactly 0 accepts a token of probability zero.

[PYTHONPATH=CHECKOUT] .engines/eagle/bin/python 035-eagle-coin-of-zero.py
"""

import random

import torch
from eagle.model import utils

logits = torch.zeros(1, 2, 4)  # one path of one token; top_k = 2 leaves tokens 0 and 1
logits[..., :2] = 5.0
processor = utils.prepare_logits_processor(temperature=1.0, top_k=2)
law = processor(None, logits[0, :1])[0].softmax(-1)
candidates = torch.tensor([[0, 3]])  # the root, and token 3 drafted after it
extra = (torch.ones(1, 2), [torch.full((1, 4), 0.25)] * 2, [[-1, 0]], candidates, [[[], []]])  # further arguments of EAGLE-1
arguments = extra if utils.evaluate_posterior.__code__.co_argcount > 3 else ()
print("the target's law:", law.tolist())
before = random.random
for coin in 0.0, 2.0**-53:
    random.random = lambda coin=coin: coin
    _, accepted, _ = utils.evaluate_posterior(logits, candidates, processor, *arguments)
    print(f"coin {coin:.2g}: token 3 is {'accepted' if int(accepted) else 'rejected'}")
random.random = before
print(f"a coin of 0 has probability 2**-53: once in {2**53 / 1e9 / 86400 / 365:.2g} years at a thousand million coins a second")
