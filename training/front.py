"""What of the network in front of the classifier is trained, and where zeroth order takes over."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.autoencoders import AutoencodedDenoiser

TRAIN_METHODS = ("part", "whole", "whole_plus")


def choose_trained(front: nn.Module, train_method: str) -> None:
    """Freeze what `train_method` leaves alone: part trains D; whole D and E; whole_plus D, E and Dec."""
    if isinstance(front, AutoencodedDenoiser):
        front.autoencoder.encoder.requires_grad_(train_method != "part")
        front.autoencoder.decoder.requires_grad_(train_method == "whole_plus")
    elif train_method != "part":
        raise ValueError(f"--train_method {train_method}: --model_type DS has one part only; use part")


def run_front(front: nn.Module, noisy: Tensor, noise_sd: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """(denoised image `D(x)`, z, decode): what the classifier sees is `decode(z)`. z is `E(D(x))` of AE-DS, and of DS
    the denoised image itself."""
    if not isinstance(front, AutoencodedDenoiser):
        denoised = front(noisy, noise_sd)
        return denoised, denoised, lambda z: z
    denoised = front.denoiser(noisy, noise_sd)
    return denoised, front.autoencoder.encoder(denoised), front.autoencoder.decoder
