"""The classifiers of other libraries by name: torchvision's `NAME` (or `torchvision/NAME`), `timm/NAME`, `monai/NAME`.
Each is the library's own network, without weights; nothing is downloaded."""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.classifiers import replace_first_convolution
from models.normalize import Normalize, per_channel

Shapes = dict[str, torch.Size]  # of the tensors of a state_dict

# What torchvision's constructors must be told beside the classes, by the beginning of the name.
_TORCHVISION = {"googlenet": {"aux_logits": False}, "inception_v3": {"aux_logits": False}}
# MONAI's families: what they call the channels of an image and the number of classes.
_MONAI = {
    "densenet": ("in_channels", "out_channels"),
    "efficientnet-b": ("in_channels", "num_classes"),
    "resnet": ("n_input_channels", "num_classes"),
    "seresnet": ("in_channels", "num_classes"),
}
MONAI_NAMES = (
    *(f"densenet{depth}" for depth in (121, 169, 201, 264)),
    *(f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152, 200)),
    *(f"efficientnet-b{width}" for width in range(8)),
    *(f"seresnet{depth}" for depth in (50, 101, 152)),
)
# Names of timm that are compared with weights of an unknown architecture, beside those of the family that was named.
_COMMON = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet50d", "resnext50_32x4d", "seresnet50", "densenet121"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "tf_efficientnetv2_s"),
    *("mobilenetv3_small_100", "mobilenetv3_large_100", "convnext_tiny", "convnext_small", "convnextv2_tiny"),
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "deit_tiny_patch16_224"),
    *("deit3_small_patch16_224", "swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", "regnety_016"),
)
_FAMILY = 15  # names of a family that are compared at most


def installed(package: str, wanted_for: str) -> Any:
    """An optional package. Raises ValueError, which says how to install it, if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = (error.name or package).partition(".")[0]
        raise ValueError(
            f"{wanted_for}: needs {missing}; pip install {missing} (or: pip install -r requirements-models.txt)"
        ) from None


def split(arch: str) -> tuple[str, str]:
    """(library, name) of an architecture; without a library it is torchvision's."""
    library, slash, name = arch.partition("/")
    return (library, name) if slash else ("torchvision", arch)


def library_network(arch: str, num_classes: int, channels: int = 3, image_size: int | None = None) -> nn.Module:
    """The library's own network: images `[B, channels, H, W]` → what it returns for `num_classes`. `image_size` is for
    networks of one input size, such as a ViT. Raises ValueError if the library is missing or has no such classifier."""
    library, name = split(arch)
    if library not in _BUILDERS:
        raise ValueError(f"--arch {arch}: must be NAME of torchvision, timm/NAME or monai/NAME")
    return _BUILDERS[library](arch, name, num_classes, channels, image_size)


def classifier_of_library(
    arch: str,
    num_classes: int,
    image_size: int,
    channels: int = 3,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
) -> nn.Sequential:
    """`Sequential(Normalize, net)` of a library's network: images `[B, channels, H, W]` in [0, 1] → logits."""
    net = library_network(arch, num_classes, channels, image_size)
    return nn.Sequential(Normalize(per_channel(mean, channels), per_channel(std, channels)), net)


def _torchvision(arch: str, name: str, num_classes: int, channels: int, image_size: int | None) -> nn.Module:
    from torchvision import models as torchvision_models

    known = torchvision_models.list_models(module=torchvision_models)
    _must_be_known(arch, name, known, "torchvision")
    special: dict[str, Any] = dict(_TORCHVISION.get(name, {}))
    if special:
        special["init_weights"] = False
    if name.startswith("vit_") and image_size is not None:
        special["image_size"] = image_size
    net = torchvision_models.get_model(name, weights=None, num_classes=num_classes, **special)
    if channels != 3:
        replace_first_convolution(net, channels)
    return net


def _timm(arch: str, name: str, num_classes: int, channels: int, image_size: int | None) -> nn.Module:
    timm = installed("timm", f"--arch {arch}")
    _must_be_known(arch, name.partition(".")[0], timm.list_models(), "timm")
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    if image_size is not None and size_of_library(arch) is not None:
        options["img_size"] = image_size
    return timm.create_model(name, pretrained=False, **options)


