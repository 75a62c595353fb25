"""The head of `eagle2 acceptance`, and the draft trees that are measured with it."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from os.path import lexists
from pathlib import Path
from typing import Any

from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.checkpoint import is_eagle3
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.drafters.medusa import PUBLISHED, MedusaDrafter
from eagle2_ref.drafters.tree_choices import prune
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS, MethodSpec
from eagle2_ref.model.config import read_config
from harness.benchmark.acceptance_record import Cell
from harness.benchmark.settings import AcceptanceSettings
from harness.pairs import Pair

GRIDS = {
    "eagle2": ((1, 4, 8), (2, 4, 6), (4, 8, 12, 25, 40, 60)),
    "eagle3": ((1, 4, 8), (2, 4, 6), (4, 8, 12, 25, 40, 60)),
    "medusa": ((1, 4, 10), (2, 3, 4), (4, 8, 16, 32, 63)),
}
"""Values of k, depth and m of the grid by the method that drafts with a head."""


def with_head(pair: Pair, drafter: str) -> Pair:
    """The pair with the head that a method drafts with, or with its usual one if no method is named.

    Raises:
        BadInput: the method has no head that can be measured, or the pair has none for it.
    """
    if not drafter:
        return pair
    if drafter not in GRIDS:
        raise BadInput(f"--drafter {drafter} has no head that can be measured", f"choose one of {', '.join(GRIDS)}")
    folder = pair.drafter(METHODS[drafter].checkpoint)
    if folder is None:
        raise BadInput(f"{pair.name} has no head for {drafter}", "give --target and --draft, or another --pair")
    if (found := method_of(folder).name) != drafter:
        raise BadInput(f"{folder} has a head for {found}, not for {drafter}", "leave --drafter out")
    return replace(pair, draft=folder)


def method_of(draft: Path) -> MethodSpec:
    """The method that drafts with the head of a directory, by its configuration. EAGLE-1 heads have EAGLE-2's layout, and get
    EAGLE-2's trees. Raises BadInput if there is no head."""
    if not lexists(draft / "config.json"):
        raise BadInput(f"no head at {draft}: config.json is missing", "give --draft the directory of a draft head")
    config = read_config(draft).raw
    return METHODS["medusa" if "num_heads" in config else "eagle3" if is_eagle3(config) else "eagle2"]


def largest(drafter: Drafter, k: int, depth: int) -> Cell:
    """The cell whose tree has all candidates of a k and a depth. Medusa has no more layers than heads."""
    if not isinstance(drafter, MedusaDrafter):
        return Cell(k=k, depth=depth, m=Budget(k, depth).pool)
    depth = min(depth, len(drafter.heads))
    return Cell(k=k, depth=depth, m=len(prune(PUBLISHED, k, depth, len(PUBLISHED))))


def sized(drafter: Drafter, cell: Cell) -> Drafter:
    """A drafter with the same head, and trees of another size."""
    other = copy(drafter)
    if isinstance(other, MedusaDrafter):
        other.choices = prune(PUBLISHED, cell.k, cell.depth, cell.m)
    else:
        assert isinstance(other, Eagle2)  # EAGLE-3's drafter is one too
        other.budget = replace(other.budget, k=cell.k, depth=cell.depth, m=cell.m)
    return other


def grid_of(settings: AcceptanceSettings, method: MethodSpec, drafter: Drafter, vocab_size: int) -> tuple[list[Cell], Cell]:
    """All cells of the grid, and the one that is judged. Where there are fewer candidates than m, m is their number."""
    default: Any = method.make()
    vocabulary = getattr(drafter, "vocabulary", None)
    most = vocab_size if vocabulary is None else len(vocabulary)  # of a head with a draft vocabulary
    if (widest := max((*settings.k, *settings.budget[:1]), default=0)) > most:
        raise BadInput(
            f"k is {widest}, but the head can propose {most} tokens", f"give --k and --budget with k of at most {most}"
        )
    usual_k, usual_depth, usual_m = GRIDS[method.name]
    ks, depths, ms = settings.k or [k for k in usual_k if k <= most], settings.depth or usual_depth, settings.m or usual_m
    own = settings.budget or (min(default.k, most), default.depth, default.m)
    wanted = [own, *((k, depth, m) for k in sorted(ks) for depth in sorted(depths) for m in sorted(ms))]
    whole = [(largest(drafter, k, depth), m) for k, depth, m in wanted]
    cells = [cell.model_copy(update={"m": min(m, cell.m)}) for cell, m in whole]
    return sorted(dict.fromkeys(cells), key=lambda cell: (cell.k, cell.depth, cell.m)), cells[0]
