"""HopSkipJump (Chen, Jordan, Wainwright 2020): minimal L2 perturbations of a classifier that only tells its labels.

QEBA (Li et al. 2020) is the same search with directions of low frequency: fewer numbers to find out about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks.budget import check_inputs, to_8bit

OUTWARD = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # how far beyond the boundary 8 bits may need it, as a share


@torch.no_grad()
def hopskipjump(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    steps: int = 20,
    generators: Sequence[torch.Generator] | None = None,
    starts: Tensor | None = None,
    initial_evals: int = 100,
    max_evals: int = 10_000,
    batch: int = 64,
    reduction: int = 1,
    least_reach: float = 0.0,
) -> Tensor:
    """Algorithm 2, untargeted: at the boundary, estimate its normal from the labels of random points around, go along
    it, and search back to the boundary, `steps` times. Only `argmax` of the model's scores is used.

    Args:
        model: images `[N, C, H, W]` → scores `[N, K]`; each row is one query.
        inputs, labels: `[B, C, H, W]` in [0, 1] of 8-bit values, `[B]` true classes. An image already misclassified
            is returned as it is.
        steps: T; step t costs about `initial_evals · sqrt(t)` queries (B_t in the paper, at most `max_evals`).
        generators: one per image; None: seeded with 0.
        starts: `[M, C, H, W]` images to begin at, the nearest one that is adversarial; if none is: uniform noise.
        batch: queries per call of the model.
        reduction: r of QEBA-F; directions consist of the lowest 1/r of the frequencies along each side (DCT-II).
        least_reach: the points that are asked about are at least this share of the distance away from the boundary.

    With the published `least_reach` of 0 they lie so close to each other that half precision blurs them, and the model
    has to run in float32. A tenth of the distance is far enough for bfloat16.

    Returns 8-bit values: the nearest adversarial image found, a little beyond the boundary where rounding would fall
    back behind it; uniform noise or the last start where no adversarial image was found at all.
    Raises ValueError if inputs leave [0, 1].
    """
    check_inputs(inputs)
    generators = generators or [torch.Generator().manual_seed(0) for _ in inputs]
    found = []
    for x, label, generator in zip(inputs, labels, generators, strict=True):

        def fooled(points: Tensor, label: Tensor = label) -> Tensor:
            return torch.cat([model(part).argmax(dim=1) != label for part in points.split(batch)])

        found.append(_one(fooled, x, steps, generator, starts, initial_evals, max_evals, reduction, least_reach))
    return torch.stack(found)


def _one(
    fooled: Callable[[Tensor], Tensor],
    x: Tensor,
    steps: int,
    generator: torch.Generator,
    starts: Tensor | None,
    initial_evals: int,
    max_evals: int,
    reduction: int,
    least_reach: float,
) -> Tensor:
    if fooled(x[None]):
        return x
    start = _start(fooled, x, generator, starts)
    if not fooled(start[None]):
        return _eight_bit(start, x)
    dimension = x.numel()
    theta = dimension**-1.5  # binary search stops at this share (their γ = 1)
    point = _to_boundary(fooled, x, start, theta)
    for step in range(1, steps + 1):
        distance = (point - x).norm()
        # Their δ: at first a tenth of the pixel range.
        reach = 0.1 if step == 1 else max(math.sqrt(dimension) * theta, least_reach) * distance.item()
        evals = int(min(initial_evals * math.sqrt(step), max_evals))
        direction = _normal(fooled, point, _directions(evals, x, reduction, generator), reach)
        size = distance / math.sqrt(step)
        while size > 1e-6 and not fooled((point + size * direction).clamp(0, 1)[None]):
            size = size / 2
        if size > 1e-6:
            moved = _to_boundary(fooled, x, (point + size * direction).clamp(0, 1), theta)
            point = moved if (moved - x).norm() < distance else point
    rounded = torch.stack([_eight_bit((x + (1 + share) * (point - x)).clamp(0, 1), x) for share in OUTWARD])
    answers = fooled(rounded).tolist()
    return rounded[answers.index(True)] if True in answers else rounded[0]


def _start(
    fooled: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator, starts: Tensor | None, tries: int = 100
) -> Tensor:
    """The nearest of `starts` that is adversarial, else the first adversarial image of uniform noise, else the last."""
    if starts is not None and len(starts):
        good = starts[fooled(starts)]
        if len(good):
            return good[(good - x).flatten(1).norm(dim=1).argmin()]
    for _ in range(tries):
        noise = torch.rand(x.shape, generator=generator).to(x.device)
        if fooled(noise[None]):
            break
    return noise


def _to_boundary(fooled: Callable[[Tensor], Tensor], x: Tensor, outside: Tensor, theta: float) -> Tensor:
    """Binary search between the image and an adversarial point: the adversarial end of the last interval."""
    low, high = 0.0, 1.0
    while high - low > theta:
        middle = (low + high) / 2
        if fooled(torch.lerp(x, outside, middle)[None]):
            high = middle
        else:
            low = middle
    return torch.lerp(x, outside, high)


def _directions(count: int, x: Tensor, reduction: int, generator: torch.Generator) -> Tensor:
    """Random unit vectors `[count, C, H, W]`: Gaussian, of all frequencies or of the lowest."""
    height, width = (math.ceil(side / reduction) for side in x.shape[1:])
    u = torch.randn((count, x.shape[0], height, width), generator=generator).to(x.device)
    if reduction > 1:
        u = _cosines(height, x.shape[1], x).T @ u @ _cosines(width, x.shape[2], x)
    return u / u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _cosines(count: int, side: int, like: Tensor) -> Tensor:
    """The `count` slowest vectors of the orthonormal DCT-II, `[count, side]`."""
    k, n = torch.arange(count, device=like.device).view(-1, 1), torch.arange(side, device=like.device)
    waves = torch.cos(math.pi / side * (n + 0.5) * k)
    return waves / waves.norm(dim=1, keepdim=True)


def _normal(fooled: Callable[[Tensor], Tensor], point: Tensor, u: Tensor, reach: float) -> Tensor:
    """Unit vector along `Σ_b (φ_b - mean φ) u_b`, their estimate with a baseline, over directions u_b; φ_b = ±1 tells
    whether point + δ u_b is adversarial."""
    around = (point + reach * u).clamp(0, 1)
    u = (around - point) / reach
    phi = 2 * fooled(around).float() - 1
    weight = phi if (phi == phi[0]).all() else phi - phi.mean()
    direction = (weight.view(-1, 1, 1, 1) * u).sum(dim=0)
    return direction / direction.norm().clamp(min=1e-12)


def _eight_bit(point: Tensor, x: Tensor) -> Tensor:
    return to_8bit(point[None], x[None])[0].float() / 255
