"""Chapter COUNT: tokens per target pass are counted rightly, and are as many as they should be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from eagle2_ref.coins import KeyedCoins
from harness.evidence import CountPicture, Verdict
from harness.implementations import Implementation
from harness.implementations.engine import Engine, Output
from harness.pairs import FIXTURES, Pair, Prompt
from harness.plugin import Judge

TOLERANCE = 0.02


def test_blocks_add_up(
    judge: Judge, impl: Implementation, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]
) -> None:
    """COUNT-1: The blocks of a text add up to it, and each has between 1 and depth + 1 tokens: 1 <= tau <= depth + 1."""
    impl.require("blocks")
    params = [{"temperature": t, "max_new_tokens": 64} for t in (0.0, 1.0) for _ in range(4)]
    outputs = open_engine(pair).generate([prompt.tokens for prompt in texts[:8]], params, range(8))
    depth = int(impl.options.get("depth", 6 if "budget" in impl.capabilities else 1 << 30))
    sizes: Counter[int] = Counter()
    for output in outputs:
        blocks = output.blocks or ()
        emitted = sum(block.accepted + 1 for block in blocks)
        if emitted != len(output.tokens):
            judge("fault", f"{len(blocks)} blocks tell of {emitted} tokens, the text has {len(output.tokens)}")
        if any(not 0 <= block.accepted <= depth for block in blocks):
            judge("fault", f"a block accepted {max(block.accepted for block in blocks)} tokens, trees are {depth} deep at most")
        sizes.update(block.accepted for block in blocks if block.parents)
    total = sum(sizes.values())
    tau = sum((size + 1) * count for size, count in sizes.items()) / total if total else float("nan")
    picture = CountPicture(
        title="target passes by accepted tokens",
        xlabel="accepted tokens",
        counts=tuple(sizes[i] for i in range(max(sizes, default=0) + 1)),
    )
    judge("pass", f"{total} passes, tau {tau:.2f}", measured={"passes": total, "tau": tau}, pictures=(picture,))


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["T=0", "T=1"])
def test_acceptance_length(
    temperature: float, judge: Judge, impl: Implementation, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]
) -> None:
    """COUNT-2: On the shipped pair and prompts, with the budget of the committed figure, tau is that figure to within 2 %.

    Two-sided: a tau that is too high is as wrong as one that is too low (ROCm/aiter issue 2720: 99 % acceptance, from a
    kernel that gave every row the same output).
    """
    impl.require("coins", "rules", "budget")
    committed = FIXTURES / "pairs" / pair.name / "tau.json"
    if not committed.exists():
        judge("n/a", f"no figure is committed for the pair {pair.name}")
    figure = json.loads(committed.read_text())
    engine = open_engine(pair, rule="walk", dtype="float32", **figure["budget"])
    params = {"temperature": temperature, "max_new_tokens": figure["max_new_tokens"]}
    outputs = [engine.decode(prompt.tokens, params, KeyedCoins(i)) for i, prompt in enumerate(texts)]
    tau, due = tau_of(outputs), float(figure["tau"][f"{temperature:g}"])
    verdict: Verdict = "pass" if abs(tau / due - 1) <= TOLERANCE else "fault"
    measured = {"tau": tau, "committed": due, "prompts": len(outputs)}
    judge(
        verdict, f"tau {tau:.3f}, committed {due:.3f}", measured=measured, sensitivity=f"a tau off by more than {TOLERANCE:.0%}"
    )


def tau_of(outputs: list[Output]) -> float:
    """Tokens per target pass over several texts, the prompts' passes and their tokens left out."""
    blocks = [block for output in outputs for block in output.blocks or () if block.parents]
    return sum(block.accepted + 1 for block in blocks) / len(blocks)
