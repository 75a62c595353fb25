"""Faults of what is told about a text: its blocks and their counts. The text itself is right."""

from __future__ import annotations

from typing import Any

from eagle2_ref.coins import Coins
from eagle2_ref.sampling import SamplingParams
from harness.mutants import mutant
from harness.mutants.planting import Alone
from harness.mutants.stops import BlockKeptWhole


@mutant("M96", part="telling", source="SafeAILab/EAGLE issue 95", killers={"TREE-1": "", "COUNT-1": ""}, law=False)
class CountsOneTooMany(Alone):
    """The recovered or bonus token is counted among the accepted."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer = super().decode(prompt, params, coins)
        return answer | {"blocks": [block | {"accepted": block["accepted"] + 1} for block in answer["blocks"]]}


@mutant("M97", part="telling", source="sgl-project/sglang issue 39826", killers={"COUNT-1": ""}, law=False)
class CountsAfterEnd(BlockKeptWhole):
    """Blocks count the tokens behind an end of text too, though the text is cut there."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer, ends = super().decode(prompt, params, coins), SamplingParams.of(params).ends
        first = next((i for i, token in enumerate(answer["tokens"], start=1) if ends(token)), None)
        return answer | {"tokens": answer["tokens"][:first]}


@mutant("M98", part="telling", source="vllm-project/vllm issue 9565", killers={"TREE-1": "", "COUNT-1": ""}, law=False)
class CountsAfterMismatch(Alone):
    """Along the first drafted path every match with the text is counted as accepted, also behind the first mismatch."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer = super().decode(prompt, params, coins)
        done, told = 0, []
        for block in answer["blocks"]:
            rest = answer["tokens"][done:]
            done += block["accepted"] + 1
            matches = sum(a == b for a, b in zip(_first_path(block["tokens"], block["parents"]), rest, strict=False))
            told.append(block | {"accepted": matches})
        return answer | {"blocks": told}


def _first_path(tokens: list[int], parents: list[int]) -> list[int]:
    """The tokens below the root, following the first child of each node."""
    path, node = [], 0
    while node in parents:
        node = parents.index(node)
        path.append(tokens[node])
    return path
