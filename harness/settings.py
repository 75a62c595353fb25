"""What a run was asked to do: one frozen value, from the command line to every worker."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput

TIERS = ("quick", "full")
ORACLES = ("float64", "float32")


def option(default: Any, description: str, **details: Any) -> Any:
    """A field that is an option of commands; harness/cli/from_settings.py reads the description and the details."""
    return field(default=default, metadata={"description": description, **details})


@dataclass(frozen=True)
class Settings:
    """impl: the connectable. tape: where to record answers. evidence: folder of counts that are kept from run to run.
    oracle: dtype in which the target scores sampled texts. known: a list of known failures, see harness/known.py.

    only: a chapter, such as LAW, a property of it, LAW-1, or one case, LAW-1[case].

    whole: the run is meant to be complete, so that a property without a result is missing data.
    """

    impl: str = option(
        "ref",
        "Implementation: ref:rule=walk,k=4 · static:k=4 · py:package.module:Engine,depth=5 · py:module:rule · cmd:./engine · "
        "published:FILE · mutant:M04 · trace:run.jsonl · vllm:method=eagle",
        argument=True,
    )
    pair: str = option("stdlib", "A pair that is shipped: coin4, coin6, dice8 or stdlib.")
    target: str = option("", "Directory of a target checkpoint, with --draft, instead of --pair.")
    draft: str = option("", "Directory of its draft checkpoint, such as an EAGLE-2 head.")
    tier: str = option("quick", "quick, or full: more cases and more samples.")
    device: str = option("cpu", "cpu, cuda, cuda:1 …")
    dtype: str = option("float32", "float64, float32, bfloat16 or float16.")
    seed: int = option(0, "Seed of everything that is sampled.")
    out: str = option("reports/latest", "Directory of the record and the report.", path=True)
    time_limit: float = option(120.0, "Seconds that one call of the implementation may take.")
    only: str = option("", "A chapter (LAW), a property (LAW-1), or one case of it ('LAW-1[case]').")
    tape: str = option("", "File to write the trace to.", path=True, short="-o")
    evidence: str = option("", "Folder of LAW-7's counts, which accumulate from run to run.")
    oracle: str = option("float64", "dtype in which the target scores sampled texts: float64 or float32.")
    whole: bool = False
    known: str = option("", "TOML file of known failures: [[known]] with id, reason, link, expires.")

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise BadInput(f"tier {self.tier!r} is not known", f"tiers are {', '.join(TIERS)}")
        if self.oracle not in ORACLES:
            raise BadInput(f"oracle {self.oracle!r} is not a dtype to score in", f"give {' or '.join(ORACLES)}")
        if self.time_limit <= 0:
            raise BadInput(f"time limit {self.time_limit:g} s is not positive", "give seconds")

    @classmethod
    def parse(cls, impl: str, pairs: list[str]) -> Settings:
        """From `--judge name=value` options."""
        types = {f.name: f.type for f in fields(cls)}
        values: dict[str, Any] = {"impl": impl}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals or name not in types:
                near = difflib.get_close_matches(name, types, 1)
                raise BadInput(
                    f"--judge {pair}: no such setting", f"did you mean {near[0]}?" if near else f"settings are {', '.join(types)}"
                )
            values[name] = _parse(name, str(types[name]), text)
        return cls(**values)

    def unparse(self) -> list[str]:
        """The command-line options that `parse` reads; defaults are left out."""
        default = Settings()
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)}
        return [
            "--impl",
            self.impl,
            *(word for name, value in changed.items() if name != "impl" for word in ("--judge", f"{name}={value}")),
        ]

    def absolute(self) -> Settings:
        """With paths that mean the same in every folder."""

        def whole(path: str) -> str:
            return str(Path(path).resolve()) if path else ""

        return replace(
            self,
            target=whole(self.target),
            draft=whole(self.draft),
            out=whole(self.out),
            tape=whole(self.tape),
            evidence=whole(self.evidence),
            known=whole(self.known),
        )


def _parse(name: str, kind: str, text: str) -> str | int | float | bool:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        return text == "True" if kind == "bool" else text
    except ValueError:
        raise BadInput(f"--judge {name}={text}: not a number", f"give {name} as {kind}") from None
