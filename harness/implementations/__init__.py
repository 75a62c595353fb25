"""Connect a string to a decoder: `ref`, `py:package.module:Engine`, `cmd:./engine`, `vllm:method=eagle`, `trace:run.jsonl` …"""

from __future__ import annotations

import difflib
import importlib
import inspect
import shlex
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from harness.implementations import serve
from harness.implementations.engine import AdapterError, Engine, NotApplicable
from harness.implementations.ready import READY
from harness.pairs import Pair

SHAPE = ("k", "depth", "m")
DEFAULT_CAPABILITIES = frozenset({"temperature"})


@dataclass(frozen=True)
class Implementation:
    """A decoder that can be opened on a pair. `make(target, draft, **options)` is what its author wrote.

    parameters: names of options, None to read them off `make`. checkpoint: which drafter of a pair it wants. logprobs: the law
    that told log-probabilities are of, processed or raw. lossy: what its own documentation says of a lossy mode. method: how
    it drafts, by the reference's name for it. budget: the
    shape of its draft trees, where it is known and cannot be chosen. apart: it runs out of sight of this process.
    """

    name: str
    make: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    version: str = ""
    time_limit: float = 120.0
    tape: Path | None = None
    parameters: frozenset[str] | None = None
    checkpoint: str = "draft"
    logprobs: str = "processed"
    lossy: str = ""
    method: str = ""
    budget: dict[str, int] | None = None
    apart: bool = False

    def require(self, *capabilities: str) -> None:
        """Raise NotApplicable where something is needed that the implementation does not say it can do."""
        if lacking := [name for name in capabilities if name not in self.capabilities]:
            raise NotApplicable(f"the implementation does not declare the capability {', '.join(map(repr, lacking))}")

    def open(self, pair: Pair, *, speculate: bool = True, **options: Any) -> Engine:
        """An engine on a pair; `speculate` False opens the control arm. `options` add to the user's own, and override them."""
        draft = pair.drafter(self.checkpoint)
        if draft is None:
            raise NotApplicable(f"the pair {pair.name} has no checkpoint {self.checkpoint!r}, which this method drafts with")
        chosen = {**self.options, **options}
        make = partial(self.make, str(pair.target), str(draft) if speculate else None, **chosen)
        return Engine(self, pair, make, speculate, options)

    def check(self, pair: Pair, dtype: str, device: str) -> None:
        """Raise BadInput for options and checkpoints that the reference's own code, where it is used, cannot work with.

        Opening other engines may take minutes and a GPU: theirs is left to SMOKE.
        """
        if "decoder" in self.capabilities:
            self.make(str(pair.target), str(pair.drafter(self.checkpoint)), **{"dtype": dtype, "device": device, **self.options})

    @property
    def shape(self) -> dict[str, int]:
        """The bounds of its draft trees, k, depth and m: those that it tells, or was asked for, or has of its own accord."""
        if self.budget or "budget" not in self.capabilities:
            given = {name: int(value) for name, value in self.options.items() if name in SHAPE}
            return given | (self.budget or {})
        usual = {} if self.apart else inspect.signature(self.make).parameters
        told = {name: int(option.default) for name, option in usual.items() if name in SHAPE}
        return (told or {"k": 8, "depth": 6, "m": 25}) | {name: int(self.options[name]) for name in SHAPE if name in self.options}

    def takes(self, option: str) -> bool:
        """Whether the constructor has a parameter of this name."""
        parameters = serve.parameters(self.make) if self.parameters is None else self.parameters
        return parameters is None or option in parameters


def connect(connectable: str, time_limit: float = 120.0, tape: Path | None = None) -> Implementation:
    """The implementation of a string: `ref:rule=walk,k=4`, `py:my.module:Engine,depth=5`, `vllm:method=eagle`.

    BadInput for what is wrong with the string; NotApplicable for an implementation that refuses, in its own words, to say what
    it is, and AdapterError for one that fails to.
    """
    kind, _, rest = connectable.partition(":")
    common: dict[str, Any] = {"name": connectable, "time_limit": time_limit, "tape": tape}
    kinds = CONNECTIONS | {name: partial(_ready, name) for name in READY}
    if kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are ref, {', '.join(f'{name}:…' for name in [*kinds][1:])}"
        raise BadInput(f"{connectable!r} is not an implementation", hint)
    try:
        return kinds[kind](rest, common)
    except NotImplementedError as refusal:
        raise NotApplicable(f"{connectable} refuses to say what it is: {refusal}") from None


def _static(rest: str, common: dict[str, Any]) -> Implementation:
    from harness.implementations import reference

    return _python(reference.FixedShapes, _options(rest), common)


def _reference(rest: str, common: dict[str, Any]) -> Implementation:
    from harness.implementations import reference

    options = _options(rest)
    return _python(reference.engine(str(options.pop("drafter", "eagle2"))), options, common)


def _outsider(rest: str, common: dict[str, Any]) -> Implementation:
    where, *options = rest.split(",")
    found = _import(where)
    if not inspect.isfunction(found):
        return _python(found, _options(",".join(options)), common)
    common |= {"version": getattr(inspect.getmodule(found), "__version__", "")}
    return _rule(found, _options(",".join(options)), common)


