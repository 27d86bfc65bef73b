"""What is trained in front of the classifier: a denoiser (DS), or one with an autoencoder behind it (AE-DS)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.autoencoders import AutoencodedDenoiser
from models.pipelines import must_fit
from models.registry import build, load_model

TRAIN_METHODS = ("part", "whole", "whole_plus")


def load_front(
    args: argparse.Namespace, channels: int, image_size: int, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """The network that `--model_type --arch --pretrained_denoiser --pretrained_encoder --pretrained_decoder --latent`
    ask for, and its description `{arch, arch_kwargs}`. Parts without a checkpoint are new.

    Raises ValueError if a checkpoint holds something else, or takes other images than the classifier.
    """
    described = {"arch": args.arch, "arch_kwargs": {"channels": channels}}
    start = None
    if args.pretrained_denoiser is not None:
        start, described = _load(args.pretrained_denoiser, channels, image_size, device)
    if args.model_type == "DS":
        if args.pretrained_encoder or args.pretrained_decoder or described["arch"] == "ae_ds":
            raise ValueError("--model_type DS has no autoencoder; with one it is --model_type AE_DS")
        return (start or build(described["arch"], **described["arch_kwargs"])), described
    if described["arch"] == "ae_ds":
        if args.pretrained_encoder or args.pretrained_decoder:
            raise ValueError(f"{args.pretrained_denoiser}: holds an autoencoder already; leave out the others")
        return start, described
    latent = {"channels": channels, "image_size": image_size, "latent": args.latent}
    parts = {"denoiser": described, "autoencoder": {"arch": "autoencoder", "arch_kwargs": latent}}
    loaded: dict[str, nn.Module] = {}
    for half in ("encoder", "decoder"):
        # An autoencoder's file gives both halves, unless the decoder comes from another.
        path = getattr(args, f"pretrained_{half}") or args.pretrained_encoder
        if path is not None:
            autoencoder, found = _load(path, channels, image_size, device)
            if found["arch"] != "autoencoder" or (loaded and found != parts["autoencoder"]):
                raise ValueError(
                    f"{path}: holds no autoencoder (ds_main.py --model autoencoder), or one of another shape"
                )
            loaded[half], parts["autoencoder"] = getattr(autoencoder, half), found
    front = build("ae_ds", **parts)
    if start is not None:
        front.denoiser = start
    for half, module in loaded.items():
        setattr(front.autoencoder, half, module)
    return front, {"arch": "ae_ds", "arch_kwargs": parts}


def _load(path: Path, channels: int, image_size: int, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    model, checkpoint = load_model(path, "denoiser", device)
    must_fit(path, checkpoint, channels, image_size)
    return model, {key: checkpoint[key] for key in ("arch", "arch_kwargs")}


def choose_trained(front: nn.Module, train_method: str) -> None:
    """Freeze what `train_method` leaves alone: part trains D; whole D and E; whole_plus D, E and Dec."""
    if isinstance(front, AutoencodedDenoiser):
        front.autoencoder.encoder.requires_grad_(train_method != "part")
        front.autoencoder.decoder.requires_grad_(train_method == "whole_plus")
    elif train_method != "part":
        raise ValueError(f"--train_method {train_method}: --model_type DS has one part only, so part")


def run_front(front: nn.Module, noisy: Tensor, noise_sd: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """(denoised image `D(x)`, z, decode): what the classifier sees is `decode(z)`. z is `E(D(x))` of AE-DS, and of DS
    the denoised image itself."""
    if not isinstance(front, AutoencodedDenoiser):
        denoised = front(noisy, noise_sd)
        return denoised, denoised, lambda z: z
    denoised = front.denoiser(noisy, noise_sd)
    return denoised, front.autoencoder.encoder(denoised), front.autoencoder.decoder
