"""Figures of `eagle2 acceptance`: τ by cell, kind and context, acceptance by depth, and what --floor and --against decide.

Everything follows from the accepted lengths at the positions of each text. Intervals are 95 %, by bootstrap over prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle2_ref.errors import BadInput
from harness.benchmark.acceptance_record import (
    FEWEST_CHECKED,
    AcceptanceFigures,
    AcceptanceHeader,
    AcceptanceRecord,
    CeilingText,
    Cell,
    CellFigures,
    CheckFigures,
    DecodedText,
    DepthFigures,
    GroupFigures,
    Rate,
    Shape,
    TextAcceptance,
)
from harness.benchmark.figures import group_by, tau_interval
from harness.benchmark.record import select
from harness.record.model import Value
from harness.statistics.intervals import bootstrap, paired_ratio_difference

SHORTEST = 64
"""Tokens of context of the first group; each further group is twice as long."""

ALL = "all"
"""Name of the group of all prompts."""

Array = NDArray[np.float64]


def roots_of(accepted: Sequence[int]) -> list[int]:
    """The positions at which decoding would draft, from the accepted length at every position: the walk from root to root.

    Args:
        accepted: for each new token but the last, the number of draft tokens that the text follows after it.
    """
    roots, position = list[int](), 0
    while position < len(accepted):
        roots.append(position)
        position += accepted[position] + 1
    return roots


def passes_of(accepted: Sequence[int]) -> int:
    """Number of target passes that decode a text, without the one over the prompt."""
    return len(roots_of(accepted))


def acceptance_figures(header: AcceptanceHeader, lines: Sequence[Value]) -> AcceptanceFigures:
    """The figures of the lines of a record."""
    texts, decoded = select(lines, TextAcceptance), select(lines, DecodedText)
    by_temperature = group_by(texts, lambda text: text.temperature)
    prompts = {prompt.id: prompt for prompt in header.prompts}
    return AcceptanceFigures(
        cells=tuple(cell for t, found in by_temperature.items() for cell in _cells(header, t, found)),
        kinds=tuple(
            _group(t, kind, [_text_counts(text) for text in of_kind])
            for t, found in by_temperature.items()
            for kind, of_kind in group_by(found, lambda text: prompts[text.prompt].kind).items()
            if any(text.tree for text in of_kind)
        ),
        contexts=tuple(
            _group(t, context, counts)
            for t, found in by_temperature.items()
            for context, counts in _by_context(found, {name: prompt.length for name, prompt in prompts.items()}).items()
        ),
        depths=tuple(
            one
            for t, found in by_temperature.items()
            for shape, depth in _shapes(header)
            for one in _depths(t, shape, found, depth)
        ),
        checks=tuple(_checks(header, texts, decoded)),
        ceilings=tuple(_ceilings(select(lines, CeilingText), {name: prompt.kind for name, prompt in prompts.items()})),
    )


def figures_of(record: AcceptanceRecord) -> AcceptanceFigures:
    """The figures of a record; of one that was cut off, those of the texts it has."""
    return record.footer.figures if record.footer else acceptance_figures(record.header, record.lines)


def _cells(header: AcceptanceHeader, temperature: float, texts: Sequence[TextAcceptance]) -> Iterator[CellFigures]:
    tokens = np.array([text.tokens - 1 for text in texts], dtype=float)
    for number, cell in enumerate(header.grid):
        passes = np.array([text.passes[number] for text in texts], dtype=float)
        if passes.sum():
            yield CellFigures(
                temperature=temperature, cell=cell, tokens=int(tokens.sum()), passes=int(passes.sum()), tau=_tau(tokens, passes)
            )


def _text_counts(text: TextAcceptance) -> tuple[float, float]:
    """Tokens and passes of a text with the tree of the run."""
    return text.tokens - 1, passes_of(text.tree)


def _group(temperature: float, group: str, counts: Sequence[tuple[float, float]]) -> GroupFigures:
    tokens, passes = np.array(counts, dtype=float).T
    return GroupFigures(
        temperature=temperature, group=group, texts=len(counts), passes=int(passes.sum()), tau=_tau(tokens, passes)
    )


def _by_context(texts: Iterable[TextAcceptance], lengths: dict[str, int]) -> dict[str, list[tuple[float, float]]]:
    """Tokens and passes of each text by the number of tokens up to the root, shorter contexts first."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for text in texts:
        emitted: dict[int, list[int]] = {}
        for root in roots_of(text.tree):
            place = max(0, (lengths[text.prompt] + root + 1).bit_length() - SHORTEST.bit_length() + 1)
            emitted.setdefault(place, []).append(min(text.tree[root] + 1, text.tokens - 1 - root))
        for place, tokens in emitted.items():
            groups.setdefault(place, []).append((sum(tokens), len(tokens)))
    return {_context_name(place): groups[place] for place in sorted(groups)}


