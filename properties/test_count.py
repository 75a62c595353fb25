"""Chapter COUNT: tokens per target pass are counted correctly, and are as many as they should be."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.drafters.checkpoint import load_head, save_head
from harness.acceptance import doubt_of_checkpoint, tokens_per_pass
from harness.catalogue import check
from harness.context import Context
from harness.implementations import Implementation, connect, fit_vocabulary
from harness.implementations.engine import Engine, NotApplicable, Output
from harness.pairs import Pair
from harness.record.model import CountPicture, Result

TOLERANCE = 0.02
"""Largest relative difference between tau and the committed figure."""

TOLERANCE_REFERENCE = 0.05
"""Largest relative difference between tau and the reference's on the same texts. Rounding to bfloat16 moved it by 1.5 %."""


@check("COUNT-1")
def blocks_add_up(context: Context) -> Result:
    """The blocks of a text add up to it, and each has between 1 and depth + 1 tokens: 1 <= tau <= depth + 1.

    A block has one token more than it accepted; the last one may lack it, where the text ends with an accepted token.
    """
    implementation = context.implementation
    implementation.require("blocks")
    new, each = context.scaled(64, least=32), context.scaled(4)
    params: list[dict[str, Any]] = [{"temperature": t, "max_new_tokens": new} for t in (0.0, 1.0) for _ in range(each)]
    engine, prompts = context.open(context.pair), [prompt.tokens for prompt in context.prompts[: len(params)]]
    outputs = engine.generate(prompts, params, range(len(params)))
    if "eos" in implementation.capabilities:
        # The same texts again, ended by tokens that occur late in them, at any offset of a block. They share passes where the
        # implementation offers it, so that blocks are checked both ways.
        rows = [(i, token) for i, output in enumerate(outputs) for token in list(dict.fromkeys(output.tokens))[1:][-3:]]
        ended = [{**params[i], "eos_token_id": token} for i, token in rows]
        engine = context.open(context.pair, **context.batched(context.pair))
        outputs += engine.generate([prompts[i] for i, _ in rows], ended, [i for i, _ in rows])
    depth = implementation.shape.get("depth", 1 << 30)
    if wrong := next(filter(None, (_wrong_blocks(output, depth) for output in outputs)), ""):
        return context.result("fault", wrong)
    sizes = Counter(block.accepted for output in outputs for block in output.blocks or () if block.parents)
    passes, tau = sum(sizes.values()), tokens_per_pass(outputs)
    counts = tuple(sizes[i] for i in range(max(sizes, default=0) + 1))
    picture = CountPicture(title="target passes by accepted tokens", xlabel="accepted tokens", counts=counts)
    return context.result(
        "pass",
        f"{passes} passes, tau {tau:.2f}",
        measured={"passes": passes, "tau": tau},
        work=(passes, "passes"),
        note=doubt_of_checkpoint(implementation, passes, sum(n * times for n, times in sizes.items())),
        pictures=(picture,),
    )


def _wrong_blocks(output: Output, depth: int) -> str:
    """Why the blocks of a text are wrong, or ""."""
    if not output.blocks:
        return "the implementation declares the capability 'blocks', but returned none"
    *before, last = [block.accepted for block in output.blocks]
    if not all(0 <= accepted <= depth for accepted in (*before, last)):
        return f"a block accepted {max((*before, last))} tokens, trees are {depth} deep at most"
    left = len(output.tokens) - sum(accepted + 1 for accepted in before)
    if left < 1 or left not in (last, last + 1):
        hint = ": count only emitted tokens where a text is cut" if last > left else ""
        return f"{len(before)} blocks before the last leave {left} of {len(output.tokens)} tokens to it; it accepted {last}{hint}"
    return ""


