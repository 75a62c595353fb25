"""Connect a string to a decoder: `ref`, `py:package.module:Engine`, `cmd:./engine`, `vllm:method=eagle`, `trace:run.jsonl` …"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagle2_ref.errors import BadInput, suggest
from harness import tracebacks
from harness.implementations import serve
from harness.implementations.engine import AdapterError, Engine, NotApplicable, limited
from harness.implementations.global_state import GlobalState
from harness.implementations.importing import import_object
from harness.implementations.protocol import CAPABILITIES
from harness.implementations.ready import READY
from harness.pairs import DRAFTERS, Pair, find_pair

if TYPE_CHECKING:
    from harness.implementations.protocol import Description
    from harness.settings import Settings

SHAPE = ("k", "depth", "m")
"""Options that bound a draft tree."""

SHARING = ("py", "published")
"""Kinds of connectable strings whose code is not of this repository and runs in the harness's process."""

OPTION = r"""(?<!\\),[^\W\d]\w*=[^\s,'"\\]*"""
"""An option that follows a command. A comma in quotes, or after a backslash, belongs to the command."""


def fit_vocabulary(options: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Options with the bounds of a tree cut to a small vocabulary: k children of a node, and the m candidates that they allow."""
    k, depth, m = (options.get(name, 1) for name in SHAPE)
    cut = {"k": vocab_size, "m": min(m, vocab_size + (depth - 1) * vocab_size**2)} if k > vocab_size else {}
    return {**options, **{name: bound for name, bound in cut.items() if name in options}}


@dataclass(frozen=True)
class Implementation:
    """A decoder that can be opened on a pair.

    name: the connectable string. make: its constructor, `make(target, draft, **options)`. options: those of the string.
    time_limit: seconds that one call may take. tape: file to which requests and answers are recorded. remote: it does not run
    in this process. state: global settings of torch that it chose. recorded: options that a trace was recorded with. The other
    fields are those of protocol.Description.
    """

    name: str
    make: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset({"temperature"})
    version: str = ""
    time_limit: float = 120.0
    tape: Path | None = None
    parameters: frozenset[str] | None = None
    checkpoint: str = "draft"
    logprobs: str = "processed"
    lossy: str = ""
    method: str = ""
    budget: dict[str, int] | None = None
    remote: bool = False
    state: GlobalState = field(default_factory=GlobalState, compare=False)
    recorded: dict[str, str | int] = field(default_factory=dict)

    @property
    def shares_process(self) -> bool:
        """Whether code that is not of this repository runs in the harness's process."""
        return self.name.partition(":")[0] in SHARING

    def require(self, *capabilities: str) -> None:
        """Raise NotApplicable if the implementation does not declare all of these capabilities."""
        assert CAPABILITIES.keys() >= set(capabilities), "a check requires an unknown capability"
        if lacking := [name for name in capabilities if name not in self.capabilities]:
            raise NotApplicable(f"the implementation does not declare the capability {', '.join(map(repr, lacking))}")

    def find_pair(self, settings: Settings) -> Pair:
        """The pair of the settings.

        Raises:
            BadInput: there is none, its target is no language model, or an option contradicts one of the settings.
        """
        for option in ("dtype", "device"):
            if self.options.get(option, getattr(settings, option)) != getattr(settings, option):
                raise BadInput(f"{self.name} contradicts --{option} {getattr(settings, option)}", f"give --{option} alone")
        pair = find_pair(settings.pair, settings.target or None, settings.draft or None, self.checkpoint)
        pair.config  # noqa: B018  raises BadInput for a folder without a model
        return pair

    def open(self, pair: Pair, *, speculate: bool = True, **options: Any) -> Engine:
        """An engine on a pair; with `speculate` False, the control. `options` override those of the connectable string."""
        draft = pair.drafter(self.checkpoint)
        if draft is None:
            known = ", ".join(["draft", *(kind for kind in DRAFTERS if pair.drafter(kind))])
            raise NotApplicable(
                f"the pair {pair.name} has no checkpoint {self.checkpoint!r}, which this method drafts with; it has {known}"
            )
        make = partial(self.make, str(pair.target), str(draft) if speculate else None, **{**self.options, **options})
        return Engine(self, pair, make, speculate, options)

    def check(self, pair: Pair, dtype: str, device: str) -> None:
        """Open the reference's code, to refuse options and checkpoints that it does not accept before a run.

        Other engines are not opened here, since that may take minutes and a GPU; SMOKE opens them.

        Raises:
            BadInput: an option or a checkpoint is wrong.
            AdapterError: it raises another error.
        """
        if "decoder" in self.capabilities:
            common = {name: value for name, value in {"dtype": dtype, "device": device}.items() if self.takes(name)}
            try:
                self.make(str(pair.target), str(pair.drafter(self.checkpoint)), **{**common, **self.options})
            except BadInput as error:
                where = f"{self.name}: " if self.options else ""
                raise BadInput(f"{where}{error.what}", error.hint) from None
            except Exception as error:
                raise AdapterError(f"{self.name} cannot be opened on {pair.name}: {type(error).__name__}: {error}") from error

    @property
    def shape(self) -> dict[str, int]:
        """Bounds k, depth and m of the draft trees, as far as known: reported by the implementation, requested, or defaults."""
        requested = {name: int(value) for name, value in self.options.items() if name in SHAPE}
        if self.budget or "budget" not in self.capabilities:
            return requested | (self.budget or {})
        parameters = {} if self.remote else inspect.signature(self.make).parameters
        defaults = {name: int(option.default) for name, option in parameters.items() if name in SHAPE and option.default}
        return (defaults or {"k": 8, "depth": 6, "m": 25}) | requested

    def takes(self, option: str) -> bool:
        """Whether the constructor has a parameter of this name."""
        parameters = serve.parameters(self.make) if self.parameters is None else self.parameters
        return parameters is None or option in parameters


@dataclass(frozen=True)
class Connectable:
    """A connectable string, `kind:rest`. Most kinds read `rest` as options, or as a place followed by options."""

    name: str
    kind: str
    rest: str
    time_limit: float

    @property
    def options(self) -> dict[str, Any]:
        return _parse_options(self.rest.split(","))

    @property
    def place_and_options(self) -> tuple[str, dict[str, Any]]:
        place, *options = self.rest.split(",")
        return place, _parse_options(options)


def connect(connectable: str, time_limit: float = 120.0, tape: Path | None = None) -> Implementation:
    """The implementation of a connectable string: `ref:rule=walk,k=4`, `py:my.module:Engine,depth=5`, `vllm:method=eagle`.

    Raises:
        BadInput: the string is wrong.
        NotApplicable: the implementation refuses to describe itself; the message is its own.
        AdapterError: the implementation fails to describe itself, or does not within the time limit.
    """
    kind, _, rest = connectable.partition(":")
    if kind not in CONNECTORS:
        known = f"known are ref, {', '.join(f'{name}:…' for name in [*CONNECTORS][1:])}"
        raise BadInput(f"{connectable!r} is not an implementation", suggest(kind, CONNECTORS, known))
    state = GlobalState()
    with limited(f"importing and describing {connectable}", time_limit), state.in_force():
        try:
            found = CONNECTORS[kind](Connectable(connectable, kind, rest, time_limit))
        except NotImplementedError as refusal:
            raise NotApplicable(f"{connectable} refuses to describe itself: {refusal}") from None
    # A trace is recorded already.
    return replace(found, time_limit=time_limit, tape=None if kind == "trace" else tape, state=state)


def _connect_reference(wanted: Connectable) -> Implementation:
    from harness.implementations import reference

    options = wanted.options
    return _in_process(reference.engine(str(options.pop("drafter", "eagle2"))), options, wanted)


def _connect_static(wanted: Connectable) -> Implementation:
    from harness.implementations import reference

    return _in_process(reference.FixedShapes, wanted.options, wanted)


def _connect_python(wanted: Connectable) -> Implementation:
    place, options = wanted.place_and_options
    found = import_object(place)
    if inspect.isfunction(found):
        return _from_rule(found, options, wanted, version=getattr(inspect.getmodule(found), "__version__", ""))
    implementation = _in_process(found, options, wanted)
    if inspect.isclass(found) and not hasattr(found, "generate"):
        what = f"{wanted.name}: the class {found.__name__} has no method generate"
        raise BadInput(what, "write generate(self, prompts, params, seeds)")
    return implementation


def _connect_published(wanted: Connectable) -> Implementation:
    from harness.implementations.published import published_rule

    place, options = wanted.place_and_options
    path, _, function = place.partition(":")
    return _from_rule(published_rule(Path(path), function or "evaluate_posterior"), options, wanted)


def _connect_mutant(wanted: Connectable) -> Implementation:
    from harness import mutants

    name, options = wanted.place_and_options
    mutant = mutants.find(name)
    return _in_process(mutant.make, options, wanted, mutant.capabilities)


def _connect_trace(wanted: Connectable) -> Implementation:
    from harness.implementations.trace import Trace

    trace = Trace.read(Path(wanted.rest))
    fields = {"capabilities": trace.capabilities, "version": trace.version, **trace.described}
    return Implementation(wanted.name, trace.engine, trace.options, remote=True, recorded=trace.recorded, **fields)


def _connect_command(wanted: Connectable) -> Implementation:
    command = re.sub(rf"(?:{OPTION})+\Z", "", wanted.rest)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadInput(f"{wanted.name}: {str(error).lower()}", "quotes and backslashes are read as by a shell") from None
    if not words:
        raise BadInput("cmd: names no program", "write cmd:./my_engine, followed by its arguments, separated by spaces")
    return _in_own_process(words, _parse_options(wanted.rest[len(command) :].split(",")), wanted)


def _connect_ready(wanted: Connectable) -> Implementation:
    from harness.implementations.process import serve_command

    adapter, options = READY[wanted.kind], wanted.options
    adapter.check(options)
    if python := adapter.python(str(options.pop("python", ""))):
        return _in_own_process(serve_command(python, adapter.module), options, wanted)
    module = importlib.import_module(f"harness.implementations.adapters.{adapter.module}")
    return _in_process(module.Engine, options, wanted)


CONNECTORS: dict[str, Callable[[Connectable], Implementation]] = {
    "ref": _connect_reference,
    "static": _connect_static,
    "py": _connect_python,
    "cmd": _connect_command,
    "published": _connect_published,
    "mutant": _connect_mutant,
    "trace": _connect_trace,
    **dict.fromkeys(READY, _connect_ready),
}
"""The kinds of connectable strings: what precedes the first colon."""


def _from_rule(accept: Callable[..., Any], options: dict[str, Any], wanted: Connectable, *, version: str = "") -> Implementation:
    """A bare acceptance rule in the reference's decoding loop."""
    from harness.implementations import reference

    make = partial(reference.Engine, accept=accept)
    found = _in_process(make, options, wanted, reference.RULE_CAPABILITIES)
    return replace(found, version=version or found.version)


def _in_process(
    make: Callable[..., Any], options: dict[str, Any], wanted: Connectable, capabilities: frozenset[str] | None = None
) -> Implementation:
    """An engine in this process. Its description is validated as strictly as that of another process."""
    from harness.implementations.protocol import Description

    _check_options(wanted.name, options, serve.parameters(make))  # before `describe` is called with them
    try:
        description = Description.model_validate(serve.describe(make, options))
    except NotImplementedError:
        raise
    except (Exception, SystemExit) as error:
        place = tracebacks.place(tracebacks.format_error(error))
        raise AdapterError(f"it does not describe itself: {type(error).__name__}: {error} ({place})") from error
    found = _described(wanted.name, make, options, description)
    return replace(found, capabilities=capabilities) if capabilities else found


def _in_own_process(command: list[str], options: dict[str, Any], wanted: Connectable) -> Implementation:
    from harness.implementations.process import EngineProcess, RemoteEngine, describe_process

    description = describe_process(command, options, wanted.time_limit)
    _check_options(wanted.name, options, description.parameters)
    start = partial(EngineProcess, command, wanted.time_limit, numbered=description.numbered)
    return replace(_described(wanted.name, partial(RemoteEngine, start), options, description), remote=True)


def _described(name: str, make: Callable[..., Any], options: dict[str, Any], description: Description) -> Implementation:
    for capability in description.capabilities:
        if capability not in CAPABILITIES:
            hint = suggest(capability, CAPABILITIES, f"known are {', '.join(CAPABILITIES)}")
            raise AdapterError(f"{name} declares {capability!r}, which is no capability\n  {hint}")
    fields = description.model_dump(exclude={"id", "numbered"})
    for text in ("version", "lossy", "method"):
        fields[text] = fields[text].encode("utf-8", "backslashreplace").decode()
    sets = {field: frozenset(fields[field]) for field in ("capabilities", "parameters") if fields[field] is not None}
    return Implementation(name, make, options, **{**fields, **sets})


def _check_options(name: str, options: Collection[str], parameters: Collection[str] | None) -> None:
    """Refuse options that the constructor does not have."""
    for option in options:
        if parameters is not None and option not in parameters:
            known = f"options are {', '.join(parameters) or 'none'}"
            raise BadInput(f"{name}: there is no option {option!r}", suggest(option, parameters, known))


def _parse_options(parts: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, parts):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"{part!r} is not an option", "write name=value, separated by commas")
        options[name] = _parse_value(value)
    return options


def _parse_value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
