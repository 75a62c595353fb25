"""Faults of reported numbers: block counts, log-probabilities and counters. The text itself is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from eagle2_ref.decode import Block
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.mutants import control, mutant
from harness.mutants.cases import BIASED, FULL_CONTEXT, TOLD_COOLER, TOLD_PLAINLY
from harness.mutants.planting import Alone, Asked, Planted
from harness.mutants.stops import BlockKeptWhole


class Retold(Planted):
    """Of the tokens of a block other log-probabilities are told, where there is speculation."""

    def told(self, block: Block, asked: Asked) -> list[float]:
        raise NotImplementedError

    def plant_drafter(self, drafter: Eagle2) -> None:  # noqa: ARG002
        accept = self.decoder.accept

        def retold(sequence: Text, tree: Tree, logits: Tensor) -> Block:
            block = accept(sequence, tree, logits)
            asked = Asked(tree, logits, sequence.tokens, sequence.params)
            return replace(block, logprobs=self.told(block, asked)) if block.logprobs else block

        self.decoder.accept = retold  # type: ignore[method-assign]


# --- block counts ---------------------------------------------------------------------------------------------------


@mutant("M96", part="reporting", source="SafeAILab/EAGLE issue 95", killers={"TREE-1": "", "COUNT-1": ""}, law=False)
class CountsOneTooMany(Alone):
    """The recovered or bonus token of a block is counted as accepted."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer = super().decode(prompt, params, coins)
        return answer | {"blocks": [block | {"accepted": block["accepted"] + 1} for block in answer["blocks"]]}


@mutant("M97", part="reporting", source="sgl-project/sglang issue 39826", killers={"COUNT-1": ""}, law=False)
class CountsAfterEnd(BlockKeptWhole):
    """Blocks count the tokens after an end of text, although the text ends there."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer, ends = super().decode(prompt, params, coins), SamplingParams.of(params).ends
        first = next((i for i, token in enumerate(answer["tokens"], start=1) if ends(token)), None)
        return answer | {"tokens": answer["tokens"][:first]}


@mutant("M98", part="reporting", source="vllm-project/vllm issue 9565", killers={"TREE-1": "", "COUNT-1": ""}, law=False)
class CountsAfterMismatch(Alone):
    """Every match between the first drafted path and the text counts as accepted, even after the first mismatch."""

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


# --- log-probabilities ---------------------------------------------------------------------------------------------


@mutant("M100", part="reporting", source="ggml-org/llama.cpp issue 27972", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class AllCertain(Retold):
    """With speculation, every token is reported with probability 1."""

    def told(self, block: Block, asked: Asked) -> list[float]:  # noqa: ARG002
        return [0.0] * len(block.tokens)


@mutant("M101", part="reporting", source="vllm-project/vllm PR 38711", killers={"TOLD-1": FULL_CONTEXT}, law=False)
class StaleAtTheEnd(Retold):
    """Where the context has no space for a draft of full depth, the log-probability of an earlier token is reported."""

    stale = -20.0

    def told(self, block: Block, asked: Asked) -> list[float]:
        assert isinstance(self.decoder.drafter, Eagle2), "it is planted into a drafter"
        if len(asked.text) + self.decoder.drafter.budget.depth < self.decoder.target.context:
            self.stale = block.logprobs[0]
            return block.logprobs
        return [self.stale] * len(block.tokens)


@mutant("M102", part="reporting", source="standardcompletions/rfcs issue 11", killers={"TOLD-1": TOLD_COOLER}, law=False)
class ToldAtOne(Retold):
    """Reported log-probabilities are those of temperature 1 without filters, regardless of the request."""

    def told(self, block: Block, asked: Asked) -> list[float]:
        return raw(block, asked)


@mutant("M103", part="reporting", source="vllm-project/vllm PR 30846", killers={"TOLD-1": TOLD_COOLER}, law=False)
class RawChangedInPlace(Alone):
    """Log-probabilities that are called raw are computed from logits that the sampling parameters have modified in place."""

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        return super().describe(rule, **others) | {"logprobs": "raw"}


@mutant("M104", part="reporting", source="vllm-project/vllm PR 29216", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class OffsetByOne(Retold):
    """The log-probabilities of a block are read one row too early."""

    def told(self, block: Block, asked: Asked) -> list[float]:  # noqa: ARG002
        return [block.logprobs[0], *block.logprobs[:-1]]


@mutant("M105", part="reporting", source="z-lab/dflash issue 39", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class DraftersOwn(Retold):
    """For an accepted token, the drafter's log-probability is reported instead of the target's."""

    def told(self, block: Block, asked: Asked) -> list[float]:
        assert isinstance(asked.tree, DraftTree)
        parents = [ROOT, *block.path]
        values = [float(asked.tree.values[b] - asked.tree.values[a]) for a, b in zip(parents, block.path, strict=False)]
        return [*values, *block.logprobs[len(values) :]]


@control("C17", part="reporting", source="vllm-project/vllm PR 30846, as mended")
class TellsRaw(Retold):
    """Reported log-probabilities are the model's, regardless of the sampling parameters.

    Right: the engine declares them as raw. Log-probabilities must match their declaration; either kind is allowed.
    """

    capabilities = Alone.capabilities - {"rules", "tau"}

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        return super().describe(rule, **others) | {"logprobs": "raw"}

    def told(self, block: Block, asked: Asked) -> list[float]:
        return raw(block, asked)


def raw(block: Block, asked: Asked) -> list[float]:
    """Log-probabilities of a block's tokens under the model, before sampling parameters."""
    nodes = [ROOT, *block.path][: len(block.tokens)]
    told: list[float] = asked.logits.log_softmax(-1)[nodes, [int(token) for token in block.tokens]].tolist()
    return told


