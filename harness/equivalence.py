"""How far an implementation may still be from the target, said from results alone: three lines of three kinds, never merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.evidence import Number, Result, Statement

JUDGED = ("pass", "fault", "tie")


def statement(results: Sequence[Result]) -> Statement:
    """Logic, measurement, statistics: what was enumerated, what arithmetic does to logits, what samples would have shown."""
    judged = [result for result in results if result.verdict in JUDGED and not result.broken]
    return Statement(
        exact=_exact(_of(judged, "LAW-1", "LAW-6"), _of(judged, "LAW-2")),
        logits=_logits(_of(judged, "TREE-5")),
        sampled=_sampled(_of(judged, "LAW-4"), _of(judged, "LAW-7")),
    )


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
    return f"Measured: total variation of {mean} a token on average, {most} at most, over {tokens} tokens; no bound for others."


def _sampled(fits: list[Result], streams: list[Result]) -> str:
    """What would have been seen, and what is bounded: a rigorous bound is never mixed with an asymptotic one."""
    parts = []
    if fits:
        seen = list(dict.fromkeys(result.sensitivity for result in fits if result.sensitivity))
        told = f"; would have seen a {'; a '.join(seen)}" if seen else ""
        parts.append(f"First tokens of {_count(fits, 'samples')} samples in {_several(len(fits), 'law')}{told}{_reds(fits)}.")
    if streams:
        seen = list(dict.fromkeys(result.sensitivity for result in streams if result.sensitivity))
        told = f"; would have seen a {'; a '.join(seen)}" if seen else ""
        evidence = f"evidence against it at most 10^{_largest(streams, 'log10 E')}"
        parts.append(f"{_count(streams, 'tokens')} tokens, {evidence}{told}{_bounds(streams)}{_reds(streams)}.")
    return " ".join(parts) or _not_shown("nothing was sampled")


def _bounds(streams: list[Result]) -> str:
    kinds = (("dkw bound", "rigorous, of the ranks' distribution"), ("pit tv", "asymptotic, of the total variation of ranks"))
    told = [f"{what}: {_largest(streams, name)}" for name, what in kinds if _values(streams, name)]
    return f"; bounds, the weakest of {_several(len(streams), 'stream')}: {', and '.join(told)}" if told else ""


def _reds(results: list[Result]) -> str:
    """A line that a fault contradicts says so."""
    red = [result for result in results if result.verdict == "fault"]
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
