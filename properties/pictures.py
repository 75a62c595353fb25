"""Pictures that several chapters draw."""

from __future__ import annotations

from harness.evidence import LawPicture
from harness.laws.exact import Law


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