def _context_name(place: int) -> str:
    return f"{SHORTEST << place >> 1} to {(SHORTEST << place) - 1}" if place else f"below {SHORTEST}"


def _shapes(header: AcceptanceHeader) -> tuple[tuple[Shape, int], ...]:
    return ("chain", max(cell.depth for cell in header.grid)), ("tree", header.budget.depth)


def _depths(temperature: float, shape: Shape, texts: Sequence[TextAcceptance], deepest: int) -> Iterator[DepthFigures]:
    """Acceptance at each depth, over the positions at which the text is long enough to examine it."""
    for depth in range(1, deepest + 1):
        counts = []
        for text in texts:
            lengths = np.array(getattr(text, shape), dtype=int)
            position = np.arange(len(lengths))
            limit = np.minimum(text.room - position - 2, text.tokens - 1 - position)
            reached = (lengths >= depth - 1) & (limit >= depth)
            counts.append(((lengths >= depth)[reached].sum(), reached.sum()))
        examined = [one for one in counts if one[1]]
        if examined:
            accepted, reached = np.array(examined, dtype=float).T
            yield DepthFigures(
                temperature=temperature, shape=shape, depth=depth, positions=int(reached.sum()), accepted=_tau(accepted, reached)
            )


def _checks(header: AcceptanceHeader, texts: Sequence[TextAcceptance], decoded: Sequence[DecodedText]) -> Iterator[CheckFigures]:
    """The estimate and decoding, on the texts that decoding repeated; on all if rounding left too few of them the same."""
    estimates = {(text.temperature, text.prompt): text for text in texts}
    for (temperature, cell), of_cell in group_by(decoded, lambda one: (one.temperature, one.cell)).items():
        drafted = [one for one in of_cell if one.passes]
        same = [one for one in drafted if one.same]
        found = same if len(same) >= FEWEST_CHECKED else drafted
        if len(found) >= FEWEST_CHECKED:
            place, mine = header.grid.index(cell), [estimates[temperature, one.prompt] for one in found]
            now = _arrays((one.tokens - 1, one.passes) for one in found)
            before = _arrays((text.tokens - 1, text.passes[place]) for text in mine)
            yield CheckFigures(
                temperature=temperature,
                cell=cell,
                texts=len(drafted),
                same=sum(one.same for one in drafted),
                estimated=float(before[0].sum() / before[1].sum()),
                decoded=float(now[0].sum() / now[1].sum()),
                difference=_difference(now, before, paired_ratio_difference(now, before)),
            )


def _ceilings(texts: Sequence[CeilingText], kinds: dict[str, str]) -> Iterator[GroupFigures]:
    """τ of a perfect head on all prompts, and by kind."""
    for t, found in group_by([text for text in texts if text.passes], lambda text: text.temperature).items():
        for group, members in {ALL: found, **group_by(found, lambda text: kinds[text.prompt])}.items():
            yield _group(t, group, [(text.tokens - 1, text.passes) for text in members])


# --- what is judged -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TauChange:
    """τ of one cell in two runs, on the texts that both have."""

    temperature: float
    cell: Cell
    judged: bool
    texts: int
    before: float
    now: float
    difference: Rate

    @property
    def is_lower(self) -> bool:
        """Whether the whole interval of the difference is below 0."""
        return self.difference.high < 0


def compare_with(now: AcceptanceRecord, before: AcceptanceRecord) -> list[TauChange]:
    """τ of every cell that both runs have, with paired differences, on the texts that are the same in both.

    Raises:
        BadInput: the runs have other prompts or settings, most of their texts differ, or the earlier run has not the cell that
            is judged.
    """
    check_comparable(now.header, before.header)
    changes = []
    for temperature in now.header.settings.temperatures:
        texts = _same_texts(now, before, temperature)
        cells = [cell for cell in now.header.grid if cell in before.header.grid]
        changes += [_change(temperature, cell, now, before, texts) for cell in cells if texts]
    return changes


def _same_texts(
    now: AcceptanceRecord, before: AcceptanceRecord, temperature: float
) -> list[tuple[TextAcceptance, TextAcceptance]]:
    """Texts of a temperature that both runs have, token for token. Raises BadInput if most of them differ."""
    mine, theirs = (
        {text.prompt: text for text in record.of(TextAcceptance) if text.tree and text.temperature == temperature}
        for record in (now, before)
    )
    both = [(mine[prompt], theirs[prompt]) for prompt in mine if prompt in theirs]
    same = [pair for pair in both if pair[0].digest == pair[1].digest]
    if 2 * len(same) < len(both):
        raise BadInput(
            f"{len(both) - len(same)} of {len(both)} texts at temperature {temperature:g} differ between the two runs",
            "compare runs with one target, dtype and device, whose texts are the same",
        )
    return same


