"""Settings of `eagle2 bench`, `eagle2 compare` and `eagle2 acceptance`, whose options are built from the fields of these models.

Nothing here imports torch, so that `--help` is quick.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field

from eagle2_ref.errors import BadInput
from harness.command_line import changed_options
from harness.pairs import FIXTURES, Pair
from harness.record.model import Value

if TYPE_CHECKING:
    from eagle2_ref.drafters.eagle2 import Budget
    from harness.benchmark.presets import Preset

S = TypeVar("S", bound="RunSettings")

PROMPTS = FIXTURES / "prompts" / "code.jsonl"

Checkpoints = Mapping[str, Path | None]
"""The checkpoint that methods draft with, by kind; None if the pair has none of that kind."""


LIMIT = "Use only this many prompts, spread over the file, or questions, as many of each kind; 0 uses all."


class RunSettings(Value):
    """Settings that all three commands have. `prompts` stores the name of the file of prompts."""

    command: ClassVar[str]

    pair: str = Field("stdlib", description="coin4, coin6, dice8, stdlib, or smollm2 (see `eagle2 pair`).")
    temperatures: tuple[float, ...] = Field(
        (0.0, 1.0),
        description="One or more temperatures, separated by commas; 0 is greedy.",
        json_schema_extra={"option": "--temperature"},
    )
    tokens: int = Field(128, description="New tokens per text.")
    prompts: str = PROMPTS.name
    limit: int = Field(0, description=LIMIT)
    repeats: int = Field(3, description="Timed texts per prompt, temperature and arm.")
    threads: int = Field(2, description="Threads of torch in every arm.")
    dtype: str = Field("float32", description="float64, float32, bfloat16 or float16.")
    device: str = Field("cpu", description="cpu, cuda, cuda:1 …")
    seed: int = Field(0, description="Seed of everything that is sampled.")

    def check(self, pair: Pair) -> None:  # noqa: ARG002
        """Raise BadInput for settings that cannot be run, before anything is loaded."""
        from eagle2_ref.model.target import DTYPES

        for name, least in (("tokens", 2), ("repeats", 1), ("threads", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise BadInput(f"{name} is {value}", f"{name} must be a whole number of {least} or more")
        if self.limit < 0:
            raise BadInput(f"limit is {self.limit}", "give a number of prompts, or 0 for all")
        if self.dtype not in DTYPES:
            raise BadInput(f"dtype {self.dtype!r} is not known", f"known are {', '.join(DTYPES)}")
        if not self.temperatures or min(self.temperatures) < 0 or _has_duplicates(self.temperatures):
            raise BadInput(
                f"temperatures are {', '.join(f'{t:g}' for t in self.temperatures) or 'none'}",
                "give different numbers of 0 or more, separated by commas",
            )


class BenchSettings(RunSettings):
    """Settings of `eagle2 bench`. End-of-text tokens are ignored, so that every arm emits texts of the same length."""

    command: ClassVar[str] = "bench"

    k: int = Field(8, description="Nodes expanded in each layer of the draft tree.")
    depth: int = Field(6, description="Layers of the draft tree.")
    m: int = Field(25, description="Draft tokens verified in a target pass.")
    head_temperature: float = Field(1.0, description="Temperature of the head's confidences; 1 is the paper's.")
    node: float = Field(0.0, description="Smallest value (product of confidences) of a node that is kept; 0 keeps all.")
    layer: float = Field(0.0, description="Smallest sum of a layer's best values for which the next layer is grown; 0 grows all.")
    rule: str = Field("reject", description="Acceptance rule: reject or walk.")
    beside: tuple[str, ...] = Field(
        (),
        description="A connectable to time as well, with and without speculation; can be given several times.",
        json_schema_extra={"repeated": True},
    )
    transformers: bool = Field(True, description="Time transformers' own generate.")
    tune: bool = Field(
        False,
        description="First choose a budget for each temperature on this machine, and time it too.",
        json_schema_extra={"option": "--tune"},
    )
    fixed_shapes: bool | None = Field(
        None, description="Time the fixed-shape decoder too, with and without the head; by default only on CUDA."
    )
    harness: bool = Field(
        False, description="Also time sampling campaigns until their verdict.", json_schema_extra={"option": "--harness"}
    )
    batch: tuple[int, ...] = Field((), description="Time batches of these sizes, separated by commas.")

    @property
    def budget(self) -> Budget:
        from eagle2_ref.drafters.eagle2 import Budget

        return Budget(self.k, self.depth, self.m, self.head_temperature, self.node, self.layer)

    @property
    def with_fixed_shapes(self) -> bool:
        """Whether the fixed-shape decoder is timed; by default on CUDA, where its step is one graph."""
        return self.device.startswith("cuda") if self.fixed_shapes is None else self.fixed_shapes

    def check(self, pair: Pair) -> None:
        from eagle2_ref.rules import RULES

        super().check(pair)
        if self.rule not in RULES:
            raise BadInput(f"rule {self.rule!r} is not known", f"known are {', '.join(RULES)}")
        if min(self.batch, default=1) < 1 or _has_duplicates(self.batch):
            raise BadInput(f"--batch has {', '.join(map(str, self.batch))}", "give different numbers of 1 or more")
        if _has_duplicates(tuple(map(portable_name, self.beside))):
            raise BadInput(f"--beside names {', '.join(self.beside)}", "name every decoder once")
        self.budget.check(pair.vocab_size)


class CompareSettings(RunSettings):
    """Settings of `eagle2 compare`.

    preset: name of a model of the paper, which brings its chat format and its budget; empty for any other model.
    system: system message for question files; empty for the one of the model, if it has one.
    """

    command: ClassVar[str] = "compare"

    methods: tuple[str, ...] = Field(
        (),
        description="Methods, separated by commas, such as eagle2,eagle3,medusa,lookup; all by default.",
    )
    tokens: int = Field(64, description="New tokens per text.")
    limit: int = Field(18, description=LIMIT)
    repeats: int = Field(2, description="Timed texts per prompt, temperature and arm.")
    m: int = Field(25, description="Draft tokens per pass of the comparison at equal budget; 0 skips it, and the plot of τ by m.")
    preset: str = Field("", description="A model of the paper; --target and --draft are your copies of its checkpoints.")
    system: str = Field("", description="System message for a file of questions; by default the model's own, if it has one.")
    arm: tuple[str, ...] = Field(
        (),
        description="A further arm, METHOD:OPTIONS, such as eagle2:k=4,m=12; can be given several times.",
        json_schema_extra={"repeated": True},
    )
    tune: tuple[str, ...] = Field(
        (),
        description="Also time this arm with a budget chosen here for each temperature (minutes); can be given several times.",
        json_schema_extra={"repeated": True},
    )
    beside: tuple[str, ...] = Field(
        (),
        description="A connectable to time next to the methods; can be given several times.",
        json_schema_extra={"repeated": True},
    )
    transformers: bool = Field(
        False, description="Time transformers' own generate next to the methods.", json_schema_extra={"option": "--transformers"}
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the methods that are compared."""
        from eagle2_ref.methods import METHODS

        return self.methods or tuple(METHODS)

    @property
    def model(self) -> Preset | None:
        from harness.benchmark.presets import preset

        return preset(self.preset) if self.preset else None

    def check(self, pair: Pair) -> None:
        from eagle2_ref.drafters.eagle2 import TreeBudget
        from eagle2_ref.methods import method

        super().check(pair)
        for name in self.methods:
            method(name)
        if _has_duplicates(self.methods):
            raise BadInput(f"--methods names {', '.join(self.methods)}", "name every method once")
        if self.m < 0:
            raise BadInput(f"m is {self.m}", "give a number of draft tokens, or 0 to compare only the methods' own options")
        for name, given in (("arm", self.arm), ("tune", self.tune), ("beside", tuple(map(portable_name, self.beside)))):
            if _has_duplicates(given):
                raise BadInput(f"--{name} names {', '.join(given)}", "name each once")
        for arm in self.arm:
            if not arm.partition(":")[2]:
                raise BadInput(f"--arm {arm} has no options", "write METHOD:OPTIONS, such as eagle2:k=4,m=12")
            method(arm.partition(":")[0])
        if unknown := [arm for arm in self.tune if arm not in (*self.names, *self.arm)]:
            raise BadInput(f"--tune names {unknown[0]}", f"arms of this run are {', '.join((*self.names, *self.arm))}")
        for spec in (method(arm.partition(":")[0]) for arm in self.tune):
            if not (isinstance(spec.make, type) and issubclass(spec.make, TreeBudget)):
                raise BadInput(f"--tune names {spec.name}, which has no budget to choose", "only EAGLE's dynamic trees are tuned")


