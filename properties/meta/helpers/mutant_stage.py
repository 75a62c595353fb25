"""A property called as pytest would call it, for any implementation, on the fastest pair that shows a fault."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from harness.catalogue import catalogue
from harness.implementations import connect
from harness.implementations.engine import AdapterError, Missing, NotApplicable
from harness.mutants.cases import MIN_P, ONE_LAYER, TOLD_COOLER
from harness.pairs import Pair, Prompt, prompts, shipped
from harness.pytest_plugin import Judge
from harness.record.model import Property, Result
from harness.settings import Settings
from properties import test_count, test_law, test_law_sampled
from properties.cells import Campaign
from properties.meta.helpers import tiny
from properties.subject import Subject

BUDGET = {"k": 3, "depth": 3, "m": 8}
NEW = 32
MANY = {"k": 40, "depth": 2, "m": 40}
"""Nearly all of 42 tokens are drafted, so that most drafts are accepted."""

WHOLE = {"k": 4, "depth": 3, "m": 36}
"""Nearly the whole tree of four tokens, so that blocks are long."""

LEARNT = {"k": 4, "depth": 4, "m": 12}
"""For a pair whose head has learnt something, so that what ruins the head is seen in tau."""


SHOWN = [
    ("SMOKE-1", ""),
    ("LAW-1", ONE_LAYER),
    ("LAW-1", MIN_P),
    ("GREEDY-1", "plain"),
    ("GREEDY-4", ""),
    ("TREE-1", ""),
    ("TREE-2", ""),
    ("CACHE-1", ""),
    ("STOP-2", ""),
    ("STOP-4", ""),
    ("COUNT-1", ""),
    ("TOLD-1", TOLD_COOLER),
    ("TOLD-2", "T=1"),
]
"""What every control is shown where time is short: of each kind of check the cheapest."""


class Heard(Exception):
    """The verdict that a check came to; whatever it would have done after it is left out."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.verdict, result.summary)
        self.result = result


