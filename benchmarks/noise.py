"""What a value of noise costs."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from benchmarks.passes import milliseconds
from smoothing.noise import CHUNK, Noise


def time_noise(x: Tensor, sigma: float, seed: int, kind: str, seconds: float) -> float:
    """Nanoseconds per value of noise, drawn and put on an image `x` `[C, H, W]`, at best."""
    noise, starts = Noise(x, sigma, seed, 0, kind), itertools.count(0, CHUNK)
    out = torch.empty((CHUNK, *x.shape), device=x.device, memory_format=torch.channels_last)

    def draw() -> None:
        noise.noisy(next(starts), CHUNK, out)
        out[-1, -1, -1, -1].item()  # waits for a GPU

    return 1e6 * milliseconds(draw, seconds) / out.numel()
