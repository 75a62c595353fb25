"""Unedited decoders are enumerated: a vectorised one, as in serving engines, and one in numpy. (LAW-6: the reference.)"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.distributions.exact import Law, total_variation
from harness.enumeration.exact_law import enumerate_law

K, V = 2, 3
GENERATOR = torch.Generator().manual_seed(1)
P = (2 * torch.randn(K + 1, V, generator=GENERATOR, dtype=torch.float64)).softmax(-1)
Q = (2 * torch.randn(K, V, generator=GENERATOR, dtype=torch.float64)).softmax(-1)
"""Target distributions at three positions, and the drafter's at the first two. The expected distribution is their product."""
EXPECTED: Law = {text: float(np.prod([float(P[i, x]) for i, x in enumerate(text)])) for text in product(range(V), repeat=K + 1)}


def vectorised(residual: Callable[[Tensor, Tensor], Tensor]) -> list[int]:
    """All positions at once, as kernels do, with random numbers also for tokens that are not needed."""
    drafted = torch.multinomial(Q, 1)
    ratios = (P[:K].gather(1, drafted) / Q.gather(1, drafted)).squeeze(1)
    accepted = int((torch.rand(K, dtype=P.dtype) <= ratios).int().cumprod(0).sum())
    noise = torch.empty_like(Q)
    noise.exponential_()
    recovered = residual(P[:K], Q).div_(noise).argmax(dim=-1)
    emitted = torch.full((K + 1,), -1)
    emitted[:K] = torch.where(torch.arange(K) < accepted, drafted[:, 0], recovered)
    emitted[K:] = torch.multinomial(P[K], 1)
    return complete(emitted[: accepted + 1].tolist())


def in_numpy(residual: Callable[[Tensor, Tensor], Tensor]) -> list[int]:
    """One position after another; recovers tokens by searchsorted."""
    coins, emitted = np.random.default_rng(), list[int]()
    for p, q, r in zip(P.numpy(), Q.numpy(), residual(P[:K], Q).numpy(), strict=False):
        drafted = int(coins.choice(V, p=q))
        if coins.random() < min(1.0, p[drafted] / q[drafted]):
            emitted.append(drafted)
        else:
            recovered = int(np.searchsorted(np.cumsum(r / r.sum()), coins.random(), side="right"))
            return complete([*emitted, min(recovered, V - 1)])
    return complete(emitted)


def complete(tokens: list[int]) -> list[int]:
    return [*tokens, *(torch.multinomial(P[i], 1).item() for i in range(len(tokens), K + 1))]  # type: ignore[list-item]


@pytest.mark.parametrize("decoder", [vectorised, in_numpy])
def test_third_party_style_decoder_is_enumerated(decoder: Callable[..., list[int]]) -> None:
    """It is exact with the residual (p - q)+, and deviates if recovered tokens are sampled from p itself."""
    right = enumerate_law(lambda: decoder(lambda p, q: (p - q).clamp_min(0)), window=K + 1)
    wrong = enumerate_law(lambda: decoder(lambda p, _: p.clone()), window=K + 1)
    assert total_variation(right.law, EXPECTED) <= 1e-12
    assert total_variation(wrong.law, EXPECTED) > 0.05
