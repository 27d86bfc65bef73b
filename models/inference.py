"""Frozen networks: ready for inference, without anything that only training needs."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from models.small_maps import with_small_maps


def frozen(model: nn.Module) -> nn.Module:
    """`model` (on its device, channels-last) in eval mode without gradients for its parameters, its batch norms
    `folded` and the convolutions of small maps made faster (`models.small_maps`): the same function up to rounding.
    A network of somebody else's (`models.adapted.WhiteBox`) freezes itself, and compares its answers."""
    freeze = getattr(model, "freeze", None)
    return freeze() if freeze is not None else plainly_called(with_small_maps(folded(model)))


def folded(model: nn.Module) -> nn.Module:
    """`model` in eval mode without gradients for its parameters, each batch norm folded into the convolution before it.
    A network that torch.fx cannot trace keeps its batch norms."""
    model = model.eval().requires_grad_(False)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        with contextlib.suppress(fx.proxy.TraceError):
            model = fuse(model)
    return model


def plainly_called(model: nn.Module) -> nn.Module:
    """`model`, whose traced parts raise their errors like any module, without printing a traceback of their own."""
    for module in model.modules():
        if isinstance(module, fx.GraphModule):
            its_own: Any = type(module)  # a class made for this module alone
            its_own.__call__ = nn.Module.__call__
    return model
