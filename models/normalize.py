"""Mean/std normalisation as a layer, so that noise, attacks and radii stay in pixel space [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Normalisations by name: (mean, standard deviation) on the [0, 1] scale.
NAMED: dict[str, tuple[list[float], list[float]]] = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5], [0.5]),
    "none": ([0.0], [1.0]),
}


class Normalize(nn.Module):
    """`(x - mean) / std` per channel, `[B, C, H, W]` in [0, 1] → the same shape; both are in the state_dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class SwapColours(nn.Module):
    """RGB → BGR, for networks that were trained on images of OpenCV."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


def per_channel(values: Sequence[float], channels: int) -> list[float]:
    """One value for each channel, of which `values` may hold one for all."""
    return list(values) * channels if len(values) == 1 else list(values)


def statistics(mean: Sequence[str | float], std: Sequence[str | float] | None) -> tuple[list[float], list[float]]:
    """(mean, std) on the [0, 1] scale of --mean and --std: numbers, or a name in NAMED. A name gives both; with a mean
    above 1, numbers are those of images from 0 to 255. Raises ValueError."""
    if std is None and not isinstance(mean[0], str):
        raise ValueError("--mean: give --std too")
    means, stds = (_numbers(flag, values) for flag, values in (("mean", mean), ("std", mean if std is None else std)))
    if max(means) > 1:
        means, stds = ([value / 255 for value in values] for values in (means, stds))
    if min(stds) <= 0 or max(stds) > 1 or min(means) < 0 or max(means) > 1:
        raise ValueError(
            f"--mean {_words(mean)} --std {_words(std or mean)}: must be numbers of images in [0, 1] (or both of "
            f"images from 0 to 255), or one of {', '.join(NAMED)}"
        )
    return means, stds


def _numbers(flag: str, values: Sequence[str | float]) -> list[float]:
    if isinstance(values[0], str):
        if len(values) > 1:
            raise ValueError(f"--{flag} {_words(values)}: give one name, or numbers")
        return NAMED[values[0]][flag == "std"]
    return [float(value) for value in values]


def _words(values: Sequence[str | float]) -> str:
    return " ".join(map(str, values))
