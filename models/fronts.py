"""What stands in front of the classifier: a denoiser (DS), or one with an autoencoder behind it (AE-DS)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.registry import build, load_model, takes

HALVES = ("encoder", "decoder")


def must_fit(path: Path, described: dict, channels: int, image_size: int) -> None:
    """Raises ValueError unless the network of `path` takes the images that the classifier does."""
    for what, own, wanted in zip(("channel(s)", "px"), takes(described), (channels, image_size), strict=True):
        if own not in (None, wanted):
            raise ValueError(f"{path}: made for {own} {what}, but the classifier takes {wanted}")


def load_front(
    channels: int,
    image_size: int,
    device: torch.device | str,
    denoiser: Path | None,
    encoder: Path | None = None,
    decoder: Path | None = None,
    model_type: str | None = None,
    arch: str = "nafnet",
    latent: int = 576,
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of these checkpoints, and its description `{arch, arch_kwargs}`. What has no checkpoint is new: a
    denoiser `arch`, an autoencoder with that many numbers in its `latent`.

    `model_type` is DS, AE_DS, or None for what the checkpoints hold. An autoencoder's file gives both halves, unless
    `decoder` names another; published ones come as two files. Raises FileNotFoundError, or ValueError if a checkpoint
    holds something else, or takes other images than the classifier.
    """
    start, described = None, {"arch": arch, "arch_kwargs": {"channels": channels}}
    if denoiser is not None:
        start, described = _load(denoiser, "denoiser", channels, image_size, device)
    has_autoencoder = described["arch"] == "ae_ds" or bool(encoder or decoder)
    if model_type == "DS" and has_autoencoder:
        raise ValueError("--model_type DS has no autoencoder; with one it is --model_type AE_DS")
    if model_type != "AE_DS" and not has_autoencoder:
        return (start or build(described["arch"], **described["arch_kwargs"])), described
    if described["arch"] == "ae_ds":
        if encoder or decoder:
            raise ValueError(f"{denoiser}: holds an autoencoder already; leave out the others")
        return start, described
    halves: dict[str, nn.Module] = {}
    found: dict[str, dict[str, Any]] = {}
    for half, path in zip(HALVES, (encoder, decoder or encoder), strict=True):
        if path is not None:
            halves[half], found[half] = _load(path, half, channels, image_size, device)
    kinds = {half: described["arch"] for half, described in found.items()}
    if not found or set(kinds.values()) == {"autoencoder"}:
        kwargs = {"channels": channels, "image_size": image_size, "latent": latent}
        autoencoder = next(iter(found.values()), {"arch": "autoencoder", "arch_kwargs": kwargs})
        if any(each != autoencoder for each in found.values()):
            raise ValueError(f"{decoder}: is a decoder of another shape than the encoder of {encoder}")
    elif len(found) == 2 and "autoencoder" not in kinds.values():
        autoencoder = {"arch": "pair", "arch_kwargs": found}
    else:
        raise ValueError(
            f"{encoder or decoder}: is one half ({', '.join(kinds.values())}), and the other does not fit it"
        )
    front = build("ae_ds", denoiser=described, autoencoder=autoencoder)
    if start is not None:
        front.denoiser = start
    for half, module in halves.items():
        setattr(front.autoencoder, half, module)
    return front, {"arch": "ae_ds", "arch_kwargs": {"denoiser": described, "autoencoder": autoencoder}}


def _load(
    path: Path, kind: str, channels: int, image_size: int, device: torch.device | str
) -> tuple[nn.Module, dict[str, Any]]:
    """A denoiser, an encoder or a decoder, the halves from an autoencoder's file too, and what the file holds."""
    model, checkpoint = load_model(path, kind, device)
    if "measurement" in checkpoint:
        raise ValueError(f"{path}: reconstructs images from measurements; it is no {kind}")
    must_fit(path, checkpoint, channels, image_size)
    model = getattr(model, kind) if checkpoint["arch"] == "autoencoder" and kind in HALVES else model
    return model, {key: checkpoint[key] for key in ("arch", "arch_kwargs")}
