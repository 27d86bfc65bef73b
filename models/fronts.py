"""The networks in front of the classifier: a denoiser (DS), or a denoiser with an autoencoder behind it (AE-DS)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.autoencoders import AutoencodedDenoiser
from models.outputs import last_line, probes
from models.registry import DEFAULT_DENOISER, ELSEWHERE, build, load_model, takes

HALVES = ("encoder", "decoder")
Halves = dict[str, tuple[nn.Module, dict[str, Any]]]  # half → the network, and its description


def must_fit(path: Path, described: dict, channels: int, image_size: int) -> None:
    """Raises ValueError unless the network of `path` takes the images that the classifier does."""
    for what, own, wanted in zip(("channel(s)", "px"), takes(described), (channels, image_size), strict=True):
        if own not in (None, wanted):
            raise ValueError(f"{path}: made for {own} {what}, but the classifier takes {wanted}")


def must_denoise(path: Path, model: nn.Module, channels: int, image_size: int, device: torch.device | str) -> None:
    """Raises ValueError unless a denoiser from elsewhere maps images of the classifier's to such images."""
    x = probes(channels, image_size, image_size).to(device)
    try:
        with torch.no_grad():
            shape = list(model(x, 0.25).shape)
    except Exception as error:  # whatever a foreign network raises
        raise ValueError(
            f"--pretrained_denoiser {path}: cannot take images of {image_size} px with {channels} channel(s): "
            f"{last_line(error)}"
        ) from None
    if shape != list(x.shape):
        raise ValueError(
            f"--pretrained_denoiser {path}: returned shape {shape} for images {list(x.shape)}, which are of the same "
            "shape after a denoiser"
        )


def load_front(
    channels: int,
    image_size: int,
    device: torch.device | str,
    denoiser: Path | None,
    encoder: Path | None = None,
    decoder: Path | None = None,
    model_type: str | None = None,
    arch: str = DEFAULT_DENOISER,
    latent: int = 576,
    scale: str | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of these checkpoints, and its description `{arch, arch_kwargs}`. Parts without a checkpoint are new:
    a denoiser `arch`, an autoencoder with `latent` numbers in its latent. `scale`: as in `load_model`.

    `model_type` is DS, AE_DS, or None for what the checkpoints hold. An autoencoder's file gives both halves unless
    `decoder` names another file; published autoencoders come in two files. Raises FileNotFoundError, or ValueError if a
    checkpoint holds something else or has another input size or number of channels than the classifier.
    """
    start: nn.Module | None = None
    described: dict[str, Any] = {"arch": arch, "arch_kwargs": {"channels": channels}}
    if denoiser is not None:
        start, described = _load(denoiser, "denoiser", channels, image_size, device, scale)
    has_autoencoder = described["arch"] == "ae_ds" or bool(encoder or decoder)
    if model_type == "DS" and has_autoencoder:
        raise ValueError("--model_type DS has no autoencoder; use --model_type AE_DS")
    if model_type != "AE_DS" and not has_autoencoder:
        return (build(described["arch"], **described["arch_kwargs"]) if start is None else start), described
    if start is not None and described["arch"] == "ae_ds":
        if encoder or decoder:
            raise ValueError(
                f"{denoiser}: already holds an autoencoder; leave out --pretrained_encoder and --pretrained_decoder"
            )
        return start, described
    halves = _halves(encoder, decoder or encoder, channels, image_size, device)
    kwargs = {"channels": channels, "image_size": image_size, "latent": latent}
    autoencoder = _joined(halves, {"arch": "autoencoder", "arch_kwargs": kwargs}, encoder, decoder)
    return _assembled(start, described, halves, autoencoder)


def _halves(
    encoder: Path | None, decoder: Path | None, channels: int, image_size: int, device: torch.device | str
) -> Halves:
    """The halves of an autoencoder that have a file."""
    paths = dict(zip(HALVES, (encoder, decoder), strict=True))
    return {half: _load(path, half, channels, image_size, device) for half, path in paths.items() if path is not None}


def _assembled(
    denoiser: nn.Module | None, described: dict[str, Any], halves: Halves, autoencoder: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of these descriptions, with the parts that are there already, and its own description."""
    front = build("ae_ds", denoiser=described, autoencoder=autoencoder)
    assert isinstance(front, AutoencodedDenoiser)
    if denoiser is not None:
        front.denoiser = denoiser
    for half, (module, _) in halves.items():
        setattr(front.autoencoder, half, module)
    return front, {"arch": "ae_ds", "arch_kwargs": {"denoiser": described, "autoencoder": autoencoder}}


def _joined(halves: Halves, new: dict[str, Any], encoder: Path | None, decoder: Path | None) -> dict[str, Any]:
    """The description of the autoencoder whose halves have these descriptions; `new` where there are none. Raises
    ValueError if one half does not fit the other."""
    found = {half: described for half, (_, described) in halves.items()}
    kinds = {half: described["arch"] for half, described in found.items()}
    if not found or set(kinds.values()) == {"autoencoder"}:
        autoencoder = next(iter(found.values()), new)
        if any(each != autoencoder for each in found.values()):
            raise ValueError(f"{decoder}: is a decoder of another shape than the encoder of {encoder}")
        return autoencoder
    if len(found) == 2 and "autoencoder" not in kinds.values():
        return {"arch": "pair", "arch_kwargs": found}
    raise ValueError(
        f"{encoder or decoder}: is half of an autoencoder ({', '.join(kinds.values())}); "
        "the other half is missing or does not fit"
    )


def _load(
    path: Path, kind: str, channels: int, image_size: int, device: torch.device | str, scale: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A denoiser, an encoder or a decoder (also from an autoencoder's file), and the description of what the file
    holds."""
    model, checkpoint = load_model(path, kind, device, scale)
    if "measurement" in checkpoint:
        raise ValueError(f"{path}: reconstructs images from measurements; it is no {kind}")
    must_fit(path, checkpoint, channels, image_size)
    if checkpoint["arch"] in ELSEWHERE:
        must_denoise(path, model, channels, image_size, device)
    model = getattr(model, kind) if checkpoint["arch"] == "autoencoder" and kind in HALVES else model
    return model, {key: checkpoint[key] for key in ("arch", "arch_kwargs")}
