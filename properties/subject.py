"""Who is judged, and the truth about its pairs: what every chapter has at hand."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from harness.distributions.noise import Noise, measure_noise
from harness.distributions.scoring import TargetScorer, load_target
from harness.implementations import SHAPE, Implementation
from harness.implementations.engine import AdapterError, Engine, NotApplicable
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.settings import Settings

CALIBRATION = 96
"""Tokens of a text on which the noise of arithmetic is measured."""

TOYS = [[0], [2, 1], [3, 0, 1, 5]]

KEPT = 4
"""Engines that are kept open, of those that can be closed: each may be a process with a model in it."""


@dataclass(frozen=True)
class Subject:
    """The implementation under test, the pair to decode with, and its prompts, cut where they fill more than half the context.

    told: the folder in which the processes of a run tell each other what they have measured.
    """

    asked: Settings
    impl: Implementation
    pair: Pair
    texts: list[Prompt]
    told: Path | None = None
    _opened: dict[Any, Engine] = field(default_factory=dict)

    @classmethod
    def of(cls, asked: Settings, impl: Implementation, pair: Pair, told: Path | None = None) -> Subject:
        texts = [replace(prompt, tokens=prompt.tokens[: pair.context // 2]) for prompt in prompts(pair)]
        return cls(asked, impl, pair, texts, told)

    def open(self, pair: Pair, speculate: bool = True, **options: Any) -> Engine:
        """An engine on a pair, kept for later checks, with the run's device and dtype where its constructor takes them; of the
        bounds of a tree, k, depth and m, those that mean something to it."""
        options = {name: value for name, value in options.items() if name not in SHAPE or self.impl.takes(name)}
        common = {name: getattr(self.asked, name) for name in ("dtype", "device") if self.impl.takes(name)}
        key = (pair, speculate, *sorted(options.items()))
        engine = self._opened.pop(key, None) or self.impl.open(pair, speculate=speculate, **{**common, **options})
        self._opened[key] = engine  # the newest last
        open_ones = [other for other in self._opened.values() if other.closable]
        for oldest in open_ones[:-KEPT]:
            oldest.close()
        return engine

    def sampling(self, pair: Pair, **options: Any) -> dict[str, Any]:
        """Options for an engine that is to emit much text: as many texts a pass as pay, where it offers that."""
        return options | ({"batch": 32 if pair == self.pair else 128} if "batch" in self.impl.capabilities else {})

    def toy(self) -> Pair:
        """The smallest pair without ties, of which filters may keep either token, that it can load: coin4, or dice8, whose heads
        are of a size that all engines know."""
        small = shipped("coin4")
        tree: dict[str, Any] = {"k": 2, "depth": 3, "m": 6} if "budget" in self.impl.capabilities else {}
        try:
            self.open(small, **tree).raw  # noqa: B018
        except (NotApplicable, AdapterError):
            return shipped("dice8")
        return small

    @property
    def rough(self) -> bool:
        """Whether its arithmetic alone departs from the float64 law by more than samples can tell: verdicts then rest on the
        comparison with its own control arm."""
        return self.asked.dtype in ("bfloat16", "float16")

    def some(self, n: int) -> list[Prompt]:
        """n prompts, evenly spread; all of them in the full tier."""
        return self.texts if self.asked.tier == "full" else self.texts[:: max(1, len(self.texts) // n)][:n]

    def scorer(self, pair: Pair) -> TargetScorer:
        """Scores texts with the target in float64."""
        return _scorer(pair, self.asked.device)

    def noise(self, pair: Pair, dtype: str) -> Noise:
        """What a dtype does to the target's logits, on texts that depend on the pair alone: the same for every check of a run.

        It takes seconds, and is measured by the process that needs it first; one that needs it meanwhile measures the same.
        """
        key = hashlib.sha256(f"{pair.target} {dtype} {self.asked.device}".encode()).hexdigest()[:16]
        file = self.told / f"noise-{key}.json" if self.told else None
        if file and file.exists():
            return Noise(**json.loads(file.read_text()))
        noise = self._measured(pair, dtype)
        if file:
            unfinished = file.with_suffix(f".{os.getpid()}")
            unfinished.write_text(json.dumps(asdict(noise)))
            unfinished.replace(file)
        return noise

    def _measured(self, pair: Pair, dtype: str) -> Noise:
        room = min(CALIBRATION, pair.context - 1)
        texts = [prompt.tokens for prompt in self.texts[:3]] if pair == self.pair else TOYS
        filled = tuple(tuple(token % pair.vocab_size for token in (text * room)[:room]) for text in texts)
        return _noise(pair, dtype, self.asked.device, filled)

    def plain(self, pair: Pair, dtype: str) -> PreTrainedModel:
        """The target through transformers alone."""
        return _plain(pair, dtype, self.asked.device)


@cache
def _scorer(pair: Pair, device: str) -> TargetScorer:
    return TargetScorer(_plain(pair, "float64", device))


@cache
def _noise(pair: Pair, dtype: str, device: str, texts: tuple[tuple[int, ...], ...]) -> Noise:
    high = _plain(pair, "float64", device)
    low = high if dtype == "float64" else load_target(pair, dtype, device)
    return measure_noise(low, high, texts)


@cache
def _plain(pair: Pair, dtype: str, device: str) -> PreTrainedModel:
    return load_target(pair, dtype, device)
