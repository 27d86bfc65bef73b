"""Whether a base classifier is a function: layers that mix the images of a batch, draw at random, or change the network
while it answers make its votes worthless."""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

DEPTH = 8  # of what a callable is made of
LONG = 1000  # a container of more is one of data


def must_be_in_eval_mode(base_classifier: Any) -> None:
    """Raises ValueError that names the layers if a network is in train mode and that changes its answers, or if batch
    norm has no statistics of its own. Looks into modules, and into functions, methods and objects that hold some."""
    found = [
        (name or "the network", module) for held in modules_of(base_classifier) for name, module in held.named_modules()
    ]
    lacking = [
        f"{name} ({kind_of(module)})"
        for name, module in found
        if is_batch_norm(module) and getattr(module, "running_mean", None) is None
    ]
    if lacking:
        raise ValueError(
            f"the base classifier mixes the images of a batch, also in eval mode: {_listed(lacking)} keeps no running "
            "statistics; its votes are not independent, and a certificate would be false"
        )
    training = [f"{name} ({kind_of(module)})" for name, module in found if acts_in_training(module)]
    if training:
        raise ValueError(
            f"the base classifier is in train mode: {_listed(training)} would mix the images of a batch, answer at "
            "random, or change its weights; call .eval() first"
        )


def modules_of(held: Any, depth: int = DEPTH) -> list[nn.Module]:
    """The modules that a callable holds, each once: in closures, in global variables that it names, bound objects,
    partial arguments, attributes and containers."""
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()

    def look(at: Any, left: int) -> None:
        if id(at) in seen or left < 0:
            return
        seen.add(id(at))
        if isinstance(at, nn.Module):
            found[id(at)] = at
            return
        for inner in _inside(at):
            look(inner, left - 1)

    look(held, depth)
    return list(found.values())


def _inside(held: Any) -> Iterator[Any]:
    """What a callable, an object or a container is made of."""
    if isinstance(held, (dict, list, tuple, set, frozenset)):
        if len(held) <= LONG:
            yield from held.values() if isinstance(held, dict) else held
    elif isinstance(held, functools.partial):
        yield from (held.func, held.args, held.keywords)
    elif isinstance(held, types.MethodType):
        yield from (held.__self__, held.__func__)
    elif isinstance(held, types.FunctionType):
        for cell in held.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                yield cell.cell_contents
        named = {step.argval for step in dis.get_instructions(held) if step.opname == "LOAD_GLOBAL"}
        yield from (held.__globals__[name] for name in named if name in held.__globals__)
        yield from (held.__defaults__, held.__kwdefaults__, held.__dict__)
    elif not isinstance(held, (type, types.ModuleType, Tensor)):
        yield getattr(held, "__dict__", None)
        yield inspect.getattr_static(type(held), "__call__", None)


def kind_of(module: nn.Module) -> str:
    """The name of a layer's class, also where TorchScript holds it."""
    return getattr(module, "original_name", type(module).__name__)


def is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or (hasattr(module, "original_name") and "BatchNorm" in kind_of(module))


def acts_in_training(module: nn.Module) -> bool:
    """Whether it is a layer in train mode that does something else there than in eval mode: batch norm (or instance
    norm with running statistics), dropout of any kind, random slopes, spectral norm."""
    kind = kind_of(module)
    if not module.training:
        return False
    if is_batch_norm(module) or kind in ("RReLU", "_SpectralNorm"):
        return True
    if "InstanceNorm" in kind:
        return bool(getattr(module, "track_running_stats", False))
    if any(type(hook).__name__ == "SpectralNorm" for hook in module._forward_pre_hooks.values()):
        return True
    drops = "drop" in kind.lower() or kind == "StochasticDepth"
    shares = (getattr(module, name, None) for name in ("dropout", "drop_prob", "drop_rate", *(["p"] if drops else [])))
    return any(isinstance(share, (int, float)) and share > 0 for share in shares)


def _listed(layers: list[str]) -> str:
    others = f" and {len(layers) - 1} other layers" if len(layers) > 1 else ""
    return f"{layers[0]}{others}"
