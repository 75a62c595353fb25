"""The loop of decode.py in shapes that never change, so that a step can be captured as one CUDA graph.

Tree, rule and caches stay on the device. Lengths and counts are tensors; what a shape has too much of is written behind the
text, where nobody looks, and overwritten by the next pass. The host hears of a step once: when it asks what was emitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.cuda_graph import recorded
from eagle2_ref.decode import Block, Decoder, Finish, Generation
from eagle2_ref.drafters.eagle2 import Budget, Eagle2, Pool, best
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import Cache, Kept
from eagle2_ref.model.llama import Llama, additive
from eagle2_ref.sampling import SamplingParams, probabilities
from eagle2_ref.tree import DraftTree

GRAIN = 256
"""Capacities are multiples of this: a text that is a little longer needs no new graph."""


class FixedCache(Cache):
    """A cache whose length is a tensor. Attention reads all of it; masks say what is there."""

    def __init__(self, like: Cache, capacity: int) -> None:
        layers, _, _, kv_heads, _, dim = like._store.shape
        super().__init__(layers, kv_heads, dim, like._store.dtype, like._store.device, capacity)
        self.columns = torch.arange(capacity, device=like._store.device)
        self.filled = torch.zeros((), dtype=torch.long, device=like._store.device)
        self.behind = 0  # entries of the present tree that are scratch already

    def open(self, n: int) -> None:
        self._at = self.filled + self.behind + self.columns[:n]

    def write(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        entries = self._store[layer].index_copy_(-2, self._at, new)
        keys, values = entries.unbind()
        return keys, values

    def mask(self, scratch: Tensor, dtype: torch.dtype) -> Tensor:
        """Additive [1, n, capacity]: a row sees all that is filled, and of the entries behind it what scratch [n, s] says."""
        at = self.columns - self.filled
        own = scratch[:, at.clamp(0, scratch.shape[1] - 1)] & (at < scratch.shape[1])
        return additive((at < 0) | own, dtype)[None]

    def gather(self, entries: Tensor) -> None:
        """Move entries [n], counted from the end of what is filled, to that end."""
        moved = self._store.index_select(-2, self.filled + entries)
        self._store.index_copy_(-2, self.filled + self.columns[: len(entries)], moved)


@dataclass
class State:
    """What one step hands to the next: the caches, the newest root, and what the head has not seen yet, padded to depth + 1."""

    target: FixedCache
    head: FixedCache | None
    tokens: Tensor
    features: Tensor
    fresh: Tensor
    uniforms: Tensor


class Static:
    """A decoder with `walk` as its rule, one text at a time, in fixed shapes. The control arm is one without a drafter.

    Law, and for the same SeededCoins the text itself: those of `Decoder` with the rule `walk`.
    """

    def __init__(self, decoder: Decoder, capture: bool | None = None) -> None:
        network, drafter = decoder.target.network, decoder.drafter
        if not isinstance(network, Llama):
            raise BadInput(f"{decoder.target.name} is no LLaMA", "fixed shapes are only known for our own forward pass")
        if drafter is not None and (type(drafter) is not Eagle2 or drafter.budget.node or drafter.budget.layer):
            raise BadInput("this drafter's trees have no fixed shape", "give a budget of k, depth and m alone")
        self.decoder, self.network, self.drafter = decoder, network, drafter
        budget = drafter.budget if drafter else Budget(1, 1, 1)
        self.k, self.m = budget.k, budget.m if drafter else 0
        self.depth = budget.depth if drafter else 0
        self.capture = network.device.type == "cuda" if capture is None else capture
        self._state: State | None = None
        self._steps: dict[SamplingParams, Callable[[], Tensor]] = {}

    def generate(self, prompt: Sequence[int], params: SamplingParams, coins: SeededCoins) -> Generation:
        """The whole continuation of a prompt."""
        blocks = list(self.stream(prompt, params, coins))
        tokens = [token for block in blocks for token in block.tokens]
        passes = len(blocks)
        return Generation(tokens, blocks, self.decoder.finish, passes, self.depth * (passes - 1))

    @torch.inference_mode()
    def stream(self, prompt: Sequence[int], params: SamplingParams, coins: SeededCoins) -> Iterator[Block]:
        """As `Decoder.stream`. A block may be cut at the end of the text: its tree was as large as any."""
        if params.repetition_penalty not in (None, 1.0):
            raise BadInput("a repetition penalty looks back at every node's own history", "fixed shapes do without: leave it out")
        decoder = self.decoder
        ahead = Ahead(coins, self.depth + 1)
        (first, *_) = decoder.stream(prompt, replace(params, max_new_tokens=1), ahead)
        text = [*prompt, *first.tokens]
        end = min(len(prompt) + params.max_new_tokens, decoder.target.context)
        at_end: Finish = "length" if end == len(prompt) + params.max_new_tokens else "context"
        decoder.finish = "eos" if params.ends(text[-1]) else at_end
        yield first
        if len(text) == end or params.ends(text[-1]):
            return
        step = self._begin(text, end, replace(params, max_new_tokens=1, eos_token_id=None))
        assert self._state is not None
        while True:
            self._state.uniforms.copy_(torch.tensor(ahead.peek(), dtype=torch.float64), non_blocking=True)
            block = self._told(step().cpu().tolist(), len(text))  # the one time that the host waits
            ahead.use(len(block.tokens))
            kept = block.tokens[: end - len(text)]
            ends = [i for i, token in enumerate(kept) if params.ends(token)]
            kept = kept[: ends[0] + 1] if ends else kept
            text += kept
            decoder.finish = "eos" if ends else at_end
            yield replace(
                block,
                tokens=kept,
                accepted=min(block.accepted, len(kept)),
                path=block.path[: len(kept)],
                logprobs=block.logprobs[: len(kept)],
            )
            if ends or len(text) == end:
                return

    def _begin(self, text: list[int], end: int, params: SamplingParams) -> Callable[[], Tensor]:
        """The state after the prompt's pass, and the step that goes on from it."""
        target, drafter = self.decoder.target, self.drafter
        needed = end + max(self.m + 1, self.depth * self.k + self.depth + 1)
        capacity = -(-needed // GRAIN) * GRAIN
        if self._state is None or self._state.target.capacity < capacity:
            self._state, self._steps = self._room(capacity), {}
        state = self._state
        _fill(state.target, target.cache)
        state.tokens[0] = text[-1]
        if drafter:
            # All of the prompt goes through the head here, but for the newest token: that is what the first step begins with.
            tokens, features = drafter._tokens, torch.cat(drafter._features)
            drafter._tokens, drafter._features = tokens[:-1], [features[:-1]]
            if drafter._tokens:
                drafter._catch_up()
            _fill(state.head, drafter.cache)
            state.tokens[:1], state.features[:1] = tokens[-1], features[-1:]
            drafter.reset()
        state.fresh.fill_(1)
        if params not in self._steps:
            step = partial(self._step, params)
            self._steps[params] = recorded(step, _moved(state), self.network.device) if self.capture else step
        return self._steps[params]

    def _room(self, capacity: int) -> State:
        network, device, rows = self.network, self.network.device, self.depth + 1
        head = FixedCache(self.drafter.head.cache(1), capacity) if self.drafter else None
        return State(
            FixedCache(network.cache(), capacity),
            head,
            tokens=torch.zeros(rows, dtype=torch.long, device=device),
            features=torch.zeros(rows, network.embedding.shape[1], dtype=network.dtype, device=device),
            fresh=torch.ones((), dtype=torch.long, device=device),
            uniforms=torch.zeros(rows, dtype=torch.float64, device=device),
        )

    def _step(self, params: SamplingParams) -> Tensor:
        """Propose, verify, accept, commit. Returns [what `_told` reads], float64."""
        state = self._state
        assert state is not None
        device, root = self.network.device, state.tokens.index_select(0, state.fresh[None] - 1)
        if self.drafter and state.head:
            pool = self._expand(self._catch_up(state), state.head)
            kept = best(pool.values, self.m)
            place = torch.zeros(len(pool.values) + 1, dtype=torch.long, device=device)
            place[kept] = torch.arange(1, len(kept) + 1, device=device)
            tokens = torch.cat([root, pool.tokens[kept]])
            parents = torch.cat([torch.full((1,), -1, device=device), place[pool.parents[kept]]])
            values = torch.cat([pool.values.new_zeros(1), pool.values[kept]])
        else:
            tokens, parents, values = root, torch.full((1,), -1, device=device), torch.zeros(1, device=device)
        sees = ancestors(parents, self.depth)
        depths = sees.sum(1) - 1
        rows = self.network(
            tokens[None], (state.target.filled + depths)[None], state.target.mask(sees, self.network.dtype), state.target
        )
        p, told = laws(rows.logits[0], params)
        drawn = draw(p, state.uniforms[depths])
        path, accepted = follow(tokens, parents, sees, depths, drawn, self.depth)
        emitted = drawn[path]
        state.target.gather(path)
        state.target.filled += accepted
        state.tokens.copy_(emitted)
        state.features.copy_(rows.features[0, path])
        state.fresh.copy_(accepted)
        logprobs = told[path, emitted]
        parts = (accepted[None], emitted, path, logprobs, tokens, parents, values)
        return torch.cat([part.double() for part in parts])

    def _catch_up(self, state: State) -> Tensor:
        """The root's estimated feature [1, 1, H]. Rows beyond `fresh` are computed for nobody."""
        assert self.drafter and state.head
        rows = self.depth + 1
        state.head.behind = 0
        past = torch.ones(rows, rows, dtype=torch.bool, device=self.network.device).tril()
        positions = state.head.filled + state.head.columns[:rows]
        mask = state.head.mask(past, state.features.dtype)
        out = self.drafter.head(state.tokens[None], state.features[None], positions[None], mask, state.head)
        state.head.filled += state.fresh
        return out.index_select(1, state.fresh[None] - 1)

    def _expand(self, feature: Tensor, cache: FixedCache) -> Pool:
        """As `Eagle2._expand`, for one text. The cache's filled part is as it was found."""
        assert self.drafter
        k, device, grow = self.k, feature.device, self.drafter._children
        layer = grow(feature, torch.zeros(1, 1, device=device), torch.full((1, 1), -1, device=device))
        layers, before, scratch = [layer], 0, (self.depth - 1) * k
        columns, row = torch.arange(max(scratch, 1), device=device), torch.arange(k, device=device)[:, None]
        sees = torch.zeros(1, len(columns), dtype=torch.bool, device=device)
        for level in range(1, self.depth):
            beam = best(layer.values, k)
            parent = beam.div(k, rounding_mode="floor")
            cache.behind = (level - 1) * k
            sees = sees[parent[0]] | (columns == cache.behind + row)
            positions = (cache.filled + level - 1).expand(1, k)
            chosen = feature.take_along_dim(parent[..., None], 1)
            mask = cache.mask(sees, feature.dtype)
            feature = self.drafter.head(layer.tokens.gather(1, beam), chosen, positions, mask, cache)
            below = grow(feature, layer.values.gather(1, beam), before + beam)
            before += layer.values.shape[1]
            layers.append(below)
            layer = below
        cache.behind = 0
        return Pool.join(layers).of(0)

    def _told(self, told: list[float], start: int) -> Block:
        rows, nodes = self.depth + 1, self.m + 1
        n = int(told[0])
        emitted, path, logprobs = (told[1 + i * rows : 1 + (i + 1) * rows] for i in range(3))
        tokens, parents, values = (told[1 + 3 * rows + i * nodes : 1 + 3 * rows + (i + 1) * nodes] for i in range(3))
        for what, numbers in (("target's logits", logprobs[:n]), ("head's confidences", values)):
            if any(map(math.isnan, numbers)):
                raise BadInput(
                    f"the {what} are not numbers at position {start}",
                    "its weights are damaged, or overflow in this dtype: try float32",
                )
        tree = DraftTree.of([int(x) for x in tokens], [int(x) for x in parents], values)
        return Block(start, [int(x) for x in emitted[:n]], n - 1, tree, [int(x) for x in path[1:n]], logprobs[:n])


class Ahead(Coins):
    """Coins that can be seen before they are used: one uniform a token, as `walk` asks for them."""

    def __init__(self, coins: SeededCoins, n: int) -> None:
        self._coins, self._n, self._seen = coins, n, list[float]()

    def peek(self) -> list[float]:
        self._seen += [self._coins.uniform() for _ in range(self._n - len(self._seen))]
        return self._seen

    def use(self, n: int) -> None:
        self._seen = self._seen[n:]

    def seek(self, position: int) -> None:
        self._coins.seek(position)

    def uniform(self) -> float:
        return self._coins.uniform()

    def categorical(self, p: Tensor) -> int:
        return self._coins.categorical(p)


def ancestors(parents: Tensor, depth: int) -> Tensor:
    """Boolean [m + 1, m + 1] of a tree no deeper than `depth`: as `DraftTree.ancestors`, by doubling."""
    nodes = torch.arange(len(parents), device=parents.device)
    sees = (nodes == nodes[:, None]) | (nodes == parents[:, None])
    for _ in range(max(0, math.ceil(math.log2(max(depth, 1))))):
        sees = (sees.float() @ sees.float()) > 0
    return sees


def laws(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """p [m + 1, V] as `sampling.law` has it; and the log-probabilities that are told, which are NaN where logits are damaged."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    anything = torch.zeros(len(wide), 1, dtype=torch.long, device=wide.device)
    scores = params.process(anything, wide)
    return probabilities(scores, params), scores.log_softmax(-1)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """For each row of p [n, V] the token at which its cumulative sum first exceeds u [n], as `coins.invert` has it."""
    cumulative = p.double().cumsum(-1)
    token = (cumulative <= u[:, None]).sum(-1)
    last = p.shape[-1] - 1 - (p.flip(-1) > 0).long().argmax(-1)
    return torch.minimum(token, last)


def follow(tokens: Tensor, parents: Tensor, sees: Tensor, depths: Tensor, drawn: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """The accepted path, root first, [depth + 1] and padded with the root; and how many nodes of it there are.

    A node is accepted where it, and every node between it and the root, carries the token drawn at its parent: that is
    `walk`, done for all nodes at once. Siblings differ, so that what is accepted is a path.
    """
    missed = (tokens != drawn[parents.clamp(min=0)]) & (parents >= 0)
    accepted = ~(sees & missed).any(1)
    path = torch.zeros(depth + 2, dtype=torch.long, device=tokens.device)
    nodes = torch.arange(len(tokens), device=tokens.device)
    path.scatter_(0, torch.where(accepted, depths, depth + 1), torch.where(accepted, nodes, 0))
    return path[: depth + 1], accepted.sum()


def _fill(fixed: FixedCache | None, kept: Kept) -> None:
    assert fixed and isinstance(kept, Cache)
    fixed._store.narrow(-2, 0, kept.length).copy_(kept.kept())
    fixed.filled.fill_(kept.length)


def _moved(state: State) -> list[Tensor]:
    """What a step moves on. What it writes into a cache lies behind all that is filled, and is nobody's until that moves."""
    caches = [cache for cache in (state.target, state.head) if cache]
    return [state.tokens, state.features, state.fresh, *(cache.filled for cache in caches)]
