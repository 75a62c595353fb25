"""The state of one sequence while it is decoded, and the rules for where it ends."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from eagle2_ref.coins import Coins
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import Tree

Finish = Literal["eos", "length", "context"]
"""Why a sequence ended: an end-of-text token, `max_new_tokens`, or a full context."""


@dataclass(frozen=True)
class Block:
    """The tokens that one target pass emits.

    The first block of a turn comes from the pass over the prompt: one token, and a tree without proposals.

    Attributes:
        start: position of the first token.
        tokens: the accepted draft tokens and one more token, unless the end of the text cut the block short.
        accepted: how many of the tokens were drafted.
        tree: the tree that was verified.
        path: its accepted nodes.
        logprobs: log-probability of each token under the target distribution, at temperature 0 that of temperature 1; empty
            in enumeration, where the last token may have no value yet.
    """

    start: int
    tokens: list[int]
    accepted: int
    tree: Tree
    path: list[int]
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Generation:
    """A finished continuation: its tokens, the blocks they came in, why it ended, and how many passes it took."""

    tokens: list[int]
    blocks: list[Block]
    finish: Finish
    target_passes: int
    draft_passes: int

    @property
    def tau(self) -> float:
        """Acceptance length: tokens per target pass, without the pass over the prompt and its token; nan without a pass."""
        drafted = self.blocks[1:]
        return sum(len(block.tokens) for block in drafted) / len(drafted) if drafted else float("nan")


class Sequence:
    """A text that is being decoded, with everything that belongs to it alone: the decoder itself has no state.

    The sequence owns its cache and the drafter's state, so that it can be set aside and resumed at any time, or be continued
    with another prompt (`extend`).

    Attributes:
        tokens: the prompt and all emitted tokens. The last is the root of the next draft tree.
        params, coins: sampling parameters and randomness of the request.
        cache: the target's keys and values of all tokens but the newest.
        draft: the drafter's state.
        blocks: the blocks of the present turn; none before the prompt has been read.
        finish: why the turn ended; None while it is decoded.
        target_passes: number of target passes in the present turn.
    """

    def __init__(self, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins, cache: KVCache, context: int) -> None:
        self.tokens = list(prompt)
        self.cache, self.context = cache, context
        self.draft: Any = None
        self.begin_turn(params, coins)

    def begin_turn(self, params: SamplingParams, coins: Coins) -> None:
        """Prepare to emit up to `max_new_tokens` tokens after the present ones."""
        self.params, self.coins = params, coins
        self.start = len(self.tokens)  # position of the first token of this turn
        self.end = min(self.start + params.max_new_tokens, self.context)
        self.blocks: list[Block] = []
        self.finish: Finish | None = None
        self.target_passes = 0
        if self.draft:
            self.draft.passes = 0

    def extend(self, tokens: abc.Sequence[int], params: SamplingParams | None = None, coins: Coins | None = None) -> None:
        """Begin another turn after a finished one, on the same caches.

        Args:
            tokens: what the user says next; may be empty, to continue the same text.
            params: sampling parameters of the turn; without it those of the last turn.
            coins: randomness of the turn; without it that of the last turn.

        Raises:
            BadInput: the context cannot hold the tokens and one more.
        """
        if len(self.tokens) + len(tokens) >= self.context:
            raise BadInput(
                f"the sequence would have {len(self.tokens) + len(tokens)} tokens, the context has {self.context}",
                "give a shorter turn, or begin a new sequence",
            )
        self.tokens = [int(token) for token in [*self.tokens, *tokens]]
        self.begin_turn(params or self.params, coins or self.coins)

    @property
    def unread(self) -> list[int]:
        """The tokens that are not in the target's cache: before a turn its prompt, then the newest token."""
        return self.tokens[self.cache.length :]

    @property
    def max_depth(self) -> int:
        """Depth of the deepest useful tree: a path of this length and one more token reach the end of the turn."""
        return self.end - len(self.tokens) - 1

    def append(self, block: Block) -> Block:
        """Add a block, cut after the first end-of-text token and at the end of the turn, and set `finish` if it is reached.

        Returns:
            The block that was added.
        """
        tokens = block.tokens[: self.end - len(self.tokens)]
        stop = next((i for i, token in enumerate(tokens, start=1) if self.params.ends(token)), None)
        tokens = tokens[:stop]
        if (n := len(tokens)) < len(block.tokens):
            path, logprobs = block.path[:n], block.logprobs[:n]
            block = replace(block, tokens=tokens, accepted=min(block.accepted, n), path=path, logprobs=logprobs)
        self.tokens += tokens
        self.blocks.append(block)
        if stop is not None:
            self.finish = "eos"
        elif len(self.tokens) == self.end:
            self.finish = "length" if self.end == self.start + self.params.max_new_tokens else "context"
        else:
            # The next step needs the value of its root. In enumeration this is where a lazy token gets it; one at the end of the
            # text never needs one.
            self.tokens[-1] = int(self.tokens[-1])
        return block

    def generation(self) -> Generation:
        """The result of the finished turn."""
        assert self.finish, "the sequence is still being decoded"
        draft_passes = self.draft.passes if self.draft else 0
        return Generation(self.tokens[self.start :], self.blocks, self.finish, self.target_passes, draft_passes)
