"""Enumerate decoders of other projects without editing them: transformers' generation modes and published acceptance rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.distributions.exact import target_law
from harness.distributions.scoring import load_target
from harness.enumeration.exact_law import Progress, enumerate_law, enumerate_rule
from harness.implementations import connect
from harness.implementations.engine import Engine
from harness.pairs import shipped

PAIR, PROMPT = "coin4", [2, 3, 2]
SIZES = ((8, 10), (64, 16), (32_000, 59))
"""Vocabulary size V and number of draft tokens m of the trees on which a rule is enumerated."""


@dataclass(frozen=True)
class Mode:
    """A mode of transformers' `generate`, by the options of its adapter. Ordinary sampling is the control of every mode."""

    name: str
    options: str
    speculate: bool = True


MODES = (
    Mode("ordinary sampling", "method=prompt_lookup", speculate=False),
    Mode("assisted generation", "method=assisted"),
    Mode("prompt lookup", "method=prompt_lookup"),
    Mode("assisted generation, assistant_ensemble_weight=0.5", "method=ensemble,weight=0.5"),
)


@dataclass(frozen=True)
class EnumeratedDecoder:
    """The result of one enumeration.

    Attributes:
        mode: name of the decoder or rule.
        lossless: whether it claims to be lossless.
        distance: total variation between what it emits and the target's distribution; of a mode that was not enumerated in full,
            a lower bound.
        unfinished: probability of the executions that were not run.
    """

    mode: str
    lossless: bool
    executions: int
    seconds: float
    distance: float
    unfinished: float


def enumerate_modes(new_tokens: int = 2, progress: Progress | None = None) -> Iterator[EnumeratedDecoder]:
    """Enumerate every mode on a model of four tokens, in float32, in which transformers' assisted generation computes."""
    pair, params = shipped(PAIR), {"temperature": 1.0, "max_new_tokens": new_tokens}
    expected = target_law(load_target(pair, "float64"), PROMPT, SamplingParams.of(params))
    for mode in MODES:
        implementation = connect(f"transformers:{mode.options}")
        engine = implementation.open(pair, speculate=mode.speculate)
        engine.raw  # noqa: B018  loads the model now: what loading draws is not part of the distribution

        def run(engine: Engine = engine) -> Sequence[int]:
            return engine.generate([PROMPT], [params], [0])[0].tokens

        start = time.perf_counter()
        found = enumerate_law(run, window=new_tokens, most=10_000, progress=progress)
        seconds = time.perf_counter() - start
        lossless = not (implementation.lossy and mode.speculate)
        distance = found.distance(expected)
        yield EnumeratedDecoder(mode.name, lossless, found.executions, seconds, distance, found.unfinished)


def enumerate_rule_sizes(
    name: str, accept: Callable[[DraftTree, Tensor], tuple[Sequence[int], Any]], sizes: Sequence[tuple[int, int]] = SIZES
) -> Iterator[EnumeratedDecoder]:
    """Enumerate a rule that draws for itself on trees of m draft tokens with random distributions, for each size (V, m)."""
    generator = torch.Generator().manual_seed(0)
    for vocab_size, m in sizes:
        tree = DraftTree.of(
            [0, *(node % vocab_size for node in range(1, m + 1))], [-1, *((node - 1) // 3 for node in range(1, m + 1))]
        )
        p = (2 * torch.randn(m + 1, vocab_size, generator=generator, dtype=torch.float64)).softmax(-1)
        start = time.perf_counter()
        found = enumerate_rule(accept, tree, p)
        seconds = time.perf_counter() - start
        label = f"{name}, V = {vocab_size}, m = {m}"
        yield EnumeratedDecoder(label, True, found.executions, seconds, found.distance, found.unfinished)
