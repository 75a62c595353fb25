"""Faults of texts that share a target pass: what belongs to one row of a batch reaches another. A text alone is right."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import DraftTree, Tree
from harness.implementations.reference import Engine, between
from harness.mutants import mutant

ONE_LENGTH, SEVERAL_LENGTHS = "texts of one length", "texts of several lengths"


class Together(Engine):
    """The reference decoder, with a fault in how texts share passes; unless it is told otherwise, eight of them do."""

    __signature__ = inspect.signature(Engine)  # what `connect` checks options against

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"batch": 8, **options})
        self.plant(self.decoder)

    def plant(self, decoder: Decoder) -> None:
        raise NotImplementedError


class PlantedRows(Together):
    """What a pass over several trees returns, a text's logits and features, goes elsewhere or comes back otherwise."""

    def rows(self, rows: list[ModelOutput], texts: Sequence[Text], trees: Sequence[Tree]) -> list[ModelOutput]:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        verify = decoder.verify
        decoder.verify = lambda texts, trees: self.rows(verify(texts, trees), texts, trees)  # type: ignore[method-assign, assignment]


class PlantedPositions(Together):
    """The positions [B, n] of a pass over several texts are others; `first` where it is the pass of the prompts."""

    def positions(self, positions: Tensor, first: bool) -> Tensor:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        network = decoder.target.network

        def elsewhere(tokens: Tensor, positions: Tensor, seen: Tensor | None, cache: Any, last: bool = False) -> ModelOutput:
            if len(tokens) > 1:
                positions = self.positions(positions, not cache.length)
            return network(tokens, positions, seen, cache, last)

        decoder.target.network = between(network, elsewhere)


# --- whose row it is -----------------------------------------------------------------------------------------------


@mutant("M80", part="batch", source="vllm-project/vllm PR 14645", killers={"BATCH-1": ONE_LENGTH})
class AnswersAsFinished(Together):
    """Answers are handed back in the order in which texts were finished, not in that of the prompts."""

    def plant(self, decoder: Decoder) -> None:
        generate = decoder.generate_batch
        decoder.generate_batch = lambda *asked: sorted(  # type: ignore[method-assign, assignment]
            generate(*asked), key=lambda made: made.target_passes
        )


@mutant("M85", part="batch", source="tenstorrent/vllm-tt-plugin PR 131", killers={"BATCH-1": SEVERAL_LENGTHS})
class FinishedKeepTheirPlace(Together):
    """A finished text is still among those that are drafted for, so that the trees behind it go to their neighbours."""

    def plant(self, decoder: Decoder) -> None:
        propose, before = decoder.propose, list[Text]()

        def stale(texts: Sequence[Text]) -> list[Tree]:
            drafted = list(before) if set(before) & set(texts) else []  # none is left from an earlier call
            drafted += [text for text in texts if text not in drafted]
            before[:] = texts
            given = zip(texts, propose(drafted), strict=False)
            return [tree.truncate(text.max_depth) if isinstance(tree, DraftTree) else tree for text, tree in given]

        decoder.propose = stale  # type: ignore[method-assign, assignment]


@mutant("M89", part="batch", source="HabanaAI/vllm-fork PR 1780", killers={"BATCH-1": SEVERAL_LENGTHS})
class BareRowsFirst(PlantedRows):
    """A pass returns the rows without drafts before the others, and they are read in the order in which they were put in."""

    def rows(self, rows: list[ModelOutput], texts: Sequence[Text], trees: Sequence[Tree]) -> list[ModelOutput]:  # noqa: ARG002
        order = sorted(range(len(trees)), key=lambda row: len(trees[row]) > 1)
        return [
            replace(own, logits=_padded(rows[row].logits, len(tree))) for own, row, tree in zip(rows, order, trees, strict=True)
        ]


@mutant("M88", part="batch", source="vllm-project/vllm PR 7508", killers={"BATCH-2": ""}, law=False)
class NeighboursFeatures(PlantedRows):
    """In a pass with a row that has no drafts, the head is given the features of the row behind."""

    def rows(self, rows: list[ModelOutput], texts: Sequence[Text], trees: Sequence[Tree]) -> list[ModelOutput]:  # noqa: ARG002
        if all(len(tree) > 1 for tree in trees):
            return rows
        behind = [*rows[1:], *rows[:1]]
        return [
            replace(own, features=_padded(other.features, len(own.features))) for own, other in zip(rows, behind, strict=True)
        ]


