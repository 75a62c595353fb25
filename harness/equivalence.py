"""How far an implementation may still be from the target, said from results alone: three lines of three kinds, never merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.record.model import Number, Result, Statement
from harness.statistics.bounds import LEVEL
from harness.statistics.budget import error_budget
from harness.verdict import JUDGED


def statement(results: Sequence[Result]) -> Statement:
    """Logic, measurement, statistics: what was enumerated, what arithmetic does to logits, what samples would have shown."""
    judged = [result for result in results if result.verdict in JUDGED and not result.broken]
    return Statement(
        exact=_exact(_of(judged, "LAW-1", "LAW-6"), _of(judged, "LAW-2")),
        logits=_logits(_of(judged, "TREE-5")),
        sampled=_sampled(_of(judged, "LAW-4"), _of(judged, "LAW-7"), _of(judged, "LAW-8")),
    )


def false_alarm(results: Iterable[Result]) -> float:
    """At most how probable it is that a run calls a correct implementation a fault: the sum over its checks."""
    return error_budget(result.false_alarm for result in results).false_alarm


def _exact(decoders: list[Result], rules: list[Result]) -> str:
    """Enumerated: all coins of whole decoders, and of the rule alone."""
    whole = [
        f"{_count(decoders, 'executions')} executions of whole decoders, all of {_several(len(decoders), 'instance')}",
        f"total variation at most {_largest(decoders, 'total variation')}",
    ]
    alone = [
        f"the rule alone on {_count(rules, 'instances')} instances of tree and law",
        f"at most {_largest(rules, 'total variation')} at any node",
    ]
    parts = [", ".join(said) for said, seen in ((whole, decoders), (alone, rules)) if seen]
    told = f"Enumerated: {'; '.join(parts)}{_reds([*decoders, *rules])}."
    return told if parts else _not_shown("nothing was enumerated")


def _logits(seen: list[Result]) -> str:
    """Measured on the texts at hand, so true of them alone: nothing is proved about other texts."""
    if not seen:
        return _not_shown("the logits were not compared")
    mean, most = _largest(seen, "mean total variation"), _largest(seen, "largest total variation")
    tokens = _count(seen, "tokens")
    told = f"total variation of {mean} a token on average, {most} at most, over {tokens} tokens"
    return f"Measured: {told}; of others nothing is proved."


def _sampled(fits: list[Result], streams: list[Result], arms: list[Result]) -> str:
    """What would have been seen, and what is bounded: a rigorous bound is never mixed with an asymptotic one."""
    parts = []
    if fits:
        parts.append(f"First tokens of {_count(fits, 'samples')} samples in {_several(len(fits), 'law')}{_seen(fits)}.")
    if streams:
        evidence = f"evidence against it at most 10^{_largest(streams, 'log10 E')} in any of {_several(len(streams), 'stream')}"
        parts.append(f"{_count(streams, 'tokens')} tokens, {evidence}{_seen(streams)}{_bounds(streams)}.")
    if arms:
        parts.append(f"{_count(arms, 'tokens')} tokens against its own control{_seen(arms)}.")
    return " ".join(parts) or _not_shown("nothing was sampled")


def _seen(results: list[Result]) -> str:
    """What the least sensitive of these checks would have seen, in its own words; and how many of them are red."""
    told = list(dict.fromkeys(result.sensitivity.removeprefix("a ") for result in results if result.sensitivity))
    if not told:
        return _reds(results)
    least = max(told, key=lambda text: [float(number) for number in re.findall(r"\d+\.\d+", text)][:1])
    return f"; would have seen {least}{', the least sensitive of them' if len(told) > 1 else ''}{_reds(results)}"


def _bounds(streams: list[Result]) -> str:
    """Of the ranks of tokens (their probability integral transforms), the weakest bound of any stream."""
    rigorous = f"rigorous at {LEVEL:.1%} if ranks are independent and their number was fixed: distribution function within"
    kinds = {"dkw bound": rigorous, "pit tv": f"asymptotic at {LEVEL:.1%}: total variation within"}
    told = [f"{what} {_largest(streams, name)} of uniform" for name, what in kinds.items() if _values(streams, name)]
    return "".join(f"; {bound}" for bound in told)


def _reds(results: list[Result]) -> str:
    """A line that a fault contradicts says so; a fault that is known is one."""
    red = [result for result in results if result.verdict in ("fault", "known")]
    return f" ({len(red)} of {len(results)} are faults)" if red else ""


def _of(results: Iterable[Result], *properties: str) -> list[Result]:
    return [result for result in results if result.property in properties]


def _values(results: Iterable[Result], name: str) -> list[Number]:
    found = (result.measured.get(name) for result in results)
    return [value for value in found if isinstance(value, int | float)]


def _count(results: Iterable[Result], name: str) -> str:
    return f"{sum(_values(results, name)):,}"


def _largest(results: Iterable[Result], name: str) -> str:
    values = _values(results, name)
    return f"{max(values):.2g}" if values else "what was not measured"


def _several(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _not_shown(why: str) -> str:
    return f"Not shown: {why}."
