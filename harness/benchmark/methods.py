"""The arms of `eagle2 compare`: every method on the same network, with its own options and at equal budget."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Checkpoint, Method
from eagle2_ref.drafters.eagle2 import TreeBudget
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS, MethodSpec
from eagle2_ref.model.network import Network
from eagle2_ref.model.target import Target
from harness.benchmark.acceptance_grid import method_of
from harness.benchmark.presets import Preset
from harness.benchmark.record import Entrant
from harness.benchmark.settings import Checkpoints, CompareSettings
from harness.implementations import Connectable
from harness.pairs import Pair


def find_checkpoints(pair: Pair, small: str = "", medusa: str = "", eagle3: str = "", model: Preset | None = None) -> Checkpoints:
    """The checkpoints of a pair by kind. A pair that is not a shipped one has only a head; the others are given by options.

    The kind of this head is that of the preset, or that of the checkpoint.
    """
    found: dict[str, Path | None] = {"draft": pair.draft, "none": pair.draft}
    given: dict[Checkpoint, str] = {"small": small, "medusa": medusa, "eagle3": eagle3}
    kind = model.checkpoint if model else method_of(pair.draft).checkpoint if pair.own else "draft"
    if kind != "draft":
        found["draft"], given[kind] = None, given[kind] or str(pair.draft)
    for kind, folder in given.items():
        if folder and not Path(folder).is_dir():
            raise BadInput(f"--{kind} {folder} is not a directory", "give the directory of a checkpoint")
        found[kind] = Path(folder) if folder else None if pair.own else pair.drafter(kind)
    return found


@dataclass(frozen=True)
class MethodArm:
    """A method with its options, and its decoder on the shared network."""

    entrant: Entrant
    decoder: Decoder


class MethodArms:
    """All methods that can be run, in the order of the settings. left_out: the other arms, each with the reason."""

    def __init__(self, settings: CompareSettings, target: Target, checkpoints: Checkpoints, pair: str) -> None:
        self.left_out: dict[str, str] = {}
        self.arms = list(self._open(settings, target, checkpoints, pair))
        if not self.arms:
            raise BadInput("no method can be run", "; ".join(f"{arm}: {reason}" for arm, reason in self.left_out.items()))

    def _open(self, settings: CompareSettings, target: Target, checkpoints: Checkpoints, pair: str) -> Iterator[MethodArm]:
        named = dict.fromkeys((*settings.names, *(arm.partition(":")[0] for arm in settings.arm)))
        for spec in (METHODS[name] for name in named):
            draft = checkpoints[spec.checkpoint]
            if draft is None:
                self.left_out[spec.name] = f"{pair} has no checkpoint {spec.checkpoint!r}, which this method drafts with"
                continue
            own, equal = spec.make(**own_options(spec, settings)), at_equal_budget(spec, settings)
            yield _method_arm(spec, own, target.network, draft, own=True, equal=own == equal)
            for arm in (arm for arm in settings.arm if arm.partition(":")[0] == spec.name):
                yield _method_arm(spec, _with_options(spec, arm), target.network, draft, own=True, equal=False, name=arm)
            if equal is not None and equal != own:
                try:
                    yield _method_arm(spec, equal, target.network, draft, own=False, equal=True)
                except BadInput as error:  # the method has no tree of this size
                    self.left_out[f"{spec.name}, m = {settings.m}"] = str(error).splitlines()[0]


def own_options(spec: MethodSpec, settings: CompareSettings) -> dict[str, Any]:
    """Options that differ from the method's defaults: a preset has its own budget for EAGLE-2's dynamic trees."""
    if not settings.model or not (isinstance(spec.make, type) and issubclass(spec.make, TreeBudget)):
        return {}
    return {field.name: getattr(settings.model.budget, field.name) for field in fields(TreeBudget)}


def at_equal_budget(spec: MethodSpec, settings: CompareSettings) -> Method | None:
    """The method with m draft tokens per pass: a tree of m nodes, a chain of m tokens, or at most m tokens in equal guesses.

    Returns:
        The method, or None if the number of draft tokens cannot be chosen, or if m is 0.
    """
    defaults = {name: option.default for name, option in inspect.signature(spec.make).parameters.items()}
    own, m = {**defaults, **own_options(spec, settings)}, settings.m
    if not m:
        return None
    if "m" in own:
        return spec.make(**own_options(spec, settings) | {"m": m})
    if "k" in own:  # k guesses of one length, possibly after a chain
        guess = own.get("phrase", own["depth"])
        return spec.make(k=max(1, (m - (own["depth"] - guess)) // guess))
    return spec.make(depth=m) if "depth" in own else None


def _with_options(spec: MethodSpec, arm: str) -> Method:
    """The method of an arm METHOD:OPTIONS. Raises BadInput for an option that it does not have."""
    name, _, rest = arm.partition(":")
    return spec.options(**Connectable(arm, name, rest, 0.0).options)


def _method_arm(
    spec: MethodSpec, method: Method, network: Network, draft: Path, own: bool, equal: bool, name: str = ""
) -> MethodArm:
    target = Target(network)
    options: Any = method
    entrant = Entrant(
        arm=name or (spec.name if own else f"{spec.name}, equal"),
        method=spec.name,
        title=f"{spec.title}, {name.partition(':')[2].replace(',', ' ')}" if name else spec.title,
        paper=spec.paper,
        rule=spec.rule,
        options=asdict(options),
        own=own,
        equal=equal,
    )
    return MethodArm(entrant, Decoder(target, method.drafter(target, draft), spec.rule_of("")))
