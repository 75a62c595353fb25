"""Faults of the numbers that are told with a text, log-probabilities and counters, and one that only a count can see."""

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


# --- log-probabilities ---------------------------------------------------------------------------------------------


@mutant("M100", part="telling", source="ggml-org/llama.cpp issue 27972", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class AllCertain(Retold):
    """With speculation on, every token is told to have had probability 1."""

    def told(self, block: Block, asked: Asked) -> list[float]:  # noqa: ARG002
        return [0.0] * len(block.tokens)


@mutant("M101", part="telling", source="vllm-project/vllm PR 38711", killers={"TOLD-1": FULL_CONTEXT}, law=False)
class StaleAtTheEnd(Retold):
    """Where the context has no room for drafts of full depth, log-probabilities are those of tokens drafted earlier."""

    stale = -20.0

    def told(self, block: Block, asked: Asked) -> list[float]:
        assert isinstance(self.decoder.drafter, Eagle2), "it is planted into a drafter"
        if len(asked.text) + self.decoder.drafter.budget.depth < self.decoder.target.context:
            self.stale = block.logprobs[0]
            return block.logprobs
        return [self.stale] * len(block.tokens)


@mutant("M102", part="telling", source="standardcompletions/rfcs issue 11", killers={"TOLD-1": TOLD_COOLER}, law=False)
class ToldAtOne(Retold):
    """Log-probabilities are those of temperature 1 without filters, whatever was sampled with."""

    def told(self, block: Block, asked: Asked) -> list[float]:
        return raw(block, asked)


@mutant("M103", part="telling", source="vllm-project/vllm PR 30846", killers={"TOLD-1": TOLD_COOLER}, law=False)
class RawChangedInPlace(Alone):
    """What is called raw is told of logits that the sampling parameters have changed in place."""

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        return super().describe(rule, **others) | {"logprobs": "raw"}


@mutant("M104", part="telling", source="vllm-project/vllm PR 29216", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class OffsetByOne(Retold):
    """Log-probabilities of a block are looked up one row too early."""

    def told(self, block: Block, asked: Asked) -> list[float]:  # noqa: ARG002
        return [block.logprobs[0], *block.logprobs[:-1]]


@mutant("M105", part="telling", source="z-lab/dflash issue 39", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class DraftersOwn(Retold):
    """Of an accepted token the drafter's log-probability is told, not the target's."""

    def told(self, block: Block, asked: Asked) -> list[float]:
        assert isinstance(asked.tree, DraftTree)
        parents = [ROOT, *block.path]
        values = [float(asked.tree.values[b] - asked.tree.values[a]) for a, b in zip(parents, block.path, strict=False)]
        return [*values, *block.logprobs[len(values) :]]


@control("C17", part="telling", source="vllm-project/vllm PR 30846, as mended")
class TellsRaw(Retold):
    """Log-probabilities are those of the model, whatever the sampling parameters.

    They say so: what is told, and not which of the two, must be right.
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


@mutant("M106", part="telling", source="sgl-project/sglang PR 23530", killers={"TOLD-2": "T=1"}, law=False)
class BonusAccepted(Alone):
    """The counter of accepted tokens counts the recovered or bonus token of every pass."""

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"accepted": counted["accepted"] + counted["passes"]}


@mutant("M107", part="telling", source="lightseekorg/tokenspeed PR 1443", killers={"TOLD-2": "T=1"}, law=False)
class RootsDrafted(Alone):
    """The counter of drafted tokens counts the root of every tree."""

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"drafted": counted["drafted"] + counted["passes"]}


@mutant("M108", part="telling", source="openvinotoolkit/openvino.genai PR 4248", killers={"TOLD-2": "T=1"}, law=False)
class DraftedOfTheLastCall(Alone):
    """Accepted tokens are counted since the engine was opened, drafted ones since the last call began."""

    before = 0

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        self.before = self.counted["drafted"]
        return super().generate(prompts, params, seeds)

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"drafted": counted["drafted"] - self.before}


@mutant("M109", part="telling", source="ggml-org/llama.cpp PR 22506", killers={"TOLD-2": "T=1"}, law=False)
class AlwaysAccepted(Alone):
    """Only drafted tokens that were accepted are counted as drafted, so that all of them always are."""

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"drafted": counted["accepted"]}


@control("C16", part="telling", source="vllm-project/vllm PR 16665")
class CountsPassesOverDrafts(Alone):
    """A pass without drafts, such as the last of a text, is no pass of speculation, and is not counted.

    Whether it is one is a matter of words; what was drafted and accepted is the same.
    """

    capabilities = Alone.capabilities - {"rules", "tau"}

    def _count(self, answer: dict[str, Any]) -> dict[str, Any]:
        super()._count(answer | {"blocks": [block for block in answer["blocks"] if len(block["tokens"]) != 1]})
        return answer


# --- what only a count can see -------------------------------------------------------------------------------------


@mutant("M110", part="head", source="vllm-project/vllm PR 22323", killers={"COUNT-3": BIASED}, law=False)
class BiasLost(Planted):
    """The bias of the head's first layer is not loaded, and nothing is said."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        drafter.head.fc_bias = None
