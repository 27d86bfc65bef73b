"""What `package.module:name` names: an `nn.Module`, a function that returns one, a callable on tensors, or a function
of a batch on NumPy arrays."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.functions import object_of
from models.outputs import last_line, probes, scores_of

BATCHES = ("x", "xs", "images", "image", "batch", "inputs", "input", "imgs", "arrays", "pixels")  # what people call one
OF_TORCH = ("torch", "torchvision", "timm", "transformers", "monai")


class OnTensors(nn.Module):
    """A callable on tensors that is no module, as one."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Any:
        return self._function(x)


def named_object(flag: str, spec: str) -> Any:
    """What `package.module:name` names; a class of modules, or a function without arguments, is called, and if it gives
    a module or a callable, that counts. Raises ValueError if it cannot be imported, or cannot be called so."""
    found = object_of(flag, spec)
    is_class = isinstance(found, type)
    if isinstance(found, nn.Module) or not callable(found) or (is_class and not issubclass(found, nn.Module)):
        return found
    needed, names = arguments(found)
    if is_class and needed:
        raise ValueError(
            f"{flag} {spec}: is a class whose constructor needs arguments; name a function without arguments that "
            "returns the module"
        )
    if needed or (names and names[0] in BATCHES):
        return found
    try:
        made = found()
    except Exception as error:  # whatever a foreign function raises
        if names and not is_class:  # it may be a function of a batch after all
            return found
        raise ValueError(f"{flag} {spec}: was called without arguments and failed: {last_line(error)}") from None
    return made if callable(made) else found


def arguments(function: Callable) -> tuple[int, list[str]]:
    """How many arguments a call needs, and the names of those that it takes by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function in C, whose arguments nobody knows
        return 1, [BATCHES[0]]
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each for each in parameters if each.default is each.empty and each.kind not in various]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len(needed), [each.name for each in parameters if each.kind in by_place]


def may_want_tensors(function: Callable) -> bool | None:
    """Whether a callable takes tensors, by the annotation of its argument; without one, None if its module uses
    PyTorch, so that it may."""
    annotations = [each for name, each in getattr(function, "__annotations__", {}).items() if name != "return"]
    if annotations:
        return "Tensor" in str(annotations[0])
    return None if _uses_torch(function) else False


def wants_tensors(flag: str, spec: str, function: Callable, channels: int, image_size: int) -> bool:
    """Whether a callable fails on an array and not on a tensor. Raises ValueError if it fails on both; where a
    connection failed, a black box says so later."""
    x = probes(channels, image_size, image_size)
    try:
        function(x.numpy().copy())
        return False
    except OSError:
        return False
    except Exception as on_arrays:  # whatever a foreign function raises
        try:
            scores_of(function(x), len(x))
        except Exception as on_tensors:
            raise ValueError(
                f"{flag} {spec}: fails on an array [2, {channels}, {image_size}, {image_size}] "
                f"({last_line(on_arrays)}) and on a tensor ({last_line(on_tensors)})"
            ) from None
        return True


def _uses_torch(function: Any) -> bool:
    """Whether the code of a callable can see PyTorch."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = getattr(function, "__func__", function)
    code = function if isinstance(function, types.FunctionType) else type(function).__call__
    held = getattr(inspect.unwrap(code), "__globals__", {})
    return any(each is torch or isinstance(each, nn.Module) or _is_of_torch(each) for each in held.values())


def _is_of_torch(each: Any) -> bool:
    name = each.__name__ if isinstance(each, types.ModuleType) else getattr(each, "__module__", None)
    return isinstance(name, str) and name.partition(".")[0] in OF_TORCH