def _change(
    temperature: float,
    cell: Cell,
    now: AcceptanceRecord,
    before: AcceptanceRecord,
    texts: Sequence[tuple[TextAcceptance, TextAcceptance]],
) -> TauChange:
    places = now.header.grid.index(cell), before.header.grid.index(cell)
    new, old = (_arrays((pair[i].tokens - 1, pair[i].passes[places[i]]) for pair in texts) for i in (0, 1))
    then, today = (float(tokens.sum() / passes.sum()) for tokens, passes in (old, new))
    difference = _difference(new, old, bootstrap(_tau_difference, *new, *old))
    return TauChange(temperature, cell, cell == now.header.budget, len(texts), then, today, difference)


def check_comparable(now: AcceptanceHeader, before: AcceptanceHeader) -> None:
    """Raise BadInput if a run cannot be compared with an earlier one."""
    for name in ("tokens", "temperatures", "seed", "dtype"):
        mine, theirs = getattr(now.settings, name), getattr(before.settings, name)
        if mine != theirs:
            raise BadInput(f"the earlier run had {name} {theirs}, this one has {mine}", "give the settings that its header lists")
    mine_by_id, theirs_by_id = ({prompt.id: prompt.digest for prompt in found.prompts} for found in (now, before))
    if mine_by_id != theirs_by_id:
        first = min(mine_by_id.items() ^ theirs_by_id.items())[0]
        raise BadInput(f"the two runs do not have the same prompts: {first} differs", "give the same --prompts and --limit")
    if now.budget not in before.grid:
        raise BadInput(f"the earlier run has no tree of {now.budget}", "give --budget k,depth,m of one of its cells")


def judged_cells(record: AcceptanceRecord, budget: Cell | None = None) -> list[CellFigures]:
    """τ of the tree that is judged, or of another one, at every temperature."""
    return [one for one in figures_of(record).cells if one.cell == (budget or record.header.budget)]


def below_floor(record: AcceptanceRecord) -> list[tuple[CellFigures, float]]:
    """The temperatures at which the whole interval of τ is below the floor, each with its floor."""
    floors = _floors(record)
    return [
        (one, floors[one.temperature])
        for one in judged_cells(record)
        if one.temperature in floors and one.tau.high < floors[one.temperature]
    ]


def without_figures(record: AcceptanceRecord) -> list[float]:
    """The temperatures that have a floor, but no τ that could be compared with it."""
    return [t for t in _floors(record) if t not in {one.temperature for one in judged_cells(record)}]


def _floors(record: AcceptanceRecord) -> dict[float, float]:
    settings = record.header.settings
    floors = settings.floor * (len(settings.temperatures) if len(settings.floor) == 1 else 1)
    return dict(zip(settings.temperatures, floors, strict=False))


def unchecked(record: AcceptanceRecord) -> list[tuple[float, Cell]]:
    """The trees that a whole run should have decoded on enough texts, and has not."""
    if not record.footer or not record.header.settings.checks:
        return []
    found = {(one.temperature, one.cell) for one in figures_of(record).checks}
    due = [(t, cell) for t in record.header.settings.temperatures for cell in checked_cells(record.header)]
    return [one for one in due if one not in found]


def checked_cells(header: AcceptanceHeader) -> list[Cell]:
    """The trees that are also decoded: the smallest, the judged one, and the largest."""
    return list(dict.fromkeys([header.grid[0], header.budget, header.grid[-1]]))


def disagreements(record: AcceptanceRecord) -> list[CheckFigures]:
    """The checks in which decoding does not have the estimated τ."""
    return [one for one in figures_of(record).checks if not one.agrees]


# --- shared ---------------------------------------------------------------------------------------------------------------


def _arrays(rows: Iterable[tuple[float, float]]) -> tuple[Array, Array]:
    tokens, passes = np.array(list(rows), dtype=float).T
    return tokens, passes


def _tau(tokens: Array, passes: Array) -> Rate:
    low, high = tau_interval(tokens, passes)
    return Rate(value=float(tokens.sum() / passes.sum()), low=low, high=high)


def _difference(now: tuple[Array, Array], before: tuple[Array, Array], interval: tuple[float, float]) -> Rate:
    """τ now less τ before, paired by prompt."""
    low, high = interval
    return Rate(value=float(_tau_difference(*now, *before)), low=low, high=high)


def _tau_difference(tokens: Array, passes: Array, tokens_before: Array, passes_before: Array, axis: int = -1) -> Any:
    return tokens.sum(axis) / passes.sum(axis) - tokens_before.sum(axis) / passes_before.sum(axis)
