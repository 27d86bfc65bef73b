"""Mean/std normalisation as a layer, so that noise, attacks and radii stay in pixel space [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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


def per_channel(values: Sequence[float], channels: int) -> list[float]:
    """One value for each channel, of which `values` may hold one for all."""
    return list(values) * channels if len(values) == 1 else list(values)
