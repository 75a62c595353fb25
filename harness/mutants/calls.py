"""Faults of calls with several prompts: requests that are swapped, lost, or decoded with another request's data."""

from __future__ import annotations

from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from harness.implementations.reference import Engine
from harness.mutants import mutant
from harness.mutants.cases import SAMPLED_ONE_LAYER
from harness.mutants.planting import Fault, Params, Prompts, Results, Seeds


@mutant("M90", part="calls", source="vllm-project/vllm-ascend issue 16396", killers={"GREEDY-4": ""})
class FirstRowsTemperature(Engine):
    """A call with several temperatures is decoded at the temperature of its first request."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        return super().generate(prompts, [{**row, "temperature": params[0]["temperature"]} for row in params], seeds)


@mutant("M91", part="calls", source="vllm-project/vllm PR 14645", killers={"SMOKE-1": ""})
class LastResultLost(Engine):
    """The last prompt of a call gets no result."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        return super().generate(prompts, params, seeds)[:-1]


@mutant("M92", part="calls", source="vllm-project/vllm PR 14645", killers={"GREEDY-4": ""})
class RequestsReordered(Engine):
    """Parameters are read in the order of the call, but prompts with greedy ones first: parameters and prompts are mismatched."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        order = sorted(range(len(prompts)), key=lambda row: params[row]["temperature"] > 0)
        return super().generate([prompts[row] for row in order], params, seeds)


@mutant("M93", part="calls", source="vllm-project/vllm-ascend PR 5417", killers={"GREEDY-4": ""})
class GreedySentinel(Engine):
    """In a call that also has sampled requests, temperature 0 is not recognised as greedy and counts as 1."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        if any(row["temperature"] > 0 for row in params):
            params = [{**row, "temperature": row["temperature"] or 1.0} for row in params]
        return super().generate(prompts, params, seeds)


@mutant("M94", part="calls", source="Blaizzy/mlx-vlm PR 1210", killers={"GREEDY-4": ""})
class PaddingAttended(Engine):
    """The shorter prompts of a call are padded on the left, and attention includes the padding."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        longest = max(map(len, prompts))
        return super().generate([[0] * (longest - len(prompt)) + prompt for prompt in prompts], params, seeds)


@mutant("M95", part="calls", source="HabanaAI/vllm-fork PR 1780", killers={"GREEDY-4": ""})
class TokenLeaks(Fault):
    """A request starts with the last token of the previous request in the same call."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        results: Results = []
        for prompt, row, seed in zip(prompts, params, seeds, strict=True):
            left = results[-1]["tokens"][-1:] if results else []
            results.append(self.decode([*left, *prompt], row, SeededCoins(seed)))
        return results


class TokenZero(SeededCoins):
    """Coins whose samples are lost: the result is always token 0."""

    def categorical(self, p: Tensor) -> int:
        super().categorical(p)
        return 0


@mutant("M99", part="calls", source="vllm-project/vllm PR 10863", killers={"LAW-4": SAMPLED_ONE_LAYER})
class SamplesWrittenToCopy(Fault):
    """In a call with several seeds, samples with other seeds than the first are written to a copy, and token 0 is read."""

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        def coins(seed: int) -> Coins:
            return SeededCoins(seed) if seed == seeds[0] else TokenZero(seed)

        return [self.decode(prompt, row, coins(seed)) for prompt, row, seed in zip(prompts, params, seeds, strict=True)]
