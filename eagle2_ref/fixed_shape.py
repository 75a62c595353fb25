"""The decoder with tensors of fixed shapes, so that a step can be captured as one CUDA graph.

On a GPU a small step is mostly launches and waiting. Here lengths and counts are tensors, padding is written after the sequence
and masked, and the tree and the rule stay on the device. The host waits once for each step, to learn what was emitted.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.cuda_graph import capture
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle2 import Budget, Eagle2, Pool, best
from eagle2_ref.drafters.eagle3 import Eagle3Drafter
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache, StackedKVCache
from eagle2_ref.model.llama import Llama, additive
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Rule, walk
from eagle2_ref.sampling import SamplingParams, damage, probabilities, widen
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import DraftTree

GRAIN = 256
"""Capacities are multiples of this, so that a sequence that is a little longer needs no new graph."""


class FixedCache(StackedKVCache):
    """A cache whose length is a tensor. Attention reads all of its columns; masks say which are valid."""

    def __init__(self, like: StackedKVCache, capacity: int) -> None:
        layers, _, _, kv_heads, _, dim = like.tensor.shape
        super().__init__(layers, kv_heads, dim, like.tensor.dtype, like.tensor.device, capacity)
        self.columns = torch.arange(capacity, device=like.tensor.device)
        self.filled = torch.zeros((), dtype=torch.long, device=like.tensor.device)
        self.scratch = 0  # number of entries of the present tree, after those of the sequence

    def begin_pass(self, n: int) -> None:
        self._at = self.filled + self.scratch + self.columns[:n]

    def write(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        entries = self.tensor[layer].index_copy_(-2, self._at, new)
        keys, values = entries.unbind()
        return keys, values

    def mask(self, tree_mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Additive mask [1, n, capacity]: a row sees the sequence, and of the s entries after it those in tree_mask [n, s]."""
        at = self.columns - self.filled
        own = tree_mask[:, at.clamp(0, tree_mask.shape[1] - 1)] & (at < tree_mask.shape[1])
        return additive((at < 0) | own, dtype)[None]

    def gather(self, entries: Tensor) -> None:
        """Move entries [n], counted from the end of the sequence, to that end."""
        moved = self.tensor.index_select(-2, self.filled + entries)
        self.tensor.index_copy_(-2, self.filled + self.columns[: len(entries)], moved)

    def load(self, cache: KVCache) -> None:
        """Copy the entries of an ordinary cache."""
        self.tensor.narrow(-2, 0, cache.length).copy_(cache.entries())
        self.filled.fill_(cache.length)

    def save(self, cache: KVCache, end: int) -> None:
        """Append to an ordinary cache the entries up to column `end` that it does not have."""
        start = cache.length
        cache.begin_pass(end - start)
        for rows in cache.rows():
            rows.narrow(-2, start, end - start).copy_(self.tensor.narrow(-2, start, end - start))
        cache.keep(range(end - start))


@dataclass
class State:
    """The tensors that a step reads and writes: the caches, and what the head has not read, padded to depth + 1 rows.

    tokens [depth + 1] end with the root at index `fresh` - 1; features [depth + 1, H] are at the positions before them.
    """

    target: FixedCache
    head: FixedCache | None
    tokens: Tensor
    features: Tensor
    fresh: Tensor
    uniforms: Tensor

    def moving(self) -> list[Tensor]:
        """The tensors that a step changes, apart from cache entries after the sequence, which have no meaning before it grows."""
        caches = [cache for cache in (self.target, self.head) if cache]
        return [self.tokens, self.features, self.fresh, *(cache.filled for cache in caches)]