@check("COUNT-2", cases={"T=0": 0.0, "T=1": 1.0})
def committed_acceptance_length(context: Context, temperature: float) -> Result:
    """On the shipped pair and prompts, with the options of the committed figure, tau is that figure to within 2 %.

    Two-sided: a tau that is too high is as wrong as one that is too low (ROCm/aiter issue 2720: 99 % acceptance, from a
    kernel that gave every row the same output).
    """
    implementation = context.implementation
    implementation.require("coins", "budget", "tau")
    committed = context.committed / context.pair.name / "tau.json"
    if not committed.exists():
        return context.result("n/a", f"no figure is committed for the pair {context.pair.name}")
    figures = json.loads(committed.read_text())
    if not (figure := figures["methods"].get(implementation.method)):
        return context.result("n/a", f"no figure is committed for the method {implementation.method}")
    coupling = {"rule": "walk"} if "rules" in implementation.capabilities else {}
    engine = context.open(context.pair, **context.batched(context.pair, dtype="float32", **coupling, **figure["options"]))
    params = {"temperature": temperature, "max_new_tokens": figures["max_new_tokens"]}
    prompts = [prompt.tokens for prompt in context.prompts]
    outputs = engine.decode_all(prompts, params, [KeyedCoins(i) for i in range(len(prompts))])
    tau, expected = tokens_per_pass(outputs), float(figure["tau"][f"{temperature:g}"])
    return context.result(
        "pass" if abs(tau / expected - 1) <= TOLERANCE else "fault",
        f"tau {tau:.3f}, committed {expected:.3f}",
        measured={"tau": tau, "committed": expected, "prompts": len(outputs)},
        work=(len(outputs), "texts"),
        effect=(abs(tau / expected - 1), "relative difference of tau"),
        detectable=(TOLERANCE, "relative difference of tau"),
        sensitivity=f"a tau off by more than {TOLERANCE:.0%}",
    )


@check("COUNT-3", cases={"the pair's head": False, "with a bias": True})
def acceptance_length_of_reference(context: Context, biased: bool) -> Result:
    """At temperature 0 tau is the reference's own, with the same head, budget and prompts, to within 5 %.

    Only texts that both emit are compared, so that no tie of the target counts; their drafts are then the same except for ties
    of the head (in bfloat16 they moved tau by 1.5 %), and at most one block of a text is cut differently. Two-sided. Counted by
    blocks, or else by counters. A head that lost a tensor on loading, such as the bias that published heads have, still emits
    the right text: only a count shows it.
    """
    _require_known_head(context.implementation)
    if not biased:
        return _compare_with_reference(context, context.pair)
    with tempfile.TemporaryDirectory() as folder:
        return _compare_with_reference(context, _with_bias(context, Path(folder)))


def _compare_with_reference(context: Context, pair: Pair) -> Result:
    # The pair's own head is measured text by text, as it is used; COUNT-2 and BATCH-2 check texts that share passes.
    options = context.batched(pair) if pair != context.pair else {}
    prompts, arms = (
        [prompt.tokens for prompt in context.some_prompts(6)],
        (context.open(pair, **options), _reference(context, pair)),
    )
    new = context.scaled(128, least=64)
    rows = list(zip(*(_costs(arm, prompts, new) for arm in arms), strict=True))
    same = [row for row in rows if row[0].tokens == row[1].tokens]
    if not same:
        return context.result("inconclusive", f"none of {len(rows)} texts is the reference's: there is no tau to compare")
    tau, expected = (_tau(costs) for costs in zip(*same, strict=True))
    reason = f"tau {tau:.3f}, the reference's {expected:.3f} with the same head and budget, on {len(same)} texts that both emit"
    difference = abs(tau / expected - 1)
    if difference > TOLERANCE_REFERENCE and pair != context.pair:
        without_bias = _tau(_costs(_reference(context, context.pair), prompts, new))
        reason += f"; without the bias the reference's is {without_bias:.3f}"
    return context.result(
        "pass" if difference <= TOLERANCE_REFERENCE else "fault",
        reason,
        measured={"tau": tau, "reference": expected, "texts": len(same), "texts that differ": len(rows) - len(same)},
        work=(len(same), "texts"),
        effect=(difference, "relative difference of tau"),
        detectable=(TOLERANCE_REFERENCE, "relative difference of tau"),
        sensitivity=f"a tau off by more than {TOLERANCE_REFERENCE:.0%}",
    )


