"""Changes of an image that scanners and stains make, as families to smooth over in place of pixel noise.

A family T maps an image and parameters c ∈ R^d to an image, so that `T_a(T_b(x)) = T_{a+b}(x)` and `T_0(x) = x`. Then
the certificate of Cohen et al. (2019) holds in the space of the parameters (Li et al. 2021, TSS: additive resolvable
transformations). Let `h(c) = f(T_c(x))`. The smoothed classifier answers x with the class that `h(c)` gives most often
for `c ~ N(0, σ² I_d)`. At a changed image it sees `f(T_c(T_δ(x))) = h(c + δ)`, which is h under shifted noise. So with
probability 1 - α its answer is the same on every `T_δ(x)` with `‖δ‖₂ < R`, R from the same bounds as for pixels.

What is composed: the change is applied to the real-valued image, first by the scanner (δ), then by the smoothing (c).
Nothing is clipped or rounded in between. The network sees `clip(T_c(…), 0, 1)`: clipping is part of f. Rounding the
changed image to 8 bits before it is smoothed, as a file does, is not covered (`docs/transforms.md`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smoothing.noise import CHUNK, Noise

DEGREE = 3  # of the Legendre products of a bias field


@dataclass(frozen=True)
class Family:
    """A family of changes: `apply(x [C, H, W], c [B, d])` → `[B, C, H, W]`, not clipped; `dimension(shape)` gives d for
    images of that shape. `told(r)` says in words what changes a radius r covers."""

    name: str
    apply: Callable[[Tensor, Tensor], Tensor]
    dimension: Callable[[tuple[int, ...]], int]
    told: Callable[[float], str]


# ---- the families ----------------------------------------------------------------------------------------------------


def gamma(x: Tensor, c: Tensor) -> Tensor:
    """`x^(eᶜ)`, the same for all channels; c `[B, 1]`. Black and white stay what they are."""
    return x ** c.exp().view(-1, 1, 1, 1)


def gain(x: Tensor, c: Tensor) -> Tensor:
    """`eᶜ · x`; c `[B, 1]`. Black stays black."""
    return x * c.exp().view(-1, 1, 1, 1)


def bias_field(x: Tensor, c: Tensor) -> Tensor:
    """`x · exp(Σ_k c_k B_k)`, the smooth shading of a receive coil; c `[B, 9]`. `‖c‖₂` is the RMS over the image of the
    logarithm of the field."""
    return x * torch.einsum("bk,khw->bhw", c, fields(x)).exp_().unsqueeze(1)


def stain(x: Tensor, c: Tensor) -> Tensor:
    """`D_k → e^(c_k) · D_k` for the optical density `D = -log x` of each channel: more or less dye. c `[B, C]`."""
    return x ** c.exp()[:, :, None, None]


def stain_offset(x: Tensor, c: Tensor) -> Tensor:
    """`D_k → D_k + c_k` for the optical density `D = -log x` of each channel: other light, thicker background. c
    `[B, C]`."""
    return x * (-c).exp()[:, :, None, None]


def fields(x: Tensor) -> Tensor:
    """`[9, H, W]` for images `[C, H, W]`: products of Legendre polynomials in the two directions, of degree 1 to 3 in
    all, made orthogonal to each other and to constants, each with a mean square of 1 over the image."""
    return _fields(x.shape[-2], x.shape[-1]).to(x)


_KEPT: dict[tuple[int, int], Tensor] = {}


def _fields(height: int, width: int) -> Tensor:
    if min(height, width) <= DEGREE:
        raise ValueError(f"a bias field needs images of at least {DEGREE + 1} px, got {height} × {width}")
    if (height, width) not in _KEPT:
        sides = [np.linspace(-1, 1, size) for size in (height, width)]
        powers = [(i, j) for i, j in itertools.product(range(DEGREE + 1), repeat=2) if i + j <= DEGREE]
        along = [np.stack([np.polynomial.Legendre.basis(k)(side) for k in range(DEGREE + 1)]) for side in sides]
        products = np.stack([np.outer(along[0][i], along[1][j]).ravel() for i, j in sorted(powers, key=sum)], axis=1)
        orthogonal = np.linalg.qr(products)[0][:, 1:]  # the first is the constant, which is `gain`
        _KEPT[height, width] = torch.from_numpy(orthogonal.T * math.sqrt(height * width)).view(-1, height, width)
    return _KEPT[height, width]


def _times(r: float) -> str:
    return f"{math.exp(r):.3g}"


FAMILIES = {
    family.name: family
    for family in (
        Family("gamma", gamma, lambda shape: 1, lambda r: f"gamma between 1/{_times(r)} and {_times(r)}"),
        Family("gain", gain, lambda shape: 1, lambda r: f"brightness between 1/{_times(r)} and {_times(r)} times"),
        Family(
            "bias_field",
            bias_field,
            lambda shape: (DEGREE + 1) * (DEGREE + 2) // 2 - 1,
            lambda r: f"a bias field of up to {100 * math.expm1(r):.3g}% RMS",
        ),
        Family(
            "stain",
            stain,
            lambda shape: shape[0],
            lambda r: f"dye between 1/{_times(r)} and {_times(r)} times (root of the summed squares over channels)",
        ),
        Family(
            "stain_offset",
            stain_offset,
            lambda shape: shape[0],
            lambda r: f"up to {r:.3g} of optical density more or less (root of the summed squares over channels)",
        ),
    )
}


def must_be_additive(family: Family, shape: tuple[int, ...], tolerance: float = 1e-6, trials: int = 8) -> None:
    """Raises ValueError if `T_a(T_b(x))` is not `T_{a+b}(x)`, or `T_0(x)` is not x, on random images of this shape `[C,
    H, W]` and random parameters."""
    generator = torch.Generator().manual_seed(0)
    d = family.dimension(shape)
    for _ in range(trials):
        x = torch.rand(shape, generator=generator, dtype=torch.float64)
        a, b = 0.3 * torch.randn((2, 1, d), generator=generator, dtype=torch.float64)
        twice, once = family.apply(family.apply(x, b)[0], a), family.apply(x, a + b)
        same = family.apply(x, torch.zeros_like(a))
        if twice.shape != (1, *shape) or not (twice - once).abs().max() < tolerance:
            raise ValueError(
                f"{family.name}: is not additive: a change by a after one by b is not the change by a + b; "
                "its radii would prove nothing"
            )
        if not (same[0] - x).abs().max() < tolerance:
            raise ValueError(f"{family.name}: parameters of zero change the image; its radii would prove nothing")


class Changed(Noise):
    """The draws for one image `[C, H, W]` in [0, 1] under a family: `noisy(first, num)` gives `clip(T_c(x), 0, 1)` for
    `c ~ N(0, sigma² I_d)`, in the place of noisy images. Raises ValueError if the image leaves [0, 1]."""

    def __init__(self, x: Tensor, family: Family, sigma: float, seed: int, index: int) -> None:
        super().__init__(x, sigma, seed, index, "float")
        self.family, self.dimension = family, family.dimension(tuple(x.shape))

    def noisy(self, first: int, num: int, out: Tensor | None = None) -> Tensor:
        """Draws first … first + num - 1: float32 `[num, C, H, W]` in [0, 1], in `out` if given."""
        if out is None:
            out = torch.empty((num, *self.shape), device=self.device, memory_format=torch.channels_last)
        start = 0
        for c in self._parts(first, num):
            torch.clamp(self.family.apply(self.x, c), 0, 1, out=out[start : start + len(c)])
            start += len(c)
        return out

    def _key(self, chunk: int) -> str:
        return f"{self.family.name} {super()._key(chunk)}"

    def _chunk(self, chunk: int) -> Tensor:
        generator = torch.Generator(device=self.device).manual_seed(self.generator_seed(chunk))
        return torch.randn((CHUNK, self.dimension), generator=generator, device=self.device).mul_(self.sigma)
