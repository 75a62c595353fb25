"""What several chapters show: a law beside another, the place of a divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.distributions.exact import Law
from harness.distributions.scoring import Divergence
from harness.record.model import LawPicture, Witness


def law_picture(title: str, expected: Law, observed: Law, n: int = 0) -> LawPicture:
    """The 40 likeliest continuations."""
    shown = sorted({*expected, *observed}, key=lambda text: -expected.get(text, 0.0))[:40]
    return LawPicture(
        title=title,
        outcomes=tuple(" ".join(map(str, text)) for text in shown),
        expected=tuple(expected.get(text, 0.0) for text in shown),
        observed=tuple(observed.get(text, 0.0) for text in shown),
        n=n,
    )


def diverged(
    first: Divergence,
    pair: str,
    options: dict[str, Any],
    prompt: Sequence[int],
    params: dict[str, Any],
    seed: int,
    keyed: bool = False,
) -> Witness:
    """The place at which a text left the one that was due, and how to come there again."""
    return Witness(
        options=options,
        pair=pair,
        prompt=tuple(prompt),
        params=params,
        seed=seed,
        keyed=keyed,
        position=first.position - len(prompt),
        emitted=first.emitted,
        expected=first.expected,
        p=first.p,
    )
