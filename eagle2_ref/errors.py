"""The error for everything that a user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class BadInput(ValueError):
    """Wrong input from outside: a checkpoint, an option, a prompt, the name of an implementation.

    The command line prints the message and the hint, and exits with 2.

    Args:
        what: what is wrong, and where.
        hint: what to do about it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint

    def __str__(self) -> str:
        return self.what + "".join(f"\n  {line}" for line in self.hint.splitlines())


def suggest(name: str, candidates: Collection[str], otherwise: str) -> str:
    """A hint for a misspelt name: the nearest candidate in any case of letters, or `otherwise` if none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.casefold(), by_folded, 1)
    return f"did you mean {by_folded[near[0]]}?" if near else otherwise
