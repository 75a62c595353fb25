"""Pictures and witnesses that several checks store: a law next to another, the place at which a text diverges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.record.model import LawPicture, Witness

if TYPE_CHECKING:
    from harness.distributions.scoring import Divergence

OUTCOMES = 40
"""Most outcomes that a picture shows."""


def law_picture(
    title: str, expected: Mapping[tuple[int, ...], float], observed: Mapping[tuple[int, ...], float], n: int = 0
) -> LawPicture:
    """The most probable continuations under the expected law, with both probabilities. n: samples, 0 if enumerated."""
    shown = sorted({*expected, *observed}, key=lambda text: -expected.get(text, 0.0))[:OUTCOMES]
    return LawPicture(
        title=title,
        outcomes=tuple(" ".join(map(str, text)) for text in shown),
        expected=tuple(expected.get(text, 0.0) for text in shown),
        observed=tuple(observed.get(text, 0.0) for text in shown),
        n=n,
    )


def divergence_witness(
    divergence: Divergence,
    pair: str,
    options: dict[str, Any],
    prompt: Sequence[int],
    params: dict[str, Any],
    seed: int,
    keyed: bool = False,
) -> Witness:
    """The token at which a text diverges from the expected one, and how to sample that text again.

    keyed: the seed is that of coins keyed by position.
    """
    return Witness(
        options=options,
        pair=pair,
        prompt=tuple(prompt),
        params=params,
        seed=seed,
        keyed=keyed,
        position=divergence.position - len(prompt),
        emitted=divergence.emitted,
        expected=divergence.expected,
        p=divergence.p,
    )
