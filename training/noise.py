"""Gaussian noise for training and validation, on the [0, 1] pixel scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noise_range(noise_sd: Sequence[float]) -> tuple[float, float]:
    """`--noise_sd S` → (S, S); `--noise_sd LOW HIGH` → (LOW, HIGH). Raises ValueError otherwise."""
    values = list(noise_sd)
    if len(values) not in (1, 2) or values[0] > values[-1] or 0 == values[0] < values[-1]:
        raise ValueError(f"--noise_sd {' '.join(map(str, values))}: give one value, or LOW HIGH with 0 < LOW <= HIGH")
    return values[0], values[-1]


def _between(noise_sd: tuple[float, float], share: Tensor) -> Tensor:
    """The standard deviation at `share` (0 to 1) of the way from LOW to HIGH on the logarithmic scale.

    Spread evenly, the high levels would rule the training: their errors are the larger ones, and a denoiser for 0.1 to
    1.0 would see levels below 0.3 in a fifth of its images instead of half of them.
    """
    low, high = noise_sd
    return low * (high / low) ** share if high > low else torch.full_like(share, low)


def add_noise(images: Tensor, noise_sd: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """`x + n`, `n ~ N(0, s²I)` with log s uniform in the range, per image. Returns noisy `[B, C, H, W]` and s `[B]`."""
    sd = _between(noise_sd, torch.rand(len(images), device=images.device))
    return images + sd.view(-1, 1, 1, 1) * torch.randn_like(images), sd


def add_fixed_noise(images: Tensor, noise_sd: tuple[float, float], seed: int) -> tuple[Tensor, Tensor]:
    """As `add_noise`, but a function of `seed` alone, so that validation does not fluctuate with its own noise. The
    standard deviations are spread evenly (on the logarithmic scale) over the range."""
    generator = torch.Generator(device=images.device).manual_seed(seed)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
    sd = _between(noise_sd, (order + 0.5) / len(images))
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + sd.view(-1, 1, 1, 1) * noise, sd
