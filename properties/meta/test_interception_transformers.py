"""transformers as it is installed, enumerated: lossless where it says so, and a fault reported where it is lossy by design."""

from __future__ import annotations

import inspect
from itertools import product

import pytest
import torch
from transformers.generation.utils import _speculative_sampling

from eagle2_ref.sampling import SamplingParams
from harness.laws.enumeration import enumerate_law
from harness.laws.exact import Law, target_law, total_variation
from harness.laws.third_party import MODES, PROMPT, Mode, generation, seen, tiny

ROUNDING = 1e-5
"""Total variation that float32 may leave."""


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_mode_keeps_its_promise_and_no_more(mode: Mode) -> None:
    (found,) = seen((mode,))
    assert found.unfinished == 0 and found.executions > 4
    assert found.distance <= ROUNDING if mode.lossless else found.distance > 0.1


def test_two_drafted_tokens_are_verified_at_once() -> None:
    """Three new tokens, so that the assistant drafts two, of a vocabulary of two: paths of every length, and the bonus token."""
    target, assistant = tiny(seed=5, vocab_size=2), tiny(seed=6, vocab_size=2)
    prompt = tuple(token % 2 for token in PROMPT)
    expected = target_law(target, prompt, SamplingParams(max_new_tokens=3))
    found = enumerate_law(generation(target, 3, prompt, assistant_model=assistant), window=3)
    assert total_variation(found.law, expected) <= ROUNDING


def test_an_end_of_text_is_kept() -> None:
    target = tiny(seed=5)
    expected = target_law(target, PROMPT, SamplingParams(max_new_tokens=2, eos_token_id=1))
    found = enumerate_law(generation(target, 2, eos_token_id=1, pad_token_id=0, prompt_lookup_num_tokens=2), window=2)
    assert total_variation(found.law, expected) <= ROUNDING and {len(text) for text in found.law} == {1, 2}


def emitted(p: torch.Tensor, q: torch.Tensor, weight: float | None) -> Law:
    """The law of what transformers' rule emits for tokens drafted from q [n, V], completed to n + 1 tokens from p [n + 1, V]."""

    def run() -> list[int]:
        drafted = torch.multinomial(q, 1).T
        kept, _ = _speculative_sampling(drafted, q.log()[None], len(q), p.log()[None], assistant_ensemble_weight=weight)
        begun = kept[0].tolist()
        return [*begun, *(torch.multinomial(row, 1).item() for row in p[len(begun) :])]

    return enumerate_law(run, window=len(p)).law


@pytest.mark.skipif(
    "is_done_candidate" in inspect.signature(_speculative_sampling).parameters, reason="an older transformers calls it otherwise"
)
def test_the_rule_alone_in_float64() -> None:
    generator = torch.Generator().manual_seed(2)
    p, q = ((2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)).softmax(-1) for n in (3, 2))
    expected = {text: float(p[0, text[0]] * p[1, text[1]] * p[2, text[2]]) for text in product(range(3), repeat=3)}
    assert total_variation(emitted(p, q, None), expected) <= 1e-12
    assert total_variation(emitted(p, q, 0.9), expected) > 1e-3
