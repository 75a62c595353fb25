"""Faults of where a text ends: end-of-text tokens inside a block, lengths, the context."""

from __future__ import annotations

from dataclasses import replace

from eagle2_ref.coins import Coins
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import ROOT
from harness.mutants import mutant
from harness.mutants.cases import ENDS
from harness.mutants.planting import Asked, PlantedBlock, PlantedSequence


class Uncut(Sequence):
    """Blocks are not cut at an end of text."""

    def append(self, block: Block) -> Block:
        params, self.params = self.params, replace(self.params, eos_token_id=None)
        block = super().append(block)
        self.params = params
        if self.ended(block):
            self.finish = "eos"
        return block

    def ended(self, block: Block) -> bool:
        """Whether the text ends with a block."""
        raise NotImplementedError


class BeyondTheEnd(Sequence):
    """Drafts may reach beyond the end by eight tokens."""

    @property
    def max_depth(self) -> int:
        return min(self.end + 8, self.context) - len(self.tokens) - 1


@mutant("M63", part="stop", source="huggingface/transformers issue 47912", killers={"STOP-2": "", "STOP-3": "", "LAW-1": ENDS})
class EndSeenLast(PlantedSequence):
    """End of text is looked for only at the end of a block."""

    class sequence(Uncut):
        def ended(self, block: Block) -> bool:
            return self.params.ends(block.tokens[-1])


@mutant("M64", part="stop", source="LostRuins/koboldcpp issue 1276", killers={"STOP-2": "", "STOP-3": "", "LAW-1": ENDS})
class BlockKeptWhole(PlantedSequence):
    """A block with an end of text in it is emitted whole."""

    class sequence(Uncut):
        def ended(self, block: Block) -> bool:
            return any(self.params.ends(token) for token in block.tokens)


@mutant("M65", part="length", source="openvinotoolkit/openvino.genai issue 4190", killers={"STOP-1": ""})
class LastReplaced(PlantedSequence):
    """Where max_new_tokens cuts a block, drafts are dropped and the block's last token kept."""

    class sequence(BeyondTheEnd):
        def append(self, block: Block) -> Block:
            n = self.end - len(self.tokens)
            if len(block.tokens) >= n:
                block = replace(block, tokens=[*block.tokens[: n - 1], block.tokens[-1]], accepted=n - 1)
            return super().append(block)


@mutant("M66", part="length", source="vllm-project/vllm PR 38711", killers={"STOP-4": ""})
class StopsBeforeContext(PlantedSequence):
    """The last position of the context is left empty."""

    class sequence(Sequence):
        def begin_turn(self, params: SamplingParams, coins: Coins) -> None:
            super().begin_turn(params, coins)
            self.end = min(self.end, max(self.start + 1, self.context - 1))


@mutant("M67", part="stop", source="openvinotoolkit/openvino.genai PR 3293", killers={"LAW-1": ENDS})
class DraftedEndEnds(PlantedBlock):
    """A drafted end of text ends the text although the target refused it."""

    def block(self, block: Block, asked: Asked, coins: Coins) -> Block:  # noqa: ARG002
        refused = asked.tree.children(block.path[-1] if block.path else ROOT)
        ends = [token for token in map(asked.tree.token, refused) if asked.params.ends(token)]
        return replace(block, tokens=[*block.tokens[:-1], ends[0]]) if ends and len(block.tokens) > len(block.path) else block


@mutant("M68", part="stop", source="sgl-project/sglang issue 31599", killers={"LAW-1": ENDS})
class LengthBeforeEnd(PlantedSequence):
    """In the block that reaches max_new_tokens, length is looked at first, and an end of text inside it is not seen."""

    class sequence(Sequence):
        def append(self, block: Block) -> Block:
            params = self.params
            if len(self.tokens) + len(block.tokens) >= self.start + params.max_new_tokens:
                self.params = replace(params, eos_token_id=None)
            block = super().append(block)
            self.params = params
            return block


@mutant("M69", part="length", source="flashinfer-ai/flashinfer issue 879", killers={"SMOKE-1": ""})
class Overshoots(PlantedSequence):
    """Length is looked at between blocks only, so that a text may have more tokens than were asked for."""

    class sequence(BeyondTheEnd):
        def append(self, block: Block) -> Block:
            end, self.end = self.end, min(self.end + 8, self.context)
            block = super().append(block)
            self.end = end
            if len(self.tokens) >= end:
                self.finish = self.finish or "length"
            return block
