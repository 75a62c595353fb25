"""The registry of drafting methods: each by name, with its drafter, its options and the rules that can judge its drafts.

To add a method, write a file in drafters/ (base.py has the interface) and list it in METHODS.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eagle2_ref.drafters.ablations import WithoutReranking, WithoutValue
from eagle2_ref.drafters.base import Checkpoint, Method
from eagle2_ref.drafters.eagle import Eagle
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.drafters.eagle3 import Eagle3
from eagle2_ref.drafters.lookahead import Lookahead
from eagle2_ref.drafters.lookup import Lookup
from eagle2_ref.drafters.medusa import Medusa
from eagle2_ref.drafters.ouroboros import Ouroboros
from eagle2_ref.drafters.small_model import Speculative
from eagle2_ref.errors import BadInput, suggest
from eagle2_ref.rules import RULES, Rule, rule_for, typical


@dataclass(frozen=True)
class MethodSpec:
    """One drafting method.

    Attributes:
        name: its name on the command line.
        title: its name in reports.
        paper: where it was published.
        make: class of its options, a `Method`.
        rules: acceptance rules by name. The first is the default: the published rule, or its lossless form.
        deterministic: whether its trees depend on the text only, not on random numbers.
    """

    name: str
    title: str
    paper: str
    make: Callable[..., Method]
    rules: Mapping[str, Rule]
    deterministic: bool = True

    @property
    def checkpoint(self) -> Checkpoint:
        """The kind of checkpoint that it drafts with."""
        make: Any = self.make
        checkpoint: Checkpoint = make.checkpoint
        return checkpoint

    @property
    def rule(self) -> str:
        """The name of its default rule."""
        return next(iter(self.rules))

    def options(self, **given: Any) -> Method:
        """The method with some options given and the others at their defaults. Raises BadInput for an unknown option."""
        known = inspect.signature(self.make).parameters
        if strange := sorted(given.keys() - known.keys()):
            raise BadInput(f"{self.title} has no option {strange[0]}", f"its options are {', '.join(known)}")
        return self.make(**given)

    def rule_of(self, name: str) -> Rule:
        """The rule of a name; the default rule for an empty name. Raises BadInput for a rule that is not one of `rules`."""
        if (name or self.rule) not in self.rules:
            raise BadInput(f"rule {name!r} is not known to {self.title}", f"its rules are {', '.join(self.rules)}")
        return self.rules[name or self.rule]


CHOSEN: dict[str, Rule] = {**RULES, "typical": typical}
"""Rules for trees of chosen tokens. The last one is lossy."""

DRAWN: dict[str, Rule] = {"sampled": rule_for, **RULES}
"""Rules for trees of sampled tokens, from drafters that may choose tokens at temperature 0."""

LOSSY = {"typical": "typical acceptance: it keeps what the target finds likely enough (Medusa, section 2.3.1)"}

METHODS = {
    spec.name: spec
    for spec in (
        MethodSpec("speculative", "speculative sampling", "arXiv 2211.17192", Speculative, DRAWN, deterministic=False),
        MethodSpec("lookup", "prompt lookup", "github.com/apoorvumang/prompt-lookup-decoding", Lookup, CHOSEN),
        MethodSpec("medusa", "Medusa", "arXiv 2401.10774", Medusa, CHOSEN),
        MethodSpec("lookahead", "lookahead decoding", "arXiv 2402.02057", Lookahead, CHOSEN),
        MethodSpec("ouroboros", "Ouroboros", "arXiv 2402.13720", Ouroboros, CHOSEN),
        MethodSpec("eagle", "EAGLE", "arXiv 2401.15077", Eagle, DRAWN, deterministic=False),
        MethodSpec("eagle2", "EAGLE-2", "arXiv 2406.16858", Budget, CHOSEN),
        MethodSpec("eagle3", "EAGLE-3", "arXiv 2503.01840", Eagle3, CHOSEN),
        MethodSpec("eagle2-confidence", "EAGLE-2 without value", "arXiv 2406.16858, section 5.3", WithoutValue, CHOSEN),
        MethodSpec("eagle2-expansion", "EAGLE-2 without reranking", "arXiv 2406.16858, section 5.3", WithoutReranking, CHOSEN),
    )
}


def method(name: str) -> MethodSpec:
    """The method of a name. Raises BadInput with the nearest name for an unknown one."""
    if name not in METHODS:
        raise BadInput(f"drafter {name!r} is not known", suggest(name, METHODS, f"known are {', '.join(METHODS)}"))
    return METHODS[name]
