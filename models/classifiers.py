"""Classifiers: torchvision's by name, normalisation inside, with a first layer that suits small images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.normalize import Normalize, per_channel
from models.reading import read_tensors

# torchvision's default of 1000 ImageNet classes is never meant here, and its weights are never downloaded.


def classifier(
    arch: str,
    num_classes: int,
    image_size: int,
    channels: int = 3,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
) -> nn.Sequential:
    """`Sequential(Normalize, net)`: images `[B, channels, H, W]` in [0, 1] → logits `[B, num_classes]`.

    `mean` and `std` hold one value (for all channels) or one per channel. ResNets for images up to 128 px get a 3×3
    first convolution (up to 40 px also stride 1 and no max-pooling, as on CIFAR): a 7×7 one with stride 2 blurs what a
    small image holds. Raises ValueError if torchvision knows no classifier `arch`, or it cannot take such images.
    """
    from torchvision import models as torchvision_models

    if arch not in torchvision_models.list_models(module=torchvision_models):
        raise ValueError(f"--arch {arch}: torchvision has no such classifier; try resnet18, mobilenet_v3_small …")
    net = torchvision_models.get_model(arch, weights=None, num_classes=num_classes, **_special(arch, image_size))
    if arch.startswith(("resnet", "resnext", "wide_resnet")) and image_size <= 128:
        tiny = image_size <= 40
        net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1 if tiny else 2, padding=1, bias=False)
        if tiny:
            net.maxpool = nn.Identity()
    if channels != 3:
        replace_first_convolution(net, channels)
    classifier = nn.Sequential(Normalize(per_channel(mean, channels), per_channel(std, channels)), net)
    try:
        with torch.inference_mode():
            classifier.eval()(torch.zeros(1, channels, image_size, image_size))
    except RuntimeError as error:  # pooled to nothing
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--arch {arch}: cannot take images of {image_size} px ({reason[:100]})") from None
    return classifier.train()


def _special(arch: str, image_size: int) -> dict[str, Any]:
    """What some of torchvision's constructors must be told, so that images `[B, C, H, W]` give logits `[B, K]`."""
    if arch.startswith("vit_"):
        if image_size % int(arch.rpartition("_")[2]):
            raise ValueError(f"--arch {arch}: cannot take images of {image_size} px, no multiple of its patches' side")
        return {"image_size": image_size}
    return {"aux_logits": False, "init_weights": True} if arch in ("googlenet", "inception_v3") else {}


def replace_first_convolution(net: nn.Module, channels: int) -> None:
    """Let the first convolution take `channels` planes: every torchvision classifier starts from three."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            parent = net.get_submodule(name.rpartition(".")[0])
            names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
            same: dict[str, Any] = {name: getattr(module, name) for name in names}
            first = nn.Conv2d(channels, module.out_channels, bias=module.bias is not None, **same)
            setattr(parent, name.rpartition(".")[2], first)
            return
    raise ValueError("this classifier has no convolution to adapt")


def load_weights(net: nn.Module, path: Path | str) -> list[str]:
    """Fill a classifier from a local file of torchvision weights (or any `{name: tensor}` of its net).

    Tensors of another shape (a 1000-class head, a 7×7 stem) are left as they are; their names are returned. Raises
    FileNotFoundError, or ValueError if the file is not one of weights or nothing fits.
    """
    state = read_tensors(path)
    state = state.get("state_dict", state)
    behind_normalisation = net.get_submodule("1")
    own = behind_normalisation.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and getattr(v, "shape", None) == own[k].shape}
    if not fitting:
        raise ValueError(f"--weights {path}: holds no tensor that fits this architecture")
    behind_normalisation.load_state_dict({**own, **fitting})
    return [name for name in own if name not in fitting]
