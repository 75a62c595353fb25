"""What a run was asked to do: one frozen value, from the command line to every worker."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput

TIERS = ("quick", "full")
ORACLES = ("float64", "float32")


@dataclass(frozen=True)
class Settings:
    """impl: the connectable. tape: where to record answers. evidence: folder of counts that are kept from run to run.
    oracle: dtype in which the target scores sampled texts. known: a list of known failures, see harness/known.py.

    only: a chapter, such as LAW, a property of it, LAW-1, or one case, LAW-1[case].

    whole: the run is meant to be complete, so that a property without a result is missing data.
    """

    impl: str = "ref"
    pair: str = "stdlib"
    target: str = ""
    draft: str = ""
    tier: str = "quick"
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0
    out: str = "reports/latest"
    time_limit: float = 120.0
    only: str = ""
    tape: str = ""
    evidence: str = ""
    oracle: str = "float64"
    whole: bool = False
    known: str = ""

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
        types = {field.name: field.type for field in fields(cls)}
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
