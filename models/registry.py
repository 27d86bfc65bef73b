"""The registry (architecture name → constructor) and the way from a checkpoint back to its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.autoencoders import AutoencodedDenoiser, Autoencoder
from models.classifiers import classifier
from models.denoisers import DnCNN, NAFNet
from models.device import prepare
from models.reading import read_tensors


def autoencoded(denoiser: dict[str, Any], autoencoder: dict[str, Any]) -> AutoencodedDenoiser:
    """AE-DS from the descriptions `{arch, arch_kwargs}` of its two parts."""
    parts = (build(part["arch"], **part["arch_kwargs"]) for part in (denoiser, autoencoder))
    return AutoencodedDenoiser(*parts)


DENOISERS: dict[str, Callable[..., nn.Module]] = {"nafnet": NAFNet, "dncnn": DnCNN}
# Everything that may stand before the classifier: images and a noise level → images.
FRONTS = DENOISERS | {"autoencoder": Autoencoder, "ae_ds": autoencoded}


def names(kind: str) -> list[str]:
    """The architectures of a kind that can be built by name alone; torchvision's classifiers come on top."""
    return {"denoiser": list(DENOISERS), "classifier": ["resnet18"]}[kind]


def kind_of(arch: str) -> str:
    """`denoiser` (anything from images to images) or `classifier`: any name that is not one of ours is one of
    torchvision's."""
    return "denoiser" if arch in FRONTS else "classifier"


def build(arch: str, **arch_kwargs) -> nn.Module:
    """A new network. Raises ValueError on an unknown name or on arguments that its constructor does not take."""
    try:
        return FRONTS[arch](**arch_kwargs) if arch in FRONTS else classifier(arch, **arch_kwargs)
    except TypeError as error:
        raise ValueError(f"--arch {arch}: {error}") from error


def load_checkpoint(path: Path | str) -> dict:
    """Read a checkpoint (plain types only). Raises FileNotFoundError or ValueError that names the file."""
    checkpoint = read_tensors(path)
    if not {"arch", "arch_kwargs", "state_dict"} <= set(checkpoint):
        raise ValueError(f"{path}: not a checkpoint of this project (no arch, arch_kwargs and state_dict in it)")
    return checkpoint


def load_model(path: Path | str, kind: str, device: torch.device | str = "cpu") -> tuple[nn.Module, dict]:
    """Rebuild the model that a checkpoint holds, in eval mode on `device`; also return the checkpoint.

    Raises FileNotFoundError, or ValueError if the file is damaged, holds another kind of model, or does not fit.
    """
    checkpoint = load_checkpoint(path)
    arch = checkpoint["arch"]
    if kind_of(arch) != kind:
        raise ValueError(f"{path}: holds a {kind_of(arch)} ({arch}), but a {kind} is needed here")
    model = build(arch, **checkpoint["arch_kwargs"])
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError:
        if kind == "classifier" and not {"0.mean", "0.std"} <= set(checkpoint["state_dict"]):
            raise ValueError(
                f"{path}: holds no normalisation (0.mean, 0.std); a classifier must be Sequential(Normalize, net), "
                "so that noise and radii are on the [0, 1] scale of its images"
            ) from None
        raise ValueError(f"{path}: its weights do not fit the architecture {arch} that it names") from None
    return prepare(model, device).eval(), checkpoint


def takes(described: dict[str, Any]) -> tuple[int, int | None]:
    """(channels, image size or None for any) of the images that a network before the classifier takes."""
    kwargs = described["arch_kwargs"]
    if described["arch"] == "ae_ds":
        return takes(kwargs["autoencoder"])
    return kwargs["channels"], kwargs.get("image_size")
