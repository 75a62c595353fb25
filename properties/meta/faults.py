"""Planted faults: the reference decoder with one thing wrong, each told in one line with the public thread it comes from.

All are connectable: `py:properties.meta.faults:Name`. A bare function is a rule; a class is the decoder with one part changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessorList, TopPLogitsWarper

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.sampling import SamplingParams, law
from eagle2_ref.target import Rows
from eagle2_ref.tree import ROOT, DraftTree
from harness.implementations.reference import Engine, told
from harness.mutants.planting import (
    Answer,
    Asked,
    Planted,
    PlantedChildren,
    PlantedCommit,
    PlantedLaw,
    PlantedPass,
    PlantedStream,
    broken_reject,
)

# --- rules: (tokens [m + 1], parents [m + 1], p [m + 1, V], coins) -> (path, token) --------------------------------


def keeps_the_refused(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A refused sibling's token stays in what remains (SafeAILab/EAGLE commit 2f982e2)."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, remainder=lambda r, _x: r)


def does_not_renormalise(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A refused token is zeroed in place, and what remains is not made to sum to 1 (vllm-project/vllm-ascend PR 2881)."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, remainder=lambda r, x: r.index_fill_(0, torch.tensor([x]), 0.0))


def stale_bonus(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """After a sibling was refused and the next accepted, the bonus comes from the siblings' remainder (SafeAILab/EAGLE PR 47)."""

    def last(r: Tensor, refused: Uniform | None, above: Tensor | None) -> int:
        return coins.categorical(r if refused is not None or above is None else above)

    return broken_reject(DraftTree.of(tokens, parents), p, coins, last=last)


def one_coin(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """One uniform number serves all drafts of a block (flashinfer-ai/flashinfer PR 424)."""
    coin = coins.uniform()
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: coin < r[x])


