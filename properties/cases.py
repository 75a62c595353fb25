"""Lists of the cases that properties are checked on. They are fixed: Hypothesis would search for unlucky seeds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from harness.case import Case, capabilities_for

TOY = "toy"
"""Instead of the name of a pair: coin4, or dice8 for engines that cannot load heads as small as those of the coins."""


def both_rules(*cases: Case) -> list[Case]:
    return [replace(case, rule=rule) for rule in ("reject", "walk") for case in cases]


# depth + 2 tokens are judged: the token of the prompt's pass, a path of full depth, and the bonus token after it.
EXACT = both_rules(
    Case("coin4", {"temperature": 1.0}, 2, 2, 4),
    Case("coin4", {"temperature": 0.5}, 2, 2, 6),
    Case("coin4", {"temperature": 1.3}, 4, 1, 4),
    Case("coin4", {"temperature": 1.0}, 1, 1, 1),
    Case("coin4", {"temperature": 0.5, "top_k": 3}, 1, 3, 3),
    Case("coin4", {"temperature": 1.0, "top_k": 2}, 2, 3, 7),
    Case("coin4", {"temperature": 1.0, "top_p": 0.8}, 3, 2, 9),
    Case("coin4", {"temperature": 1.0, "min_p": 0.08}, 2, 2, 4),
    Case("coin4", {"temperature": 1.0, "repetition_penalty": 1.6}, 2, 2, 5),
    Case("coin4", {"temperature": 1.0, "eos_token_id": [0, 2]}, 2, 3, 8),
    Case("coin4", {"temperature": 0.8, "eos_token_id": [0, 2]}, 3, 1, 3),
    Case("coin6", {"temperature": 0.7, "top_k": 3}, 3, 2, 8),
    Case("coin6", {"temperature": 0.8, "top_k": 4, "top_p": 0.75, "repetition_penalty": 1.2}, 3, 2, 6),
    Case("coin6", {"temperature": 0.0}, 4, 4, 20),
    Case("coin4", {"temperature": 1.0}, 2, 3, 7, full=True),
    Case("coin4", {"temperature": 1.3}, 3, 3, 16, full=True),
    Case("coin6", {"temperature": 1.0}, 3, 2, 8, full=True),
    Case("coin6", {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 0.8}, 2, 3, 9, full=True),
    Case("coin6", {"temperature": 0.5, "top_p": 0.9}, 6, 2, 12, full=True),
)

# The last one is for engines with sampled drafts and only the capability `temperature`: two tokens take few executions.
UNEDITED = [
    Case("coin4", {"temperature": 1.0}, 2, 2, 4),
    Case("coin4", {"temperature": 0.5, "top_k": 3}, 1, 1, 1),
    Case("coin6", {"temperature": 0.8, "top_p": 0.9}, 3, 2, 6, full=True),
    Case("coin4", {"temperature": 1.3}, 1, 1, 1, window=2),
]

COUPLED = [
    Case("", {"temperature": 1.0}, 8, 6, 25),
    Case("", {"temperature": 0.5}, 8, 6, 25),
    Case("", {"temperature": 1.3}, 1, 1, 1),
    Case("", {"temperature": 0.8}, 1, 6, 6),
    Case("", {"temperature": 1.0}, 4, 3, 8),
    Case("", {"temperature": 0.7, "top_k": 20}, 4, 6, 16),
    Case("", {"temperature": 1.0, "top_p": 0.9}, 8, 4, 60),
    Case("", {"temperature": 1.0, "min_p": 0.05, "repetition_penalty": 1.2}, 6, 5, 30),
]

SAMPLED = [
    Case("coin4", {"temperature": 1.0}, 2, 2, 4),
    Case("coin4", {"temperature": 1.3}, 4, 1, 4),
    Case("coin6", {"temperature": 0.8, "top_k": 4}, 3, 2, 8),
    Case("coin6", {"temperature": 1.0}, 3, 2, 8, full=True),
    Case("coin4", {"temperature": 0.6, "top_p": 0.85}, 2, 2, 4, full=True),
    Case("coin4", {"temperature": 1.3, "min_p": 0.1}, 1, 3, 3, full=True),
    Case("coin4", {"temperature": 1.0, "repetition_penalty": 1.5}, 4, 2, 8, full=True),
]


# For engines whose trees cannot be chosen, on the smallest pair that they can load.
SETTINGS = [
    Case(TOY, params, 2, 3, 6)
    for params in (
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
        {"temperature": 1.0, "min_p": 0.1},
        {"temperature": 1.0, "repetition_penalty": 1.5},
        {"temperature": 1.0, "eos_token_id": [3, 5]},
    )
]

# vLLM on a CPU mistook a prompt of one token that joins a running batch for a row with drafts to verify (finding 002). A window
# of 3 tokens gives weight to the first one, and still lets the texts of a call end in different passes.
JOINING = Case("dice8", {"temperature": 1.0}, 2, 3, 6, prompt=(4,), window=3)


@dataclass(frozen=True)
class StreamCase:
    """Settings of a long stream of sampled tokens.

    Args:
        id: name of the case.
        params: sampling parameters; the texts of a call take them in turn.
        tokens: length of the stream in the quick tier; the full tier takes ten times as many.
        pair: a toy pair, started from every prompt of one to four tokens; "" for the pair and the prompts of the run.
        budget: budget of the draft tree.
        full: only the full tier runs it.
    """

    id: str
    params: tuple[dict[str, Any], ...]
    tokens: int
    pair: str = ""
    budget: dict[str, int] = field(default_factory=dict)
    full: bool = False

    @property
    def needs(self) -> set[str]:
        return capabilities_for({name for params in self.params for name in params})


STREAMS = [
    StreamCase("coin4, T=1", ({"temperature": 1.0, "max_new_tokens": 20},), 4_000, "coin4", {"k": 2, "depth": 3, "m": 5}),
    StreamCase(
        "coin6, T=0.8 top_k=4, mixed with T=1.3 and T=0.6",
        (
            {"temperature": 0.8, "top_k": 4, "max_new_tokens": 20},
            {"temperature": 1.3, "max_new_tokens": 17},
            {"temperature": 0.6, "top_k": 5, "max_new_tokens": 9},
        ),
        4_000,
        "coin6",
        {"k": 3, "depth": 4, "m": 10},
    ),
    StreamCase(
        "dice8, T=0.7 top_k=5, mixed with T=1 and T=0",
        (
            {"temperature": 0.7, "top_k": 5, "max_new_tokens": 20},
            {"temperature": 1.0, "max_new_tokens": 17},
            {"temperature": 0.0, "max_new_tokens": 9},
        ),
        4_000,
        "dice8",
        {"k": 3, "depth": 4, "m": 10},
    ),
    StreamCase("prompts of code, T=1", ({"temperature": 1.0, "max_new_tokens": 48},), 1_500),
    StreamCase(
        "prompts of code, T=0.7 top_p=0.9, mixed with T=1.2",
        (
            {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 40},
            {"temperature": 1.2, "max_new_tokens": 24},
            {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 13},
        ),
        3_000,
        full=True,
    ),
]
