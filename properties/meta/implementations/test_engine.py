"""The engine wrapper: requests with coins of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from eagle2_ref.coins import Coins, KeyedCoins
from harness.implementations import Implementation, connect
from harness.implementations.engine import Engine, Output
from harness.pairs import shipped

PROMPTS = [[2, 3, 2], [1], [0, 1, 2, 3]]


def test_decode_all_shares_passes_only_if_the_implementation_can_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together, texts have the tokens and blocks that they have alone."""
    batching = connect("ref:rule=walk,k=2,depth=3,m=5,dtype=float64")
    single = replace(batching, capabilities=batching.capabilities - {"batch"})
    lengths, decode = Counter[int](), Engine.decode

    def counted(self: Engine, prompt: Sequence[int], params: dict[str, Any], coins: Coins) -> Output:
        lengths.update([len(prompt)])
        return decode(self, prompt, params, coins)

    monkeypatch.setattr(Engine, "decode", counted)

    def decode_all(implementation: Implementation, **options: Any) -> list[tuple[object, ...]]:
        engine, coins = implementation.open(shipped("coin4"), **options), [KeyedCoins(seed) for seed in (5, 6, 7)]
        outputs = engine.decode_all(PROMPTS, {"temperature": 1.0, "max_new_tokens": 12}, coins)
        return [(output.tokens, output.blocks) for output in outputs]

    together = decode_all(batching, batch=3)
    assert not lengths and len(set(together)) == 3
    assert decode_all(single) == together and lengths == {3: 1, 1: 1, 4: 1}
