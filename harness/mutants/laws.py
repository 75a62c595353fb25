"""Faults between the logits and the rule: sampling parameters that are forgotten, misplaced, or shown another history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessorList, TopPLogitsWarper

from eagle2_ref.coins import Coins
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.tree import DraftTree
from harness.implementations.reference import to_answer
from harness.mutants import mutant
from harness.mutants.cases import FILTERS, GREEDY_PENALTY, MIN_P, ONE_LAYER, PENALTY, TOP_K, UNEDITED
from harness.mutants.planting import Alone, Asked, PlantedLaw

TENSORRT = "NVIDIA/TensorRT-LLM"


@mutant("M25", part="processors", source="SafeAILab/EAGLE commit c7ef8e5", killers={"LAW-1": TOP_K})
class BonusUnprocessed(PlantedLaw):
    """The bonus token is drawn from the softmax of raw logits: no temperature, no filter."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        leaf = torch.tensor([len(p) > 1 and not asked.tree.children(node) for node in range(len(p))])
        return torch.where(leaf[:, None], asked.logits.softmax(-1).to(p), p)


@mutant("M26", part="processors", source="vllm-project/vllm issue 9834", killers={"LAW-1": ONE_LAYER, "LAW-6": UNEDITED})
class DefaultParameters(PlantedLaw):
    """The target is scored with temperature 1 and no filter, whatever was asked for."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        return asked.logits.softmax(-1).to(p)


@mutant("M27", part="processors", source="keras-team/keras-hub PR 2735", killers={"LAW-1": ONE_LAYER})
class TemperatureOfDrafts(PlantedLaw):
    """The sampler that verifies drafts has a temperature of its own, 1; filters and penalties are those asked for."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        if len(p) == 1:
            return p
        return target_distribution(asked.logits, asked.tree, asked.text, replace(asked.params, temperature=1.0))


@mutant("M28", part="processors", source="sgl-project/sglang PR 36173, the other way round", killers={"LAW-1": FILTERS})
class TopPFirst(Alone):
    """Top-p cuts before top-k, so that the two together keep other tokens."""

    class Params(SamplingParams):
        """transformers' processors, in the wrong order."""

        def processors(self) -> LogitsProcessorList:
            chosen = super().processors()
            return LogitsProcessorList(sorted(chosen, key=lambda processor: not isinstance(processor, TopPLogitsWarper)))

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        return self._count(to_answer(self.decoder.generate(prompt, self.Params.of(params), coins)))


@mutant("M29", part="penalties", source="sgl-project/sglang PR 22049", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class RootsPenalty(PlantedLaw):
    """The repetition penalty of every node sees the root's history, not the node's own."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        bare = DraftTree.root_only(asked.text[-1])
        return torch.cat([target_distribution(row[None], bare, asked.text, asked.params).to(p) for row in asked.logits])


@mutant("M30", part="penalties", source="vllm-project/vllm issue 18902", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class PenaltyIgnored(PlantedLaw):
    """Where there are drafts, no repetition penalty is applied, without a warning."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        if len(p) == 1:
            return p
        return target_distribution(asked.logits, asked.tree, asked.text, replace(asked.params, repetition_penalty=None))


class OtherHistory(PlantedLaw):
    """Each node is shown another history than its own."""

    def history(self, node: int, asked: Asked) -> list[int]:
        raise NotImplementedError

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        def of(node: int) -> Tensor:
            text = [*asked.text, *self.history(node, asked)]
            return target_distribution(asked.logits[node : node + 1], DraftTree.root_only(text[-1]), text, asked.params)

        return torch.cat([of(node) for node in range(len(p))]).to(p)


@mutant("M31", part="penalties", source="vllm-project/vllm PR 26467", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class PlaceholderHistory(OtherHistory):
    """The history of a node has placeholders for its drafted tokens, of which only the last is replaced by the real one."""

    def history(self, node: int, asked: Asked) -> list[int]:
        path = asked.tree.path(node)
        return [0] * (len(path) - 1) + [asked.tree.token(i) for i in path[-1:]]


@mutant("M32", part="penalties", source=f"{TENSORRT} issue 18892", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class FlatHistory(OtherHistory):
    """A node's history is that of a chain: all nodes before it in the list, siblings too."""

    def history(self, node: int, asked: Asked) -> list[int]:
        return [asked.tree.token(i) for i in range(1, node + 1)]


@mutant("M33", part="processors", source="sgl-project/sglang issue 10617", killers={"LAW-1": MIN_P})
class MinPIgnored(PlantedLaw):
    """Where there are drafts, min-p is not applied."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        return p if len(p) == 1 else target_distribution(asked.logits, asked.tree, asked.text, replace(asked.params, min_p=None))


@mutant("M34", part="processors", source="Luce-Org/lucebox PR 374", killers={"LAW-1": ONE_LAYER})
class FirstTokenGreedy(PlantedLaw):
    """The token of the prompt's pass is the likeliest one at every temperature."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        return (
            target_distribution(asked.logits, asked.tree, asked.text, replace(asked.params, temperature=0.0))
            if len(p) == 1
            else p
        )


@mutant("M35", part="processors", source="vllm-project/vllm issue 54437", killers={"LAW-1": TOP_K})
class FailsOpen(PlantedLaw):
    """At drafted nodes the filters let everything through; only the root's row is cut."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        unfiltered = replace(asked.params, top_k=None, top_p=None, min_p=None)
        return torch.cat([p[:1], target_distribution(asked.logits, asked.tree, asked.text, unfiltered)[1:]])
