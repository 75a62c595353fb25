"""The loop of decode.py for several texts at once: one pass of the target, and of the head, serves them all."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Block, Decoder, Finish, Generation
from eagle2_ref.drafters.eagle2 import Eagle2, propose_together
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import beside
from eagle2_ref.model.network import Rows
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree, Tree


class Batch:
    """Texts that share the passes of one decoder, at most `size` of them at a time; a finished text makes room for another."""

    def __init__(self, decoder: Decoder, size: int = 32) -> None:
        if size < 1 or size != int(size):
            raise BadInput(f"batch is {size}", "batch must be a whole number of 1 or more")
        self.decoder, self.size = decoder, int(size)

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams], coins: Sequence[Coins]
    ) -> list[Generation]:
        """The whole continuation of every prompt, each with its own parameters and coins.

        Law: each text is the one that `Decoder.generate` makes of it alone, coin for coin. Only the order of additions within
        a padded pass may differ: in float64 the tokens are the same, in lower precision two texts may part at a tie.
        """
        for prompt in prompts:
            self.decoder._check(prompt)
        waiting = deque(enumerate(zip(prompts, params, coins, strict=True)))
        live, told = list[Text](), dict[int, Generation]()
        while waiting or live:
            new = [Text(self.decoder, *waiting.popleft()) for _ in range(min(self.size - len(live), len(waiting)))]
            for text, rows in zip(new, self.prefill(new), strict=True):
                text.begin(rows)
            live += new
            going = [text for text in live if not text.finish]
            trees = self.propose(going)
            for text, tree, rows in zip(going, trees, self.verify(going, trees), strict=True):
                text.advance(tree, rows)
            for text in [text for text in live if text.finish]:
                told[text.number] = text.told()
                live[live.index(text)] = live[-1]  # which moves into its row; all others stay where they are
                live.pop()
        return [told[number] for number in range(len(told))]

    def prefill(self, texts: Sequence[Text]) -> list[Rows]:
        """`Target.prefill` of several texts in one pass: chains that are kept whole."""
        chains = [DraftTree.of(text.tokens, list(range(-1, len(text.tokens) - 1))) for text in texts]
        return together([text.target for text in texts], chains, prompts=True)

    def propose(self, texts: Sequence[Text]) -> Sequence[Tree]:
        """A tree for each text, bare without a drafter; EAGLE-2's head serves all texts in one pass a layer."""
        drafters = [text.drafter for text in texts if isinstance(text.drafter, Eagle2)]
        if len(drafters) == len(texts):
            return propose_together(drafters, [text.room for text in texts])
        return [text.decoder._propose(text.tokens[-1], text.room) for text in texts]

    def verify(self, texts: Sequence[Text], trees: Sequence[Tree]) -> list[Rows]:
        """`Target.verify` of a tree for each text in one pass. `Target.commit` follows, for each text alone."""
        return together([text.target for text in texts], trees)


class Text:
    """A text on its way: what `Decoder.stream` keeps in local names. The caches of its target and drafter are rows of rooms
    that it shares with its neighbours."""

    def __init__(self, decoder: Decoder, number: int, asked: tuple[Sequence[int], SamplingParams, Coins]) -> None:
        prompt, self.params, self.coins = asked
        self.number, self.decoder = number, copy(decoder)
        self.target = self.decoder.target = copy(decoder.target)
        self.target.reset()
        self.drafter = self.decoder.drafter = copy(decoder.drafter)
        if self.drafter:
            self.drafter.begin(prompt, self.params, self.coins)
        self.tokens, self.blocks = list(prompt), list[Block]()
        self.end = min(len(prompt) + self.params.max_new_tokens, self.target.context)
        self.at_end: Finish = "length" if self.end == len(prompt) + self.params.max_new_tokens else "context"
        self.finish: Finish | None = None

    @property
    def room(self) -> int:
        """Depth of the deepest tree whose block does not run past the end."""
        return self.end - len(self.tokens) - 1

    def begin(self, rows: Rows) -> None:
        """The prompt has been read: its block."""
        block = self._accept(self.decoder._bare(self.tokens[-1]), rows.logits)
        self.decoder._observe(self.tokens[1:] + block.tokens, rows.features)
        self._emit(block)

    def advance(self, tree: Tree, rows: Rows) -> None:
        """A tree has been verified: its block."""
        block = self._accept(tree, rows.logits)
        self.target.commit(block.path)
        self.decoder._learn(block, rows)
        self._emit(block)

    def told(self) -> Generation:
        """The finished text. A pass counts for every text that it served."""
        assert self.finish, "a text is told when it is finished"
        tokens = [token for block in self.blocks for token in block.tokens]
        return Generation(tokens, self.blocks, self.finish, self.target.passes, self.drafter.passes if self.drafter else 0)

    def _accept(self, tree: Tree, logits: Tensor) -> Block:
        return self.decoder._accept(tree, logits, self.tokens, self.params, self.coins)

    def _emit(self, block: Block) -> None:
        self.blocks.append(block)
        self.tokens += block.tokens
        if self.params.ends(self.tokens[-1]):
            self.finish = "eos"
        elif len(self.tokens) == self.end:
            self.finish = self.at_end
        else:
            self.tokens[-1] = int(self.tokens[-1])  # chance may have left the last token open until it is looked at


@torch.inference_mode()
def together(targets: Sequence[Target], trees: Sequence[Tree], prompts: bool = False) -> list[Rows]:
    """One pass over a tree for each text, after which the cache of each holds all of its nodes.

    They are written at the same columns for all texts, behind the longest. What a text sees, at which position, is what it is
    alone. `prompts`, behind which there is nothing, end at the same column, the only one whose logits are wanted, and are kept.
    """
    if not targets:
        return []
    network, device = targets[0].network, targets[0].device
    nodes = max(len(tree) for tree in trees)
    firsts = [nodes - len(tree) if prompts else 0 for tree in trees]
    tokens, depths = (
        pad_sequence(rows, batch_first=True, padding_side="left" if prompts else "right").to(device)
        for rows in ([tree.tokens for tree in trees], [torch.tensor(tree.depths) for tree in trees])
    )
    cache = beside([target.cache for target in targets])
    text = cache.holds()[:, None].expand(-1, nodes, -1)
    seen = torch.cat([text, _ancestors(trees, firsts, nodes).to(device)], dim=-1)
    rows = network(tokens, cache.lengths[:, None] + depths, seen, cache, prompts)
    told = []
    for row, (target, tree, first) in enumerate(zip(targets, trees, firsts, strict=True)):
        target.passes += 1
        if prompts:
            target.cache.keep(range(first, nodes))
        told.append(Rows(rows.logits[row, : len(tree)], rows.features[row, first : first + len(tree)]))
    return told


def _ancestors(trees: Sequence[Tree], firsts: Sequence[int], nodes: int) -> Tensor:
    """Boolean [B, nodes, nodes]: each tree's ancestors, its own nodes beginning at `first`; what pads sees itself alone."""
    seen = torch.eye(nodes, dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, (tree, first) in enumerate(zip(trees, firsts, strict=True)):
        seen[row, first : first + len(tree), first : first + len(tree)] = tree.ancestors()
    return seen
