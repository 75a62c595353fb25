"""Faults of stopping: end-of-text tokens inside a block, maximum length, end of the context."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import ROOT, Tree
from harness.mutants import mutant
from harness.mutants.cases import ENDS
from harness.mutants.planting import Fault


class EndIgnored(Sequence):
    """A sequence that does not look for an end of text."""

    def append(self, block: Block) -> Block:
        params = self.params
        self.params = replace(params, eos_token_id=None)
        block = super().append(block)
        self.params = params
        return block


class LongBlocks(Sequence):
    """A sequence whose blocks may go up to 8 tokens past the end of the turn."""

    @property
    def last(self) -> int:
        return min(self.end + 8, self.context)

    @property
    def max_depth(self) -> int:
        return self.last - len(self.tokens) - 1


@mutant("M63", part="stop", source="huggingface/transformers issue 47912", killers={"STOP-2": "", "STOP-3": "", "LAW-1": ENDS})
class EndSeenLast(Fault):
    """End of text is detected only at the end of a block."""

    class FaultySequence(EndIgnored):
        def append(self, block: Block) -> Block:
            block = super().append(block)
            if self.params.ends(block.tokens[-1]):
                self.finish = "eos"
            return block


@mutant("M64", part="stop", source="LostRuins/koboldcpp issue 1276", killers={"STOP-2": "", "STOP-3": "", "LAW-1": ENDS})
class BlockKeptWhole(Fault):
    """A block that contains an end of text is emitted in full."""

    class FaultySequence(EndIgnored):
        def append(self, block: Block) -> Block:
            block = super().append(block)
            if any(self.params.ends(token) for token in block.tokens):
                self.finish = "eos"
            return block


@mutant("M65", part="length", source="openvinotoolkit/openvino.genai issue 4190", killers={"STOP-1": ""})
class LastReplaced(Fault):
    """Where max_new_tokens cuts a block, draft tokens are dropped and the block's last token is kept."""

    class FaultySequence(LongBlocks):
        def append(self, block: Block) -> Block:
            left = self.end - len(self.tokens)
            if len(block.tokens) >= left:
                block = replace(block, tokens=[*block.tokens[: left - 1], block.tokens[-1]], accepted=left - 1)
            return super().append(block)


@mutant("M66", part="length", source="vllm-project/vllm PR 38711", killers={"STOP-4": ""})
class StopsBeforeContext(Fault):
    """The last position of the context is not used."""

    class FaultySequence(Sequence):
        def __init__(self, prompt: Any, params: Any, coins: Any, cache: Any, context: int) -> None:
            super().__init__(prompt, params, coins, cache, max(context - 1, len(prompt) + 1))


@mutant("M67", part="stop", source="openvinotoolkit/openvino.genai PR 3293", killers={"LAW-1": ENDS})
class DraftedEndEnds(Fault):
    """A drafted end of text ends the text although the target rejected it."""

    class FaultyDecoder(Decoder):
        def accept(self, sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
            block = super().accept(sequence, tree, logits)
            rejected = map(tree.token, tree.children(block.path[-1] if block.path else ROOT))
            ends = [token for token in rejected if sequence.params.ends(token)]
            return replace(block, tokens=[*block.tokens[:-1], ends[0]]) if ends else block


@mutant("M68", part="stop", source="sgl-project/sglang issue 31599", killers={"LAW-1": ENDS})
class LengthBeforeEnd(Fault):
    """In the block that reaches max_new_tokens, length is checked first, and an end of text inside it is not detected."""

    class FaultySequence(EndIgnored):
        def append(self, block: Block) -> Block:
            if len(self.tokens) + len(block.tokens) == self.start + self.params.max_new_tokens:
                return super().append(block)
            return Sequence.append(self, block)


@mutant("M69", part="length", source="flashinfer-ai/flashinfer issue 879", killers={"SMOKE-1": ""})
class Overshoots(Fault):
    """Length is checked between blocks only, so that a text can exceed max_new_tokens."""

    class FaultySequence(LongBlocks):
        def append(self, block: Block) -> Block:
            end = self.end
            self.end = self.last
            block = super().append(block)
            self.end = end
            if not self.finish and len(self.tokens) >= end:
                self.finish = "length"
            return block