class AcceptanceSettings(RunSettings):
    """Settings of `eagle2 acceptance`. Empty grids and an empty budget are those of the kind of head."""

    command: ClassVar[str] = "acceptance"

    tokens: int = Field(64, description="New tokens per text.")
    limit: int = Field(18, description=LIMIT)
    repeats: int = 1
    threads: int = Field(2, description="Threads of torch.")
    drafter: str = Field(
        "", description="Head of the pair: eagle2, eagle3 or medusa; by default eagle2, or the kind that --draft has."
    )
    k: tuple[int, ...] = Field((), description="Values of k of the grid, by default 1,4,8; of Medusa 1,4,10.")
    depth: tuple[int, ...] = Field((), description="Values of depth of the grid, by default 2,4,6; of Medusa 2,3,4.")
    m: tuple[int, ...] = Field((), description="Values of m of the grid, by default 4,8,12,25,40,60; of Medusa 4,8,16,32,63.")
    budget: tuple[int, ...] = Field(
        (), description="k,depth,m of the tree that --floor and --against judge; by default the method's own."
    )
    checks: int = Field(6, description="Prompts that are also decoded, with three trees of the grid: 3 or more, or 0 for none.")
    ceiling: bool = Field(
        False,
        description="Also decode with a perfect head, one that knows the target's distribution: what is left to gain.",
        json_schema_extra={"option": "--ceiling"},
    )
    floor: tuple[float, ...] = Field(
        (), description="Exit code 1 if τ is significantly below this: one number, or one for each temperature."
    )

    def check(self, pair: Pair) -> None:
        super().check(pair)
        for name in ("k", "depth", "m"):
            values = getattr(self, name)
            if min(values, default=1) < 1 or _has_duplicates(values):
                raise BadInput(f"--{name} has {', '.join(map(str, values))}", "give different numbers of 1 or more")
        if self.budget and (len(self.budget) != 3 or min(self.budget) < 1):
            raise BadInput(f"--budget has {', '.join(map(str, self.budget))}", "give k, depth and m, such as 8,6,25")
        if self.checks < 0:
            raise BadInput(f"checks is {self.checks}", "give a number of prompts, or 0 for none")
        self.check_floor()

    def check_floor(self) -> None:
        """Raise BadInput for a wrong floor."""
        if min(self.floor, default=1) < 1:
            raise BadInput(f"--floor has {min(self.floor):g}", "give numbers of 1 or more: without drafts τ is 1")
        if len(self.floor) not in (0, 1, len(self.temperatures)):
            raise BadInput(
                f"--floor has {len(self.floor)} numbers, and there are {len(self.temperatures)} temperatures",
                "give one number, or one for each temperature",
            )


