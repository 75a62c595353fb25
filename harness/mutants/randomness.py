"""Faults of randomness: numbers that are used twice, seeds without effect."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.tree import DraftTree
from harness.implementations.reference import Engine
from harness.mutants import mutant
from harness.mutants.cases import ONE_DRAFT, ONE_LAYER, SAMPLED_ONE_LAYER, TWO_LAYERS
from harness.mutants.planting import Fault, Params, PathAndToken, Prompts, Results, Seeds, faulty_reject, invert

ASCEND = "vllm-project/vllm-ascend"


@mutant("M20", part="randomness", source="flashinfer-ai/flashinfer PR 424", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def one_coin(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """One uniform number is used for all draft tokens of a block."""
    once = coins.uniform()
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: once < r[x])


@mutant("M21", part="randomness", source=f"{ASCEND} PR 16370", killers={"LAW-1": TWO_LAYERS, "LAW-2": ""})
def reused_coin(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """The uniform number that rejected a draft token also selects the recovered token, by its cumulative sum."""

    def last(r: Tensor, rejected: Uniform | None, _above: Tensor | None) -> int:
        return coins.categorical(r) if rejected is None else invert(r, rejected)

    return faulty_reject(DraftTree.of(tokens, parents), p, coins, last=last)


@mutant("M22", part="randomness", source="vllm-project/vllm issue 6038", killers={"SMOKE-2": "", "LAW-4": SAMPLED_ONE_LAYER})
class SeedIgnored(Engine):
    """All requests are sampled with the same seed."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        return super().generate(prompts, params, [0] * len(seeds))


@mutant("M23", part="randomness", source=f"{ASCEND} PR 9693", killers={"LAW-4": SAMPLED_ONE_LAYER})
class SeedsCollide(Engine):
    """Seeds are rounded to float32, so that large seeds close to each other give the same text."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        return super().generate(prompts, params, [int(torch.tensor(seed, dtype=torch.float32)) for seed in seeds])


class RepeatingCoins(Coins):
    """Coins that start with the same numbers at every position."""

    def __init__(self, coins: Coins) -> None:
        self._coins = coins
        self._numbers: list[Uniform] = []
        self._next = 0

    def seek(self, position: int) -> None:
        self._coins.seek(position)
        self._next = 0

    def uniform(self) -> Uniform:
        if self._next == len(self._numbers):
            self._numbers.append(self._coins.uniform())
        self._next += 1
        return self._numbers[self._next - 1]

    def categorical(self, p: Tensor) -> int:
        return invert(p, self.uniform())


@mutant("M24", part="randomness", source="local-inference-lab/vllm issue 205", killers={"LAW-1": ONE_DRAFT})
class CoinsRestart(Fault):
    """Random numbers are keyed by the place in the block, not in the text: every target pass starts with the same ones."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        return super().decode(prompt, params, RepeatingCoins(coins))
