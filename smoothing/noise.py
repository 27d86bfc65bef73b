"""The noise: a function of (seed, sigma, image index, draw number) alone, and how it is put on an image. Another kind
of device (CPU or CUDA; another GPU) has another generator, and so other draws.

Draws come in chunks of CHUNK, each from a generator of its own, so that any draw can be made without those before it
and nothing that only concerns the computation (batch size, shards, resuming, the order of images) changes it.

`float`: `x + n` in float32, as every published implementation does. It is unsound in the last digits: floating point
leaves traces of x in the low-order bits of x + n, and a network may read them (Voracek & Hein, ICLR 2023).

`exact`: x lies on the 8-bit grid, and the base classifier that is certified is `h ∘ Q`, where Q rounds its input to
that grid and clips it to [-k, k + 1], `k = max(1, floor(6 sigma))`. Since x = t / 255 with t whole,
`Q(x + n) = clip(t + round(255 n)) / 255`: whole numbers, added without any rounding, so that the inputs for x and for
x + δ (both 8-bit) are exact translations of each other. The Gaussian is drawn in float64, and what is left between
it and the ideal one is bounded by `slack`, to be taken off every bound on a probability.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

CHUNK = 64  # part of what defines the noise, so never change it
KINDS = ("float", "exact")


class Noise:
    """The draws for one image `[C, H, W]` in [0, 1]: `noisy(first, num)` gives base-classifier inputs.

    Raises ValueError if the image leaves [0, 1] or, for `exact`, does not lie on the 8-bit grid.
    """

    def __init__(self, x: Tensor, sigma: float, seed: int, index: int, kind: str = "float") -> None:
        if kind not in KINDS:
            raise ValueError(f"noise must be one of {', '.join(KINDS)}, got {kind!r}")
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"image {index}: values must lie in [0, 1], got {x.min():g} to {x.max():g}")
        self.x, self.shape, self.device = x, x.shape, x.device
        self.sigma, self.seed, self.index, self.kind = float(sigma), seed, index, kind
        if kind == "exact":
            self.x = (x * 255).round()
            if (self.x - x * 255).abs().max() > 1e-4:  # float32's own error is 2e-5
                raise ValueError(
                    f"image {index}: exact noise needs 8-bit values i / 255; round them, or use float noise"
                )
        self._held: tuple[int, Tensor] | None = None
        self._seeds: list[int] = []
        self._taken: set[int] = set()

    def noisy(self, first: int, num: int) -> Tensor:
        """Draws first … first + num - 1 put on the image: float32 `[num, C, H, W]`."""
        noise = self.draws(first, num)
        if self.kind == "float":
            return self.x + noise
        k = max(1, int(6 * self.sigma))
        return (self.x + noise).clamp_(-255 * k, 255 * (k + 1)).div_(255)

    def draws(self, first: int, num: int) -> Tensor:
        """The noise itself, `[num, C, H, W]`: n, or for `exact` the whole numbers round(255 n)."""
        parts, position, end = [], first, first + num
        while position < end:
            chunk, offset = divmod(position, CHUNK)
            if self._held is None or self._held[0] != chunk:
                self._held = (chunk, self._chunk(chunk))
            part = self._held[1][offset : offset + end - position]
            parts.append(part)
            position += len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def generator_seed(self, chunk: int) -> int:
        """The seed of a chunk's generator. Those of one image differ in their low 32 bits, which are all that PyTorch's
        generator on the CPU looks at: one that would not differ from an earlier chunk's is hashed once more."""
        for number in range(len(self._seeds), chunk + 1):
            key, low = f"{self.seed} {self.sigma!r} {self.index} {number}", None
            while low is None or low in self._taken:
                seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
                key, low = f"{key} again", seed & 0xFFFFFFFF
            self._taken.add(low)
            self._seeds.append(seed)
        return self._seeds[chunk]

    def _chunk(self, chunk: int) -> Tensor:
        generator = torch.Generator(device=self.device).manual_seed(self.generator_seed(chunk))
        size = (CHUNK, *self.shape)
        if self.kind == "float":
            return torch.randn(size, generator=generator, device=self.device).mul_(self.sigma)
        normal = box_muller(math.prod(size), 255 * self.sigma, generator).view(size)
        return normal.round_().float()  # below 2^24, so float32 holds them exactly


def box_muller(num: int, sigma: float, generator: torch.Generator) -> Tensor:
    """`num` (a multiple of 16) float64 draws of N(0, sigma²) on the generator's device: `sqrt(-2 log(1 - u)) cos(2π v)`
    and `… sin(2π v)` (Box and Muller 1958), from uniform u and v in turns of eight.

    On the CPU these are torch.randn's own float64 draws, up to the last bit of the logarithm and the cosine, at half
    the time on one core: torch.randn goes through them one by one.
    """
    u = torch.rand(num, generator=generator, device=generator.device, dtype=torch.float64).view(-1, 2, 8)
    radius = u[:, 0].neg().log1p_().mul_(-2).sqrt_().mul_(sigma)
    angle = u[:, 1] * (2 * math.pi)
    torch.mul(radius, angle.cos(), out=u[:, 0])
    torch.mul(radius, angle.sin(), out=u[:, 1])
    return u.view(num)


def slack(kind: str, sigma: float, dimension: int) -> float:
    """By how much a probability under the drawn noise may differ from that under the ideal Gaussian; 0 for `float`,
    where it is not bounded but ignored, as published.

    Per pixel, `round(255 σ z)` falls into another bin than the ideal variable only if z is within its own error of a
    bin's edge. Float64 Box–Muller and the product err by a few units of 2^-52 relative to |z|, so the total variation
    per pixel is at most about `Σ_edges φ(z) |z| 2^-52 · few ≈ 255 σ · 2^-52 · few`; the tail cut off beyond |z| = 8.5
    is 2^-53. Bounded here by `2^-48 (1 + 255 σ)`: 16 units, for each of the `dimension` = C·H·W pixels.
    """
    return 0.0 if kind == "float" else dimension * 2.0**-48 * (1 + 255 * sigma)