# --- padding -------------------------------------------------------------------------------------------------------


@mutant("M81", part="batch", source="Blaizzy/mlx-vlm issue 1962", killers={"BATCH-1": SEVERAL_LENGTHS})
class ZeroedNotRemoved(Together):
    """What a shorter row lacks is zeroed and not masked: each zero key still adds 1 to the denominator of the softmax."""

    def plant(self, decoder: Decoder) -> None:
        network = decoder.target.network

        def zeros_seen(tokens: Tensor, positions: Tensor, seen: Tensor | None, cache: Any, last: bool = False) -> ModelOutput:
            if seen is not None:
                seen = seen | (torch.arange(seen.shape[-1], device=seen.device) < cache.length)
                for rows in cache.rows():
                    rows[..., : cache.length, :].masked_fill_(~cache.valid_mask()[:, None, :, None], 0)
            return network(tokens, positions, seen, cache, last)

        decoder.target.network = between(network, zeros_seen)


@mutant("M82", part="batch", source="Blaizzy/mlx-vlm PR 1210", killers={"BATCH-1": SEVERAL_LENGTHS})
class PaddingTakesPositions(PlantedPositions):
    """The positions of a shorter prompt count the padding before it; those of its continuation do not."""

    def positions(self, positions: Tensor, first: bool) -> Tensor:
        return torch.arange(positions.shape[1], device=positions.device).expand_as(positions) if first else positions


@mutant("M83", part="batch", source="Blaizzy/mlx-vlm PR 1155", killers={"BATCH-1": SEVERAL_LENGTHS})
class LengthOfTheLongest(PlantedPositions):
    """New tokens of every row have positions behind the longest text of the batch."""

    def positions(self, positions: Tensor, first: bool) -> Tensor:
        return positions if first else positions + positions[:, :1].max() - positions[:, :1]


# --- parameters and coins ------------------------------------------------------------------------------------------


@mutant("M84", part="batch", source="vllm-project/vllm-ascend issue 16396", killers={"GREEDY-4": "", "BATCH-1": SEVERAL_LENGTHS})
class ReorderedColumns(PlantedRows):
    """In a pass with sampled rows the candidates of a greedy row are sorted as theirs are, and a place is taken for an id."""

    def rows(self, rows: list[ModelOutput], texts: Sequence[Text], trees: Sequence[Tree]) -> list[ModelOutput]:  # noqa: ARG002
        greedy = [text.params.temperature == 0 for text in texts]
        if all(greedy):
            return rows
        order = rows[greedy.index(False)].logits[0].argsort(descending=True)
        return [replace(row, logits=row.logits[:, order]) if g else row for row, g in zip(rows, greedy, strict=True)]


@mutant("M86", part="batch", source="NVIDIA/TensorRT-LLM PR 17599", killers={"BATCH-1": ONE_LENGTH}, law=False)
class OneGenerator(Together):
    """All rows of a call draw from the generator of the first: what a seed gives depends on the neighbours."""

    def plant(self, decoder: Decoder) -> None:
        generate = decoder.generate_batch
        decoder.generate_batch = lambda prompts, params, coins, size: generate(  # type: ignore[method-assign, assignment]
            prompts, params, [coins[0] for _ in coins], size
        )


@mutant("M87", part="batch", source="vllm-project/vllm PR 5639", killers={"BATCH-1": SEVERAL_LENGTHS})
class NeighboursHistory(Together):
    """Histories are looked up by another order than rows: a repetition penalty sees the text of the row before."""

    def plant(self, decoder: Decoder) -> None:
        verify, distribution, history = decoder.verify, decoder.target_distribution, dict[Text, list[int]]()

        def mixed(texts: Sequence[Text], trees: Sequence[Tree]) -> list[ModelOutput]:
            history.clear()
            history.update({text: list(other.tokens) for text, other in zip(texts, [*texts[-1:], *texts[:-1]], strict=True)})
            return verify(texts, trees)

        def looking_elsewhere(sequence: Text, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
            own = sequence.tokens
            sequence.tokens = history.get(sequence, own)
            found = distribution(sequence, tree, logits)
            sequence.tokens = own
            return found

        decoder.verify, decoder.target_distribution = mixed, looking_elsewhere  # type: ignore[method-assign, assignment]


def _padded(rows: Tensor, n: int) -> Tensor:
    """n rows of a pass that is padded with what it holds."""
    return rows[torch.arange(n) % len(rows)]
