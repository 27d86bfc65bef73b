"""Autoencoders: images `[B, C, H, W]` in [0, 1] → a small latent → images, and the denoiser that ends in one.

Zeroth-order training needs one query per direction, and an image has too many of them: behind an encoder there are as
many as the latent has numbers (Zhang et al., ICLR 2022, "ZO-AE-DS").
"""

from __future__ import annotations

import itertools
from typing import Any, cast

from torch import Tensor, nn

from models.denoisers import NAFBlock


def grid_side(image_size: int) -> int:
    """The side of the latent grid: the image's halved until it is at most 8. Raises ValueError if it cannot be halved
    evenly, or is too small to be halved."""
    side = image_size
    while side > 8:
        if side % 2:
            raise ValueError(
                f"--image_size {image_size}: an autoencoder needs a side that halves evenly down to "
                "8 px or fewer; try 32, 64, 96, 128, 224, 256 or 384"
            )
        side //= 2
    if side == image_size:
        raise ValueError(f"--image_size {image_size}: too small for an autoencoder")
    return side


class Autoencoder(nn.Module):
    """`Dec(E(x))` by NAFNet blocks. The latent is `[B, round(latent / side²), side, side]` with `side` from
    `grid_side`: as near to `latent` numbers as whole planes come. The width doubles with each halving, up to 8 times.

    `forward` takes (and ignores) a noise level, as denoisers do: an autoencoder stands wherever a denoiser may.
    """

    def __init__(self, image_size: int, channels: int = 3, latent: int = 576, width: int = 32) -> None:
        super().__init__()
        side = grid_side(image_size)
        self.latent_shape = (max(1, round(latent / side**2)), side, side)
        widths = [width]
        while image_size // 2 ** (len(widths)) > side:
            widths.append(min(2 * widths[-1], 8 * width))
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, width, 3, padding=1)]
        up: list[nn.Module] = [nn.Conv2d(self.latent_shape[0], widths[-1], 3, padding=1)]
        for narrow, wide in itertools.pairwise(widths):
            down += [NAFBlock(narrow), nn.Conv2d(narrow, wide, 2, stride=2)]
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [NAFBlock(wide), nn.Conv2d(wide, 4 * narrow, 1, bias=False), nn.PixelShuffle(2)]
        down += [NAFBlock(widths[-1]), NAFBlock(widths[-1]), nn.Conv2d(widths[-1], self.latent_shape[0], 1)]
        up += [NAFBlock(width), last := nn.Conv2d(width, 4 * channels, 3, padding=1)]
        up += [nn.PixelShuffle(2), nn.Sigmoid()]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
        # Starts near the mean of a medical image, sigmoid(-1.5) = 0.18. From the grey of sigmoid(0), the first steps
        # darken everything and can go on to where the sigmoid is flat: black images, and no gradient that leads back.
        if last.bias is not None:
            nn.init.constant_(last.bias, -1.5)

    def forward(self, x: Tensor, noise_sd: float | Tensor | None = None) -> Tensor:
        return self.decoder(self.encoder(x))


class Pair(nn.Module):
    """An autoencoder whose halves come from two files. `latent_shape` is the encoder's."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.latent_shape: tuple[int, int, int] = cast(Any, encoder).latent_shape

    def forward(self, x: Tensor, noise_sd: float | Tensor | None = None) -> Tensor:
        return self.decoder(self.encoder(x))


class AutoencodedDenoiser(nn.Module):
    """`Dec(E(D(x)))`, what stands before the classifier in AE-DS: a denoiser whose result goes through the bottleneck
    of an autoencoder."""

    denoiser: nn.Module
    autoencoder: Autoencoder | Pair

    def __init__(self, denoiser: nn.Module, autoencoder: Autoencoder | Pair) -> None:
        super().__init__()
        self.denoiser, self.autoencoder = denoiser, autoencoder

    def forward(self, x: Tensor, noise_sd: float | Tensor | None) -> Tensor:
        return self.autoencoder(self.denoiser(x, noise_sd))
