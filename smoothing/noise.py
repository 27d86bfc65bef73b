"""The noise: a function of (seed, sigma, image index, draw number) alone, and how it is put on an image. Another kind
of device (CPU or CUDA; another GPU) has another generator, and so other draws.

Draws come in chunks of CHUNK, each from a generator of its own, so that any draw can be made without those before it
and nothing that only concerns the computation (batch size, shards, resuming, the order of images) changes it.

`float`: `x + n` in float32, as every published implementation does. It is unsound in the last digits: floating point
leaves traces of x in the low-order bits of x + n, and a network may read them (Voracek & Hein, ICLR 2023).

`exact`: x lies on the 8-bit grid, and the base classifier that is certified is `h ∘ Q`, where Q rounds its input to
that grid and clips it to [-k, k + 1], `k = max(1, floor(6 sigma))`. Since x = t / 255 with t whole,
`Q(x + n) = clip(t + round(255 n)) / 255`: whole numbers, added without any rounding, so that the inputs for x and for
x + δ (both 8-bit) are exact translations of each other. The whole numbers are drawn from 64 random bits each
(`smoothing.discrete`), and what is left between them and the ideal Gaussian is bounded by `slack`, to be taken off
every bound on a probability.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from smoothing import discrete

CHUNK = 64  # part of what defines the noise, so never change it
KINDS = ("float", "exact")
NOISE_VERSION = 2  # of `exact`; 1 was Box–Muller in float64, rounded. Draws of two versions have nothing in common


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
            whole = (x * 255).round()
            if (whole - x * 255).abs().max() > 1e-4:  # float32's own error is 2e-5
                raise ValueError(
                    f"image {index}: exact noise needs 8-bit values i / 255; round them, or use float noise"
                )
            self.x = whole.short().permute(1, 2, 0).contiguous().permute(2, 0, 1)  # channels last, as the draws
        self._held: tuple[int, Tensor] | None = None
        self._seeds: list[int] = []
        self._taken: set[int] = set()

    def noisy(self, first: int, num: int, out: Tensor | None = None) -> Tensor:
        """Draws first … first + num - 1 put on the image: float32 `[num, C, H, W]`, in `out` if given."""
        if out is None:
            out = torch.empty((num, *self.shape), device=self.device, memory_format=torch.channels_last)
        k, start = max(1, int(6 * self.sigma)), 0
        for noise in self._parts(first, num):
            part = out[start : start + len(noise)]
            if self.kind == "float":
                torch.add(self.x, noise, out=part)
            else:
                torch.div((self.x + noise).clamp_(-255 * k, 255 * (k + 1)), 255, out=part)
            start += len(noise)
        return out

    def draws(self, first: int, num: int) -> Tensor:
        """The noise itself, `[num, C, H, W]`: n, or for `exact` the whole numbers round(255 n), int16."""
        return torch.cat(list(self._parts(first, num)))

    def _parts(self, first: int, num: int) -> Iterator[Tensor]:
        """The same draws, chunk by chunk."""
        end = first + num
        while first < end:
            chunk, offset = divmod(first, CHUNK)
            if self._held is None or self._held[0] != chunk:
                self._held = (chunk, self._chunk(chunk))
            part = self._held[1][offset : offset + end - first]
            yield part
            first += len(part)

    def generator_seed(self, chunk: int) -> int:
        """The seed of a chunk's PyTorch generator. Those of one image differ in their low 32 bits, which are all that
        it looks at on the CPU: one that would not differ from an earlier chunk's is hashed once more."""
        for number in range(len(self._seeds), chunk + 1):
            key, low = self._key(number), None
            while low is None or low in self._taken:
                seed = _hashed(key, 8) >> 1
                key, low = f"{key} again", seed & 0xFFFFFFFF
            self._taken.add(low)
            self._seeds.append(seed)
        return self._seeds[chunk]

    def _key(self, chunk: int) -> str:
        return f"{self.seed} {self.sigma!r} {self.index} {chunk}"

    def _chunk(self, chunk: int) -> Tensor:
        channels, *sides = self.shape
        size = (CHUNK, *sides, channels)  # of `exact`: channels last
        if self.kind == "exact" and self.device.type == "cpu":
            bits = np.random.SFC64(_hashed(self._key(chunk), 16))
            drawn = torch.from_numpy(discrete.drawn_by_table(bits, math.prod(size), self.sigma))
            return drawn.view(size).permute(0, 3, 1, 2)
        generator = torch.Generator(device=self.device).manual_seed(self.generator_seed(chunk))
        if self.kind == "float":
            size = (CHUNK, *self.shape)
            return torch.randn(size, generator=generator, device=self.device).mul_(self.sigma)
        uniform = torch.empty(size, dtype=torch.int64, device=self.device).random_(-(2**63), None, generator=generator)
        return discrete.inverted(uniform, self.sigma).permute(0, 3, 1, 2)


def _hashed(key: str, size: int) -> int:
    """A whole number of `size` bytes."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=size).digest(), "big")


def slack(kind: str, sigma: float, dimension: int) -> float:
    """What is to be taken off a lower bound on a probability, for images of `dimension` = C·H·W pixels, so that the
    certificate holds in spite of the draws not being exactly Gaussian; 0 for `float`, where that is not bounded but
    ignored, as published.

    Of two noises with independent pixels, each within a total variation of ε (`discrete.distance`; the generator's bits
    count as uniform and independent), the means of a function with values in [0, 1], such as a draw's success, differ
    by at most s = C·H·W·ε. That counts twice: at x, where draws are counted while the theorem speaks of ideal noise;
    and at the perturbed image, where g, too, answers from draws. With 2s off, the certificate is one for g with ideal
    noise and for g as it is drawn. For let `a = Φ(h)` be the bound less 2s, so that h σ is the radius. The ideal mean
    at x is at least a + s; at the perturbed image at least `Φ(Φ⁻¹(a + s) - h)`, for Φ⁻¹ of a smoothed mean changes by
    no more than the distance over σ (Salman et al. 2019, lemma 2); and that is at least 1/2 + s, since it is 1/2 at s =
    0 and its derivative by s, `exp(h Φ⁻¹(a + s) - h²/2) >= exp(h²/2)`, is never below 1.
    """
    return 0.0 if kind == "float" else 2 * dimension * discrete.distance(sigma)
