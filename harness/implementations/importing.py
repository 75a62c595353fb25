"""Import what a connectable string names, and say what to do if that fails."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from eagle2_ref.errors import BadInput, suggest


def import_object(place: str) -> Any:
    """The class or function of `package.module:Name`; modules of the current folder are found too."""
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise BadInput(f"py:{place} names no class", "write py:package.module:Engine")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise BadInput(
                f"py:{place}: importing {module_name} needs {error.name}, which is not installed", f"pip install {error.name}"
            ) from None
        here = [path.stem for path in Path().glob("*.py")]
        hint = suggest(module_name, here, "run from the folder that holds it, or install it into this environment")
        raise BadInput(f"py:{place}: there is no module {module_name}", hint) from None
    except Exception as error:
        raise BadInput(
            f"py:{place}: importing {module_name} failed: {type(error).__name__}: {error}",
            f"`python -c 'import {module_name}'` must work",
        ) from error
    return find_callable(module, attribute, f"py:{place}: {module_name}")


def import_file(path: Path) -> ModuleType:
    """Run one Python file as a module. The file's own imports must be installed; its package is not imported."""
    spec = importlib.util.spec_from_file_location(f"published_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"{path} is not a Python file", "give the path of the file that holds the function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(f"{path}: it imports {error.name}, which is not installed", f"pip install {error.name}") from error
    except Exception as error:
        raise BadInput(
            f"{path}: importing it failed: {type(error).__name__}: {error}", "the file must import by itself, outside its package"
        ) from error
    return module


def find_callable(module: ModuleType, name: str, where: str) -> Any:
    """A public attribute of a module; `where` names the module in the error."""
    if hasattr(module, name):
        return getattr(module, name)
    public = [public for public, value in vars(module).items() if callable(value) and not public.startswith("_")]
    hint = suggest(name, public, f"it has {', '.join(public) or 'no public class or function'}")
    raise BadInput(f"{where} has no {name}", hint)
