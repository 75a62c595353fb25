"""Faults of reported numbers: block counts, log-probabilities and counters. The text itself is right."""

from __future__ import annotations

from collections import abc
from dataclasses import replace
from typing import Any

from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.mutants import control, mutant
from harness.mutants.cases import BIASED, FULL_CONTEXT, TOLD_COOLER, TOLD_PLAINLY
from harness.mutants.planting import Fault, Params, Prompts, Results, Seeds
from harness.mutants.stops import BlockKeptWhole

# --- block counts ---------------------------------------------------------------------------------------------------


@mutant("M96", part="reporting", source="SafeAILab/EAGLE issue 95", killers={"TREE-1": "", "COUNT-1": ""}, law=False)
class CountsOneTooMany(Fault):
    """The recovered or bonus token of a block is counted as accepted."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        result = super().decode(prompt, params, coins)
        return result | {"blocks": [block | {"accepted": block["accepted"] + 1} for block in result["blocks"]]}


@mutant("M97", part="reporting", source="sgl-project/sglang issue 39826", killers={"COUNT-1": ""}, law=False)
class CountsAfterEnd(BlockKeptWhole):
    """Blocks count the tokens after an end of text, although the text ends there."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        result, ends = super().decode(prompt, params, coins), SamplingParams.of(params).ends
        end = next((i for i, token in enumerate(result["tokens"], start=1) if ends(token)), None)
        return result | {"tokens": result["tokens"][:end]}


