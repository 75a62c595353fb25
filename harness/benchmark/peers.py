"""Other implementations next to the methods of `eagle2 compare`, on the same checkpoints, prompts and end tokens."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from eagle2_ref.model.target import load_model, torch_device
from harness.benchmark.arms import TRANSFORMERS, Arm, EngineArm, TransformersArm
from harness.benchmark.record import Entrant
from harness.benchmark.settings import Checkpoints, CompareSettings, portable_name
from harness.benchmark.timing import Clock
from harness.implementations import connect
from harness.implementations.engine import AdapterError, Engine, NotApplicable
from harness.pairs import Pair

TIME_LIMIT = 600.0
"""Seconds that one call of another implementation may take."""


@dataclass(frozen=True)
class Peers:
    """Arms of other implementations with their descriptions, and those that cannot be opened, each with the reason."""

    arms: dict[str, Arm]
    entrants: tuple[Entrant, ...]
    left_out: dict[str, str]


NO_PEERS = Peers({}, (), {})


def open_peers(
    settings: CompareSettings, pair: Pair, checkpoints: Checkpoints, ends: tuple[int, ...], clock: Clock, stack: ExitStack
) -> Peers:
    """Open what --transformers and --beside name. An implementation that cannot be opened is left out.

    Args:
        settings: settings of the run.
        pair: the pair whose target all arms decode.
        checkpoints: what implementations draft with.
        ends: tokens that end a text.
        clock: the clock.
        stack: closes them.

    Raises:
        BadInput: a connectable is wrong.
    """
    arms, entrants, left_out = dict[str, Arm](), list[Entrant](), dict[str, str]()
    if settings.transformers:
        model = load_model(pair.target, settings.dtype).to(torch_device(settings.device)).eval()
        arms[TRANSFORMERS] = TransformersArm(model, clock, ends, counted=True)
        entrants.append(_entrant(TRANSFORMERS, "generate() of transformers"))
    for connectable in settings.beside:
        name = portable_name(connectable)
        try:
            engine = _open(connectable, settings, pair, checkpoints)
        except (AdapterError, NotApplicable) as error:
            left_out[name] = str(error).splitlines()[0]
            continue
        stack.callback(engine.close)
        arms[name] = EngineArm(engine, clock, ends, separate=True)
        entrants.append(_entrant(name, engine.implementation.version or "version not reported"))
    return Peers(arms, tuple(entrants), left_out)


def _open(connectable: str, settings: CompareSettings, pair: Pair, checkpoints: Checkpoints) -> Engine:
    implementation = connect(connectable, TIME_LIMIT)
    draft = checkpoints.get(implementation.checkpoint)
    if draft is None:
        raise NotApplicable(f"{pair.name} has no checkpoint {implementation.checkpoint!r}, which this method drafts with")
    common = {"dtype": settings.dtype, "device": settings.device}
    options: dict[str, Any] = {name: value for name, value in common.items() if implementation.takes(name)}
    engine = implementation.open(replace(pair, draft=draft, own=True), **options)
    engine.raw  # noqa: B018  opens it
    return engine


def _entrant(name: str, version: str) -> Entrant:
    return Entrant(arm=name, method=name, title=name, paper=version, rule="its own", options={}, own=True, equal=False, peer=True)
