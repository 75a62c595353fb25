"""Run any check on any implementation, on the fastest pair that shows a fault and with few samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.methods import METHODS
from harness.acceptance import tokens_per_pass
from harness.catalogue import catalogue
from harness.context import Context, Reduction, run_check
from harness.implementations import Implementation, connect
from harness.kill_matrix.random_pair import random_pair
from harness.mutants.cases import MIN_P, ONE_LAYER, TOLD_COOLER
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.record.model import Result
from harness.settings import Settings

BUDGET = {"k": 3, "depth": 3, "m": 8}
NEARLY_ALL_TOKENS = {"k": 40, "depth": 2, "m": 40}
"""Drafts nearly all of 42 tokens, so that most drafts are accepted."""
NEARLY_WHOLE_TREE = {"k": 4, "depth": 3, "m": 36}
"""Drafts nearly the whole tree of four tokens, so that blocks are long."""
TRAINED_BUDGET = {"k": 4, "depth": 4, "m": 12}
"""For a pair with a trained head, so that a fault of the head shows in tau."""
BUDGETS: Mapping[str, dict[str, int]] = {
    "STOP-3": NEARLY_ALL_TOKENS,
    "COUNT-1": NEARLY_WHOLE_TREE,
    "COUNT-2": TRAINED_BUDGET,
    "COUNT-3": TRAINED_BUDGET,
}
"""By property; BUDGET for all others."""

REDUCTION = Reduction(samples=10, tokens=5, instances=4)
"""Small faults are a matter of statistics; the matrix looks for large ones."""

TAU_TOKENS = 32
"""New tokens of each text that tau is measured on."""

QUICK = [
    ("SMOKE-1", ""),
    ("LAW-1", ONE_LAYER),
    ("LAW-1", MIN_P),
    ("GREEDY-1", "plain"),
    ("GREEDY-4", ""),
    ("TREE-1", ""),
    ("TREE-2", ""),
    ("CACHE-1", ""),
    ("STOP-2", ""),
    ("STOP-4", ""),
    ("COUNT-1", ""),
    ("TOLD-1", TOLD_COOLER),
    ("TOLD-2", "T=1"),
]
"""The cheapest check of each kind, for controls in a quick run."""


@dataclass(frozen=True)
class Stage:
    """Where the kill matrix runs checks.

    Args:
        folder: holds `bytes`, a random pair of 42 tokens, and `pairs`, the tau of the reference on the stage's prompts.
        settings: settings of the run.
    """

    folder: Path
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def build(cls, folder: Path, settings: Settings | None = None) -> Stage:
        """A stage in an empty folder."""
        random_pair(folder / "bytes", vocab_size=42)
        return cls(folder, settings or Settings())

    def result(self, check_id: str, case: str, connectable: str) -> Result:
        """Run a check on one of its cases."""
        return run_check(catalogue()[check_id], case, self.context(check_id, connectable))

    def context(self, check_id: str, connectable: str) -> Context:
        """The implementation, opened on the pair and with the budget that suit the check."""
        implementation = connect(connectable)
        if check_id in ("COUNT-2", "COUNT-3"):
            self._commit_tau(implementation.method)
        pair, texts = self._pair_and_prompts(check_id)
        context = Context.of(self.settings, _with_budget(implementation, BUDGETS.get(check_id, BUDGET)), pair)
        return replace(context, prompts=texts, reduction=REDUCTION, committed=self.folder / "pairs")

    def _pair_and_prompts(self, check_id: str) -> tuple[Pair, list[Prompt]]:
        if check_id in ("COUNT-2", "COUNT-3"):
            return shipped("stdlib"), _trained_prompts()
        if check_id == "CACHE-2":  # needs a target whose last norm is trained, and prompts that begin alike
            pair = shipped("stdlib")
            return pair, [replace(prompts(pair)[0], tokens=prompts(pair)[0].tokens[:n]) for n in (8, 12, 16)]
        folder = self.folder / "bytes"
        # Where it matters which tokens a text contains, the vocabulary must be larger than a text.
        many_tokens = check_id in ("STOP-3", "LAW-3") or check_id.startswith("BATCH")
        pair = Pair("bytes", folder / "target", folder / "draft") if many_tokens else shipped("coin4")
        # Short and of several lengths: several blocks must fit into a context of 24 tokens.
        short = [replace(prompt, tokens=prompt.tokens[: 4 + i % 3]) for i, prompt in enumerate(prompts(pair))]
        return pair, short[:1] if check_id == "LAW-8" else short

    def _commit_tau(self, method: str) -> None:
        """Write the tau that COUNT-2 compares with: the reference's own for this method, on the prompts of the stage."""
        path = self.folder / "pairs" / "stdlib" / "tau.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        methods = json.loads(path.read_text())["methods"] if path.exists() else {}
        if method in METHODS and method not in methods:
            methods[method] = _tau_of_reference(method)
            path.write_text(json.dumps({"max_new_tokens": TAU_TOKENS, "methods": methods}))


def is_dead(result: Result) -> bool:
    """Whether a mutant was detected: a fault, or an invalid answer, with which no run ends as a pass."""
    return result.verdict == "fault" or result.broken


def _with_budget(implementation: Implementation, budget: Mapping[str, int]) -> Implementation:
    if "budget" not in implementation.capabilities:
        return implementation
    bounds = {bound: size for bound, size in budget.items() if implementation.takes(bound)}
    return replace(implementation, options={**bounds, **implementation.options})


def _trained_prompts() -> list[Prompt]:
    return [replace(prompt, tokens=prompt.tokens[:32]) for prompt in prompts(shipped("stdlib"))[::12]]


@cache
def _tau_of_reference(method: str) -> dict[str, Any]:
    implementation = connect(f"ref:drafter={method}")
    options: dict[str, Any] = {bound: size for bound, size in TRAINED_BUDGET.items() if implementation.takes(bound)}
    coupled: dict[str, Any] = {"rule": "walk"} if "rules" in implementation.capabilities else {}
    engine = implementation.open(shipped("stdlib"), **options, **coupled)

    def tau(temperature: float) -> float:
        params = {"temperature": temperature, "max_new_tokens": TAU_TOKENS}
        texts = [prompt.tokens for prompt in _trained_prompts()]
        return tokens_per_pass([engine.decode(text, params, KeyedCoins(i)) for i, text in enumerate(texts)])

    return {"options": options, "tau": {name: tau(float(name)) for name in ("0", "1")}}
