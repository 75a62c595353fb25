"""Chapter TREE: what is drafted is a tree within its budget, and is verified as if every path stood alone."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from transformers import PreTrainedModel

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.tree import ROOT, DraftTree
from harness.implementations.engine import BlockTrace, Output
from harness.pairs import shipped
from harness.pytest_plugin import Judge
from harness.record.model import TreePicture, Verdict
from properties.cells import Cell, parametrize
from properties.subject import Subject
from properties.watch import Pass, Step, farthest, leaves, logits_after, steps

ROUNDING = 1e-5
"""Logits of two orders of float64 arithmetic. transformers' norms are in float32 even so: a difference in the last bit that falls
between two of its numbers, as one in some thousand passes does, becomes one of 1e-6."""

CLOSE = 1e-6
"""Values that differ by less count as equal."""

BEST_FIRST = [Cell("coin4", {}, 4, 4, 3), Cell("coin4", {}, 4, 3, 4), Cell("coin6", {}, 6, 5, 6), Cell("coin6", {}, 5, 4, 5)]


def test_drafted_trees(judge: Judge, subject: Subject) -> None:
    """TREE-1: Every drafted tree is within its budget, connected, without duplicate siblings, and rooted in the newest token;
    the accepted path is a path of it."""
    subject.impl.require("blocks")
    budget = subject.impl.shape
    prompts = [prompt.tokens for prompt in subject.texts[:6]]
    params = [{"temperature": t, "max_new_tokens": 48} for t in (0.0, 1.0) for _ in range(3)]
    outputs = subject.open(subject.pair).generate(prompts, params, range(6))
    trees = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        trees += sum(bool(block.parents) for block in output.blocks or ())
        if wrong := _first_wrong(prompt, output, budget):
            judge("fault", wrong)
    judge("pass", f"{trees} trees are sound", measured={"trees": trees, **budget})


def _first_wrong(prompt: Sequence[int], output: Output, budget: dict[str, int]) -> str:
    """What is wrong with the first block that is wrong, or nothing."""
    if output.blocks is None:
        return "the implementation declares the capability 'blocks', but returned none"
    done = 0
    for number, block in enumerate(output.blocks):
        emitted = output.tokens[done : done + block.accepted + 1]
        newest = output.tokens[done - 1] if done else prompt[-1]
        if wrong := _wrong(block, newest, emitted, budget):
            return f"block {number}: {wrong}"
        done += block.accepted + 1
    return ""


def _wrong(block: BlockTrace, newest: int, emitted: Sequence[int], budget: dict[str, int]) -> str:
    tokens, parents = block.tokens, block.parents
    if not parents:
        return f"{block.accepted} tokens accepted without a tree" if block.accepted else ""
    if len(tokens) != len(parents) or parents[0] != -1:
        return f"{len(tokens)} tokens and {len(parents)} parents, the first of them {parents[0]}: no tree"
    if tokens[0] != newest:
        return f"the root is token {tokens[0]}, the newest token is {newest}"
    if any(not 0 <= parent < node for node, parent in enumerate(parents[1:], start=1)):
        return "a node is not connected: its parent does not come before it"
    if len(set(zip(parents, tokens, strict=True))) < len(tokens):
        return "two siblings carry the same token"
    tree = DraftTree.of(list(tokens), list(parents))
    if len(tree) - 1 > budget.get("m", len(tree)) or max(tree.depths) > budget.get("depth", len(tree)):
        return f"{len(tree) - 1} drafted nodes, {max(tree.depths)} deep, exceed the budget {budget}"
    node: int | None = ROOT
    for token in emitted[: block.accepted]:
        node = tree.child(node, token) if node is not None else None
    return "the accepted tokens are no path of the tree" if node is None else ""


def test_tree_logits_are_sequential_logits(judge: Judge, subject: Subject) -> None:
    """TREE-2: At every node of a tree the target's logits are those of plain passes over the text and the node's own path."""
    subject.impl.require("decoder")
    decoder, model = subject.open(subject.pair, dtype="float64").raw.decoder, subject.plain(subject.pair, "float64")
    worst, nodes, shown = 0.0, 0, None
    for seed, prompt in enumerate(subject.texts[:3]):
        for step in list(steps(decoder, prompt.tokens[:60], {"temperature": 1.0, "max_new_tokens": 20}, seed))[1:5]:
            shown = shown or step
            for path, verified, sequential in _along_paths(model, step):
                worst = max(worst, farthest(verified, sequential))
                nodes += len(path) + 1
    verdict: Verdict = "pass" if worst <= ROUNDING else "fault"
    pictures = (_picture(shown),) if shown else ()
    judge(
        verdict,
        f"{nodes} nodes, logits at most {worst:.1e} from sequential ones",
        measured={"nodes": nodes, "difference": worst},
        pictures=pictures,
    )


def _along_paths(model: PreTrainedModel, step: Step) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """To every leaf of a verified tree: the path, and the logits from the root to it, verified and sequential."""
    assert step.seen is not None
    tree = step.seen.tree
    paths = [tree.path(leaf) for leaf in leaves(tree)]
    sequential = logits_after(model, step.seen.text, [[tree.token(node) for node in path] for path in paths])
    for path, logits in zip(paths, sequential, strict=True):
        yield path, step.seen.logits[[ROOT, *path]], logits


def test_laws_of_a_pass_in_its_own_arithmetic(judge: Judge, subject: Subject) -> None:
    """TREE-5: In the dtype under test, the law that a verification gives each node is the target's up to the noise of that dtype.

    Measured a node, at temperature 1, against float64: the total variation that arithmetic alone puts into every token.
    """
    subject.impl.require("decoder")
    decoder, model = subject.open(subject.pair).raw.decoder, subject.plain(subject.pair, "float64")
    chosen = subject.texts[:3]
    noise = subject.noise(subject.pair, subject.asked.dtype)
    found: list[float] = []
    for seed, prompt in enumerate(chosen):
        for step in list(steps(decoder, prompt.tokens[:60], {"temperature": 1.0, "max_new_tokens": 20}, seed))[1:5]:
            for _, verified, sequential in _along_paths(model, step):
                p, q = sequential.softmax(-1), verified.double().softmax(-1)
                found += ((p - q).abs().sum(-1) / 2).tolist()
    largest, mean = max(found), sum(found) / len(found)
    # Logits that differ by at most e move the mass of any set of tokens from 1 / (1 + exp(e)) to 1 / (1 + exp(-e)) at most.
    allowed = math.tanh(noise.tolerance / 2)
    verdict: Verdict = "pass" if largest <= allowed else "fault"
    measured = {"tokens": len(found), "mean total variation": mean, "largest total variation": largest, "allowed": allowed}
    told = (
        f"total variation of {mean:.1e} a token on average, at most {largest:.1e}, at {len(found)} nodes in {subject.asked.dtype}"
    )
    judge(verdict, told, measured=measured)


def test_mask_and_positions(judge: Judge, subject: Subject) -> None:
    """TREE-3: A node is given the root's position plus its depth; it sees the text, its ancestors and itself, nothing else."""
    subject.impl.require("decoder")
    decoder, passes = subject.open(subject.pair).raw.decoder, 0
    for step in list(steps(decoder, subject.texts[0].tokens, {"temperature": 1.0, "max_new_tokens": 40}, judge.seed()))[1:]:
        assert step.seen is not None
        tree, start = step.seen.tree, len(step.seen.text) - 1
        for node in range(len(tree)):
            path = tree.path(node)
            sees = {*range(start), start, *(start + ancestor for ancestor in path)}
            given = set(step.seen.mask[node].nonzero()[:, 0].tolist())
            if given != sees:
                judge("fault", f"node {node} of {tree.parents.tolist()} sees {sorted(given ^ sees)} wrongly")
            if int(step.seen.positions[node]) != start + len(path):
                judge(
                    "fault", f"node {node} has position {int(step.seen.positions[node])}, its depth makes it {start + len(path)}"
                )
        passes += 1
    judge("pass", f"masks and positions of {passes} passes are right", measured={"passes": passes})


