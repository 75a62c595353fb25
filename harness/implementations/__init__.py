"""Connect a string to a decoder: `ref`, `py:package.module:Engine`, `mutant:M04`, `trace:run.jsonl`, each with its options."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput
from harness.implementations.engine import Engine, NotApplicable
from harness.pairs import Pair

DEFAULT_CAPABILITIES = frozenset({"temperature"})


@dataclass(frozen=True)
class Implementation:
    """A decoder that can be opened on a pair. `make(target, draft, **options)` is what its author wrote."""

    name: str
    make: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    version: str = ""
    time_limit: float = 120.0
    tape: Path | None = None

    def require(self, *capabilities: str) -> None:
        """Raise NotApplicable where something is needed that the implementation does not say it can do."""
        if lacking := [name for name in capabilities if name not in self.capabilities]:
            raise NotApplicable(f"the implementation does not declare the capability {', '.join(map(repr, lacking))}")

    def open(self, pair: Pair, *, speculate: bool = True, **options: Any) -> Engine:
        """An engine on a pair; `speculate` False opens the control arm. `options` add to the user's own, and override them."""
        chosen = {**self.options, **options}
        make = partial(self.make, str(pair.target), str(pair.draft) if speculate else None, **chosen)
        return Engine(self, pair, make, speculate, options)

    def check(self, pair: Pair, dtype: str, device: str) -> None:
        """Raise BadInput for options and checkpoints that the reference's own code, where it is used, cannot work with.

        Opening other engines may take minutes and a GPU: theirs is left to SMOKE.
        """
        if "decoder" in self.capabilities:
            self.make(str(pair.target), str(pair.draft), **{"dtype": dtype, "device": device, **self.options})

    def takes(self, option: str) -> bool:
        """Whether the constructor has a parameter of this name."""
        parameters = inspect.signature(self.make).parameters.values()
        return any(p.name == option or p.kind is p.VAR_KEYWORD for p in parameters)


def connect(connectable: str, time_limit: float = 120.0, tape: Path | None = None) -> Implementation:
    """The implementation of a string: `ref:rule=walk,k=4`, `py:my.module:Engine,depth=5`, `mutant:M04`, `trace:run.jsonl`."""
    kind, _, rest = connectable.partition(":")
    common: dict[str, Any] = {"name": connectable, "time_limit": time_limit, "tape": tape}
    if kind == "ref":
        from harness.implementations import reference

        implementation = _python(reference.Engine, _options(rest), common)
    elif kind == "py":
        where, *options = rest.split(",")
        found = _import(where)
        if inspect.isfunction(found):
            from harness.implementations import reference

            common |= {"version": getattr(inspect.getmodule(found), "__version__", "")}
            implementation = _python(
                partial(reference.Engine, accept=found), _options(",".join(options)), common, reference.RULE_CAPABILITIES
            )
        else:
            implementation = _python(found, _options(",".join(options)), common)
    elif kind == "published":
        from harness.implementations import reference
        from harness.implementations.published import published_rule

        where, *options = rest.split(",")
        path, _, function = where.partition(":")
        rule = published_rule(Path(path), function or "evaluate_posterior")
        implementation = _python(
            partial(reference.Engine, accept=rule), _options(",".join(options)), common, reference.RULE_CAPABILITIES
        )
    elif kind == "mutant":
        from harness import mutants

        name, *options = rest.split(",")
        planted = mutants.find(name)
        implementation = _python(planted.make, _options(",".join(options)), common, planted.capabilities)
    elif kind == "trace":
        from harness.implementations.trace import Trace

        trace = Trace.read(Path(rest))
        common |= {"version": trace.version, "tape": None}
        implementation = Implementation(make=trace.engine, options=trace.options, capabilities=trace.capabilities, **common)
    else:
        near = difflib.get_close_matches(kind, ["ref", "py", "published", "mutant", "trace"], 1)
        known = "ref, py:package.module:Engine, published:path/utils.py, mutant:M04 or trace:run.jsonl"
        hint = f"did you mean {near[0]}?" if near else f"give {known}"
        raise BadInput(f"{connectable!r} is not an implementation", hint)
    return implementation


def _python(
    make: Callable[..., Any], options: dict[str, Any], common: dict[str, Any], capabilities: frozenset[str] | None = None
) -> Implementation:
    declared = capabilities or frozenset(getattr(make, "capabilities", DEFAULT_CAPABILITIES))
    version = common.pop("version", "") or str(getattr(make, "version", ""))
    implementation = Implementation(make=make, options=options, capabilities=declared, version=version, **common)
    names = [name for name in inspect.signature(make).parameters if name not in ("target", "draft", "accept")]
    for option in options:
        if not implementation.takes(option):
            near = difflib.get_close_matches(option, names, 1)
            raise BadInput(
                f"{implementation.name}: there is no option {option!r}",
                f"did you mean {near[0]}?" if near else f"options are {', '.join(names) or 'none'}",
            )
    return implementation


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