# --- counters ------------------------------------------------------------------------------------------------------


@mutant("M106", part="reporting", source="sgl-project/sglang PR 23530", killers={"TOLD-2": "T=1"}, law=False)
class BonusAccepted(Alone):
    """The counter of accepted tokens includes the recovered or bonus token of every pass."""

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"accepted": counted["accepted"] + counted["passes"]}


@mutant("M107", part="reporting", source="lightseekorg/tokenspeed PR 1443", killers={"TOLD-2": "T=1"}, law=False)
class RootsDrafted(Alone):
    """The counter of draft tokens includes the root of every tree."""

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"drafted": counted["drafted"] + counted["passes"]}


@mutant("M108", part="reporting", source="openvinotoolkit/openvino.genai PR 4248", killers={"TOLD-2": "T=1"}, law=False)
class DraftedOfTheLastCall(Alone):
    """Accepted tokens are counted since the engine was opened, draft tokens since the start of the last call."""

    before = 0

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        self.before = self.counted["drafted"]
        return super().generate(prompts, params, seeds)

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"drafted": counted["drafted"] - self.before}


@mutant("M109", part="reporting", source="ggml-org/llama.cpp PR 22506", killers={"TOLD-2": "T=1"}, law=False)
class AlwaysAccepted(Alone):
    """Only accepted draft tokens are counted as drafted, so that the acceptance rate is always 1."""

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"drafted": counted["accepted"]}


@control("C16", part="reporting", source="vllm-project/vllm PR 16665")
class CountsPassesOverDrafts(Alone):
    """A pass without draft tokens, such as the last of a text, is not counted as a pass.

    Right: whether such a pass counts is a matter of definition. The numbers of drafted and accepted tokens are the same.
    """

    capabilities = Alone.capabilities - {"rules", "tau"}

    def _count(self, answer: dict[str, Any]) -> dict[str, Any]:
        super()._count(answer | {"blocks": [block for block in answer["blocks"] if len(block["tokens"]) != 1]})
        return answer


# --- what only a count can see -------------------------------------------------------------------------------------


@mutant("M110", part="head", source="vllm-project/vllm PR 22323", killers={"COUNT-3": BIASED}, law=False)
class BiasLost(Planted):
    """The bias of the head's first layer is not loaded, without a warning."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        drafter.head.fc_bias = None