def command_line(settings: RunSettings, pair: Pair, checkpoints: Checkpoints | None = None) -> str:
    """The command that repeats a run. Folders appear by their names only, since their paths exist on one machine alone.

    Args:
        settings: settings of the run.
        pair: the pair that was decoded with.
        checkpoints: checkpoints of further drafters, which are named unless they are the pair's own.
    """
    default = type(settings)(pair=pair.name if pair.own else "stdlib")
    words = ["eagle2", settings.command]
    words += ["--target", pair.target.name, "--draft", pair.draft.name] if pair.own else []
    words += changed_options(without_paths(settings), default)
    for kind in ("small", "medusa", "eagle3") if checkpoints else ():
        folder = (checkpoints or {})[kind]
        if folder and (pair.own or folder != pair.drafter(kind)):
            words += [f"--{kind}", folder.name]
    return shlex.join(words)


def without_paths(settings: S) -> S:
    """The settings with connectables as they may be published."""
    beside: tuple[str, ...] = getattr(settings, "beside", ())
    return settings.model_copy(update={"beside": tuple(map(portable_name, beside))}) if beside else settings


def portable_name(connectable: str) -> str:
    """A connectable without what belongs to one machine: of a folder only its name, and no path of a Python interpreter."""
    return re.sub(r"(?<==)/[^,]*/", "", re.sub(r",python=[^,]*", "", connectable))


def _has_duplicates(values: tuple[object, ...]) -> bool:
    return len(set(values)) < len(values)