class FixedShapeDecoder(Decoder):
    """A decoder with the rule `walk` and trees of k, depth and m, or without a drafter; one sequence in a pass.

    With the same SeededCoins the text is that of `Decoder` with the rule `walk`.
    """

    def __init__(self, target: Target, drafter: Drafter | None = None, rule: Rule = walk, graph: bool | None = None) -> None:
        """Args:
        target: a LLaMA that runs in our own forward pass.
        drafter: EAGLE-2 or EAGLE-3 with a budget of k, depth and m, or none.
        rule: `walk`, the only rule that is implemented here.
        graph: capture steps as CUDA graphs; by default on CUDA.

        Raises:
            BadInput: a part has no fixed shape, or is not implemented.
        """
        super().__init__(target, drafter, rule)
        network = self.target.network
        if not isinstance(network, Llama):
            raise BadInput(f"{target.name} is no LLaMA", "fixed shapes are only known for our own forward pass")
        if drafter is not None and (type(drafter) not in (Eagle2, Eagle3Drafter) or drafter.budget.node or drafter.budget.layer):
            raise BadInput("this drafter's trees have no fixed shape", "give a budget of k, depth and m alone")
        if rule is not walk:
            raise BadInput(f"fixed shapes do not implement the rule {getattr(rule, '__name__', rule)}", "use the rule walk")
        self.network, self.eagle = network, drafter if isinstance(drafter, Eagle2) else None
        budget = self.eagle.budget if self.eagle else Budget(1, 1, 1)
        self.k, self.m = budget.k, budget.m if self.eagle else 0
        self.depth = budget.depth if self.eagle else 0
        self.graph = network.device.type == "cuda" if graph is None else graph
        self.state: State | None = None
        self.loaded: Sequence | None = None  # the sequence whose entries are in `state`
        self._steps: dict[SamplingParams, Callable[[], Tensor]] = {}

    def start(self, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins) -> Sequence:
        if params.repetition_penalty not in (None, 1.0):
            raise BadInput("a repetition penalty looks back at every node's own history", "fixed shapes do without: leave it out")
        if not isinstance(coins, SeededCoins):
            raise BadInput(f"fixed shapes do not implement {type(coins).__name__}", "use SeededCoins")
        return super().start(prompt, params, PrefetchedCoins(coins, self.depth + 1))

    @torch.inference_mode()
    def step(self, sequences: abc.Sequence[Sequence]) -> None:
        """Emit one block for each sequence, in one pass each. A block may be cut: trees do not get smaller near the end."""
        for sequence in sequences:
            run = self.load_sequence(sequence)
            assert self.state and isinstance(sequence.coins, PrefetchedCoins)
            uniforms = torch.tensor(sequence.coins.peek(), dtype=torch.float64)
            self.state.uniforms.copy_(uniforms, non_blocking=True)
            block = self.read_block(run().cpu().tolist(), len(sequence.tokens))  # the only time that the host waits
            sequence.coins.use(len(block.tokens))
            sequence.target_passes += 1
            if self.eagle:
                sequence.draft.passes += self.depth
            sequence.append(block)
            if sequence.finish:
                self.save_sequence()

    def load_sequence(self, sequence: Sequence) -> Callable[[], Tensor]:
        """Copy a sequence into the state, if it is not there, and return the step for its parameters."""
        needed = sequence.end + max(self.m + 1, self.depth * self.k + self.depth + 1)
        capacity = -(-needed // GRAIN) * GRAIN
        if self.loaded is not sequence or self.state is None or self.state.target.capacity < capacity:
            self.save_sequence()
            if self.state is None or self.state.target.capacity < capacity:
                self.state, self._steps = self.new_state(capacity), {}
            state, self.loaded = self.state, sequence
            state.target.load(sequence.cache)
            state.tokens[0] = sequence.tokens[-1]
            if self.eagle and state.head:
                # The head reads the prompt here, all but its last pair: the first step begins with that.
                draft = sequence.draft
                tokens, features = draft.tokens, torch.cat(draft.features)
                draft.tokens, draft.features = tokens[:-1], [features[:-1]]
                if draft.tokens:
                    self.eagle.catch_up([sequence])
                state.head.load(draft.cache)
                state.tokens[:1], state.features[:1] = tokens[-1], features[-1:]
            state.fresh.fill_(1)
        params = replace(sequence.params, max_new_tokens=1, eos_token_id=None)  # what does not matter for a step
        if params not in self._steps:
            run = partial(self.run, params)
            self._steps[params] = capture(run, self.state.moving(), self.network.device) if self.graph else run
        return self._steps[params]

    def save_sequence(self) -> None:
        """Copy the sequence in the state back to its own caches."""
        state, sequence = self.state, self.loaded
        self.loaded = None
        if state is None or sequence is None:
            return
        end, fresh = len(sequence.tokens) - 1, len(sequence.blocks[-1].tokens)
        state.target.save(sequence.cache, end)
        if self.eagle and state.head:
            # The head has not read the last block.
            state.head.save(sequence.draft.cache, end - fresh)
            sequence.draft.tokens, sequence.draft.features = sequence.tokens[-fresh:], [state.features[:fresh].clone()]

    def new_state(self, capacity: int) -> State:
        """An empty state for sequences and trees of up to `capacity` tokens."""
        network, device, rows = self.network, self.network.device, self.depth + 1
        width = self.eagle.head.config.hidden_size if self.eagle else 0
        return State(
            FixedCache(network.cache(), capacity),
            FixedCache(self.eagle.head.cache(1), capacity) if self.eagle else None,
            tokens=torch.zeros(rows, dtype=torch.long, device=device),
            features=torch.zeros(rows, width, dtype=network.dtype, device=device),
            fresh=torch.ones((), dtype=torch.long, device=device),
            uniforms=torch.zeros(rows, dtype=torch.float64, device=device),
        )

    def run(self, params: SamplingParams) -> Tensor:
        """Propose, verify, accept, commit, on the device. Returns one float64 tensor, which `read_block` reads."""
        state = self.state
        assert state is not None
        device, root = self.network.device, state.tokens.index_select(0, state.fresh[None] - 1)
        if self.eagle and state.head:
            pool = self.expand(self.catch_up(state), state.head)
            kept = best(pool.values, self.m)
            node = torch.zeros(len(pool.values) + 1, dtype=torch.long, device=device)
            node[kept] = torch.arange(1, len(kept) + 1, device=device)
            tokens = torch.cat([root, pool.tokens[kept]])
            parents = torch.cat([torch.full((1,), -1, device=device), node[pool.parents[kept]]])
            values = torch.cat([pool.values.new_zeros(1), pool.values[kept]])
        else:
            tokens, parents, values = root, torch.full((1,), -1, device=device), torch.zeros(1, device=device)
        tree_mask = ancestors(parents, self.depth)
        depths = tree_mask.sum(1) - 1
        mask = state.target.mask(tree_mask, self.network.dtype)
        output = self.network(tokens[None], (state.target.filled + depths)[None], mask, state.target)
        p, log_p = distributions(output.logits[0], params)
        sampled = sample(p, state.uniforms[depths])
        path, accepted = follow(tokens, parents, tree_mask, depths, sampled, self.depth)
        emitted = sampled[path]
        state.target.gather(path)
        state.target.filled += accepted
        state.tokens.copy_(emitted)
        if self.eagle:
            state.features.copy_(self.eagle.read(output.features[0, path]))
        state.fresh.copy_(accepted)
        parts = (accepted[None], emitted, path, log_p[path, emitted], tokens, parents, values)
        return torch.cat([part.double() for part in parts])

    def catch_up(self, state: State) -> Tensor:
        """The head's estimate of the feature at the root, [1, 1, H]. Rows past `fresh` are padding."""
        assert self.eagle and state.head
        rows = self.depth + 1
        state.head.scratch = 0
        past = torch.ones(rows, rows, dtype=torch.bool, device=self.network.device).tril()
        positions = state.head.filled + state.head.columns[:rows]
        mask = state.head.mask(past, state.features.dtype)
        out = self.eagle.head(state.tokens[None], state.features[None], positions[None], mask, state.head)
        state.head.filled += state.fresh
        return out.index_select(1, state.fresh[None] - 1)

    def expand(self, feature: Tensor, cache: FixedCache) -> Pool:
        """As `Eagle2.expand`, for one sequence."""
        assert self.eagle
        k, device, children = self.k, feature.device, self.eagle.children
        layer = children(feature, torch.zeros(1, 1, device=device), torch.full((1, 1), -1, device=device))
        layers, before, scratch = [layer], 0, (self.depth - 1) * k
        columns, row = torch.arange(max(scratch, 1), device=device), torch.arange(k, device=device)[:, None]
        sees = torch.zeros(1, len(columns), dtype=torch.bool, device=device)
        for level in range(1, self.depth):
            beam = best(layer.values, k)
            parent = beam.div(k, rounding_mode="floor")
            cache.scratch = (level - 1) * k
            sees = sees[parent[0]] | (columns == cache.scratch + row)
            positions = (cache.filled + level - 1).expand(1, k)
            above = feature.take_along_dim(parent[..., None], 1)
            mask = cache.mask(sees, feature.dtype)
            feature = self.eagle.head(layer.tokens.gather(1, beam), above, positions, mask, cache)
            below = children(feature, layer.values.gather(1, beam), before + beam)
            before += layer.values.shape[1]
            layers.append(below)
            layer = below
        cache.scratch = 0
        return Pool.join(layers).row(0)

    def read_block(self, numbers: list[float], start: int) -> Block:
        """The block in the result of `run`. `start` is the position of its first token."""
        rows, nodes = self.depth + 1, self.m + 1
        n = int(numbers[0])
        emitted, path, logprobs = (numbers[1 + i * rows : 1 + (i + 1) * rows] for i in range(3))
        tokens, parents, values = (numbers[1 + 3 * rows + i * nodes : 1 + 3 * rows + (i + 1) * nodes] for i in range(3))
        for what, found in (("target's logits", logprobs[:n]), ("head's confidences", values)):
            if any(map(math.isnan, found)):
                raise BadInput(
                    f"the {what} are not numbers at position {start}",
                    damage(self.network.dtype),
                )
        tree = DraftTree.of([int(x) for x in tokens], [int(x) for x in parents], values)
        return Block(start, [int(x) for x in emitted[:n]], n - 1, tree, [int(x) for x in path[1:n]], logprobs[:n])


class PrefetchedCoins(Coins):
    """Coins whose next uniform numbers can be read before it is known how many are used. `walk` uses one for each token."""

    def __init__(self, coins: SeededCoins, n: int) -> None:
        self._coins, self._n, self._next = coins, n, list[float]()

    def peek(self) -> list[float]:
        """The next n numbers."""
        self._next += [self._coins.uniform() for _ in range(self._n - len(self._next))]
        return self._next

    def use(self, n: int) -> None:
        """Go past n of them."""
        self._next = self._next[n:]

    def seek(self, position: int) -> None:
        self._coins.seek(position)

    def uniform(self) -> float:
        return self._coins.uniform()

    def categorical(self, p: Tensor) -> int:
        return self._coins.categorical(p)


def ancestors(parents: Tensor, depth: int) -> Tensor:
    """`Tree.ancestors` on the device, boolean [m + 1, m + 1], for a tree no deeper than `depth`: each step doubles the reach."""
    nodes = torch.arange(len(parents), device=parents.device)
    sees = (nodes == nodes[:, None]) | (nodes == parents[:, None])
    for _ in range(max(0, math.ceil(math.log2(max(depth, 1))))):
        sees = (sees.float() @ sees.float()) > 0
    return sees


def distributions(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The target distribution p [m + 1, V], and log-probabilities [m + 1, V], which are NaN where logits are damaged."""
    logits = widen(logits)
    histories = torch.zeros(len(logits), 1, dtype=torch.long, device=logits.device)  # no processor reads them
    scores = params.process(histories, logits)
    return probabilities(scores, params), scores.log_softmax(-1)


def sample(p: Tensor, u: Tensor) -> Tensor:
    """`coins.invert` for each row of p [n, V] and u [n]."""
    cumulative = p.double().cumsum(-1)
    token = (cumulative <= u[:, None]).sum(-1)
    last = p.shape[-1] - 1 - (p.flip(-1) > 0).long().argmax(-1)
    return torch.minimum(token, last)


def follow(
    tokens: Tensor, parents: Tensor, tree_mask: Tensor, depths: Tensor, sampled: Tensor, depth: int
) -> tuple[Tensor, Tensor]:
    """The rule `walk` for all nodes at once.

    A node is accepted if it, and every node between it and the root, has the token that was sampled at its parent. Siblings
    differ, so that the accepted nodes are a path.

    Returns:
        The accepted path with the root in front, [depth + 1], padded with the root; and its length.
    """
    missed = (tokens != sampled[parents.clamp(min=0)]) & (parents >= 0)
    accepted = ~(tree_mask & missed).any(1)
    path = torch.zeros(depth + 2, dtype=torch.long, device=tokens.device)
    nodes = torch.arange(len(tokens), device=tokens.device)
    path.scatter_(0, torch.where(accepted, depths, depth + 1), torch.where(accepted, nodes, 0))
    return path[: depth + 1], accepted.sum()
