"""Who is compared: every method on the very same network, with its own options, and again with as many draft tokens as all."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Checkpoint, Method
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS, MethodSpec
from eagle2_ref.model.network import Network
from eagle2_ref.model.target import Target
from harness.compare.record import Entered
from harness.compare.settings import Checkpoints, Settings
from harness.pairs import Pair


def checkpoints(pair: Pair, small: str = "", medusa: str = "") -> Checkpoints:
    """Those of a pair. One of one's own has a head; what else there is, is given beside it."""
    found: dict[Checkpoint, Path | None] = {"draft": pair.draft, "none": pair.draft}
    given: dict[Checkpoint, str] = {"small": small, "medusa": medusa}
    for kind, folder in given.items():
        if folder and not Path(folder).is_dir():
            raise BadInput(f"--{kind} {folder} is not a directory", "give the directory of a checkpoint")
        found[kind] = Path(folder) if folder else None if pair.own else pair.drafter(kind)
    return found


@dataclass(frozen=True)
class Contender:
    """A method with its options; its decoder on a network that all of them share."""

    entered: Entered
    decoder: Decoder


class Arms:
    """All that can be run, in the order in which they were asked for; `left_out`: by arm, why the others cannot."""

    def __init__(self, settings: Settings, target: Target, found: Checkpoints, pair: str) -> None:
        self.left_out: dict[str, str] = {}
        self.contenders = list(self._opened(settings, target, found, pair))
        if not self.contenders:
            raise BadInput("no method can be run", "; ".join(f"{arm}: {why}" for arm, why in self.left_out.items()))

    def _opened(self, settings: Settings, target: Target, found: Checkpoints, pair: str) -> Iterator[Contender]:
        for family in (METHODS[name] for name in settings.names):
            draft = found[family.checkpoint]
            if draft is None:
                self.left_out[family.name] = f"{pair} has no checkpoint {family.checkpoint!r}, which it drafts with"
                continue
            own, equal = family.make(**own_options(family, settings)), sized(family, settings)
            yield _contender(family, own, target.network, draft, own=True, equal=own == equal)
            if equal is not None and equal != own:
                try:
                    yield _contender(family, equal, target.network, draft, own=False, equal=True)
                except BadInput as error:  # it has no tree of so many nodes
                    self.left_out[f"{family.name}, m = {settings.m}"] = str(error).splitlines()[0]


def own_options(family: MethodSpec, settings: Settings) -> dict[str, Any]:
    """Its defaults; a preset has a budget of its own for EAGLE-2's dynamic trees."""
    dynamic = isinstance(family.make, type) and issubclass(family.make, Budget)
    return asdict(settings.model.budget) if settings.model and dynamic else {}


def sized(family: MethodSpec, settings: Settings) -> Method | None:
    """The method with m draft tokens a pass: a tree of m, a chain of m, or as many guesses of one length as make no more.

    None where that has no meaning, and where it is not asked for.
    """
    own, m = {**_defaults(family), **own_options(family, settings)}, settings.m
    if not m:
        return None
    if "m" in own:
        return family.make(**own_options(family, settings) | {"m": m})
    if "k" in own:
        guess = own.get("phrase", own["depth"])
        return family.make(k=max(1, (m - (own["depth"] - guess)) // guess))
    return family.make(depth=m) if "depth" in own else None


def _defaults(family: MethodSpec) -> dict[str, Any]:
    return {name: option.default for name, option in inspect.signature(family.make).parameters.items()}


def _contender(family: MethodSpec, method: Method, network: Network, draft: Path, own: bool, equal: bool) -> Contender:
    target = Target(network)
    options: Any = method
    entered = Entered(
        arm=family.name if own else f"{family.name}, equal",
        method=family.name,
        title=family.title,
        paper=family.paper,
        rule=family.rule,
        options=asdict(options),
        own=own,
        equal=equal,
    )
    return Contender(entered, Decoder(target, method.drafter(target, draft), family.rule_of("")))