def _published(rest: str, common: dict[str, Any]) -> Implementation:
    from harness.implementations.published import published_rule

    where, *options = rest.split(",")
    path, _, function = where.partition(":")
    return _rule(published_rule(Path(path), function or "evaluate_posterior"), _options(",".join(options)), common)


def _rule(accept: Callable[..., Any], options: dict[str, Any], common: dict[str, Any]) -> Implementation:
    """A bare rule, in the loop of the reference."""
    from harness.implementations import reference

    return _python(partial(reference.Engine, accept=accept), options, common, reference.RULE_CAPABILITIES)


def _mutant(rest: str, common: dict[str, Any]) -> Implementation:
    from harness import mutants

    name, *options = rest.split(",")
    planted = mutants.find(name)
    return _python(planted.make, _options(",".join(options)), common, planted.capabilities)


def _trace(rest: str, common: dict[str, Any]) -> Implementation:
    from harness.implementations.trace import Trace

    trace = Trace.read(Path(rest))
    common |= {"version": trace.version, "tape": None, "apart": True}
    return Implementation(make=trace.engine, options=trace.options, capabilities=trace.capabilities, **trace.about, **common)


def _command(rest: str, common: dict[str, Any]) -> Implementation:
    words = shlex.split(rest)
    if not words:
        raise BadInput("cmd: names no program", "write cmd:./my_engine, with its arguments behind spaces")
    return _remote(words, {}, common)


def _ready(name: str, rest: str, common: dict[str, Any]) -> Implementation:
    from harness.implementations.command import serving

    options = _options(rest)
    python = READY[name].python(str(options.pop("python", "")))
    if python:
        return _remote(serving(python, READY[name].adapter), options, common)
    adapter = importlib.import_module(f"harness.implementations.adapters.{READY[name].adapter}")
    return _python(adapter.Engine, options, common)


def _remote(command: list[str], options: dict[str, Any], common: dict[str, Any]) -> Implementation:
    """An engine in a process of its own; it is asked at once what it is."""
    from harness.implementations.command import Remote, described

    told = described(command, options, common["time_limit"]).model_dump()
    _known(common["name"], options, told["parameters"])
    return _described(partial(Remote, command), options, told, {**common, "apart": True})


def _python(
    make: Callable[..., Any], options: dict[str, Any], common: dict[str, Any], capabilities: frozenset[str] | None = None
) -> Implementation:
    parameters = serve.parameters(make)
    _known(common["name"], options, parameters)  # before `describe` meets them
    told = _told(make, options) | ({"capabilities": capabilities} if capabilities else {})
    told["version"] = common.pop("version", "") or told["version"]
    return _described(make, options, told, common)


def _told(make: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """What it says of itself, as strictly read as from another process."""
    from harness.implementations.command import Described

    try:
        return Described.model_validate(serve.describe(make, options)).model_dump()
    except NotImplementedError:
        raise
    except Exception as error:
        raise AdapterError(f"what it says of itself is no description: {type(error).__name__}: {error}") from error


def _described(make: Callable[..., Any], options: dict[str, Any], told: dict[str, Any], common: dict[str, Any]) -> Implementation:
    """`told` is what `serve.describe` says, from this process or another."""
    sets = {name: frozenset(told[name]) for name in ("capabilities", "parameters") if told[name] is not None}
    return Implementation(make=make, options=options, **{**told, **sets}, **common)


def _known(name: str, options: Collection[str], parameters: Collection[str] | None) -> None:
    """Refuse options that the constructor does not have."""
    for option in options:
        if parameters is not None and option not in parameters:
            near = difflib.get_close_matches(option, parameters, 1)
            hint = f"did you mean {near[0]}?" if near else f"options are {', '.join(parameters) or 'none'}"
            raise BadInput(f"{name}: there is no option {option!r}", hint)


def _import(where: str) -> Any:
    module_name, _, attribute = where.partition(":")
    if not module_name or not attribute:
        raise BadInput(f"py:{where} names no class", "write py:package.module:Engine")
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules of the folder one stands in, as `python -m` finds them
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise BadInput(
                f"py:{where}: importing {module_name} needs {error.name}, which is not installed", f"pip install {error.name}"
            ) from None
        near = difflib.get_close_matches(module_name, [path.stem for path in Path().glob("*.py")], 1)
        hint = f"did you mean {near[0]}?" if near else "run from the folder that holds it, or install it into this environment"
        raise BadInput(f"py:{where}: there is no module {module_name}", hint) from None
    except Exception as error:
        raise BadInput(
            f"py:{where}: importing {module_name} failed: {type(error).__name__}: {error}", "the module must import by itself"
        ) from error
    if not hasattr(module, attribute):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(attribute, public, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(public) or 'nothing that could be one'}"
        raise BadInput(f"py:{where}: {module_name} has no {attribute}", hint)
    return getattr(module, attribute)


def _options(text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"{part!r} is not an option", "write name=value, with commas between")
        options[name] = _value(value)
    return options


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


CONNECTIONS: dict[str, Callable[[str, dict[str, Any]], Implementation]] = {
    "ref": _reference,
    "static": _static,
    "py": _outsider,
    "cmd": _command,
    "published": _published,
    "mutant": _mutant,
    "trace": _trace,
}
"""What stands before the first colon; the ready-made adapters stand beside it."""
