"""Faults between logits and rule: sampling parameters that are ignored, misplaced, or applied to another history."""

from __future__ import annotations

from collections import abc
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessorList, TopPLogitsWarper

from eagle2_ref import sampling
from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import DraftTree, Tree
from harness.mutants import mutant
from harness.mutants.cases import FILTERS, GREEDY_PENALTY, MIN_P, ONE_LAYER, PENALTY, TOP_K, UNEDITED
from harness.mutants.planting import Fault

TENSORRT = "NVIDIA/TensorRT-LLM"


class WrongDistribution(Decoder):
    """A decoder that passes another distribution to the rule. Reported log-probabilities are right."""

    def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
        """The wrong distribution after every node, [m + 1, V], given the right one."""
        raise NotImplementedError

    def target_distribution(self, sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
        p, scores = super().target_distribution(sequence, tree, logits)
        return self.change(p, sequence, tree, logits), scores


def with_params(sequence: Sequence, tree: Tree, logits: Tensor, **changes: Any) -> Tensor:
    """The target distribution p [m + 1, V] with changed sampling parameters."""
    return sampling.target_distribution(logits, tree, sequence.tokens, replace(sequence.params, **changes))


@mutant("M25", part="processors", source="SafeAILab/EAGLE commit c7ef8e5", killers={"LAW-1": TOP_K})
class BonusUnprocessed(Fault):
    """The bonus token is sampled from the softmax of raw logits, without temperature or filters."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:  # noqa: ARG002
            is_leaf = torch.tensor([len(p) > 1 and not tree.children(node) for node in range(len(p))])
            return torch.where(is_leaf[:, None], logits.softmax(-1).to(p), p)


@mutant("M26", part="processors", source="vllm-project/vllm issue 9834", killers={"LAW-1": ONE_LAYER, "LAW-6": UNEDITED})
class DefaultParameters(Fault):
    """The target is scored at temperature 1 without filters, regardless of the request."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:  # noqa: ARG002
            return logits.softmax(-1).to(p)


@mutant("M27", part="processors", source="keras-team/keras-hub PR 2735", killers={"LAW-1": ONE_LAYER})
class TemperatureOfDrafts(Fault):
    """Draft tokens are verified at temperature 1; filters and penalties are those of the request."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
            return with_params(sequence, tree, logits, temperature=1.0) if len(tree) > 1 else p


@mutant("M28", part="processors", source="sgl-project/sglang PR 36173, the other way round", killers={"LAW-1": FILTERS})
class TopPFirst(Fault):
    """Top-p is applied before top-k, so that the two together keep other tokens."""

    class Params(SamplingParams):
        def processors(self) -> LogitsProcessorList:
            return LogitsProcessorList(sorted(super().processors(), key=lambda one: not isinstance(one, TopPLogitsWarper)))

    class FaultyDecoder(Decoder):
        def start(self, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins) -> Sequence:
            return super().start(prompt, TopPFirst.Params(**vars(params)), coins)


@mutant("M29", part="penalties", source="sgl-project/sglang PR 22049", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class RootsPenalty(Fault):
    """The repetition penalty of every node uses the root's history instead of the node's own."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:  # noqa: ARG002
            return torch.cat([with_params(sequence, self.root_tree(sequence), row[None]) for row in logits])


@mutant("M30", part="penalties", source="vllm-project/vllm issue 18902", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class PenaltyIgnored(Fault):
    """In a pass with draft tokens, no repetition penalty is applied, without a warning."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
            return with_params(sequence, tree, logits, repetition_penalty=None) if len(tree) > 1 else p


class WrongHistory(WrongDistribution):
    """A decoder that applies the sampling parameters of a node to another history than the node's own."""

    def history(self, tree: Tree, node: int) -> list[int]:
        """The tokens after the root."""
        raise NotImplementedError

    def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
        def distribution(node: int) -> Tensor:
            text = [*sequence.tokens, *self.history(tree, node)]
            return sampling.target_distribution(logits[node : node + 1], DraftTree.root_only(text[-1]), text, sequence.params)

        return torch.cat([distribution(node) for node in range(len(p))]).to(p)


@mutant("M31", part="penalties", source="vllm-project/vllm PR 26467", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class PlaceholderHistory(Fault):
    """A node's history has placeholders for its draft tokens, of which only the last is replaced by the real token."""

    class FaultyDecoder(WrongHistory):
        def history(self, tree: Tree, node: int) -> list[int]:
            path = tree.path(node)
            return [0] * (len(path) - 1) + [tree.token(i) for i in path[-1:]]


@mutant("M32", part="penalties", source=f"{TENSORRT} issue 18892", killers={"LAW-1": PENALTY, "GREEDY-2": GREEDY_PENALTY})
class FlatHistory(Fault):
    """A node's history is that of a chain: it contains all earlier nodes of the list, siblings included."""

    class FaultyDecoder(WrongHistory):
        def history(self, tree: Tree, node: int) -> list[int]:
            return [tree.token(i) for i in range(1, node + 1)]


@mutant("M33", part="processors", source="sgl-project/sglang issue 10617", killers={"LAW-1": MIN_P})
class MinPIgnored(Fault):
    """In a pass with draft tokens, min-p is not applied."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
            return with_params(sequence, tree, logits, min_p=None) if len(tree) > 1 else p


@mutant("M34", part="processors", source="Luce-Org/lucebox PR 374", killers={"LAW-1": ONE_LAYER})
class FirstTokenGreedy(Fault):
    """The token after the prompt is the most likely one at every temperature."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
            return with_params(sequence, tree, logits, temperature=0.0) if len(tree) == 1 else p


@mutant("M35", part="processors", source="vllm-project/vllm issue 54437", killers={"LAW-1": TOP_K})
class FailsOpen(Fault):
    """At draft nodes the filters keep every token; only the root's distribution is filtered."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
            return torch.cat([p[:1], with_params(sequence, tree, logits, top_k=None, top_p=None, min_p=None)[1:]])
