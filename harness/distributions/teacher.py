"""The teacher: what the target would have said at every position of a text that somebody emitted, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.model.target import Target, load_model
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.distributions.forcing import logits_along, processed
from harness.pairs import Pair
from harness.statistics.intervals import clopper_pearson_upper

WAY = 10
"""Depth of the trees on which noise is measured."""

ROUNDING = 1e-6
"""Between two orders of float64 arithmetic, in logits: generous."""


@dataclass(frozen=True)
class Divergence:
    """A position at which the emitted token is not the one the target would have emitted there.

    margin: by how much (in logits) the target preferred its own token. A tie if the margin is within the noise of the
    arithmetic, a fault otherwise. p: the target's probability of the emitted token, before any greediness.
    """

    position: int
    emitted: int
    expected: int
    margin: float
    p: float


@dataclass(frozen=True)
class Noise:
    """What arithmetic in a dtype does to the target. logits: the largest difference to any of the 8 likeliest tokens.

    flips of positions: how often another token than that of float64 was the likeliest, in one pass or another.
    """

    logits: float
    flips: int
    positions: int

    @property
    def tolerance(self) -> float:
        """How far a token of low precision may be behind the best one in float64: both may err, each half as much again."""
        return 3 * self.logits

    def too_many(self, ties: int, tokens: int) -> float:
        """p-value of so many ties among so many tokens, if they come as often as flips may (99.9 % bound) in calibration."""
        most = clopper_pearson_upper(self.flips, self.positions, 0.999)
        return float(binom.sf(ties - 1, tokens, most))


class Teacher:
    """The target in float64, and what the same weights say in the dtype under test: their difference is the noise."""

    def __init__(self, pair: Pair, dtype: str = "float32", device: str = "cpu", model: PreTrainedModel | None = None) -> None:
        """model: the target in float64, where it is at hand."""
        self.model = model or load_plain(pair, "float64", device)
        self.dtype, self._pair, self._device = dtype, pair, device
        self._noise: Noise | None = None

    def noise(self, texts: Sequence[Sequence[int]]) -> Noise:
        """What the dtype under test does to the target's logits, measured once, on texts of the pair, of one length.

        A pass over a whole text, one token at a time with a cache, and a draft tree verified in one pass, each against
        float64. (They round differently from each other, and all are the target.)
        """
        if self._noise is None:
            low = self.model if self.dtype == "float64" else load_plain(self._pair, self.dtype, self._device)
            self._noise = _calibrate(low, self.model, texts)
        return self._noise

    def logits(self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Of each text [n, V], before sampling parameters."""
        return logits_along(self.model, prompts, texts)

    def greedy_divergences(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: SamplingParams
    ) -> list[list[Divergence]]:
        """Where each text departs from greedy decoding, each position judged on the text's own past."""
        return [
            _divergences(scores, scores, len(prompt), text)
            for prompt, text, scores in zip(prompts, texts, self._scores(prompts, texts, params), strict=True)
        ]

    def coupled_divergences(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[list[Divergence]]:
        """Where each text departs from ordinary sampling with KeyedCoins of its seed: everywhere the winner of p / noise.

        Races are run in logits: log p - log noise. Equality at every position is, by induction, equality with the text that
        ordinary sampling emits.
        """
        found = []
        for prompt, text, seed, scores in zip(prompts, texts, seeds, self._scores(prompts, texts, params), strict=True):
            coins, logs = KeyedCoins(seed), scores.log_softmax(-1)
            noise = torch.stack([coins.noise(len(prompt) + i, logs.shape[-1]) for i in range(len(text))])
            found.append(_divergences(logs - noise.log().to(logs), logs, len(prompt), text))
        return found

    def _scores(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: SamplingParams
    ) -> Iterator[Tensor]:
        for prompt, text, logits in zip(prompts, texts, self.logits(prompts, texts), strict=True):
            yield processed(logits, torch.tensor([[*prompt, *text]], device=logits.device), len(prompt), params)


def load_plain(pair: Pair, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """The target through transformers alone."""
    return load_model(pair.target, dtype, device).eval()


def _divergences(scores: Tensor, logits: Tensor, start: int, tokens: Sequence[int]) -> list[Divergence]:
    """Where the tokens are not those of the highest scores; `logits` are what the scores were made of, and tell probabilities."""
    emitted = torch.tensor(list(tokens), device=scores.device)
    best, expected = scores.max(-1)
    # Of equal logits the first counts, as argmax has it: another one of them diverges with a margin of 0.
    margins = (best - scores.gather(-1, emitted[:, None])[:, 0]).tolist()
    p = logits.softmax(-1).gather(-1, emitted[:, None])[:, 0].tolist()
    return [
        Divergence(start + i, int(emitted[i]), int(expected[i]), margins[i], p[i])
        for i in (expected != emitted).nonzero()[:, 0].tolist()
    ]


@torch.inference_mode()
def _calibrate(low: PreTrainedModel, high: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Noise:
    """On texts of one length, beside each other in all passes but those over trees."""
    tokens = torch.tensor([list(text) for text in texts], device=high.device)
    truth, cache = high(tokens).logits, DynamicCache()
    steps = [low(tokens[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(tokens.shape[1])]
    exactly = list(_along_trees(high, texts, truth))
    along = exactly if low is high else _along_trees(low, texts, truth)
    seen = [(low(tokens).logits, truth), (torch.cat(steps, dim=1), truth), *along]
    wrong = max((float((logits - due).abs().max()) for logits, due in exactly), default=0.0)
    assert wrong <= ROUNDING, f"a tree is verified wrongly by {wrong:.1e} in float64: that is no noise, and would hide faults"
    return Noise(
        logits=max(_farthest(logits.double(), due) for logits, due in seen),
        flips=sum(int((logits.argmax(-1) != due.argmax(-1)).sum()) for logits, due in seen),
        positions=sum(due[..., 0].numel() for _, due in seen),
    )


def _farthest(logits: Tensor, due: Tensor) -> float:
    """The largest difference to any of the 8 likeliest tokens of a position."""
    likeliest = due.topk(min(8, due.shape[-1]), dim=-1).indices
    return float((logits - due).gather(-1, likeliest).abs().max())


def _along_trees(model: PreTrainedModel, texts: Sequence[Sequence[int]], truth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of a model along the main path of every tree, and what is due there: rows of the truth [texts, n, V]."""
    for text, due in zip(texts, truth, strict=True):
        for start, logits in _trees(model, text):
            yield logits, due[start : start + len(logits)]


def _trees(model: PreTrainedModel, text: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Logits along a text that is verified as the main path of three draft trees; and where each tree begins.

    Every node of the path has a sibling, which stands before it: a mask that lets it be seen shows.
    """
    target, found = Target(model), []
    for start in range(1, len(text) - WAY, max(WAY, len(text) // 3)):
        cache = target.cache()
        target.prefill([cache], [text[:start]])
        root, *path = text[start : start + WAY + 1]
        tokens = [root, *(node for token in path for node in ((token + 1) % target.vocab_size, token))]
        parents = [-1, *(2 * depth for depth in range(WAY) for _ in range(2))]
        found.append((start, target.verify([cache], [DraftTree.of(tokens, parents)])[0].logits[::2]))
    return found