@dataclass(frozen=True)
class Scene:
    """What the properties are given. Samples are few: what small faults need is a matter of statistics, not of wiring.

    folder: holds a pair of many tokens, and the tau of the reference on the scene's prompts.
    """

    asked: Settings
    folder: Path

    @classmethod
    def set(cls, folder: Path, asked: Settings | None = None) -> Scene:
        """A scene in an empty folder."""
        tiny.pair(folder / "bytes", vocab_size=42)
        return cls(asked or Settings(), folder)

    def verdict(self, name: str, case: str, connectable: str) -> Result:
        """What a property says of an implementation on one of its own cases, with what it measured, and seconds.

        Whatever stops the check is a result too, as in a run of pytest: not applicable, broken, or inconclusive.
        """
        told, function = _property(name)
        start = time.perf_counter()
        try:
            with self._reduced():
                function(
                    judge=Judge(told, case, self.asked, _hear), subject=self._subject(name, connectable), **_of(function, case)
                )
            raise AssertionError(f"{name} came to no verdict")
        except Heard as said:
            result = said.result
        except (NotApplicable, AdapterError, BadInput, Missing) as error:
            broken = isinstance(error, AdapterError | BadInput)
            verdict = "n/a" if isinstance(error, NotApplicable) else "inconclusive"
            result = Result(property=name, case=case, verdict=verdict, summary=str(error), broken=broken)
        return result.model_copy(update={"seconds": time.perf_counter() - start})

    def _subject(self, name: str, connectable: str) -> Subject:
        implementation = connect(connectable)
        pair, budget, texts = self._place(name, implementation.method)
        if "budget" in implementation.capabilities:
            taken = {bound: size for bound, size in budget.items() if implementation.takes(bound)}
            implementation = replace(implementation, options={**taken, **implementation.options})
        return replace(Subject.of(self.asked, implementation, pair), texts=texts)

    def _place(self, name: str, method: str) -> tuple[Pair, dict[str, int], list[Prompt]]:
        """The pair that a property is shown on, the budget, and the prompts."""
        if name in ("COUNT-2", "COUNT-3"):
            self._figure(method)
            return shipped("stdlib"), LEARNT, _learnt_prompts()
        if name == "CACHE-2":  # of a target whose last norm has learnt something; with prompts that begin alike
            pair = shipped("stdlib")
            return pair, BUDGET, [replace(prompts(pair)[0], tokens=prompts(pair)[0].tokens[:n]) for n in (8, 12, 16)]
        folder = self.folder / "bytes"
        # Where it matters which tokens a text holds, there must be more tokens than a text can hold.
        many = name in ("STOP-3", "LAW-3") or name.startswith("BATCH")
        pair = Pair("bytes", folder / "target", folder / "draft") if many else shipped("coin4")
        # Short and of several lengths: a context of 24 tokens has to have room for several blocks.
        short = [replace(prompt, tokens=prompt.tokens[: 4 + i % 3]) for i, prompt in enumerate(prompts(pair))]
        if name == "LAW-8":
            short = short[:1]
        return pair, {"STOP-3": MANY, "COUNT-1": WHOLE}.get(name, BUDGET), short

    def _figure(self, method: str) -> None:
        """Write the tau that COUNT-2 reads: the reference's own by that method, on the prompts of the scene."""
        path = self.folder / "pairs" / "stdlib" / "tau.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        methods = json.loads(path.read_text())["methods"] if path.exists() else {}
        if method in METHODS and method not in methods:
            methods[method] = _figure_of_the_reference(method)
            path.write_text(json.dumps({"max_new_tokens": NEW, "methods": methods}))

    @contextlib.contextmanager
    def _reduced(self) -> Iterator[None]:
        sample = test_law_sampled._sample

        def fewer(engine: Any, prompt: Any, params: Any, n: int, seed: int) -> Any:
            return sample(engine, prompt, params, n // 10, seed)

        with (
            patch.object(test_law_sampled, "_sample", fewer),
            patch.object(test_law, "INSTANCES", test_law.INSTANCES // 4),
            patch.object(test_count, "FIXTURES", self.folder),
        ):
            yield


def is_dead(result: Result) -> bool:
    """Whether a mutant was found out: a fault, or an answer that is none. Such a run never ends as a pass."""
    return result.verdict == "fault" or result.broken


def _hear(result: Result) -> None:
    raise Heard(result)


@cache
def _property(name: str) -> tuple[Property, Callable[..., None]]:
    place, told = next((place, told) for place, told in catalogue().items() if told.id == name)
    file, _, function = place.partition("::")
    return told, getattr(importlib.import_module(f"properties.{file.removesuffix('.py')}"), function)


def cases_of(name: str, full: bool = False) -> list[str]:
    """The cases of a property, [""] if it has none; those of the full tier on demand."""
    marks = [mark for mark in getattr(_property(name)[1], "pytestmark", []) if mark.name == "parametrize"]
    return [
        getattr(value, "id", None) or mark.kwargs.get("ids", mark.args[1])[i]
        for mark in marks
        for i, value in enumerate(mark.args[1])
        if full or not getattr(value, "marks", ())
    ] or [""]


def _of(function: Callable[..., None], case: str) -> dict[str, Any]:
    """What pytest.mark.parametrize gives a property for one of its cases."""
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    for mark in marks:
        name, values = mark.args
        for i, value in enumerate(values):
            plainly = value.values[0] if hasattr(value, "values") else value
            if case == (getattr(value, "id", None) or mark.kwargs.get("ids", values)[i]):
                return {name: replace(plainly, tokens=plainly.tokens // 5) if isinstance(plainly, Campaign) else plainly}
    assert not marks and not case, f"there is no case {case!r}"
    return {}


def _learnt_prompts() -> list[Prompt]:
    return [replace(prompt, tokens=prompt.tokens[:32]) for prompt in prompts(shipped("stdlib"))[::12]]


@cache
def _figure_of_the_reference(method: str) -> dict[str, Any]:
    implementation = connect(f"ref:drafter={method}")
    options: dict[str, Any] = {bound: size for bound, size in LEARNT.items() if implementation.takes(bound)}
    coupled: dict[str, Any] = {"rule": "walk"} if "rules" in implementation.capabilities else {}
    engine = implementation.open(shipped("stdlib"), **options, **coupled)

    def tau(temperature: float) -> float:
        params = {"temperature": temperature, "max_new_tokens": NEW}
        texts = [prompt.tokens for prompt in _learnt_prompts()]
        return test_count.tau_of([engine.decode(text, params, KeyedCoins(i)) for i, text in enumerate(texts)])

    return {"options": options, "tau": {name: tau(float(name)) for name in ("0", "1")}}
