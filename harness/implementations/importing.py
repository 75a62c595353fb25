"""Import what a connectable string names, and say what to do if that fails."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from eagle2_ref.errors import BadInput, suggest
from harness.implementations.engine import TimeLimit


def import_object(place: str) -> Any:
    """The class or function of `package.module:Name`; modules of the current folder are found too."""
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise BadInput(f"py:{place} names no class", "write py:package.module:Engine")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current folder, as for `python -m`
    module = _run(
        lambda: importlib.import_module(module_name), f"py:{place}", module_name, f"`python -c 'import {module_name}'` must work"
    )
    return find_callable(module, attribute, f"py:{place}: {module_name}")


def import_file(path: Path) -> ModuleType:
    """Run one Python file as a module. The file's own imports must be installed; its package is not imported."""
    spec = importlib.util.spec_from_file_location(f"published_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"{path} is not a Python file", "give the path of the file that holds the function")
    module, load = importlib.util.module_from_spec(spec), spec.loader.exec_module
    _run(lambda: load(module), str(path), path.name, "the file must import by itself, outside its package")
    return module


def _run(load: Callable[[], Any], where: str, module: str, hint: str) -> Any:
    """Run the code of a module. Raises BadInput for all that it raises, except Ctrl-C and the end of the time limit."""
    try:
        return load()
    except (KeyboardInterrupt, TimeLimit):
        raise
    except ModuleNotFoundError as error:
        if error.name and not (module == error.name or module.startswith(error.name + ".")):
            what = f"{where}: importing {module} needs {error.name}, which is not installed"
            raise BadInput(what, f"pip install {error.name}") from None
        here = [path.stem for path in Path().glob("*.py")]
        hint = suggest(module, here, "run from the folder that holds it, or install it into this environment")
        raise BadInput(f"{where}: there is no module {module}", hint) from None
    except SystemExit as error:
        what = f"{where}: importing {module} ended the process: sys.exit({'' if error.code is None else repr(error.code)})"
        raise BadInput(what, "put what a script does when it is run under `if __name__ == '__main__':`") from None
    except BaseException as error:  # such as pytest's Skipped
        raise BadInput(f"{where}: importing {module} failed: {type(error).__name__}: {error}", hint) from error


def find_callable(module: ModuleType, name: str, where: str) -> Any:
    """A public class or function of a module; `where` names the module in the error."""
    public = [public for public, value in vars(module).items() if callable(value) and not public.startswith("_")]
    if not hasattr(module, name):
        hint = suggest(name, public, f"it has {', '.join(public) or 'no public class or function'}")
        raise BadInput(f"{where} has no {name}", hint)
    found = getattr(module, name)
    if not callable(found):
        hint = f"it has {', '.join(public) or 'no public class or function'}"
        raise BadInput(f"{where}: {name} is of type {type(found).__name__}, not a class or function", hint)
    return found
