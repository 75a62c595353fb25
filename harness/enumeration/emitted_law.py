"""The exact law of a decoder whose random numbers can be enumerated."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from harness.distributions.exact import Law
from harness.enumeration.coins import EnumeratedCoins, executions, is_symbolic, unfold
from harness.implementations.engine import Engine, Output


class TooManyExecutions(Exception):
    """The law needs more executions than were allowed."""


def emitted_law(
    engine: Engine, prompt: list[int], params: dict[str, Any], most: int | None = None
) -> tuple[Law, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Run every execution of a decoder, one for each outcome of its random numbers.

    Args:
        engine: an engine with the capability `coins`.
        prompt: token ids.
        params: sampling parameters.
        most: largest number of executions.

    Returns:
        The law of the emitted text, and for each execution its text with the choices that led to it. The text leaves out a
        last token that no later choice depends on.

    Raises:
        TooManyExecutions: there are more than `most`.
        Unrepeatable: the decoder does not repeat itself.
    """
    law: Law = defaultdict(float)
    executed: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def run(coins: EnumeratedCoins) -> tuple[Output, EnumeratedCoins]:
        return engine.decode(prompt, params, coins), coins

    for (output, coins), weight in executions(run):
        if len(executed) == most:
            raise TooManyExecutions
        executed.append((tuple(int(token) for token in output.tokens if not is_symbolic(token)), coins.choices))
        for text, share in unfold(output.tokens):
            law[text] += weight * share
    return law, executed