def _require_known_head(implementation: Implementation) -> None:
    """Raise NotApplicable where the reference has nothing to compare with."""
    if implementation.checkpoint != "draft":
        raise NotApplicable(f"it drafts with {implementation.checkpoint!r}, not with the pair's EAGLE head")
    if implementation.options.get("draft_vocab"):
        raise NotApplicable("it proposes some tokens of the pair's EAGLE head only")
    if implementation.method not in ("", "eagle2"):
        raise NotApplicable("its trees are not EAGLE-2's")
    if not {"k", "depth", "m"} <= set(implementation.shape):
        raise NotApplicable("it does not report the shape of its draft trees: 'budget' with k, depth and m")
    if not implementation.capabilities & {"blocks", "counters"}:
        raise NotApplicable("it declares neither of the capabilities 'blocks' and 'counters'")


def _reference(context: Context, pair: Pair) -> Engine:
    """The reference's decoder in float32 with the same budget; its texts share passes, which does not change their counts."""
    budget = fit_vocabulary(context.implementation.shape, pair.vocab_size)
    return connect("ref").open(pair, device=context.settings.device, batch=context.scaled(32), **budget)


def _with_bias(context: Context, folder: Path) -> Pair:
    """The pair with a bias in its head: noise half as large as the rows of `fc`. NotApplicable if its head has a bias.

    The head becomes worse, equally for every engine. As with published heads that have a bias, its config has no key `bias`. The
    target's files are linked, in a folder whose name a trace recognises.
    """
    pair, embedding = context.pair, context.target_model(context.pair, "float64").get_input_embeddings().weight.detach()
    head = load_head(pair.draft, embedding.float().cpu())
    if head.config.bias:
        raise NotApplicable("the pair's head has a bias of its own")
    name = f"{pair.name} with a bias"
    (folder / name / "target").mkdir(parents=True)
    for file in pair.target.iterdir():
        (folder / name / "target" / file.name).symlink_to(file.resolve())
    weight = head.fc.weight.detach()
    noise = torch.randn(len(weight), generator=torch.Generator().manual_seed(0))
    head.fc.bias = torch.nn.Parameter(noise.to(weight) * weight.norm(dim=1) / 2)
    head.config = replace(head.config, bias=True)
    save_head(head, folder / name / "draft")
    config = folder / name / "draft" / "config.json"
    config.write_text(json.dumps({key: value for key, value in json.loads(config.read_text()).items() if key != "bias"}))
    return Pair(name, folder / name / "target", folder / name / "draft", own=True)


@dataclass(frozen=True)
class Cost:
    """A greedy text, the target passes over drafts that it took, and the drafted tokens that were accepted in them."""

    tokens: tuple[int, ...]
    passes: int
    accepted: int


def _costs(engine: Engine, prompts: Sequence[list[int]], new: int) -> list[Cost]:
    """By the blocks of the texts of `new` tokens where they are reported, else by counters, text by text."""
    params: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": new}
    if "blocks" in engine.implementation.capabilities:
        outputs = engine.generate(prompts, [params] * len(prompts), [0] * len(prompts))
        return [_by_blocks(output) for output in outputs]
    return [_by_counters(engine, prompt, params) for prompt in prompts]


def _by_blocks(output: Output) -> Cost:
    blocks = output.blocks or ()
    return Cost(output.tokens, sum(bool(block.parents) for block in blocks), sum(block.accepted for block in blocks))


def _by_counters(engine: Engine, prompt: list[int], params: dict[str, Any]) -> Cost:
    before = engine.counters()
    (output,) = engine.generate([prompt], [params], [0])
    after = engine.counters()
    assert before is not None and after is not None, "one of the two capabilities is declared"
    return Cost(output.tokens, (after - before).passes, (after - before).accepted)


def _tau(costs: Sequence[Cost]) -> float:
    """Tokens per pass over drafts; 1 if there was no such pass."""
    passes = sum(cost.passes for cost in costs)
    return 1 + sum(cost.accepted for cost in costs) / passes if passes else 1.0
