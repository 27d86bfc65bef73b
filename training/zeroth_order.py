"""Zeroth-order gradient estimates: `∇_z ℓ(z)` from values of ℓ alone, for a classifier that may only be queried.

Every estimator is `(loss_at, z, mu, q, generator) → (gradient, queries)`:

    loss_at   points `[b, P, *S]` → losses `[b, P]` in float32: P points for each of b samples, which may each have a
              target of their own; a second argument, a slice of the B samples, says which b they are (default: all).
              `in_batches` makes one from a loss per sample
    z         `[B, *S]`, where the gradients are wanted; d numbers per sample
    mu        μ, the step of the finite differences
    q         number of directions per sample
    generator of the random directions, on z's device; None: torch's global one
    block     directions per sample whose points are in memory at once
    gradient  `[B, *S]` float32
    queries   evaluations of ℓ per sample

Directions are unit vectors. With u uniform on the sphere, `E[d ⟨∇ℓ, u⟩ u] = ∇ℓ`: the factor d/q makes a mean over q of
them unbiased for small μ. `grey` makes of an estimator one for images whose channels are equal.

Sources: Liu et al. 2020 (survey); Zhang et al., "How to robustify black-box ML models? A zeroth-order optimization
perspective", ICLR 2022, eq. 4 (RGE) and 5 (CGE).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from scipy.fft import idctn
from torch import Tensor

LossAt = Callable[..., Tensor]
BLOCK = 64
EVERY = slice(None)
HELD = 2**24  # numbers of orthonormal directions in memory at once (64 MiB, a few times over while they are made)


def in_batches(loss: Callable[[Tensor, Tensor], Tensor], batch: int) -> LossAt:
    """`loss_at` from `loss(points [N, *S], sample [N]) → [N]`, where `sample` says whose points they are; at most
    `batch` points per call, without gradients."""

    @torch.no_grad()
    def loss_at(points: Tensor, samples: slice = EVERY) -> Tensor:
        count, per_sample = points.shape[:2]
        flat = points.flatten(0, 1)
        sample = (torch.arange(count, device=points.device) + (samples.start or 0)).repeat_interleave(per_sample)
        losses = [loss(*part).float() for part in zip(flat.split(batch), sample.split(batch), strict=True)]
        return torch.cat(losses).view(count, per_sample)

    return loss_at


def surrogate_loss(
    z: Tensor, loss: Callable[[Tensor, Tensor], Tensor], estimator: Callable, mu: float, q: int, batch: int
) -> Tensor:
    """`[B]` losses for the optimiser: their gradient is `⟨dz, ĝ⟩` with the estimate ĝ of `∇_z ℓ` (Zhang et al. 2022),
    their value the mean of ℓ over the points that were queried. `loss` and `batch` as in `in_batches`; random
    directions come from torch's global generator, so that a run is resumed exactly."""
    ask, total = in_batches(loss, batch), torch.zeros(len(z), device=z.device)

    def loss_at(points: Tensor, samples: slice = EVERY) -> Tensor:
        losses = ask(points, samples)
        total[samples] += losses.sum(dim=1)
        return losses

    with torch.autocast(z.device.type, enabled=False):
        gradient, queries = estimator(loss_at, z.detach().float(), mu, q, None, block=max(1, batch // len(z)))
        value = total / queries
        product = (z.float() * gradient).flatten(1).sum(dim=1)
    return product + (value - product).detach()


def important(losses: Tensor, count: int, floor: float = 0.02) -> tuple[Tensor, Tensor]:
    """(`chosen` [count], `weights` [count]): of which of N images with these `losses` `[N]` a step estimates gradients,
    and what their terms are multiplied by. Drawn with replacement by p ∝ ℓ - min ℓ + `floor`, weighted by 1 / (N p):
    whatever the losses, the weighted mean over the chosen is in expectation the mean over all. Few images hold most of
    the squared gradient, those that the black box gets wrong, and a loss is one query."""
    chances = losses - losses.min() + floor
    chances = chances / chances.sum()
    chosen = torch.multinomial(chances, count, replacement=True)
    return chosen, 1 / (len(losses) * chances[chosen])


# ---- estimators ------------------------------------------------------------------------------------------------------


def rge(loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK):
    """Random gradient estimate as published: `d/q Σ_i (ℓ(z + μu_i) - ℓ(z)) / μ · u_i`, u_i independent and uniform on
    the sphere; q + 1 queries. Its relative error is about `sqrt(d/q)`."""
    return _scaled(_forward(loss_at, z, mu, _spherical(z, q, generator, block)), _dimension(z) / q)


def rge_antithetic(
    loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK
):
    """`rge` from both sides, `(ℓ(z + μu) - ℓ(z - μu)) / 2μ`: a bias of order μ² in place of μ, for 2q queries."""
    return _scaled(_central(loss_at, z, mu, _spherical(z, q, generator, block)), _dimension(z) / q)


def rge_orthogonal(
    loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK
):
    """`rge` with orthonormal directions, uniformly rotated (QR of a Gaussian matrix): no direction repeats what another
    has told, and q = d gives the whole gradient; q + 1 queries, q <= d. Relative error `sqrt(d/q - 1)`
    (Kozak et al. 2021, "A stochastic subspace approach to gradient-free optimization")."""

    def vectors(samples: slice) -> Tensor:
        return _gaussian(z[samples], q, generator)

    return _scaled(_along_orthonormal(loss_at, z, mu, vectors, q, block), _dimension(z) / q)


def cge(loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK):
    """Coordinate-wise gradient estimate as published: `Σ_k (ℓ(z + μe_k) - ℓ(z - μe_k)) / 2μ · e_k` over all d
    coordinates (q = d, 2d queries); with q < d over q of them, drawn for each sample by itself, times d/q."""
    return _scaled(_central(loss_at, z, mu, _coordinates(z, q, generator, block)), _dimension(z) / q)


def cge_forward(loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK):
    """`cge` from one side: q + 1 queries."""
    return _scaled(_forward(loss_at, z, mu, _coordinates(z, q, generator, block)), _dimension(z) / q)


def dct(loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK):
    """The gradient's part in the q lowest frequencies of images z `[B, C, H, W]`: forward differences along cosines,
    orthonormal and the same for every sample; q + 1 queries. What the gradient holds above them is left out, in place
    of an autoencoder's bottleneck."""
    basis = low_frequencies(tuple(z.shape[1:]), q).to(z.device).unsqueeze(0)
    return _forward(loss_at, z, mu, basis.split(block, dim=1))


def guided(surrogate: Callable[[Tensor], Tensor]) -> Callable:
    """The estimator whose first direction is a surrogate's gradient `surrogate(z) [B, *S]`, and whose other q - 1 are
    orthonormal to it and to each other; q + 1 queries. After P-RGF (Cheng et al. 2019) and guided evolution strategies
    (Maheswaranathan et al. 2019); the part outside the directions is left out and not made up for by a factor: that
    minimises the squared error, and keeps the surrogate's part from being drowned."""

    def estimate(loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK):
        first = surrogate(z).detach().float().flatten(1).unsqueeze(1)

        def vectors(samples: slice) -> Tensor:
            return torch.cat([first[samples], _gaussian(z[samples], q - 1, generator)], dim=1)

        return _along_orthonormal(loss_at, z, mu, vectors, q, block)

    return estimate


def grey(estimator: Callable) -> Callable:
    """`estimator` on images `[B, C, H, W]`, with directions whose C channels are equal: unit vectors of `[1, H, W]`
    over `sqrt(C)` in each, d = H·W. It estimates (as free of bias as before) the gradient's part in that subspace and
    leaves out the rest; of images that are grey in truth little is left out, and a third as many dimensions are
    searched. Not for `guided`, whose surrogate would have to see the image."""

    def estimate(loss_at: LossAt, z: Tensor, mu: float, q: int, generator: torch.Generator | None, block: int = BLOCK):
        share = z.shape[1] ** -0.5

        def moved_at(moves: Tensor, samples: slice = EVERY) -> Tensor:
            return loss_at(z[samples].unsqueeze(1) + share * moves, samples)

        still = torch.zeros_like(z[:, :1], memory_format=torch.contiguous_format)
        found, queries = estimator(moved_at, still, mu, q, generator, block)
        return share * found.expand(z.shape), queries

    return estimate


def gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """`∇_z Σ loss(z)` by backpropagation, for a surrogate of what may only be queried."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        return torch.autograd.grad(loss(z).sum(), z)[0]


ESTIMATORS = {
    "RGE": rge,
    "RGE_orthogonal": rge_orthogonal,
    "RGE_antithetic": rge_antithetic,
    "CGE": cge,
    "CGE_forward": cge_forward,
    "DCT": dct,
}


def queries_of(name: str, q: int) -> int:
    """Queries per sample and step of an estimator with q directions."""
    return 2 * q if name in ("CGE", "RGE_antithetic") else q + 1


# ---- differences along directions `[B or 1, block, d]` ---------------------------------------------------------------


def _forward(loss_at: LossAt, z: Tensor, mu: float, directions: Iterable[Tensor]) -> tuple[Tensor, int]:
    here = loss_at(z.unsqueeze(1))
    gradient, queries = _zeros(z), 1
    for u in directions:
        slopes = (loss_at(_moved(z, mu, u)) - here) / mu
        gradient += _combined(slopes, u)
        queries += u.shape[1]
    return gradient.view(z.shape), queries


def _along_orthonormal(
    loss_at: LossAt, z: Tensor, mu: float, vectors: Callable[[slice], Tensor], q: int, block: int
) -> tuple[Tensor, int]:
    """`_forward` along the orthonormalised q `vectors(samples)`: so many samples at a time as `HELD` allows, for each
    must have all its directions at once. Random vectors of such a block are drawn after those of the one before: on
    the CPU the same as all at once where a block draws a multiple of 16 numbers, others else."""
    count = max(1, HELD // (q * _dimension(z)))
    found, queries = [], 0
    for start in range(0, len(z), count):
        samples = slice(start, min(start + count, len(z)))
        directions = _orthonormal(vectors(samples))
        parts = directions.split(max(1, block * len(z) // len(directions)), dim=1)
        gradient, queries = _forward(lambda points, samples=samples: loss_at(points, samples), z[samples], mu, parts)
        found.append(gradient)
    return torch.cat(found), queries


def _central(loss_at: LossAt, z: Tensor, mu: float, directions: Iterable[Tensor]) -> tuple[Tensor, int]:
    gradient, queries = _zeros(z), 0
    for u in directions:
        slopes = (loss_at(_moved(z, mu, u)) - loss_at(_moved(z, -mu, u))) / (2 * mu)
        gradient += _combined(slopes, u)
        queries += 2 * u.shape[1]
    return gradient.view(z.shape), queries


def _moved(z: Tensor, mu: float, u: Tensor) -> Tensor:
    """`z + mu u`, `[B, block, *S]`, never in half precision: it would swallow the step."""
    return z.to(torch.promote_types(z.dtype, u.dtype)).unsqueeze(1) + mu * u.view(len(u), -1, *z.shape[1:])


def _combined(slopes: Tensor, u: Tensor) -> Tensor:
    """`Σ_i slope_i u_i`, `[B, d]`."""
    return torch.einsum("bi,bid->bd", slopes.float(), u.expand(len(slopes), -1, -1))


def _scaled(estimate: tuple[Tensor, int], factor: float) -> tuple[Tensor, int]:
    gradient, queries = estimate
    return gradient * factor, queries


def _zeros(z: Tensor) -> Tensor:
    return torch.zeros(len(z), _dimension(z), device=z.device)


def _dimension(z: Tensor) -> int:
    return z[0].numel()


# ---- directions ------------------------------------------------------------------------------------------------------


def _gaussian(z: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(len(z), count, _dimension(z), generator=generator, device=z.device)


def _spherical(z: Tensor, q: int, generator: torch.Generator | None, block: int) -> Iterator[Tensor]:
    for start in range(0, q, block):
        u = _gaussian(z, min(block, q - start), generator)
        yield u / u.norm(dim=2, keepdim=True)


def _orthonormal(vectors: Tensor) -> Tensor:
    """Orthonormal rows that span what the rows of `[B, q, d]` span, one after another. Raises ValueError if q > d.

    By the Cholesky factor of their inner products, matrix products all: a GPU does them many times as fast as a QR
    decomposition. That squares the condition number, so few rows are taken in float32 and more in float64; rows that
    are too nearly dependent for it are left to QR.
    """
    count, dimension = vectors.shape[1:]
    if count > dimension:
        raise ValueError(f"there are no {count} orthogonal directions in {dimension} dimensions")
    precise, least = (torch.float32, 0.1) if 4 * count <= dimension else (torch.float64, 1e-5)
    unit = torch.nn.functional.normalize(vectors.to(precise), dim=2)
    factor, failed = torch.linalg.cholesky_ex(unit @ unit.mT)
    if failed.any() or factor.diagonal(dim1=1, dim2=2).min() < least:
        return torch.linalg.qr(vectors.mT).Q.mT
    return torch.linalg.solve_triangular(factor, unit, upper=False).to(vectors.dtype)


def _coordinates(z: Tensor, q: int, generator: torch.Generator | None, block: int) -> Iterator[Tensor]:
    d = _dimension(z)
    if q > d:
        raise ValueError(f"there are no {q} coordinates in {d} dimensions")
    if q == d:
        chosen = torch.arange(d, device=z.device).expand(1, d)
    else:  # of each sample's own: shared ones would err alike in all, and a batch would not average that out
        chosen = torch.rand(len(z), d, generator=generator, device=z.device).argsort(dim=1)[:, :q]
    for part in chosen.split(block, dim=1):
        yield torch.nn.functional.one_hot(part, d).float()


@functools.cache  # of one shape and q in a run; a step would otherwise make it anew
def low_frequencies(shape: tuple[int, int, int], q: int) -> Tensor:
    """The q cosine images (DCT-II) of lowest frequency over `[C, H, W]`: orthonormal, `[q, C·H·W]`, all channels of a
    frequency before the next. Raises ValueError if there are fewer."""
    channels, height, width = shape
    if q > math.prod(shape):
        raise ValueError(f"there are no {q} frequencies in {math.prod(shape)} dimensions")
    rows, columns = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    order = np.argsort((rows**2 + columns**2).ravel(), kind="stable")[: math.ceil(q / channels)]
    spectrum = np.zeros((len(order), height * width))
    spectrum[np.arange(len(order)), order] = 1
    waves = idctn(spectrum.reshape(-1, height, width), axes=(1, 2), norm="ortho")
    basis = np.einsum("kp,cd->kcdp", waves.reshape(len(order), -1), np.eye(channels))
    return torch.from_numpy(basis.reshape(len(order) * channels, -1)[:q]).float()
