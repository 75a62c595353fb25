"""What a run of `eagle2 bench` was asked to do; one frozen value, from the command line to the record."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import DTYPES
from eagle2_ref.rules import RULES
from harness.pairs import FIXTURES, Pair, Prompt, encoder
from harness.record.model import Value

T = TypeVar("T")

PROMPTS = FIXTURES / "prompts" / "code.jsonl"


class Timing(Value):
    """What every run of timed texts is asked. pair: its name. tokens: new tokens a text.

    prompts: name of the file they are from. limit: of them, as many, spread over the file; 0 is all.
    """

    name: ClassVar[str]
    """The command that such a run is asked by."""

    pair: str = "stdlib"
    temperatures: tuple[float, ...] = (0.0, 1.0)
    tokens: int = 128
    prompts: str = PROMPTS.name
    limit: int = 0
    repeats: int = 3
    threads: int = 2
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 0

    def check(self, pair: Pair) -> None:  # noqa: ARG002
        """Raise BadInput for what cannot be run, before anything is loaded."""
        for name, value in (("tokens", self.tokens), ("repeats", self.repeats), ("threads", self.threads)):
            if value < (least := 2 if name == "tokens" else 1):
                raise BadInput(f"{name} is {value}", f"{name} must be a whole number of {least} or more")
        if self.limit < 0:
            raise BadInput(f"limit is {self.limit}", "give a number of prompts, or 0 for all")
        if self.dtype not in DTYPES:
            raise BadInput(f"dtype {self.dtype!r} is not known", f"known are {', '.join(DTYPES)}")
        if not self.temperatures or min(self.temperatures) < 0 or len(set(self.temperatures)) < len(self.temperatures):
            raise BadInput(
                f"temperatures are {', '.join(f'{t:g}' for t in self.temperatures) or 'none'}",
                "give different numbers of 0 or more, with commas between",
            )


class Settings(Timing):
    """A run of `eagle2 bench`; no token ends a text, so that all arms emit as many. k to layer: the budget.

    fixed_shapes: time the loop in fixed shapes too; None: on CUDA, where it is a graph a step. beside: connectables.
    batch: numbers of texts that share passes.
    """

    name: ClassVar[str] = "bench"

    k: int = 8
    depth: int = 6
    m: int = 25
    head_temperature: float = 1.0
    node: float = 0.0
    layer: float = 0.0
    rule: str = "reject"
    beside: tuple[str, ...] = ()
    transformers: bool = True
    tune: bool = False
    fixed_shapes: bool | None = None
    harness: bool = False
    batch: tuple[int, ...] = ()

    @property
    def budget(self) -> Budget:
        return Budget(self.k, self.depth, self.m, self.head_temperature, self.node, self.layer)

    @property
    def static(self) -> bool:
        return self.device.startswith("cuda") if self.fixed_shapes is None else self.fixed_shapes

    def check(self, pair: Pair) -> None:
        super().check(pair)
        if self.rule not in RULES:
            raise BadInput(f"rule {self.rule!r} is not known", f"known are {', '.join(RULES)}")
        if min(self.batch, default=1) < 1 or len(set(self.batch)) < len(self.batch):
            raise BadInput(f"--batch has {', '.join(map(str, self.batch))}", "give different numbers of 1 or more")
        if len(set(map(label, self.beside))) < len(self.beside):
            raise BadInput(f"--beside names {', '.join(self.beside)}", "name every decoder once")
        self.budget.check(pair.vocab_size)


def command(settings: Timing, pair: Pair) -> str:
    """What to type to have a run again. A folder of one machine means nothing on another: its name must do."""
    words, default = ["eagle2", settings.name], type(settings)(pair=pair.name if pair.own else "stdlib")
    words += ["--target", pair.target.name, "--draft", pair.draft.name] if pair.own else []
    for name, value in settings:
        flag = f"--{name.replace('_', '-')}"
        if value == getattr(default, name):
            continue
        if name == "temperatures":
            words += ["--temperature", ",".join(f"{t:g}" for t in value)]
        elif isinstance(value, bool):
            words += [flag if value else f"--no-{flag[2:]}"]
        elif name == "beside":
            words += [word for one in value for word in (flag, label(one))]
        elif isinstance(value, tuple):
            words += [flag, ",".join(map(str, value))]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def label(connectable: str) -> str:
    """A connectable as it may be told elsewhere: of folders their names, and nothing of the Python that it runs under."""
    return re.sub(r"(?<==)/[^,]*/", "", re.sub(r",python=[^,]*", "", connectable))


def temperatures(text: str) -> tuple[float, ...]:
    """From '0,1'."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise BadInput(f"--temperature {text} is not a list of numbers", "write 0,1") from None


def sizes(text: str) -> tuple[int, ...]:
    """From '1,2,4'."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise BadInput(f"--batch {text} is not a list of whole numbers", "write 1,2,4,8") from None


def spread(found: Sequence[T], n: int) -> list[T]:
    """n of them, from all over the list; all where there are no more."""
    return [found[(2 * i + 1) * len(found) // (2 * n)] for i in range(n)] if n < len(found) else list(found)


def asked_prompts(file: Path, pair: Pair, limit: int, tokens: int) -> list[Prompt]:
    """Prompts of a file, one JSON object a line, in the tokens of a pair; each leaves room for `tokens` more."""
    found, encode = _lines(file), encoder(pair)
    prompts = [Prompt(**line, tokens=encode(line["text"])) for line in spread(found, limit or len(found))]
    for prompt in prompts:
        if not prompt.tokens:
            raise BadInput(f"prompt {prompt.id} of {file} is empty", "give at least one token")
        if len(prompt.tokens) + tokens > pair.context:
            raise BadInput(
                f"prompt {prompt.id} has {len(prompt.tokens)} tokens; {tokens} more do not fit into a context of {pair.context}",
                f"give --tokens {max(pair.context - len(prompt.tokens), 0)} or fewer, or shorter prompts",
            )
    return prompts


def _lines(file: Path) -> list[dict[str, str]]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"no prompts at {file}: {error}", "give a file with one JSON object a line: id, kind, text") from None
    found: list[dict[str, str]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            found.append({name: str(row[name]) for name in ("id", "kind", "text")})
        except (json.JSONDecodeError, KeyError, TypeError):
            raise BadInput(f"{file}, line {number} is no prompt", "one JSON object a line: id, kind, text") from None
    if not found:
        raise BadInput(f"{file} has no prompts", "give a file with one JSON object a line: id, kind, text")
    if len({row["id"] for row in found}) < len(found):
        raise BadInput(f"{file} has two prompts of one id", "ids tell prompts apart in the record")
    return found