def _monai(arch: str, name: str, num_classes: int, channels: int, image_size: int | None) -> nn.Module:
    networks = installed("monai.networks.nets", f"--arch {arch}")
    known = {re.sub(r"[\W_]", "", each): each for each in MONAI_NAMES}
    own = known.get(re.sub(r"[\W_]", "", name.lower()), name)
    _must_be_known(arch, own, MONAI_NAMES, "monai")
    of_image, of_classes = next(names for family, names in _MONAI.items() if own.startswith(family))
    options: dict[str, Any] = {"spatial_dims": 2, "pretrained": False, of_image: channels, of_classes: num_classes}
    if own.startswith("efficientnet"):
        return networks.EfficientNetBN(own, **options)
    return getattr(networks, own)(**options)


_BUILDERS = {"torchvision": _torchvision, "timm": _timm, "monai": _monai}


def _must_be_known(arch: str, name: str, known: Sequence[str], library: str) -> None:
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, 3))
        raise ValueError(f"--arch {arch}: {library} has no such classifier" + (f"; try {near}" if near else ""))


def size_of_library(arch: str) -> int | None:
    """The input size for which a network of one size is made by default; None if it takes several."""
    library, name = split(arch)
    if library == "torchvision":
        return 224 if name.startswith("vit_") else None
    if library != "timm":
        return None
    settings = installed("timm", f"--arch {arch}").get_pretrained_cfg(name)
    return settings.input_size[-1] if settings is not None and settings.fixed_input_size else None


# ---- shapes without memory -------------------------------------------------------------------------------------------


class _WithoutMemory(TorchFunctionMode):
    """Parameters are made without memory (on the device `meta`); small tensors, with which some constructors compute,
    as always."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {**(kwargs or {}), "device": "meta"} if func is torch.empty else kwargs or {}
        return func(*args, **kwargs)


@functools.cache
def shapes(arch: str, num_classes: int = 1000, channels: int = 3, image_size: int | None = None) -> Shapes:
    """The names and shapes of a network's tensors. Raises what `library_network` does."""
    with _WithoutMemory():
        net = library_network(arch, num_classes, channels, image_size)
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def nearest(states: Sequence[Mapping[str, Tensor]], arch: str | None) -> list[tuple[str, float]]:
    """The three architectures whose tensors agree best with one of these `{name: tensor}` by name and shape: (name,
    share of all their names that agree), best first. `arch` is the one that was said to be, whose family is looked at
    too."""
    held = [{(name, tensor.shape) for name, tensor in state.items()} for state in states]
    found: dict[str, float] = {}
    for library in _candidates(arch):
        for name in library:
            try:
                own = set(shapes(name).items())
            except Exception:  # this version of its library cannot make it
                continue
            found[name] = max(len(own & each) / len(own | each) for each in held)
        if found and max(found.values()) > 0.9:  # all but a head of other classes
            break
    return sorted(found.items(), key=lambda item: -item[1])[:3]


def _candidates(arch: str | None) -> Iterator[list[str]]:
    """Names to compare with, library by library, that of `arch` first; only what is installed."""
    from torchvision import models as torchvision_models

    first = split(arch)[0] if arch else "torchvision"
    for library in dict.fromkeys([first, "torchvision", "timm", "monai"]):
        if library == "torchvision":
            yield torchvision_models.list_models(module=torchvision_models)
        elif library in _BUILDERS and importlib.util.find_spec(library) is not None:
            names = MONAI_NAMES if library == "monai" else _timm_names(arch)
            yield [f"{library}/{name}" for name in names]


def _timm_names(arch: str | None) -> list[str]:
    import timm

    family = re.match(r"[a-z]+", split(arch or "")[1])
    relatives = [name for name in timm.list_models() if family and re.match(rf"{family[0]}(?![a-z])", name)]
    return list(dict.fromkeys([*_COMMON, *relatives[:_FAMILY]]))