def reused_coin(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The coin that refused a draft also picks the recovered token, by its cumulative sum (vllm-project/vllm-ascend PR 16370)."""

    def last(r: Tensor, refused: Uniform | None, _above: Tensor | None) -> int:
        if refused is None:
            return coins.categorical(r)
        return next((x for x, cumulative in enumerate(r.cumsum(0)) if refused < cumulative), int(r.nonzero()[-1]))

    return broken_reject(DraftTree.of(tokens, parents), p, coins, last=last)


def accepts_all(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The uniform number is always 0: every draft that is possible is accepted (vllm-project/vllm-ascend issue 13730)."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: bool(r[x] > 0))


def first_unseen(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The root's first child is committed without being compared (ohdearquant/lattice issue 243)."""
    p = p.clone()
    if len(tokens) > 1:
        p[ROOT] = torch.nn.functional.one_hot(torch.tensor(tokens[1]), p.shape[1])
    return broken_reject(DraftTree.of(tokens, parents), p, coins)


def greedy_always(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The greedy branch is taken at every temperature, without a word (sgl-project/sglang PR 37134)."""
    return broken_reject(DraftTree.of(tokens, parents), torch.nn.functional.one_hot(p.argmax(-1), p.shape[1]).to(p), coins)


def greedy_drafts(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Argmax decides at drafted positions, and only the last token honours the temperature (ROCm/ATOM PR 2318)."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: int(r.argmax()) == x)


# --- the target's law ----------------------------------------------------------------------------------------------


class BonusUnprocessed(PlantedLaw):
    """The bonus token is drawn from the softmax of raw logits: no temperature, no filter (SafeAILab/EAGLE commit c7ef8e5)."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        leaf = torch.tensor([len(p) > 1 and not asked.tree.children(node) for node in range(len(p))])
        return torch.where(leaf[:, None], asked.logits.softmax(-1).to(p), p)


class DefaultParameters(PlantedLaw):
    """The target is scored with temperature 1 and no filter, whatever was asked for (vllm-project/vllm issue 9834)."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        return asked.logits.softmax(-1).to(p)


class RootsPenalty(PlantedLaw):
    """The repetition penalty of every node sees the root's history, not the node's own (sgl-project/sglang PR 22049)."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        bare = DraftTree.bare(asked.text[-1])
        return torch.cat([law(row[None], bare, asked.text, asked.params).to(p) for row in asked.logits])


class LastOfTies(PlantedLaw):
    """Of equally likely tokens the last is taken at temperature 0 (ohdearquant/lattice issue 280)."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        return p if asked.params.temperature else law(asked.logits.flip(-1), asked.tree, asked.text, asked.params).flip(-1)


class FirstTokenGreedy(PlantedLaw):
    """The token of the prompt's pass is the likeliest one at every temperature (Luce-Org/lucebox PR 374)."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        return law(asked.logits, asked.tree, asked.text, replace(asked.params, temperature=0.0)) if len(p) == 1 else p


class TopPFirst(Engine):
    """Top-p cuts before top-k, so that the two together keep other tokens (sgl-project/sglang PR 36173, the other way round)."""

    class Params(SamplingParams):
        """transformers' processors, in the wrong order."""

        def processors(self) -> LogitsProcessorList:
            chosen = super().processors()
            return LogitsProcessorList(sorted(chosen, key=lambda processor: not isinstance(processor, TopPLogitsWarper)))

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        return told(self.decoder.generate(prompt, self.Params.of(params), coins))


# --- verification and the target's cache ---------------------------------------------------------------------------


class RowsAlike(Planted):
    """The verification kernel gives every row the root's logits (ROCm/aiter issue 2720)."""

    def plant(self, decoder: Decoder) -> None:
        verify = decoder.target.verify

        def alike(tree: DraftTree) -> Rows:
            rows = verify(tree)
            return replace(rows, logits=rows.logits[:1].expand_as(rows.logits))

        decoder.target.verify = alike  # type: ignore[method-assign]


class PositionsAlike(PlantedPass):
    """All nodes have the root's position (intel/ipex-llm PR 10141: position ids)."""

    def positions(self, positions: Tensor) -> Tensor:
        return positions[:1].expand_as(positions)


class PositionsLag(PlantedPass):
    """Below depth 1 a node's position is one too low (intel/ipex-llm PR 10141: position ids)."""

    def positions(self, positions: Tensor) -> Tensor:
        return torch.where(positions > positions[0] + 1, positions - 1, positions)


class SeesSiblings(PlantedPass):
    """A node sees every node before it, as in a chain (NVIDIA/TensorRT-LLM PR 15842: tree mask)."""

    def seen(self, ancestors: Tensor) -> Tensor:
        return torch.ones_like(ancestors).tril()


class SeesNoAncestors(PlantedPass):
    """A node sees the text and itself, but not its path (NVIDIA/TensorRT-LLM PR 15842: tree mask)."""

    def seen(self, ancestors: Tensor) -> Tensor:
        return torch.eye(len(ancestors), dtype=torch.bool, device=ancestors.device)


class CacheCut(PlantedCommit):
    """The cache is cut to the right length without gathering the path: a refused node stays (TensorRT-LLM PR 15842: rewind)."""

    def kept(self, path: list[int]) -> list[int]:
        return list(range(1, len(path) + 1))


class CacheReversed(PlantedCommit):
    """The path is committed bottom up (vllm-project/vllm PR 5412: wrong indices); attention cannot tell."""

    def kept(self, path: list[int]) -> list[int]:
        return path[::-1]


# --- the drafter: none of these changes the law --------------------------------------------------------------------


class OverBudget(Planted):
    """`total_token`, which counts the root, is read as the number of drafted tokens (SafeAILab/EAGLE, model/cnets.py)."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        drafter.budget = replace(drafter.budget, m=drafter.budget.m + 1)


class TwinSiblings(PlantedChildren):
    """The least confident child of a node repeats the most confident one (SafeAILab/EAGLE commit b09a256: duplicate siblings)."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        pool = grow(features, values, parents)
        tokens = pool.tokens.view(len(features), -1).clone()
        tokens[:, -1] = tokens[:, 0]
        return replace(pool, tokens=tokens.flatten())


class RanksByConfidence(PlantedChildren):
    """Candidates are ranked by confidence, not by value, so that parents are lost (EAGLE-2, section 4.1; sglang issue 7477)."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        return grow(features, torch.zeros_like(values), parents)


class FeaturesLate(Planted):
    """The head is fed each token with the feature of one position earlier (vllm-project/vllm PR 9730: wrong token's entry)."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        observe = drafter.observe

        def late(tokens: Sequence[int], features: Tensor) -> None:
            observe(tokens, torch.cat([features[:1], features[:-1]]))

        drafter.observe = late  # type: ignore[method-assign]


class HeadKeepsExpansion(Planted):
    """The head's cache keeps what it computed from its own features for the tree (vllm-project/vllm issue 14649)."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        expand = drafter._expand

        def keeping(feature: Tensor, depth: int) -> Pool:
            before = drafter.cache.length
            pool = expand(feature, depth)
            drafter.cache.length = before + (depth - 1) * drafter.budget.k
            return pool

        drafter._expand = keeping  # type: ignore[method-assign]


class SaturatedHead(Planted):
    """No fault: a head that is a hundred times as sure of itself, so that confidences of exactly 1 occur."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        lm_head = drafter.lm_head
        drafter.lm_head = lambda features: 100 * lm_head(features)


class OrphansOfTies(SaturatedHead):
    """Of equal values the deeper is kept, and its parent may be lost (SafeAILab/EAGLE, model/cnets.py: torch.topk)."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        super().plant_drafter(drafter)
        expand = drafter._expand

        def later_first(feature: Tensor, depth: int) -> Pool:
            pool = expand(feature, depth)
            return replace(pool, values=pool.values + 1e-12 * torch.arange(len(pool.values), device=feature.device))

        drafter._expand = later_first  # type: ignore[method-assign]


# --- where a text ends ---------------------------------------------------------------------------------------------


class EndSeenLast(Planted):
    """End of text is looked for only at the end of a block (huggingface/transformers issue 47912)."""

    def plant(self, decoder: Decoder) -> None:
        accept = decoder._accept

        def uncut(tree: DraftTree, logits: Tensor, text: list[int], params: SamplingParams, coins: Coins) -> Block:
            return accept(tree, logits, text, replace(params, eos_token_id=None), coins)

        decoder._accept = uncut  # type: ignore[method-assign]


class BlockKeptWhole(PlantedStream):
    """A block with an end of text in it is emitted whole (LostRuins/koboldcpp issue 1276)."""

    def plant(self, decoder: Decoder) -> None:
        EndSeenLast.plant(self, decoder)  # type: ignore[arg-type]
        super().plant(decoder)

    def stream(
        self, blocks: Callable[..., Iterator[Block]], prompt: list[int], params: SamplingParams, coins: Coins
    ) -> Iterator[Block]:
        for block in blocks(prompt, params, coins):
            yield block
            if params.eos & set(block.tokens):
                return


class LastReplaced(PlantedStream):
    """Where max_new_tokens cuts a block, drafts are dropped and the block's last token kept (openvino.genai issue 4190)."""

    def stream(
        self, blocks: Callable[..., Iterator[Block]], prompt: list[int], params: SamplingParams, coins: Coins
    ) -> Iterator[Block]:
        room = params.max_new_tokens
        for block in blocks(prompt, replace(params, max_new_tokens=room + 8), coins):
            if len(block.tokens) >= room:
                yield replace(block, tokens=[*block.tokens[: room - 1], block.tokens[-1]], accepted=room - 1)
                return
            room -= len(block.tokens)
            yield block


class StopsBeforeContext(PlantedStream):
    """The last position of the context is left empty (vllm-project/vllm PR 38711: the limit of max_model_len)."""

    def stream(
        self, blocks: Callable[..., Iterator[Block]], prompt: list[int], params: SamplingParams, coins: Coins
    ) -> Iterator[Block]:
        room = self.decoder.target.context - 1 - len(prompt)
        return blocks(prompt, replace(params, max_new_tokens=max(1, min(params.max_new_tokens, room))), coins)


# --- what is told --------------------------------------------------------------------------------------------------


class CountsOneTooMany(Engine):
    """The recovered or bonus token is counted among the accepted (SafeAILab/EAGLE issue 95: the +1 convention)."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer = super().decode(prompt, params, coins)
        return answer | {"blocks": [block | {"accepted": block["accepted"] + 1} for block in answer["blocks"]]}


class CountsAfterEnd(BlockKeptWhole):
    """Blocks count the tokens behind an end of text too, though the text is cut there (sgl-project/sglang issue 39826)."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer, eos = super().decode(prompt, params, coins), SamplingParams.of(params).eos
        ends = [i for i, token in enumerate(answer["tokens"]) if token in eos]
        return answer | {"tokens": answer["tokens"][: ends[0] + 1] if ends else answer["tokens"]}


class SeedIgnored(Engine):
    """Every request is sampled with the same coins (vllm-project/vllm issue 6038)."""

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return super().generate(prompts, params, [0] * len(seeds))


class FirstRowsTemperature(Engine):
    """A call of mixed temperatures is decoded at that of its first row (vllm-project/vllm-ascend issue 16396)."""

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return super().generate(prompts, [{**row, "temperature": params[0]["temperature"]} for row in params], seeds)


class LosesAnAnswer(Engine):
    """The last prompt of a call gets no answer (vllm-project/vllm PR 14645: rows of a batch)."""

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return super().generate(prompts, params, seeds)[:-1]
