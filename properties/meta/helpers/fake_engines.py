"""Engines as a user would write them, correct and wrong. They use nothing of this package but a loader."""

from __future__ import annotations

import math
import random
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.model.target import load_model
from harness.implementations import Implementation

WRONG = 0.6
"""A factor on the temperature that is large enough to show in a few hundred tokens."""


class Outsider:
    """Ordinary sampling. Each arm has its own factor on the temperature."""

    speculating = plainly = 1.0
    honours_top_k = True

    def __init__(self, target: str, draft: str | None = None, depth: int = 1) -> None:
        self.model, self.factor = load_model(target, "float64").eval(), self.speculating if draft else self.plainly
        self.depth = depth

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        texts, coins = [list(prompt) for prompt in prompts], [random.Random(seed) for seed in seeds]  # noqa: S311
        for step in range(max(row["max_new_tokens"] for row in params)):
            for length in {len(prompt) for prompt in prompts}:
                rows = [i for i, row in enumerate(params) if step < row["max_new_tokens"] and len(prompts[i]) == length]
                logits = self.model(torch.tensor([texts[i] for i in rows])).logits[:, -1] if rows else []
                for i, row in zip(rows, logits, strict=True):
                    texts[i].append(self.draw(self.law(row, params[i]), coins[i], seeds[i] + step))
        return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]

    def law(self, logits: Tensor, params: dict[str, Any]) -> Tensor:
        if self.honours_top_k and "top_k" in params:
            logits = logits.masked_fill(logits < logits.topk(params["top_k"]).values[-1], -math.inf)
        p: Tensor = (logits / (params["temperature"] * self.factor)).softmax(-1)
        return p

    def draw(self, p: Tensor, coins: random.Random, key: int) -> int:  # noqa: ARG002
        u = coins.random()
        return next((x for x, below in enumerate(accumulate(p.tolist())) if u < below), len(p) - 1)


class TooCold(Outsider):
    """Speculation samples at another temperature."""

    speculating = WRONG


class Frozen(Outsider):
    """Speculation hardly samples at all."""

    speculating = 0.2


class OtherTarget(Outsider):
    """Both arms sample at another temperature, as if the target were another one."""

    speculating = plainly = WRONG


class LosesTopK(Outsider):
    """top_k is ignored."""

    honours_top_k = False


class NormalNoise(Outsider):
    """The token of the highest noisy logit, with normal noise instead of Gumbel noise."""

    def draw(self, p: Tensor, coins: random.Random, key: int) -> int:  # noqa: ARG002
        return int((p.log() + torch.randn(len(p))).argmax())


class HashedSeed(Outsider):
    """Computes random numbers from the seed, in plain arithmetic."""

    def draw(self, p: Tensor, coins: random.Random, key: int) -> int:  # noqa: ARG002
        u = (key * 0x9E3779B97F4A7C15 ^ (key * 0xBF58476D1CE4E5B9) >> 31) % 2**53 / 2**53
        return next((x for x, below in enumerate(accumulate(p.tolist())) if u < below), len(p) - 1)


class HiddenLast(HashedSeed):
    """Samples two tokens with `random`, and the third from the seed."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        self.drawn = 0
        return super().generate(prompts, params, seeds)

    def draw(self, p: Tensor, coins: random.Random, key: int) -> int:
        self.drawn += 1
        return super().draw(p, coins, key * 7919) if self.drawn == 3 else Outsider.draw(self, p, coins, key)


class Transformers(Outsider):
    """transformers' own generate()."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        found = []
        for prompt, row, seed in zip(prompts, params, seeds, strict=True):
            torch.manual_seed(seed)
            options = {"temperature": row["temperature"] * self.factor, "top_k": 0, "max_new_tokens": row["max_new_tokens"]}
            text = self.model.generate(torch.tensor([prompt]), do_sample=True, **options)
            found.append(text[0, len(prompt) :].tolist())
        return found


class TransformersTooCold(Transformers):
    """transformers' own generate(), with the wrong temperature."""

    speculating = WRONG


class LosesTopKSpeculating(Outsider):
    """Only speculation loses the filter."""

    def __init__(self, target: str, draft: str | None = None, depth: int = 1) -> None:
        super().__init__(target, draft, depth)
        self.honours_top_k = draft is None


class Cool(Outsider):
    """Wrong by so little that the first budget of tokens is too small for a verdict."""

    speculating = 0.79


class Tepid(Outsider):
    """Wrong by even less."""

    speculating = 0.83


class Joining(Outsider):
    """64 texts of a call run at a time. A waiting prompt of one token is continued after a token 0, three times in ten."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        texts = super().generate(prompts, params, seeds)
        waited = [i for i in range(64, len(prompts)) if len(prompts[i]) == 1]
        wrong = [i for i in waited if random.Random(f"joins {seeds[i]}").random() < 0.3]  # noqa: S311
        if wrong:
            own = [params[i] for i in wrong]
            begun = super().generate([[*prompts[i], 0] for i in wrong], own, [seeds[i] for i in wrong])
            starts = [[*prompts[i], text[0]] for i, text in zip(wrong, begun, strict=True)]
            for i, start, rest in zip(wrong, starts, super().generate(starts, own, [seeds[i] + 1 for i in wrong]), strict=True):
                texts[i] = [start[-1], *rest[:-1]]
        return texts


def implementation(engine: type[Outsider], *capabilities: str, **options: Any) -> Implementation:
    return Implementation(engine.__name__, engine, options, frozenset({"temperature", *capabilities}))
