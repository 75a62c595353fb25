"""Settings of a run: one frozen value that goes from the command line to every worker."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput

TIERS = ("quick", "full")
ORACLES = ("float64", "float32")


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Args:
        impl: connectable string.
        pair, target, draft: a shipped pair by name, or the folders of checkpoints.
        tier: quick or full.
        only: a chapter, such as LAW, a property, LAW-1, or one case, LAW-1[case].
        tape: file to record answers in.
        evidence: folder of counts that accumulate from run to run.
        oracle: dtype in which the target scores sampled texts.
        whole: the run is complete, so that a property without a result is missing data.
        known: a list of known failures, see harness/known.py.
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
        """The command-line options that `parse` reads, without defaults."""
        default = Settings()
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)}
        return [
            "--impl",
            self.impl,
            *(word for name, value in changed.items() if name != "impl" for word in ("--judge", f"{name}={value}")),
        ]

    def command(self, only: str = "") -> str:
        """The command that repeats the run, or one property or case of it."""
        words = ["eagle2", "verify", self.impl]
        default = Settings()
        for name in ("pair", "target", "draft", "tier", "device", "dtype", "oracle", "seed"):
            value = getattr(self, name)
            if value != getattr(default, name):
                # The folders of another machine have other paths, so only their names are given.
                words += [f"--{name}", Path(value).name if name in ("target", "draft") else str(value)]
        # A single case is repeated to see its fault: nothing excuses it then.
        excused = ["--known", Path(self.known).name] if self.known and not only else []
        return shlex.join([*words, *excused, *(["--only", only] if only else [])])

    def absolute(self) -> Settings:
        """The same settings with absolute paths."""

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
