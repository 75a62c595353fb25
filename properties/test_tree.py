"""Chapter TREE: drafts form a tree within their budget, and are verified as if every path were decoded alone."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.tree import ROOT, DraftTree
from harness.case import Case, by_id
from harness.catalogue import check
from harness.context import Context
from harness.equivalence import MEAN_DISTANCE
from harness.implementations.engine import BlockTrace, Output
from harness.pairs import shipped
from harness.record.model import Result, TreePicture
from properties.trace_decoder import Pass, Step, head_inputs, largest_difference, leaves, logits_after, rounding, steps

EQUAL_VALUES = 1e-6
"""Values that differ by less count as equal."""

BEST_FIRST = [Case("coin4", {}, 4, 4, 3), Case("coin4", {}, 4, 3, 4), Case("coin6", {}, 6, 5, 6), Case("coin6", {}, 5, 4, 5)]


# --- TREE-1: shape -------------------------------------------------------------------------------------------------


@check("TREE-1")
def trees_are_well_formed(context: Context) -> Result:
    """Every draft tree is within its budget, connected, without duplicate siblings, and rooted in the newest token; the accepted
    path is a path of the tree."""
    context.implementation.require("blocks")
    budget = context.implementation.shape
    new, each = context.scaled(48, least=24), context.scaled(3)
    params = [{"temperature": t, "max_new_tokens": new} for t in (0.0, 1.0) for _ in range(each)]
    prompts = [prompt.tokens for prompt in context.prompts[: len(params)]]
    outputs = context.open(context.pair).generate(prompts, params, range(len(params)))
    trees = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        trees += sum(bool(block.parents) for block in output.blocks or ())
        if wrong := _wrong_blocks(prompt, output, budget):
            return context.result("fault", wrong)
    return context.result("pass", f"{trees} trees are sound", measured={"trees": trees, **budget}, work=(trees, "trees"))


def _wrong_blocks(prompt: Sequence[int], output: Output, budget: dict[str, int]) -> str:
    """Why the first wrong block of a text is wrong, or ""."""
    if output.blocks is None:
        return "the implementation declares the capability 'blocks', but returned none"
    done = 0
    for number, block in enumerate(output.blocks):
        emitted = output.tokens[done : done + block.accepted + 1]
        newest = output.tokens[done - 1] if done else prompt[-1]
        if wrong := _wrong_block(block, newest, emitted, budget):
            return f"block {number}: {wrong}"
        done += block.accepted + 1
    return ""


def _wrong_block(block: BlockTrace, newest: int, emitted: Sequence[int], budget: dict[str, int]) -> str:
    tokens, parents = block.tokens, block.parents
    if not parents:
        return f"{block.accepted} tokens accepted without a tree" if block.accepted else ""
    if len(tokens) != len(parents) or parents[0] != -1:
        return f"{len(tokens)} tokens and {len(parents)} parents, the first of them {parents[0]}: not a tree"
    if tokens[0] != newest:
        return f"the root is token {tokens[0]}, the newest token is {newest}"
    if any(not 0 <= parent < node for node, parent in enumerate(parents[1:], start=1)):
        return "a node is not connected: its parent does not come before it"
    if len(set(zip(parents, tokens, strict=True))) < len(tokens):
        return "two siblings have the same token"
    tree = DraftTree.of(list(tokens), list(parents))
    if len(tree) - 1 > budget.get("m", len(tree)) or max(tree.depths) > budget.get("depth", len(tree)):
        return f"{len(tree) - 1} drafted nodes, {max(tree.depths)} deep, exceed the budget {budget}"
    node: int | None = ROOT
    for token in emitted[: block.accepted]:
        node = tree.child(node, token) if node is not None else None
    return "the accepted tokens are not a path of the tree" if node is None else ""


# --- TREE-2, TREE-3 and TREE-5: verification -----------------------------------------------------------------------


@check("TREE-2")
def tree_logits_equal_sequential_logits(context: Context) -> Result:
    """At every node of a tree the target's logits equal those of plain passes over the text and the node's path."""
    context.implementation.require("decoder")
    decoder = context.open(context.pair, dtype="float64").raw.decoder
    model = context.target_model(context.pair, "float64")
    worst, nodes, shown, limit = 0.0, 0, None, rounding(model)
    for step in _some_steps(context, decoder):
        shown = shown or step
        for path, verified, sequential in _logits_along_paths(model, step):
            worst = max(worst, largest_difference(verified, sequential))
            nodes += len(path) + 1
    return context.result(
        "pass" if worst <= limit else "fault",
        f"{nodes} nodes, logits at most {worst:.1e} from sequential ones",
        measured={"nodes": nodes, "difference": worst},
        work=(nodes, "nodes"),
        effect=(worst, "logits"),
        detectable=(limit, "logits"),
        pictures=(_picture(shown),) if shown else (),
    )


@check("TREE-5")
def laws_in_own_dtype(context: Context) -> Result:
    """In the dtype under test, the law at each node of a verified tree is the target's up to the noise of that dtype.

    Measured at every node, at temperature 1, against float64: the total variation per token that rounding alone causes.
    """
    context.implementation.require("decoder")
    decoder, model = context.open(context.pair).raw.decoder, context.target_model(context.pair, "float64")
    dtype = context.settings.dtype
    noise = context.noise(context.pair, dtype)
    distances: list[float] = []
    for step in _some_steps(context, decoder):
        for _, verified, sequential in _logits_along_paths(model, step):
            p, q = sequential.softmax(-1), verified.double().softmax(-1)
            distances += ((p - q).abs().sum(-1) / 2).tolist()
    largest, mean, nodes = max(distances), sum(distances) / len(distances), len(distances)
    # Logits that differ by at most e move the mass of a set of tokens from 1 / (1 + exp(e)) to 1 / (1 + exp(-e)) at most.
    allowed = math.tanh(noise.tolerance / 2)
    return context.result(
        "pass" if largest <= allowed else "fault",
        f"total variation of {mean:.1e} per token on average, at most {largest:.1e}, at {nodes} nodes in {dtype}",
        measured={"tokens": nodes, MEAN_DISTANCE: mean, "largest total variation": largest, "allowed": allowed},
        work=(nodes, "tokens"),
        effect=(largest, "total variation"),
        detectable=(allowed, "total variation"),
    )


@check("TREE-3")
def mask_and_positions(context: Context) -> Result:
    """The position of a node is the root's plus its depth, and its attention mask shows it the text, its ancestors and itself,
    nothing else."""
    context.implementation.require("decoder")
    decoder, passes = context.open(context.pair).raw.decoder, 0
    params = {"temperature": 1.0, "max_new_tokens": context.scaled(40, least=16)}
    for step in list(steps(decoder, context.prompts[0].tokens, params, context.seed()))[1:]:
        assert step.verification is not None
        tree, start = step.verification.tree, len(step.verification.text) - 1
        for node in range(len(tree)):
            path = tree.path(node)
            expected = {*range(start), start, *(start + ancestor for ancestor in path)}
            visible = set(step.verification.mask[node].nonzero()[:, 0].tolist())
            position = int(step.verification.positions[node])
            if visible != expected:
                reason = f"the mask of node {node} of {tree.parents.tolist()} is wrong at {sorted(visible ^ expected)}"
                return context.result("fault", reason)
            if position != start + len(path):
                reason = f"node {node} has position {position}, but its depth requires {start + len(path)}"
                return context.result("fault", reason)
        passes += 1
    return context.result(
        "pass",
        f"masks and positions of {passes} passes are correct",
        measured={"passes": passes},
        work=(passes, "passes"),
    )


def _some_steps(context: Context, decoder: Decoder) -> Iterator[Step]:
    """Four steps with a tree of each of three texts, with a temperature of 1; of two texts with a large target."""
    for seed, prompt in enumerate(context.prompts[: context.scaled(3, least=2)]):
        yield from islice(steps(decoder, prompt.tokens[:60], {"temperature": 1.0, "max_new_tokens": 20}, seed), 1, 5)


def _logits_along_paths(model: PreTrainedModel, step: Step) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """For every leaf of a verified tree: its path, and the logits from the root to it, verified and sequential."""
    assert step.verification is not None
    tree = step.verification.tree
    paths = [tree.path(leaf) for leaf in leaves(tree)]
    sequential = logits_after(model, step.verification.text, [[tree.token(node) for node in path] for path in paths])
    for path, logits in zip(paths, sequential, strict=True):
        yield path, step.verification.logits[[ROOT, *path]], logits


# --- TREE-4: selection ---------------------------------------------------------------------------------------------


@check("TREE-4", cases=by_id(BEST_FIRST))
def tree_is_best_first(context: Context, case: Case) -> Result:
    """For m <= k the draft tree consists of the m nodes of highest value in the whole tree of continuations.

    Expected values come from the head along every path by itself, without a cache and without a tree mask.
    """
    context.implementation.require("budget", "decoder", "dynamic")
    pair = shipped(case.pair)
    decoder = context.open(pair, dtype="float64", **case.budget).raw.decoder
    model = context.target_model(pair, "float64")
    trees, m = 0, min(case.m, decoder.drafter.budget.k)  # the head may have fewer tokens to propose than case.k
    decoder.drafter.budget = replace(decoder.drafter.budget, m=m)
    for start in range(decoder.target.vocab_size):
        for step in list(steps(decoder, [start, 2, 0], {"temperature": 1.0, "max_new_tokens": 12}, start))[1:]:
            assert step.verification is not None
            depth = min(case.depth, 3 + 12 - len(step.verification.text) - 1)
            if depth > 0 and (wrong := _not_best(decoder, model, step.verification, depth, m)):
                where = f"after {step.verification.text}, parents {step.verification.tree.parents.tolist()}"
                return context.result("fault", f"{where}: {wrong}")
            trees += 1
    measured = {"trees": trees, "m": m}
    return context.result("pass", f"{trees} trees are the {m} best nodes", measured=measured, work=(trees, "trees"))


@torch.inference_mode()
def _not_best(decoder: Decoder, model: Any, verification: Pass, depth: int, m: int) -> str:
    """Why the drafted nodes are not the m best, or "". Nodes of equal value, to rounding, are interchangeable."""
    tree = verification.tree
    assert isinstance(decoder.drafter, Eagle2) and isinstance(tree, DraftTree)
    drafter, values = decoder.drafter, tree.values.tolist()
    features = head_inputs(drafter, model, verification.text[:-1])[0]

    @cache
    def confidences(path: tuple[int, ...]) -> list[float]:
        return _log_confidences(drafter, verification.text, features, path).tolist()

    best = _best_first(confidences, depth, m)
    least = min(best.values())
    drafted = {}
    for node in range(1, len(tree)):
        path = tuple(tree.token(i) for i in tree.path(node))
        drafted[path] = sum(confidences(path[:i])[x] for i, x in enumerate(path))
        if abs(drafted[path] - values[node]) > EQUAL_VALUES:
            return f"node {path} has value {values[node]:.6f}, its path has {drafted[path]:.6f}"
        if drafted[path] < least - EQUAL_VALUES:
            return f"node {path} has value {drafted[path]:.6f}, the best {m} have {least:.6f} or more"
    missing = [path for path, value in best.items() if value > least + EQUAL_VALUES and path not in drafted]
    return f"node {missing[0]} is missing, of value {best[missing[0]]:.6f}" if missing else ""


def _best_first(confidences: Callable[[tuple[int, ...]], list[float]], depth: int, m: int) -> dict[tuple[int, ...], float]:
    """The m best continuations with their values, by best-first search."""
    taken: dict[tuple[int, ...], float] = {}
    frontier: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    while frontier and len(taken) <= m:
        cost, path = heapq.heappop(frontier)
        taken[path] = -cost
        if len(path) < depth:
            for x, confidence in enumerate(confidences(path)):
                if confidence > -math.inf:
                    heapq.heappush(frontier, (cost - confidence, (*path, x)))
    return {path: value for path, value in taken.items() if path}


def _log_confidences(drafter: Eagle2, text: Sequence[int], features: torch.Tensor, path: tuple[int, ...]) -> torch.Tensor:
    """log q [V] after a path, -inf for tokens that the head cannot propose: it reads its own features, in one pass over the whole
    past for each new one."""
    tokens, known = [*text[1:], *path], features
    for _ in range(len(path) + 1):
        n = len(known)
        ids = torch.tensor([tokens[:n]], device=known.device)
        known = torch.cat([known, drafter.head(ids, known[None], torch.arange(n, device=known.device))[0, -1:]])
    confidences = drafter.lm_head(known[-1:]).log_softmax(-1)[0]
    if drafter.vocabulary is None:
        return confidences
    return confidences.new_full((drafter.head.config.vocab_size,), -math.inf).index_copy(0, drafter.vocabulary, confidences)


def _picture(step: Step) -> TreePicture:
    assert step.verification is not None
    tree, text = step.verification.tree, step.verification.text
    return TreePicture(
        title=f"the tree after {len(text)} tokens of a prompt, temperature 1",
        tokens=tuple(map(_spell, tree.tokens.tolist())),
        parents=tuple(tree.parents.tolist()),
        values=tuple(round(value, 4) for value in tree.values.tolist()) if isinstance(tree, DraftTree) else (),
        path=tuple(step.block.path),
        emitted=_spell(step.block.tokens[-1]),
    )


def _spell(token: int) -> str:
    """A token of a vocabulary of bytes as text; the number of any other token."""
    return bytes([token]).decode("latin-1") if token < 256 else str(token)
