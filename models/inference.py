"""A frozen network as it is run: nothing of its training is left in it."""

from __future__ import annotations

import contextlib
import operator
import platform
import warnings

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse, optimize_for_inference

# What a ResNet is made of, once its batch norms are folded.
RESNET_LAYERS = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear, nn.Identity)
RESNET_FUNCTIONS = {operator.add, operator.sub, operator.truediv, torch.flatten}  # the middle two: of the pixels' scale


def frozen(model: nn.Module) -> nn.Module:
    """`model` (on its device, channels-last) in eval mode without gradients for its parameters, each batch norm folded
    into the convolution before it: the same function up to rounding, in fewer operations.

    A network that torch.fx cannot trace keeps its batch norms.
    """
    model = model.eval().requires_grad_(False)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        with contextlib.suppress(fx.proxy.TraceError):
            model = fuse(model)
    return model


def answering(model: nn.Module) -> nn.Module:
    """The same function for whoever wants a `frozen` network's float32 answers alone: on an x86 CPU a ResNet's tensors
    stay in oneDNN's own layout from convolution to convolution, which takes two thirds of the time
    (`results/benchmarks`). Gradients and autocast do not reach into it. Any other network is returned as it is: others
    gain nothing, or hold what oneDNN lacks.
    """
    weights = next(model.parameters(), None)
    onednn = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
    if not onednn or weights is None or weights.device.type != "cpu" or not _is_resnet(model):
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, of another part of it
        return optimize_for_inference(model)


def _is_resnet(model: nn.Module) -> bool:
    if not isinstance(model, fx.GraphModule):
        return False
    layers = [model.get_submodule(node.target) for node in model.graph.nodes if node.op == "call_module"]
    functions = {node.target for node in model.graph.nodes if node.op == "call_function"}
    return (
        all(isinstance(layer, RESNET_LAYERS) for layer in layers)
        and operator.add in functions
        and functions <= RESNET_FUNCTIONS
    )
