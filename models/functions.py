"""Python functions by name: `package.module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from models.arrays import said
from models.queries import Function

DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
OURS = Path(__file__).resolve().parents[1]


def is_function(spec: Path | str) -> bool:
    """Whether a flag names a Python function rather than a file: not `C:\\x\\f.pth`, nor `runs/12:30/best.pth.tar`."""
    module, colon, name = str(spec).rpartition(":")
    named = DOTTED.fullmatch(module) or module.endswith(".py") or (module and Path(f"{module}.py").is_file())
    return bool(colon and named and DOTTED.fullmatch(name)) and not Path(spec).exists()


def object_of(flag: str, spec: str) -> Any:
    """What `spec` names. A module is looked for in the current folder and on Python's path. Raises ValueError that says
    why there is no such thing, or FileNotFoundError."""
    name = spec.rpartition(":")[2]
    found: Any = module_of(flag, spec)
    for part in name.split("."):
        if not hasattr(found, part):
            held = getattr(found, "__dict__", {})
            there = [each for each, value in held.items() if callable(value) and not each.startswith("_")]
            own = [each for each in there if getattr(getattr(found, each), "__module__", None) == found.__name__]
            listed = f"; there is {', '.join((own or there)[:8])}" if there else ""
            raise ValueError(f"{flag} {spec}: cannot be imported: {spec.rpartition(':')[0]} has no {part}{listed}")
        found = getattr(found, part)
    return found


def python_function(flag: str, spec: str) -> Function:
    """The function that `spec` names. Raises what `object_of` does, and ValueError if it is none of one batch."""
    found = object_of(flag, spec)
    wrong = what_is_wrong(found)
    if wrong:
        raise ValueError(
            f"{flag} {spec}: {wrong}; a function of one batch of images, a NumPy array [B, C, H, W], is needed"
        )
    return found


def what_is_wrong(found: Any) -> str:
    """Why an object is no function of one batch of images; empty if it may be one."""
    if isinstance(found, nn.Module):
        return "is a torch module, which takes tensors: write def f(images): return net(torch.from_numpy(images))"
    if isinstance(found, type):
        return "is a class: name a function, or an object that was made of it and can be called"
    if not callable(found):
        return f"is {type(found).__name__}, and cannot be called"
    called = found if inspect.isroutine(found) else type(found).__call__
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(called):
        return "is an async function: wait for it in a plain one (asyncio.run)"
    if any(
        check(each) for check in (inspect.isgeneratorfunction, inspect.isasyncgenfunction) for each in (found, called)
    ):
        return "is a generator: return all answers at once"
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        return f"takes {inspect.signature(found)}"
    except ValueError:  # written in C, and does not tell
        pass
    return ""


def module_of(flag: str, spec: str) -> ModuleType:
    """The module of the function that `spec` names. Raises what `python_function` does."""
    named, here = spec.rpartition(":")[0], Path.cwd()
    path = file_of(named)
    if named.endswith(".py") and not Path(named).is_file():
        raise FileNotFoundError(f"{flag} {spec}: {named}: no such file")
    folder = str(path.parent if path is not None else here)
    if folder not in sys.path:
        sys.path.append(folder)  # last: a user's module must not take the place of one of ours
    try:
        return _imported(named) if path is None else _run(path)
    except (Exception, SystemExit) as error:  # whatever runs when a foreign module is imported
        raise ValueError(f"{flag} {spec}: cannot be imported: {_why(error, named, here)}") from None
    finally:
        os.chdir(here)  # paths on the command line are meant from here


def _why(error: BaseException, named: str, here: Path) -> str:
    """Why a module could not be imported from the folder `here`."""
    if isinstance(error, SystemExit):
        return "its module calls sys.exit when it is imported"
    if not (isinstance(error, ModuleNotFoundError) and error.name and f"{named}.".startswith(f"{error.name}.")):
        return said(error)
    top = named.partition(".")[0]
    other = getattr(sys.modules.get(top), "__file__", None)
    if (here / top).is_dir() and other is not None and not Path(other).is_relative_to(here):
        return f"{top} is also the name of {other}; name the file, {named.replace('.', '/')}.py:FUNCTION"
    return f"no such file, and no module {error.name} in the current folder or on Python's path"


def _imported(name: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(name)


def file_of(named: str) -> Path | None:
    """The file to run for a module: one that was named, or one in the current folder whose name is also that of another
    module, of ours or of a package; None if Python's import finds it."""
    if named.endswith(".py"):
        return Path(named).resolve()
    here = Path(f"{named}.py").resolve()
    if not here.is_file() or "." in named:
        return None
    if not DOTTED.fullmatch(named):  # no name for an import: my-model, folder/my_model
        return here
    known = sys.modules.get(named) or importlib.util.find_spec(named)
    origin = getattr(known, "__file__", None) or getattr(known, "origin", None)
    return here if known is not None and (origin is None or Path(origin).resolve() != here) else None


def _run(path: Path) -> ModuleType:
    """The module of a file, once; under a name of its own, so that it takes no other's place."""
    name = f"_foreign_{path.stem}_{abs(hash(path)):x}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