@parametrize(BEST_FIRST)
def test_best_first(cell: Cell, judge: Judge, subject: Subject) -> None:
    """TREE-4: For m <= k the drafted tree is the best-first one: the m nodes of highest value in the whole tree of continuations.

    The truth asks the head along every path by itself, without a cache and without a tree mask.
    """
    subject.impl.require("decoder", "budget", "dynamic")
    pair = shipped(cell.pair)
    decoder, model = subject.open(pair, dtype="float64", **cell.budget).raw.decoder, subject.plain(pair, "float64")
    trees = 0
    for start in range(decoder.target.vocab_size):
        for step in list(steps(decoder, [start, 2, 0], {"temperature": 1.0, "max_new_tokens": 12}, start))[1:]:
            assert step.seen is not None
            depth = min(cell.depth, 3 + 12 - len(step.seen.text) - 1)
            if depth > 0 and (wrong := _not_best(decoder, model, step.seen, depth, cell.m)):
                judge("fault", f"after {step.seen.text}, parents {step.seen.tree.parents.tolist()}: {wrong}")
            trees += 1
    judge("pass", f"{trees} trees are the {cell.m} best nodes", measured={"trees": trees, "m": cell.m})


@torch.inference_mode()
def _not_best(decoder: Decoder, model: Any, seen: Pass, depth: int, m: int) -> str:
    """Why the drafted nodes are not the m best, or nothing. Nodes of equal value, to rounding, may stand for each other."""
    assert isinstance(decoder.drafter, Eagle2) and isinstance(seen.tree, DraftTree)
    drafter, values = decoder.drafter, seen.tree.values.tolist()
    features = model.base_model(torch.tensor([list(seen.text[:-1])], device=model.device))

    @cache
    def confidences(path: tuple[int, ...]) -> list[float]:
        return _confidences(drafter, seen.text, features.last_hidden_state[0], path).tolist()

    best = _best_first(confidences, depth, m)
    least = min(best.values())
    drafted = {}
    for node in range(1, len(seen.tree)):
        path = tuple(seen.tree.token(i) for i in seen.tree.path(node))
        drafted[path] = sum(confidences(path[:i])[x] for i, x in enumerate(path))
        if abs(drafted[path] - values[node]) > CLOSE:
            return f"node {path} has value {values[node]:.6f}, its path has {drafted[path]:.6f}"
        if drafted[path] < least - CLOSE:
            return f"node {path} has value {drafted[path]:.6f}, the best {m} have {least:.6f} or more"
    lacking = [path for path, value in best.items() if value > least + CLOSE and path not in drafted]
    return f"node {lacking[0]} is lacking, of value {best[lacking[0]]:.6f}" if lacking else ""


