"""Faults of batches: a row of a target pass gets what belongs to another row. A single sequence is decoded correctly."""

from __future__ import annotations

import inspect
from collections import abc
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput, Network
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams, apply_processors, probabilities
from eagle2_ref.sequence import Generation, Sequence
from eagle2_ref.tree import DraftTree, Tree
from harness.implementations.reference import Engine, between
from harness.mutants import mutant
from harness.mutants.planting import Fault

ONE_LENGTH, SEVERAL_LENGTHS = "texts of one length", "texts of several lengths"


class BatchFault(Fault):
    """The reference implementation with a fault that shows in batches. The default batch size is 8."""

    capabilities = Engine.capabilities
    __signature__ = inspect.signature(Engine)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"batch": 8, **options})


# --- order of rows -------------------------------------------------------------------------------------------------


@mutant("M80", part="batch", source="vllm-project/vllm PR 14645", killers={"BATCH-1": ONE_LENGTH})
class ResultsAsFinished(BatchFault):
    """Results are returned in the order in which texts finished, not in the order of the prompts."""

    class FaultyDecoder(Decoder):
        def generate_batch(self, *request: Any) -> list[Generation]:
            return sorted(super().generate_batch(*request), key=lambda generation: generation.target_passes)


@mutant("M85", part="batch", source="tenstorrent/vllm-tt-plugin PR 131", killers={"BATCH-1": SEVERAL_LENGTHS})
class FinishedStillDrafted(BatchFault):
    """A finished text is still among those that are drafted for, so that later trees go to the wrong texts."""

    class FaultyDecoder(Decoder):
        before: abc.Sequence[Sequence] = ()

        def propose(self, sequences: abc.Sequence[Sequence]) -> abc.Sequence[Tree]:
            drafted = list(self.before) if set(self.before) & set(sequences) else []  # none is left from an earlier call
            drafted += [sequence for sequence in sequences if sequence not in drafted]
            self.before = list(sequences)
            trees = zip(sequences, super().propose(drafted), strict=False)
            return [tree.truncate(own.max_depth) if isinstance(tree, DraftTree) else tree for own, tree in trees]


