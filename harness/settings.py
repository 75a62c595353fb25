"""Settings of a run: one frozen value that goes from the command line to every worker."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput, suggest

TIERS = ("quick", "full")
ORACLES = ("float64", "float32")
LARGEST = 2**63 - 1
"""Largest number that an option takes: what a machine counts with, and a generator of torch takes as a seed."""
LONGEST_CALL = 604_800
"""Largest time limit of a call in seconds: a week. Timers of the operating system end at some centuries."""


def option(default: Any, description: str, **details: Any) -> Any:
    """A field that is an option of commands; harness/cli/from_settings.py reads the description and the details."""
    return field(default=default, metadata={"description": description, **details})


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Every field with a description is an option of the commands that need it.

    `whole`: the run is complete, so that a property without a result is missing data. `draw`: draw a report at its end.
    """

    impl: str = option(
        "ref",
        "Implementation: ref:rule=walk,k=4 · static:k=4 · py:package.module:Engine,depth=5 · py:module:rule · cmd:./engine · "
        "published:FILE · mutant:M04 · trace:run.jsonl · vllm:method=eagle",
        argument=True,
    )
    pair: str = option("stdlib", "coin4, coin6, dice8, stdlib, or smollm2 (see `eagle2 pair`).")
    target: str = option("", "Directory of a target checkpoint, with --draft, instead of --pair.")
    draft: str = option("", "Directory of its draft checkpoint, such as an EAGLE-2 head.")
    tier: str = option("quick", "quick, or full: more cases and more samples.")
    device: str = option("cpu", "cpu, cuda, cuda:1 …")
    dtype: str = option("float32", "float64, float32, bfloat16 or float16.")
    seed: int = option(0, "Seed of everything that is sampled, 0 or more.")
    out: str = option("reports/latest", "Directory of the record and the report.", path=True)
    time_limit: float = option(120.0, "Seconds that one call of the implementation may take.")
    only: str = option("", "Chapters, properties or cases, separated by commas: SMOKE,LAW-4,'LAW-1[case]'.")
    tape: str = option("", "File to write the trace to.", path=True, short="-o")
    evidence: str = option("", "Folder of LAW-7's counts, which accumulate from run to run.")
    oracle: str = option("float64", "dtype in which the target scores texts: float64 or float32.")
    whole: bool = False
    draw: bool = True
    known: str = option("", "TOML file of known failures: [[known]] with id, reason, link, expires.")

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise BadInput(f"tier {self.tier!r} is not known", f"tiers are {', '.join(TIERS)}")
        if self.oracle not in ORACLES:
            raise BadInput(f"oracle {self.oracle!r} is not a dtype to score in", f"give {' or '.join(ORACLES)}")
        if not 0 < self.time_limit <= LONGEST_CALL:  # also false for NaN
            raise BadInput(f"the time limit is {self.time_limit:g} s", f"give seconds: above 0, at most {LONGEST_CALL} (a week)")
        if not 0 <= self.seed <= LARGEST:
            raise BadInput(f"seed is {self.seed}", f"seed must be from 0 to {LARGEST}")

    @classmethod
    def parse(cls, impl: str, pairs: list[str]) -> Settings:
        """From `--judge name=value` options."""
        types = {f.name: f.type for f in fields(cls)}
        values: dict[str, Any] = {"impl": impl}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals or name not in types:
                raise BadInput(f"--judge {pair}: no such setting", suggest(name, types, f"settings are {', '.join(types)}"))
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

    def command(self, only: str = "", *, here: bool = False) -> str:
        """The command that repeats the run, or one property or case of it.

        Args:
            only: what to repeat; all of the run if empty.
            here: give paths as they are, so that the command can be run on this machine. A record, which travels to other
                machines, stores the names of folders and files only.
        """
        default, words = Settings(), ["eagle2", "verify", self.impl]
        for name in ("pair", "target", "draft", "tier", "device", "dtype", "oracle", "seed", "time_limit", "evidence"):
            value = getattr(self, name)
            if value != getattr(default, name):
                path = name in ("target", "draft", "evidence") and not here
                words += [
                    f"--{name.replace('_', '-')}",
                    Path(value).name if path else f"{value:g}" if isinstance(value, float) else str(value),
                ]
        words += ["--only", only or self.only] if only or self.only else []
        # A single case is repeated to see its fault: nothing excuses it then.
        words += ["--known", self.known if here else Path(self.known).name] if self.known and not only else []
        return shlex.join(words)

    def absolute(self) -> Settings:
        """The same settings with absolute paths."""

        def whole(path: str) -> str:
            return str(Path(path).absolute()) if path else ""

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
    except ValueError:  # also for a number of more than 4,300 digits
        raise BadInput(f"--judge {name}={text[:80]}: not a number", f"give {name} as {kind}") from None
