"""The family: every method by name, each a drafter with its options and the rules that may judge its drafts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eagle2_ref.drafters.ablations import WithoutReranking, WithoutValue
from eagle2_ref.drafters.base import Checkpoint, Method
from eagle2_ref.drafters.eagle import Eagle
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.drafters.lookahead import Lookahead
from eagle2_ref.drafters.lookup import Lookup
from eagle2_ref.drafters.medusa import Medusa
from eagle2_ref.drafters.ouroboros import Ouroboros
from eagle2_ref.drafters.small_model import Speculative
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import RULES, Rule, rule_for, typical


@dataclass(frozen=True)
class MethodSpec:
    """One method of the family. make: its options, a `Method`. rules: the first is its own, as published or its lossless form.

    deterministic: its trees depend on the text alone, never on coins.
    """

    name: str
    title: str
    paper: str
    make: Callable[..., Method]
    rules: Mapping[str, Rule]
    deterministic: bool = True

    @property
    def checkpoint(self) -> Checkpoint:
        checkpoint: Any = self.make
        found: Checkpoint = checkpoint.checkpoint
        return found

    @property
    def rule(self) -> str:
        """The name of its own rule."""
        return next(iter(self.rules))

    def options(self, **given: Any) -> Method:
        """The method with some of its options, the others being what they are if none are given."""
        known = inspect.signature(self.make).parameters
        if strange := sorted(given.keys() - known.keys()):
            raise BadInput(f"{self.title} has no option {strange[0]}", f"its options are {', '.join(known)}")
        return self.make(**given)

    def rule_of(self, name: str) -> Rule:
        """The rule of a name, which must be one that may judge its drafts; without a name its own."""
        if (name or self.rule) not in self.rules:
            raise BadInput(f"rule {name!r} is not known to {self.title}", f"its rules are {', '.join(self.rules)}")
        return self.rules[name or self.rule]


CHOSEN: dict[str, Rule] = {**RULES, "typical": typical}
"""Rules of trees that were chosen; the last of them is lossy."""

DRAWN: dict[str, Rule] = {"sampled": rule_for, **RULES}
"""Rules of trees that were drawn, for drafters that may choose at temperature 0."""

LOSSY = {"typical": "typical acceptance: it keeps what the target finds likely enough (Medusa, section 2.3.1)"}

METHODS = {
    each.name: each
    for each in (
        MethodSpec("speculative", "speculative sampling", "arXiv 2211.17192", Speculative, DRAWN, deterministic=False),
        MethodSpec("lookup", "prompt lookup", "github.com/apoorvumang/prompt-lookup-decoding", Lookup, CHOSEN),
        MethodSpec("medusa", "Medusa", "arXiv 2401.10774", Medusa, CHOSEN),
        MethodSpec("lookahead", "lookahead decoding", "arXiv 2402.02057", Lookahead, CHOSEN),
        MethodSpec("ouroboros", "Ouroboros", "arXiv 2402.13720", Ouroboros, CHOSEN),
        MethodSpec("eagle", "EAGLE", "arXiv 2401.15077", Eagle, DRAWN, deterministic=False),
        MethodSpec("eagle2", "EAGLE-2", "arXiv 2406.16858", Budget, CHOSEN),
        MethodSpec("eagle2-confidence", "EAGLE-2 without value", "arXiv 2406.16858, section 5.3", WithoutValue, CHOSEN),
        MethodSpec("eagle2-expansion", "EAGLE-2 without reranking", "arXiv 2406.16858, section 5.3", WithoutReranking, CHOSEN),
    )
}


def method(name: str) -> MethodSpec:
    """The method of a name."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(METHODS)}"
        raise BadInput(f"drafter {name!r} is not known", hint)
    return METHODS[name]
