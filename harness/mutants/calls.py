"""Faults of calls with several prompts: rows that are swapped, lost, or decoded with what belongs to another row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from harness.implementations.reference import Engine
from harness.mutants import mutant
from harness.mutants.cases import SAMPLED_ONE_LAYER
from harness.mutants.planting import Alone

Prompts = Sequence[list[int]]
Params = Sequence[dict[str, Any]]
Answers = list[dict[str, Any]]


@mutant("M90", part="calls", source="vllm-project/vllm-ascend issue 16396", killers={"GREEDY-4": ""})
class FirstRowsTemperature(Engine):
    """A call of mixed temperatures is decoded at that of its first row."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        return super().generate(prompts, [{**row, "temperature": params[0]["temperature"]} for row in params], seeds)


@mutant("M91", part="calls", source="vllm-project/vllm PR 14645", killers={"SMOKE-1": ""})
class LosesAnAnswer(Engine):
    """The last prompt of a call gets no answer."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        return super().generate(prompts, params, seeds)[:-1]


@mutant("M92", part="calls", source="vllm-project/vllm PR 14645", killers={"GREEDY-4": ""})
class RowsReordered(Engine):
    """Parameters are taken in the order of the call, prompts with the greedy rows first: a row continues another's prompt."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        order = sorted(range(len(prompts)), key=lambda row: params[row]["temperature"] > 0)
        return super().generate([prompts[row] for row in order], params, seeds)


@mutant("M93", part="calls", source="vllm-project/vllm-ascend PR 5417", killers={"GREEDY-4": ""})
class GreedySentinel(Engine):
    """In a call that has sampled rows too, a temperature of 0 is not recognised as greedy, and counts as 1."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        if any(row["temperature"] > 0 for row in params):
            params = [{**row, "temperature": row["temperature"] or 1.0} for row in params]
        return super().generate(prompts, params, seeds)


@mutant("M94", part="calls", source="Blaizzy/mlx-vlm PR 1210", killers={"GREEDY-4": ""})
class PaddingSeen(Engine):
    """Shorter prompts of a call are padded on the left, and the padding is attended to."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        longest = max(map(len, prompts))
        return super().generate([[0] * (longest - len(prompt)) + prompt for prompt in prompts], params, seeds)


@mutant("M95", part="calls", source="HabanaAI/vllm-fork PR 1780", killers={"GREEDY-4": ""})
class TokensLeak(Alone):
    """A row of a call begins behind the last token of the row before it."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        answers: Answers = []
        for prompt, row, seed in zip(prompts, params, seeds, strict=True):
            left = answers[-1]["tokens"][-1:] if answers else []
            answers.append(self.decode([*left, *prompt], row, SeededCoins(seed)))
        return answers


class FirstIds(SeededCoins):
    """Coins whose draws are written to a copy: the token that is read is always 0."""

    def categorical(self, p: Tensor) -> int:
        super().categorical(p)
        return 0


@mutant("M99", part="calls", source="vllm-project/vllm PR 10863", killers={"LAW-4": SAMPLED_ONE_LAYER})
class DrawsWrittenToCopy(Alone):
    """In a call of several seeds, the tokens that rows with another seed than the first draw are lost, and token 0 is read."""

    def generate(self, prompts: Prompts, params: Params, seeds: Sequence[int]) -> Answers:
        def coins(seed: int) -> Coins:
            return SeededCoins(seed) if seed == seeds[0] else FirstIds(seed)

        return [self.decode(prompt, row, coins(seed)) for prompt, row, seed in zip(prompts, params, seeds, strict=True)]
