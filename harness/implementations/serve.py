"""Serve an engine over newline-delimited JSON: `python serve.py my_engine.py:Engine` reads stdin and answers on stdout.

This file uses the standard library only, so that it runs under the Python of any engine's environment. The messages are
described in reports/schema/protocol.schema.json. Output that the engine prints goes to stderr. The process ends with stdin.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import json
import os
import sys
import traceback
import types
from pathlib import Path
from typing import Any

LONGEST = 100_000
"""Items that are taken from a generator. The harness refuses answers of this length."""


def load(where: str) -> Any:
    """Import the class named by `package.module:Engine` or `path/to/file.py:Engine`.

    A file may import its neighbours by `from .name import …`: its folder is a package called `adapters`.
    """
    place, _, name = where.rpartition(":")
    if place.endswith(".py"):
        file = Path(place).resolve()
        package = types.ModuleType("adapters")
        package.__path__ = [str(file.parent)]
        sys.modules.setdefault("adapters", package)
        module = importlib.import_module("adapters." + file.stem)
    else:
        sys.path.insert(0, str(Path.cwd()))
        module = importlib.import_module(place)
    return getattr(module, name)


def describe(engine: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Description of an engine that is not open: from its `describe(**options)` if it has one, else from its attributes."""
    description = dict(engine.describe(**options)) if hasattr(engine, "describe") else {}
    for name, default in (("capabilities", ["temperature"]), ("version", "")):
        description.setdefault(name, getattr(engine, name, default))
    if isinstance(description["capabilities"], str):  # which would be read as a list of letters
        raise TypeError(f"capabilities is the text {description['capabilities']!r}: write a set, {{'temperature'}}")
    return {**description, "capabilities": sorted(description["capabilities"]), "parameters": parameters(engine)}


def parameters(engine: Any) -> list[str] | None:
    """Names of the constructor's options; None if it accepts any, or is of a kind that Python cannot inspect."""
    try:
        found = inspect.signature(engine).parameters.values()
    except ValueError:
        return None
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return None
    return [p.name for p in found if p.name not in ("target", "draft", "accept")]


class Server:
    """Answers requests with one engine, which is opened at most once."""

    def __init__(self, make: Any) -> None:
        self.make = make
        self.engine: Any = None

    def answer(self, request: dict[str, Any]) -> str:
        """The reply to one request, with its number. NotImplementedError is a refusal; any other exception is an error."""
        number = {"id": request.pop("id")} if "id" in request else {}
        try:
            return json.dumps({**getattr(self, "do_" + request.pop("do"))(**request), **number}, default=plain)
        except NotImplementedError as refusal:
            reply = {"refused": str(refusal)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        return json.dumps({**reply, **number})

    def do_describe(self, options: dict[str, Any]) -> dict[str, Any]:
        known = parameters(self.make)  # the harness refuses options that are not among them
        options = {name: value for name, value in options.items() if known is None or name in known}
        return {**describe(self.make, options), "numbered": True}

    def do_open(self, target: str, draft: str | None, options: dict[str, Any]) -> dict[str, Any]:
        self.engine = self.make(target, draft, **options)
        return {"opened": True}

    def do_generate(self, prompts: list[Any], params: list[Any], seeds: list[int]) -> dict[str, Any]:
        return {"outputs": self.engine.generate(prompts, params, seeds)}

    def do_counters(self) -> dict[str, Any]:
        return {"counters": self.engine.counters()}


def plain(value: Any) -> Any:
    """Convert arrays and numbers of an engine's libraries to JSON types. Generators may be endless."""
    return value.tolist() if hasattr(value, "tolist") else list(itertools.islice(value, LONGEST))


def main(where: str) -> None:
    """Write one reply line per request line, until stdin ends."""
    with os.fdopen(os.dup(1), "w", buffering=1) as replies:
        os.dup2(2, 1)  # the engine's own prints, also those of native code, must not mix with replies
        server = Server(load(where))
        for line in sys.stdin:
            replies.write(server.answer(json.loads(line)) + "\n")
    sys.stdout.flush()
    os._exit(0)  # threads of the engine must not keep the process alive


if __name__ == "__main__":
    del sys.path[0]  # this file's folder: its modules must not hide installed packages of the same name
    main(sys.argv[1])
