"""What a comparison shows, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bench.arms import VANILLA
from harness.compare.figures import ALL, ORDER, Ordered, of, ordered
from harness.compare.record import Parted, Record
from harness.report.words import listed, several


def sentence(record: Record) -> str:
    """Who emits the most tokens a pass, who is the fastest, and EAGLE-2 among them."""
    titles = {one.arm: one.title for one in record.header.entered if one.own}
    rows, told = [row for row in of(record) if row.prompts == ALL and row.arm in titles], list[str]()
    for temperature in record.header.settings.temperatures:
        mine = [row for row in rows if row.temperature == temperature]
        if not mine:
            continue
        most, fastest = max(mine, key=lambda row: row.tau), max(mine, key=lambda row: row.speed)
        quick = f"{fastest.speed:.2f} times ({fastest.speed_low:.2f}–{fastest.speed_high:.2f}) as fast as ordinary decoding"
        who = "and is the fastest" if fastest is most else f"the fastest is {titles[fastest.arm]}"
        told.append(
            f"At temperature {temperature:g} {titles[most.arm]} emits the most tokens a target pass, {most.tau:.2f}"
            f" ({most.tau_low:.2f}–{most.tau_high:.2f}), {who}, {quick}."
        )
    return " ".join(told) or "Nothing was compared."


def order(record: Record) -> str:
    """Where the order in tau that the papers let expect holds at equal budget, and where it does not."""
    there = {one.method: one.title for one in record.header.entered if one.equal}
    tiers = [", ".join(there[name] for name in tier if name in there) for tier in ORDER]
    found = ordered(record)
    if not found:
        return ""
    told = [
        f"at temperature {t:g} {_held([one for one in found if one.temperature == t])}"
        for t in dict.fromkeys(one.temperature for one in found)
    ]
    expected = " > ".join(filter(None, tiers))
    return f"Expected in τ at equal budget, m = {record.header.settings.m}: {expected}. Here, {'; '.join(told)}."


def _held(pairs: Sequence[Ordered]) -> str:
    """Of all neighbours; those by name of which it does not, or which these prompts do not tell apart."""
    sure = sum(one.holds is True for one in pairs)
    told = [f"it holds for {f'all {len(pairs)}' if sure == len(pairs) else f'{sure} of {len(pairs)}'} neighbours"]
    for holds, what in ((False, "it does not for"), (None, "these prompts do not tell of")):
        if group := [one for one in pairs if one.holds is holds]:
            told.append(f"{what} {_each(group)}")
    return ", ".join(told)


def _each(pairs: Sequence[Ordered]) -> str:
    told = [f"{one.first.title} over {one.second.title} ({one.taus[0]:.2f} and {one.taus[1]:.2f})" for one in pairs]
    return listed(told, len(told))


def left_out(record: Record) -> str:
    """Who was asked for and could not be run."""
    return "; ".join(f"{arm}: {why}" for arm, why in record.header.left_out.items())


def greedy(record: Record) -> str:
    """Whether every method emitted ordinary decoding's text at temperature 0."""
    if 0 not in record.header.settings.temperatures:
        return "No text of temperature 0 was asked for, at which every method has to emit what ordinary decoding emits."
    texts = len(record.header.prompts) * len(record.header.entered)
    parted = record.of(Parted)
    faults = [one for one in parted if not one.tie]
    if not parted:
        return f"At temperature 0 all {several(texts, 'text')} are ordinary decoding's, token for token."
    told = (
        f"At temperature 0 {texts - len(parted)} of {several(texts, 'text')} are ordinary decoding's, token for token. At a tie,"
        f" where the arithmetic decides, it is left by {len(parted) - len(faults)}"
    )
    if not faults:
        return f"{told}."
    who = listed(dict.fromkeys(one.arm for one in faults), 20)
    return (
        f"{told}; without one by {len(faults)}, of {who}. A method that emits another text than ordinary decoding is BROKEN,"
        " and its figures mean nothing."
    )


def broken(record: Record) -> bool:
    """Whether a greedy text is not ordinary decoding's, for no tie."""
    return any(not one.tie for one in record.of(Parted))


def asked(record: Record) -> str:
    """Under which settings."""
    settings, prompts = record.header.settings, record.header.prompts
    kinds, model = len({prompt.kind for prompt in prompts}), f"{settings.model.model}, " if settings.model else ""
    return (
        f"{model}pair {settings.pair}, {several(len(prompts), 'prompt')} of {several(kinds, 'kind')} ({settings.prompts}),"
        f" {settings.tokens} new tokens each, {several(settings.repeats, 'repeat')}; every method by its own rule, on the very"
        f" network of {VANILLA}; seed {settings.seed}. All in one process, interleaved prompt by prompt, each first in turn."
    )