def _best_first(confidences: Callable[[tuple[int, ...]], list[float]], depth: int, m: int) -> dict[tuple[int, ...], float]:
    """The m best of all continuations with their values: the best open one is taken, and opens its children."""
    taken: dict[tuple[int, ...], float] = {}
    frontier: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    while frontier and len(taken) <= m:
        cost, path = heapq.heappop(frontier)
        taken[path] = -cost
        if len(path) < depth:
            for x, confidence in enumerate(confidences(path)):
                heapq.heappush(frontier, (cost - confidence, (*path, x)))
    return {path: value for path, value in taken.items() if path}


def _confidences(drafter: Eagle2, text: Sequence[int], features: torch.Tensor, path: tuple[int, ...]) -> torch.Tensor:
    """log q [V] after a path: the head is fed its own features, one pass over the whole past for each new one."""
    tokens, known = [*text[1:], *path], features
    for _ in range(len(path) + 1):
        n = len(known)
        ids = torch.tensor([tokens[:n]], device=known.device)
        known = torch.cat([known, drafter.head(ids, known[None], torch.arange(n, device=known.device))[0, -1:]])
    return drafter.lm_head(known[-1:]).log_softmax(-1)[0]


def _picture(step: Step) -> TreePicture:
    assert step.seen is not None
    tree = step.seen.tree
    spelled = [bytes([token]).decode("latin-1") if token < 256 else str(token) for token in tree.tokens.tolist()]
    last = step.block.tokens[-1]
    return TreePicture(
        title=f"the tree after {len(step.seen.text)} tokens of a prompt, temperature 1",
        tokens=tuple(spelled),
        parents=tuple(tree.parents.tolist()),
        values=tuple(round(value, 4) for value in tree.values.tolist()) if isinstance(tree, DraftTree) else (),
        path=tuple(step.block.path),
        emitted=bytes([last]).decode("latin-1") if last < 256 else str(last),
    )