@mutant("M98", part="reporting", source="vllm-project/vllm issue 9565", killers={"TREE-1": "", "COUNT-1": ""}, law=False)
class CountsAfterMismatch(Fault):
    """Every match between the first drafted path and the text counts as accepted, even after the first mismatch."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        result = super().decode(prompt, params, coins)
        start, blocks = 0, []
        for block in result["blocks"]:
            text = result["tokens"][start:]
            start += block["accepted"] + 1
            matches = sum(a == b for a, b in zip(first_path(block["tokens"], block["parents"]), text, strict=False))
            blocks.append(block | {"accepted": matches})
        return result | {"blocks": blocks}


def first_path(tokens: list[int], parents: list[int]) -> list[int]:
    """The tokens below the root, following the first child of each node."""
    path, node = [], 0
    while node in parents:
        node = parents.index(node)
        path.append(tokens[node])
    return path


# --- log-probabilities ---------------------------------------------------------------------------------------------


class LogprobFault(Fault):
    """A fault of reported log-probabilities, where there is speculation."""

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        return super().make_decoder(target, drafter, rule) if drafter else Decoder(target, drafter, rule)


@mutant("M100", part="reporting", source="ggml-org/llama.cpp issue 27972", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class AllCertain(LogprobFault):
    """With speculation, every token is reported with probability 1."""

    class FaultyDecoder(Decoder):
        def logprobs(self, scores: Tensor, nodes: abc.Sequence[int], tokens: abc.Sequence[int]) -> list[float]:
            return [0.0 for _ in super().logprobs(scores, nodes, tokens)]


@mutant("M101", part="reporting", source="vllm-project/vllm PR 38711", killers={"TOLD-1": FULL_CONTEXT}, law=False)
class StaleAtTheEnd(LogprobFault):
    """Where the context has no space for a draft of full depth, the log-probability of an earlier token is reported."""

    class FaultyDecoder(Decoder):
        stale = -20.0

        def accept(self, sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
            block = super().accept(sequence, tree, logits)
            assert isinstance(self.drafter, Eagle2)
            if not block.logprobs:
                return block
            if len(sequence.tokens) + self.drafter.budget.depth < self.target.context:
                self.stale = block.logprobs[0]
                return block
            return replace(block, logprobs=[self.stale] * len(block.tokens))


class RawLogprobs(Decoder):
    """A decoder that reports log-probabilities under the model, before the sampling parameters."""

    def target_distribution(self, sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
        p, _ = super().target_distribution(sequence, tree, logits)
        return p, logits


@mutant("M102", part="reporting", source="standardcompletions/rfcs issue 11", killers={"TOLD-1": TOLD_COOLER}, law=False)
class ReportedAtOne(LogprobFault):
    """Reported log-probabilities are those of temperature 1 without filters, regardless of the request."""

    FaultyDecoder = RawLogprobs


@mutant("M103", part="reporting", source="vllm-project/vllm PR 30846", killers={"TOLD-1": TOLD_COOLER}, law=False)
class RawChangedInPlace(Fault):
    """Log-probabilities that are called raw are computed from logits that the sampling parameters have modified in place."""

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        return super().describe(rule, **others) | {"logprobs": "raw"}


@mutant("M104", part="reporting", source="vllm-project/vllm PR 29216", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class OffsetByOne(LogprobFault):
    """The log-probabilities of a block are read one row too early."""

    class FaultyDecoder(Decoder):
        def logprobs(self, scores: Tensor, nodes: abc.Sequence[int], tokens: abc.Sequence[int]) -> list[float]:
            values = super().logprobs(scores, nodes, tokens)
            return [*values[:1], *values[:-1]]


@mutant("M105", part="reporting", source="z-lab/dflash issue 39", killers={"TOLD-1": TOLD_PLAINLY}, law=False)
class DraftersOwn(LogprobFault):
    """For an accepted token, the drafter's log-probability is reported instead of the target's."""

    class FaultyDecoder(Decoder):
        def accept(self, sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
            block = super().accept(sequence, tree, logits)
            assert isinstance(tree, DraftTree)
            parents = [ROOT, *block.path]
            own = [float(tree.values[node] - tree.values[parent]) for parent, node in zip(parents, block.path, strict=False)]
            return replace(block, logprobs=[*own, *block.logprobs[len(own) :]]) if block.logprobs else block


@control("C17", part="reporting", source="vllm-project/vllm PR 30846, as mended")
class ReportsRaw(LogprobFault):
    """Reported log-probabilities are the model's, regardless of the sampling parameters.

    Right: the engine declares them as raw. Log-probabilities must match their declaration; either kind is allowed.
    """

    capabilities = Fault.capabilities - {"rules", "tau"}
    FaultyDecoder = RawLogprobs

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        return super().describe(rule, **others) | {"logprobs": "raw"}


# --- counters ------------------------------------------------------------------------------------------------------


@mutant("M106", part="reporting", source="sgl-project/sglang PR 23530", killers={"TOLD-2": "T=1"}, law=False)
class BonusCountedAccepted(Fault):
    """The counter of accepted tokens includes the recovered or bonus token of every pass."""

    def counters(self) -> dict[str, int]:
        counters = super().counters()
        return counters | {"accepted": counters["accepted"] + counters["passes"]}


@mutant("M107", part="reporting", source="lightseekorg/tokenspeed PR 1443", killers={"TOLD-2": "T=1"}, law=False)
class RootsCounted(Fault):
    """The counter of draft tokens includes the root of every tree."""

    def counters(self) -> dict[str, int]:
        counters = super().counters()
        return counters | {"drafted": counters["drafted"] + counters["passes"]}


@mutant("M108", part="reporting", source="openvinotoolkit/openvino.genai PR 4248", killers={"TOLD-2": "T=1"}, law=False)
class DraftedSinceLastCall(Fault):
    """Accepted tokens are counted since the engine was opened, draft tokens since the start of the last call."""

    before = 0

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        self.before = self.counted["drafted"]
        return super().generate(prompts, params, seeds)

    def counters(self) -> dict[str, int]:
        counters = super().counters()
        return counters | {"drafted": counters["drafted"] - self.before}


@mutant("M109", part="reporting", source="ggml-org/llama.cpp PR 22506", killers={"TOLD-2": "T=1"}, law=False)
class AlwaysAccepted(Fault):
    """Only accepted draft tokens are counted as drafted, so that the acceptance rate is always 1."""

    def counters(self) -> dict[str, int]:
        counters = super().counters()
        return counters | {"drafted": counters["accepted"]}


@control("C16", part="reporting", source="vllm-project/vllm PR 16665")
class CountsPassesWithDrafts(Fault):
    """A pass without draft tokens, such as the last of a text, is not counted as a pass.

    Right: whether such a pass counts is a matter of definition. The numbers of drafted and accepted tokens are the same.
    """

    capabilities = Fault.capabilities - {"rules", "tau"}

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        result = super().decode(prompt, params, coins)
        self.counted["passes"] -= sum(len(block["tokens"]) == 1 for block in result["blocks"])
        return result


# --- visible in counts only    -------------------------------------------------------------------------------------


@mutant("M110", part="head", source="vllm-project/vllm PR 22323", killers={"COUNT-3": BIASED}, law=False)
class BiasLost(Fault):
    """The bias of the head's first layer is not loaded, without a warning."""

    class FaultyDrafter(Eagle2):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.head = replace(self.head, fc_bias=None)