@mutant("M89", part="batch", source="HabanaAI/vllm-fork PR 1780", killers={"BATCH-1": SEVERAL_LENGTHS})
class RootsFirst(BatchFault):
    """A pass returns the rows without draft tokens first, but results are read in the order of the inputs."""

    class FaultyDecoder(Decoder):
        def verify(self, sequences: abc.Sequence[Sequence], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
            outputs = super().verify(sequences, trees)
            order = sorted(range(len(trees)), key=lambda row: len(trees[row]) > 1)
            return [replace(outputs[i], logits=with_rows(outputs[row].logits, len(trees[i]))) for i, row in enumerate(order)]


@mutant("M88", part="batch", source="vllm-project/vllm PR 7508", killers={"BATCH-2": ""}, law=False)
class NeighboursFeatures(BatchFault):
    """In a pass that has a row without draft tokens, the head receives the features of the next row."""

    class FaultyDecoder(Decoder):
        def verify(self, sequences: abc.Sequence[Sequence], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
            outputs = super().verify(sequences, trees)
            if all(len(tree) > 1 for tree in trees):
                return outputs
            following = [output.features for output in [*outputs[1:], *outputs[:1]]]
            return [
                replace(output, features=with_rows(features, len(output.features)))
                for output, features in zip(outputs, following, strict=True)
            ]


def with_rows(rows: Tensor, n: int) -> Tensor:
    """n rows: the given ones, repeated if there are fewer."""
    return rows[torch.arange(n) % len(rows)]


# --- padding -------------------------------------------------------------------------------------------------------


@mutant("M81", part="batch", source="Blaizzy/mlx-vlm issue 1962", killers={"BATCH-1": SEVERAL_LENGTHS})
class ZeroedNotMasked(BatchFault):
    """Missing entries of shorter rows are zeroed instead of masked: each zero key still adds 1 to the softmax denominator."""

    class FaultyTarget(Target):
        def mask(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor | None:
            mask = super().mask(cache, trees)
            if mask is not None:
                mask[..., : cache.length] = True
                for rows in cache.rows():
                    rows[..., : cache.length, :].masked_fill_(~cache.valid_mask()[:, None, :, None], 0)
            return mask


@mutant("M82", part="batch", source="Blaizzy/mlx-vlm PR 1210", killers={"BATCH-1": SEVERAL_LENGTHS})
class PaddingTakesPositions(BatchFault):
    """The positions of a shorter prompt count the padding before it; those of its continuation do not."""

    class FaultyTarget(Target):
        def prefill(self, caches: abc.Sequence[KVCache], texts: abc.Sequence[abc.Sequence[int]]) -> list[ModelOutput]:
            network: Network = self.network

            def forward(tokens: Tensor, positions: Tensor, *others: Any) -> ModelOutput:
                columns = torch.arange(tokens.shape[1], device=tokens.device)
                return network(tokens, columns.expand_as(positions), *others)

            return Target(between(network, forward), self.name).prefill(caches, texts)


@mutant("M83", part="batch", source="Blaizzy/mlx-vlm PR 1155", killers={"BATCH-1": SEVERAL_LENGTHS})
class LengthOfTheLongest(BatchFault):
    """The new tokens of every row have positions after the longest text of the batch."""

    class FaultyTarget(Target):
        def positions(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor:
            positions = super().positions(cache, trees)
            return positions + positions[:, :1].max() - positions[:, :1]


# --- parameters and random numbers ---------------------------------------------------------------------------------


@mutant("M84", part="batch", source="vllm-project/vllm-ascend issue 16396", killers={"GREEDY-4": "", "BATCH-1": SEVERAL_LENGTHS})
class ReorderedColumns(BatchFault):
    """In a pass with sampled rows, a greedy row's candidates are sorted like theirs, and a rank is used as a token id."""

    class FaultyDecoder(Decoder):
        def verify(self, sequences: abc.Sequence[Sequence], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
            outputs = super().verify(sequences, trees)
            is_greedy = [sequence.params.temperature == 0 for sequence in sequences]
            if all(is_greedy):
                return outputs
            order = outputs[is_greedy.index(False)].logits[0].argsort(descending=True)
            return [
                replace(output, logits=output.logits[:, order]) if greedy else output
                for output, greedy in zip(outputs, is_greedy, strict=True)
            ]


@mutant("M86", part="batch", source="NVIDIA/TensorRT-LLM PR 17599", killers={"BATCH-1": ONE_LENGTH}, law=False)
class OneGenerator(BatchFault):
    """All requests of a call use the random generator of the first, so that a seed's text depends on other requests."""

    class FaultyDecoder(Decoder):
        def generate_batch(
            self,
            prompts: abc.Sequence[abc.Sequence[int]],
            params: abc.Sequence[SamplingParams],
            coins: abc.Sequence[Coins],
            size: int = 32,
        ) -> list[Generation]:
            return super().generate_batch(prompts, params, [coins[0] for _ in coins], size)


@mutant("M87", part="batch", source="vllm-project/vllm PR 5639", killers={"BATCH-1": SEVERAL_LENGTHS})
class NeighboursHistory(BatchFault):
    """Histories are looked up in another order than rows: a repetition penalty uses the text of the previous row."""

    class FaultyDecoder(Decoder):
        def verify(self, sequences: abc.Sequence[Sequence], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
            previous = [*sequences[-1:], *sequences[:-1]]
            self.histories = {own: list(other.tokens) for own, other in zip(sequences, previous, strict=True)}
            return super().verify(sequences, trees)

        def target_distribution(self, sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
            if not sequence.blocks:  # the prompt has a pass of its own
                return super().target_distribution(sequence, tree, logits)
            scores = apply_processors(logits, tree, self.histories[sequence], sequence.params)
            return probabilities(scores, sequence.params), scores
