# ruff: noqa: S311  (`random` is under test)
"""Interception: every way of drawing has its exact distribution, and unsupported operations are refused by name."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.nn import functional as F

from eagle2_ref.coins import KeyedCoins, SeededCoins
from harness import enumeration
from harness.distributions.exact import Law, total_variation
from harness.enumeration.exact_law import enumerate_law
from harness.enumeration.intercept import NotEnumerable

P = torch.tensor([0.5, 0.25, 0.0, 0.25], dtype=torch.float64)
N = P.numpy()
ONE: Law = {(0,): 0.5, (1,): 0.25, (3,): 0.25}
TWO: Law = {(i, j): float(P[i] * P[j]) for i, j in product((0, 1, 3), repeat=2)}
"""Distributions of one sample from P, and of two independent ones."""
ORDERED: Law = {(i, j): float(P[i] * P[j] / (1 - P[i])) for i, j in permutations((0, 1, 3), 2)}
"""Distribution of two samples without replacement."""
HALVES: Law = {(1,): 0.5, (0,): 0.5}
THIRDS: Law = {(i,): 1 / 3 for i in range(3)}
SHUFFLED: Law = dict.fromkeys(permutations(range(3)), 1 / 6)

UNBOUND, UNBOUND_NUMPY = random.random, np.random.rand
OLD_GENERATOR = np.random.default_rng(0)
"""Bound before anything is intercepted, as by `from random import random`."""


def law(snippet: Callable[[], Any], **options: Any) -> Law:
    def run() -> Sequence[int]:
        outcome = snippet()
        outcome = outcome.tolist() if isinstance(outcome, Tensor | np.ndarray) else outcome
        return outcome if isinstance(outcome, list | tuple) else [outcome]

    return enumerate_law(run, **options).law


def empty(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.float64)


def rows_by_view() -> Tensor:
    """Noise filled in row by row, each row with its own generator."""
    noise = empty(2, 4)
    for i in range(2):
        noise[i].exponential_(generator=torch.Generator().manual_seed(i))
    return P.repeat(2, 1).div_(noise).argmax(dim=-1).view(-1)


def gumbel_race() -> Tensor:
    noise = -torch.log(-torch.log(torch.rand(4).clamp(min=1e-20)) + 1e-20)
    return torch.argmax((P.log() + noise) / 1.0, dim=-1, keepdim=True)


def python_race() -> int:
    racers = [-math.inf if p == 0 else math.log(p) - np.log(-np.log(random.random())) for p in P.tolist()]
    return max((0, 1, 3), key=lambda i: racers[i])


def seeds() -> int:
    torch.manual_seed(torch.randint(0, 2**62, (1,)).item())
    torch.Generator().manual_seed(random.getrandbits(64))
    random.seed(random.randint(0, 2**40))
    np.random.seed(np.random.randint(2**31))
    np.random.default_rng(int(torch.initial_seed() > 0))
    return 7


def used_twice() -> tuple[int, ...]:
    u = torch.rand(())
    return int(u < 0.5), int(u < 0.25), int(1 - u > 0.25), int(2 * u.item() + 1 < 1.5)


def overwritten() -> Tensor:
    """An overwritten symbolic number is gone, and views see the new value."""
    u = torch.rand(3)
    alias = u.view(3, 1)[1:]
    u[1] = 0.75
    u[2:] = u[0]
    return (alias[:, 0] < 0.5).long()


def in_a_mask() -> Tensor:
    scores = P.log() - torch.empty(4).exponential_().log()
    return scores.masked_fill(torch.tensor([False, True, False, False]), -torch.inf).argmax()


def out_of_inference_mode() -> Tensor:
    """Drawn in inference mode, read outside of it."""
    with torch.inference_mode():
        u, token = torch.rand(2), torch.multinomial(P, 1)
        text = torch.cat([token, torch.tensor([2])])
    return torch.cat([(u[:1] < 0.5).long(), text.clone() + 0, torch.where(text > 1, 9, text)])


def copied_token() -> Tensor:
    """Copies of a symbolic token in several tensors remain one token."""
    token = torch.multinomial(P, 1)
    text = torch.cat([torch.tensor([2]), token, token.clone()])
    return torch.stack([text[1] == 0, text[2] == 0, text[1:].eq(3).any()]).long()


EXACT: dict[str, tuple[Callable[[], Any], Law]] = {
    "multinomial": (lambda: torch.multinomial(P, 1), ONE),
    "multinomial, unnormalised, float32": (lambda: torch.multinomial(3 * P.float(), 1).item(), ONE),
    "multinomial of two": (lambda: torch.multinomial(P, 2), ORDERED),
    "multinomial of two with replacement": (lambda: P.multinomial(2, replacement=True), TWO),
    "multinomial of rows": (lambda: torch.multinomial(P.expand(2, 4), 1).squeeze(1), TWO),
    "Categorical": (lambda: torch.distributions.Categorical(probs=P).sample((2,)), TWO),  # type: ignore[no-untyped-call]
    "a race without racers": (lambda: (P[2:3] / empty(1).exponential_()).argmax(), {(0,): 1}),
    "a sort, with a token that cannot win": (
        lambda: (P / empty(4).exponential_()).sort(descending=True).indices[[0, 1, 3]],
        {(*two, 2): share for two, share in ORDERED.items()},
    ),
    "a race of exponentials of logarithms": (lambda: (P.log() - empty(4).exponential_().log()).exp().argmax(), ONE),
    "a tensor of numbers": (lambda: (torch.tensor([random.random(), 0.25]) < 0.5).long(), {(0, 1): 0.5, (1, 1): 0.5}),
    "randint below zero": (lambda: torch.randint(-1, 2, (1,)), {(-1,): 1 / 3, (0,): 1 / 3, (1,): 1 / 3}),
    "arithmetic on a token": (lambda: 2 * torch.multinomial(P, 1) + 1, {(1,): 0.5, (3,): 0.25, (7,): 0.25}),
    "the largest of tokens": (lambda: torch.multinomial(P, 2).max(), {(1,): 5 / 12, (3,): 7 / 12}),
    "the order of tokens": (lambda: torch.multinomial(P, 2).sort().values[:1], {(0,): 5 / 6, (1,): 1 / 6}),
    "tokens compared": (lambda: (torch.multinomial(P, 1) < 2).long(), {(1,): 0.75, (0,): 0.25}),
    "tokens as an index": (lambda: torch.arange(4)[torch.multinomial(P, 1)], ONE),
    "tokens as a size": (lambda: len(torch.zeros(9)[: torch.multinomial(P, 1).squeeze()]), ONE),
    "out of inference mode": (
        out_of_inference_mode,
        {(u, i, 2, 9 if i > 1 else i, 9): float(P[i]) / 2 for u in (0, 1) for i in (0, 1, 3)},
    ),
    "a copied token": (copied_token, {(1, 1, 0): 0.5, (0, 0, 0): 0.25, (0, 0, 1): 0.25}),
    "rand": (lambda: (torch.rand(1, generator=torch.Generator()) < 0.5).long(), HALVES),
    "rand of several": (
        lambda: (torch.rand(size=(2,)) <= P[:2]).int(),
        {(1, 1): 1 / 8, (1, 0): 3 / 8, (0, 1): 1 / 8, (0, 0): 3 / 8},
    ),
    "rand_like": (lambda: (P[:1] > torch.rand_like(P[:1])).int(), HALVES),
    "uniform_": (lambda: (empty(1).uniform_(2, 4) < 2.5).int(), {(1,): 0.25, (0,): 0.75}),
    "a uniform used twice": (used_twice, {(1, 1, 1, 1): 0.25, (1, 0, 1, 0): 0.25, (0, 0, 1, 0): 0.25, (0, 0, 0, 0): 0.25}),
    "an overwritten uniform": (overwritten, {(0, 1): 0.5, (0, 0): 0.5}),
    "cumulative sum": (lambda: (P.cumsum(0) > torch.rand(1)).int().argmax(), ONE),
    "searchsorted": (lambda: torch.searchsorted(P.cumsum(0), torch.rand(1, dtype=torch.float64), right=True), ONE),
    "searchsorted of a number": (lambda: torch.searchsorted(P.cumsum(0), torch.tensor(random.random()).double()), ONE),
    "bucketize": (lambda: torch.bucketize(torch.rand(1), torch.tensor([1 / 2])), HALVES),
    "bisect": (lambda: bisect.bisect(P.cumsum(0).tolist(), random.random()), ONE),
    "floor": (lambda: (torch.rand(1) * 3).floor().long(), THIRDS),
    "long": (lambda: (3 * torch.rand(1)).long(), THIRDS),
    "int of an item": (lambda: int(torch.rand(1).item() * 3), THIRDS),
    "round": (lambda: (torch.rand(()) - 0.5).add(0.5).round().int(), HALVES),
    "exponential race": (lambda: (P / torch.empty_like(P).exponential_(1)).argmax(), ONE),
    "exponential race in place, row by row": (rows_by_view, TWO),
    "exponential race, smallest": (lambda: (empty(4).exponential_() / P).argmin(-1), ONE),
    "race of logarithms": (lambda: (P.log() - torch.empty(4).exponential_().log()).max(-1).indices, ONE),
    "race of logarithms, -log u": (lambda: (P.log() - empty(4).uniform_(1e-10, 1).neg().log1p().neg().log()).argmax(), ONE),
    "Gumbel race": (gumbel_race, ONE),
    "race with a masked token": (in_a_mask, {(0,): 2 / 3, (3,): 1 / 3}),
    "race for two places": (lambda: (P.log() - empty(4).exponential_().log()).topk(2).indices, ORDERED),
    "race by pairs": (python_race, ONE),
    "argsort of uniforms": (lambda: torch.rand(3).argsort(), SHUFFLED),
    "bernoulli": (lambda: torch.bernoulli(torch.tensor([0.5])).long(), HALVES),
    "bernoulli_": (lambda: empty(1).bernoulli_(0.25).int(), {(1,): 0.25, (0,): 0.75}),
    "randint": (lambda: torch.randint(3, (1,)), THIRDS),
    "randint from one": (lambda: torch.randint(1, 4, (1,)) - 1, THIRDS),
    "randperm": (lambda: torch.randperm(3), SHUFFLED),
    "a seed": (seeds, {(7,): 1}),
    "random.random": (lambda: int(random.random() < 0.5), HALVES),
    "random.Random": (lambda: int(random.Random(3).random() >= 0.5), HALVES),
    "random.uniform": (lambda: int(random.uniform(2, 4) < 3), HALVES),
    "random.choices": (lambda: random.choices(range(4), weights=P.tolist()), ONE),
    "random.choice": (lambda: random.choice([0, 1, 2]), THIRDS),
    "random.randrange": (lambda: random.randrange(3), THIRDS),
    "random.randint": (lambda: random.randint(1, 3) - 1, THIRDS),
    "random.sample": (lambda: random.sample(range(3), 3), SHUFFLED),
    "random.shuffle": (lambda: (numbers := [0, 1, 2], random.shuffle(numbers))[0], SHUFFLED),
    "numpy rand": (lambda: (np.random.rand(1) < 0.5).astype(int), HALVES),
    "numpy uniform": (lambda: int(np.random.uniform(1, 3) < 2), HALVES),
    "numpy searchsorted": (lambda: int(np.searchsorted(N.cumsum(), np.random.random(), side="right")), ONE),
    "numpy choice": (lambda: np.random.choice(4, p=N), ONE),
    "numpy choice of two": (lambda: np.random.default_rng(1).choice(4, size=2, replace=False, p=N), ORDERED),
    "numpy randint": (lambda: [int(x) for x in np.random.randint(0, 3, size=1)], THIRDS),
    "numpy multinomial": (lambda: np.random.RandomState(0).multinomial(1, N).argmax(), ONE),
    "numpy Gumbel race": (
        lambda: np.argmax(np.log(N[[0, 1, 3]]) + np.random.gumbel(size=3)),
        {(0,): 0.5, (1,): 0.25, (2,): 0.25},
    ),
    "numpy exponential race": (lambda: (np.random.exponential(size=2) / N[[0, 1]]).argmin(), {(0,): 2 / 3, (1,): 1 / 3}),
    "numpy shuffle": (lambda: np.random.default_rng().permutation(3), SHUFFLED),
    "SeededCoins.categorical": (lambda: SeededCoins(1).categorical(P), ONE),
    "SeededCoins.uniform": (lambda: int(SeededCoins(1).uniform() < P[0]), HALVES),
    "KeyedCoins.categorical": (lambda: KeyedCoins(1).categorical(P), ONE),
}


@pytest.mark.parametrize("name", EXACT)
def test_draw_has_its_exact_distribution(name: str) -> None:
    snippet, expected = EXACT[name]
    assert total_variation(law(snippet), expected) <= 1e-12


def test_wrong_draw_has_another_distribution() -> None:
    """A race whose noise is not exponential, and a comparison against the wrong threshold."""
    assert total_variation(law(lambda: (P.log() - 2 * empty(4).exponential_().log()).argmax()), ONE) > 0.05
    assert total_variation(law(lambda: (torch.rand(1) < 0.25).long()), {(1,): 0.75, (0,): 0.25}) > 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enumeration_restores_all_generators(dtype: torch.dtype) -> None:
    """Afterwards all functions draw again, and the state of the global generators is unchanged."""
    torch.manual_seed(3)
    expected = torch.rand(2, dtype=dtype)
    torch.manual_seed(3)
    state = random.getstate()
    law(lambda: (int(torch.rand(()) < 0.5), random.choice([1, 2])))
    assert torch.equal(torch.rand(2, dtype=dtype), expected) and random.getstate() == state
    assert isinstance(random.random(), float) and isinstance(np.random.default_rng(1), np.random.Generator)


# --- refusals ---------------------------------------------------------------------------------------


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x + torch.rand_like(x)


@torch.jit.script
def scripted_comparison(x: Tensor) -> Tensor:
    return x < 0.5


def raced_again() -> int:
    noise = empty(4).exponential_()
    return int((P / noise).argmax()) + int((P / noise).argmax())


def seed_of_the_default_generator() -> int:
    torch.default_generator.manual_seed(5)
    return 0


def one_seed_twice() -> Tensor:
    """A decoder that seeds each of its steps alike draws the same numbers in every step."""
    coins = [torch.rand(1, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    return torch.cat(coins) < 0.5


def one_seed_of_random_twice() -> list[int]:
    return [random.Random(5).choice([0, 1]) for _ in range(2)]


UNSUPPORTED: dict[str, tuple[Callable[[], Any], str]] = {
    "randn": (lambda: torch.randn(2).argmax(), r"aten\.randn"),
    "normal_": (lambda: empty(2).normal_().argmax(), r"aten\.normal_"),
    "dropout": (lambda: nn.Dropout(0.5)(P).argmax(), "bernoulli_|dropout"),
    "a composite of torch's": (lambda: F.gumbel_softmax(P.log(), hard=True).argmax(), r"aten\.exponential_"),
    "a scripted function": (lambda: scripted(P).argmax(), r"aten\.rand_like"),
    "a scripted comparison": (lambda: scripted_comparison(torch.rand(1)), r"aten\.lt.* reads symbolic numbers"),
    "float()": (lambda: int(math.log(random.random()) < -1), r"float\(\)"),
    "float() of a tensor": (lambda: int(float(torch.rand(())) < 0.5), r"float\(\)"),
    "a sum of noise": (lambda: torch.rand(3).sum() < 1, r"torch\.sum"),
    "cosine": (lambda: torch.rand(1).cos() < 0.9, r"torch\.cos"),
    "addcdiv_ on a plain tensor": (lambda: P.clone().addcdiv_(P, torch.rand(4)).argmax(), r"torch\.addcdiv_"),
    "numpy normal": (lambda: int(np.random.default_rng(1).normal() < 0), "normal"),
    "numpy beta": (lambda: int(np.random.beta(1, 2) < 0.5), "beta"),
}
"""Code, and the call that the refusal names."""

REFUSED: dict[str, Callable[[], Any]] = {
    "noise that raced, again": raced_again,
    "a uniform that was compared, in a race": lambda: ((u := torch.rand(2)) < 0.5) & (u.argsort() > 0),
    "the largest exponential": lambda: empty(3).exponential_().argmax(),
    "the largest of scaled uniforms": lambda: (torch.rand(4) * P).argmax(),
    "two uniforms": lambda: torch.rand(1) < torch.rand(1),
    "the sum of two": lambda: torch.rand(1) + torch.rand(1) < 1,
    "a power": lambda: int(random.random() ** 2 < 0.5),
    "a large number that is looked at": lambda: torch.randint(0, 2**40, (1,)) % 4,
    "a clamp that cuts": lambda: torch.rand(2).clamp(0.2, 0.8) < 0.5,
    "rand in bfloat16": lambda: torch.rand(2, dtype=torch.bfloat16) < 0.5,
    "multinomial in bfloat16": lambda: torch.multinomial(P.bfloat16(), 1),
    "noise rounded to float16": lambda: (P / empty(4).exponential_().half()).argmax(),
    "bits of a uniform": lambda: torch.rand(1).view(torch.int32) < 5,
    "a seed given twice": one_seed_twice,
    "a seed given twice, of random": one_seed_of_random_twice,
    "random, bound before": lambda: int(UNBOUND() < 0.5),
    "numpy, bound before": lambda: int(UNBOUND_NUMPY() < 0.5),
    "torch's own generator": seed_of_the_default_generator,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_operation_is_refused_by_name(name: str) -> None:
    snippet, words = UNSUPPORTED[name]
    with pytest.raises(NotEnumerable, match=words):
        law(snippet)


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_gives_the_reason(name: str, snapshot: SnapshotAssertion) -> None:
    with pytest.raises(NotEnumerable) as raised:
        law(REFUSED[name])
    assert str(raised.value) == snapshot


def test_swallowed_refusal_is_raised_again() -> None:
    def careless() -> int:
        try:
            return int(torch.randn(2).argmax())
        except Exception:
            return 0

    with pytest.raises(NotEnumerable):
        law(careless)


def test_hidden_randomness_is_refused() -> None:
    """A numpy generator that existed before: the same choice then has other probabilities."""

    def run() -> int:
        return int(random.random() < OLD_GENERATOR.random())

    def wrapped() -> int:
        try:
            return run()
        except Exception as error:
            raise RuntimeError("the implementation raised") from error

    for snippet in (run, wrapped):
        with pytest.raises(NotEnumerable, match="hidden randomness"):
            law(snippet)


def test_state_left_over_is_refused() -> None:
    calls: list[int] = []

    def run() -> int:
        calls.append(1)
        return len(calls)

    with pytest.raises(NotEnumerable, match="left over"):
        law(run)


def test_invalid_draw_raises_the_error_of_torch() -> None:
    with pytest.raises(RuntimeError, match="sum of probabilities"):
        law(lambda: torch.multinomial(torch.zeros(3), 1))
    with pytest.raises(RuntimeError, match="p_in <= 1"):
        law(lambda: torch.bernoulli(torch.tensor([1.5])).int())
    with pytest.raises(RuntimeError, match="element < 0"):
        law(lambda: torch.multinomial(torch.tensor([-1.0, 2.0]), 1))


def test_readme_example_prints_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    readme = Path(enumeration.__file__).with_name("README.md").read_text(encoding="utf-8")
    example = readme.split("```python\n")[1].split("```")[0]
    exec(example, {})  # noqa: S102
    assert capsys.readouterr().out.strip() == example.strip().splitlines()[-1].removeprefix("# ")
