"""Faults of stopping: end-of-text tokens inside a block, maximum length, end of the context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Block
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT
from harness.mutants import mutant
from harness.mutants.cases import ENDS
from harness.mutants.planting import Asked, PlantedBlock, PlantedCut, PlantedStream

Blocks = Callable[..., Iterator[Block]]


@mutant("M63", part="stop", source="huggingface/transformers issue 47912", killers={"STOP-2": "", "STOP-3": "", "LAW-1": ENDS})
class EndSeenLast(PlantedCut):
    """End of text is detected only at the end of a block."""


@mutant("M64", part="stop", source="LostRuins/koboldcpp issue 1276", killers={"STOP-2": "", "STOP-3": "", "LAW-1": ENDS})
class BlockKeptWhole(PlantedCut, PlantedStream):
    """A block that contains an end of text is emitted in full."""

    def stream(self, blocks: Blocks, prompt: list[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        for block in blocks(prompt, params, coins):
            yield block
            if any(params.ends(token) for token in block.tokens):
                return


@mutant("M65", part="length", source="openvinotoolkit/openvino.genai issue 4190", killers={"STOP-1": ""})
class LastReplaced(PlantedStream):
    """Where max_new_tokens cuts a block, draft tokens are dropped and the block's last token is kept."""

    def stream(self, blocks: Blocks, prompt: list[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        room = params.max_new_tokens
        for block in blocks(prompt, replace(params, max_new_tokens=room + 8), coins):
            if len(block.tokens) >= room:
                yield replace(block, tokens=[*block.tokens[: room - 1], block.tokens[-1]], accepted=room - 1)
                return
            room -= len(block.tokens)
            yield block


@mutant("M66", part="length", source="vllm-project/vllm PR 38711", killers={"STOP-4": ""})
class StopsBeforeContext(PlantedStream):
    """The last position of the context is not used."""

    def stream(self, blocks: Blocks, prompt: list[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        room = self.decoder.target.context - 1 - len(prompt)
        return blocks(prompt, replace(params, max_new_tokens=max(1, min(params.max_new_tokens, room))), coins)


@mutant("M67", part="stop", source="openvinotoolkit/openvino.genai PR 3293", killers={"LAW-1": ENDS})
class DraftedEndEnds(PlantedBlock):
    """A drafted end of text ends the text although the target rejected it."""

    def block(self, block: Block, asked: Asked, coins: Coins) -> Block:  # noqa: ARG002
        refused = asked.tree.children(block.path[-1] if block.path else ROOT)
        ends = [token for token in map(asked.tree.token, refused) if asked.params.ends(token)]
        return replace(block, tokens=[*block.tokens[:-1], ends[0]]) if ends and len(block.tokens) > len(block.path) else block


@mutant("M68", part="stop", source="sgl-project/sglang issue 31599", killers={"LAW-1": ENDS})
class LengthBeforeEnd(PlantedCut, PlantedStream):
    """In the block that reaches max_new_tokens, length is checked first, and an end of text inside it is not detected."""

    end = 0

    def stream(self, blocks: Blocks, prompt: list[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        self.end = len(prompt) + params.max_new_tokens
        return blocks(prompt, params, coins)

    def cut(self, block: Block, text: list[int], params: SamplingParams) -> Block:
        ends = [i for i, token in enumerate(block.tokens, start=1) if params.ends(token)]
        if not ends or len(text) + len(block.tokens) == self.end:
            return block
        kept = ends[0]
        return replace(block, tokens=block.tokens[:kept], accepted=min(block.accepted, kept), path=block.path[:kept])


@mutant("M69", part="length", source="flashinfer-ai/flashinfer issue 879", killers={"SMOKE-1": ""})
class Overshoots(PlantedStream):
    """Length is checked between blocks only, so that a text can exceed max_new_tokens."""

    def stream(self, blocks: Blocks, prompt: list[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        left = params.max_new_tokens
        for block in blocks(prompt, replace(params, max_new_tokens=left + 8), coins):
            yield block
            left -= len(block.tokens)
            if left <= 0:
                return
