"""Records for tests of reports: with every verdict, with hostile text, without a fault; and a parser of pages."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

from harness import report
from harness.record.model import (
    CountPicture,
    Excuse,
    Footer,
    Header,
    LawPicture,
    Likeness,
    Property,
    Record,
    Result,
    Statement,
    TreePicture,
    Verdict,
    Witness,
)

HOSTILE = (
    "<script src=//evil.example/x>alert(1)</script>\"' onload='x' | *b* `c` [l](https://evil.example)"
    " \x00\x07\x1b[31m\u202e\u2028 ]]> --> {{ 7*7 }}\n"
)
LAW = LawPicture(title="First token", outcomes=("a", " b", "\n"), expected=(0.5, 0.3, 0.2), observed=(0.52, 0.27, 0.21), n=900)
EXACT = LAW.model_copy(update={"title": "By enumeration", "n": 0})
VALUES = (0.0, -0.3, -1.6, -0.9)
TREE = TreePicture(
    title="Step 3", tokens=("def", " f", "\n", " g"), parents=(-1, 0, 0, 1), values=VALUES, path=(1, 3), emitted="("
)
COUNTS = CountPicture(title="Blocks", xlabel="accepted tokens", counts=(3, 0, 5))
TEXT = Witness(pair="coin4", prompt=(2, 3, 2), params={"temperature": 1.0}, choices=(1, 0), position=4, emitted=1, p=0.25, q=0.5)
INSTANCE = Witness(tokens=(0, 1, 3), parents=(-1, 0, 1), law=((0.5, 0.5),) * 3, node=2, emitted=1, expected=0)
SAID = Statement(exact="Enumerated: 7.", logits="Measured: 8.", sampled="Samples: 9.")
LIKE = Likeness(mutant="M04", fault="The bonus is stale.", source="SafeAILab/EAGLE PR 47", fit=0.98, seen="LAW-4 on coin4")
BUG = Excuse(reason="The bonus is too cold", link="https://example.org/bug/7", expires="2027-01-31")
VOID = {"meta", "link", "br"}


def record(
    *results: Result, properties: tuple[Property, ...] | None = None, verdict: Verdict = "pass", exit_code: int = 0, **header: str
) -> Record:
    """A record of these results. Its catalogue holds their properties unless another is given."""
    names = dict.fromkeys(result.property for result in results)
    known = tuple(Property(id=name, chapter=name.split("-")[0].lower(), requirement=f"What {name} asks.") for name in names)
    names_ = {"implementation": "ref", "pair": "coin", "command": "eagle2 verify ref", "started": "2026-07-01T10:20:30Z"}
    facts = {
        "settings": {"seed": "7"},
        "versions": {"torch": "2.13.0"},
        "machine": {"cores": "2"},
        "checksums": {"config": "0" * 64},
    }
    head = Header.model_validate({**names_, **facts, "properties": known if properties is None else properties, **header})
    foot = Footer(finished="2026-07-01T10:21:00Z", seconds=30, results=len(results), verdict=verdict, exit_code=exit_code)
    return Record(header=head, results=results, footer=foot)


def result(name: str, case: str, verdict: Verdict = "pass", **more: object) -> Result:
    return Result.model_validate({"property": name, "case": case, "verdict": verdict, "summary": f"seen in {case}", **more})


def mixed() -> Record:
    """A record with every verdict, every kind of picture, p-values, a broken answer and a long list of passes."""
    verdicts = [
        result("LAW-1", f"verdict {v}", v, replay=f"replay {v}", pictures=(LAW, EXACT), excuse=BUG if v == "known" else None)
        for v in get_args(Verdict)
    ]
    passes = [result("LAW-2", f"case {i}", p_value=(i + 0.5) / 9, sensitivity="any total variation ≥ 0.03") for i in range(9)]
    rest = [
        result(
            "LAW-2",
            "bad",
            "fault",
            p_value=1e-40,
            measured={"cells": 27, "chi-square": 1984.0},
            diagnostics={"Neyman": 0.0123},
            replay="replay bad",
            witness=TEXT,
        ),
        result("TREE-1", "drawn", pictures=(TREE,)),
        result("COUNT-1", "counted", "inconclusive", broken=True, pictures=(COUNTS,)),
    ]
    of = record(*verdicts, *passes, *rest, verdict="fault", exit_code=1)
    footer_fields = {"statement": SAID, "likenesses": (LIKE,), "false_alarm": 2.7e-7}
    return of.model_copy(update={"footer": of.footer.model_copy(update=footer_fields)})


def hostile() -> Record:
    """A record with hostile text in every text field."""
    pictures = (
        LawPicture(title=HOSTILE, outcomes=(HOSTILE, "b"), expected=(0.5, 0.5), observed=(0.5, 0.5)),
        TreePicture(title=HOSTILE, tokens=(HOSTILE, HOSTILE), parents=(-1, 0), values=(0.0, -1.0), path=(1,), emitted=HOSTILE),
        CountPicture(title=HOSTILE, xlabel=HOSTILE, counts=(1, 2)),
    )
    verdicts: tuple[Verdict, ...] = ("fault", "known", "n/a", "inconclusive", "pass")
    odd = Witness(tokens=(0, 1, 2), parents=(9, 2, 1), node=2, emitted=-7, pair=HOSTILE, params={HOSTILE: HOSTILE})
    texts = {
        "summary": HOSTILE,
        "measured": {HOSTILE: HOSTILE},
        "diagnostics": {HOSTILE: 0.5},
        "sensitivity": HOSTILE,
        "replay": HOSTILE,
        "witness": odd,
        "excuse": Excuse(reason=HOSTILE, link=HOSTILE, expires=HOSTILE),
    }
    seen = [result(HOSTILE, HOSTILE + verdict, verdict, pictures=pictures, **texts) for verdict in verdicts]
    claim = Property(id=HOSTILE, chapter=HOSTILE, requirement=HOSTILE, needs=(HOSTILE, "'><img src=x>"))
    names = dict.fromkeys(("implementation", "implementation_version", "pair", "command", "started"), HOSTILE)
    base = record(*seen, properties=(claim,), verdict="fault", exit_code=1, **names)
    facts = {field: {HOSTILE: HOSTILE} for field in ("checksums", "settings", "versions", "machine")}
    footer_fields = {
        "statement": Statement(exact=HOSTILE, logits=HOSTILE, sampled=HOSTILE),
        "likenesses": (Likeness(mutant=HOSTILE, fault=HOSTILE, source=HOSTILE, fit=math.nan, seen=HOSTILE),),
        "false_alarm": math.inf,
    }
    return base.model_copy(
        update={
            "header": base.header.model_copy(update={**facts, "capabilities": (HOSTILE,)}),
            "footer": base.footer.model_copy(update=footer_fields),
        }
    )


def clean() -> Record:
    return record(*(result(f"LAW-{i}", f"case {j}", seconds=0.5) for i in (1, 2) for j in range(7)), result("SMOKE-1", "loads"))


@dataclass
class Page(HTMLParser):
    """A parsed page; its elements must be nested correctly."""

    text: str
    open: list[str] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    folded: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if "details" in self.open:
            self.folded |= {value or "" for name, value in attrs if name == "id"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def rendered(of: Record, out: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in report.render(of, out)}
