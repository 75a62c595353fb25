"""The loop: propose, verify, accept, commit; until the text stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, undecided
from eagle2_ref.drafters.base import Drafter, Method
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.model.network import Rows
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, Rule, walk
from eagle2_ref.sampling import SamplingParams, probabilities, processed
from eagle2_ref.tree import ROOT, DraftTree, SampledTree, Tree

Finish = Literal["eos", "length", "context"]


@dataclass(frozen=True)
class Block:
    """The tokens that one target pass emits.

    start: position of the first of them. accepted: how many of them were drafted; one more token follows, unless an end
    of text cut the block short. tree: all that was verified, passengers too. path: its accepted nodes. logprobs: log p of each
    token, p as `warm` has it at temperature 0; none where chance has left the last token open. The first block is the prompt's:
    its tree is bare.
    """

    start: int
    tokens: list[int]
    accepted: int
    tree: Tree
    path: list[int]
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Generation:
    """A finished text: its new tokens, the blocks it came in, why it ended, and what it cost."""

    tokens: list[int]
    blocks: list[Block]
    finish: Finish
    target_passes: int
    draft_passes: int

    @property
    def tau(self) -> float:
        """Acceptance length: tokens emitted per target pass, the prompt's pass and its token left out; nan without a pass."""
        drafted = self.blocks[1:]
        return sum(len(block.tokens) for block in drafted) / len(drafted) if drafted else float("nan")


class Decoder:
    """A target, a drafter and a rule. Without a drafter every tree is bare: ordinary decoding, the control arm."""

    def __init__(self, target: Target, drafter: Drafter | None = None, rule: Rule = walk) -> None:
        self.target, self.drafter, self.rule = target, drafter, rule
        self.finish: Finish = "length"

    @classmethod
    def load(
        cls,
        target: Path | str,
        draft: Path | str | None = None,
        method: Method | None = None,
        rule: Rule = walk,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> Decoder:
        """From the directories of a pair; `draft` None gives the control arm. Without a method it is EAGLE-2 as published."""
        loaded = Target.load(target, dtype, device)
        return cls(loaded, None if draft is None else (method or Budget()).drafter(loaded, draft), rule)

    def generate(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> Generation:
        """The whole continuation of a prompt."""
        blocks = list(self.stream(prompt, params, coins))
        tokens = [token for block in blocks for token in block.tokens]
        draft_passes = self.drafter.passes if self.drafter else 0
        return Generation(tokens, blocks, self.finish, self.target.passes, draft_passes)

    def stream(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        """Emit a continuation of at most `max_new_tokens` tokens, block by block.

        Law: the tokens are distributed as those of ordinary sampling from the target with the same parameters, cut after
        the first end-of-text token, at `max_new_tokens`, or where the context of the model is full. `finish` tells which.
        """
        self._check(prompt)
        text = list(prompt)
        end = min(len(prompt) + params.max_new_tokens, self.target.context)
        self.finish = "length" if end == len(prompt) + params.max_new_tokens else "context"
        self.target.reset()
        if self.drafter:
            self.drafter.begin(prompt, params, coins)

        tree = self._bare(text[-1])
        rows = self.target.prefill(text)
        block = self._accept(tree, rows.logits, text, params, coins)
        self._observe(text[1:] + block.tokens, rows.features)
        while True:
            text += block.tokens
            yield block
            if params.ends(text[-1]):
                self.finish = "eos"
                return
            if len(text) == end:
                return
            text[-1] = int(text[-1])  # chance may have left the last token open until it is looked at
            # A path of this depth and one more token just fill what is left: no block runs past the end.
            tree = self._propose(text[-1], depth=end - len(text) - 1)
            rows = self.target.verify(tree)
            block = self._accept(tree, rows.logits, text, params, coins)
            self.target.commit(block.path)
            self._learn(block, rows)

    def _accept(self, tree: Tree, logits: Tensor, text: list[int], params: SamplingParams, coins: Coins) -> Block:
        coins.seek(len(text))
        proposed = tree.proposals
        scores = processed(logits[: len(proposed)], proposed, text, params)
        accepted: Accepted = self.rule(proposed, probabilities(scores, params), coins)
        tokens = accepted.tokens(tree)
        ends = [i for i, token in enumerate(tokens) if params.ends(token)]
        kept = tokens[: ends[0] + 1] if ends else tokens
        logprobs = [] if undecided(kept[-1]) else self._told(scores, [ROOT, *accepted.path], kept)
        return Block(len(text), kept, min(len(accepted.path), len(kept)), tree, accepted.path[: len(kept)], logprobs)

    def _told(self, scores: Tensor, nodes: list[int], tokens: Sequence[int]) -> list[float]:
        """Log-probabilities of the tokens emitted behind the nodes of a path."""
        rows, columns = (
            torch.tensor(chosen, device=scores.device) for chosen in (nodes[: len(tokens)], [int(token) for token in tokens])
        )
        laws = scores.index_select(0, rows).log_softmax(-1)
        told: list[float] = laws.gather(1, columns[:, None])[:, 0].tolist()
        return told

    def _bare(self, root: int) -> DraftTree | SampledTree:
        return (self.drafter.trees if self.drafter else DraftTree).bare(root)

    def _propose(self, root: int, depth: int) -> DraftTree | SampledTree:
        return self.drafter.propose(depth) if self.drafter else DraftTree.bare(root)

    def _learn(self, block: Block, rows: Rows) -> None:
        """A tree was verified, and this came of it."""
        if self.drafter:
            self.drafter.learn(block.tree, rows.logits, block.path)
            self.drafter.observe(block.tokens, rows.features[[ROOT, *block.path]][: len(block.tokens)])

    def _observe(self, tokens: Sequence[int], features: Tensor) -> None:
        if self.drafter:
            self.drafter.observe(tokens, features)

    def _check(self, prompt: Sequence[int]) -> None:
        if not prompt:
            raise BadInput("the prompt is empty", "give at least one token")
        if strange := [token for token in prompt if not 0 <= token < self.target.vocab_size]:
            raise BadInput(
                f"the prompt has token {strange[0]}", f"{self.target.name} has tokens 0 to {self.target.vocab_size - 1}"
            )
        if len(prompt) >= self.target.context:
            raise BadInput(
                f"the prompt has {len(prompt)} tokens, {self.target.name} can hold {self.target.context}",
                "give a prompt that leaves room for an answer",
            )
