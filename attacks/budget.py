"""What an attack may do to an image: its L∞ or L2 budget, kept exactly, through the 8 bits of a file too."""

from __future__ import annotations

import torch
from torch import Tensor


def check_inputs(inputs: Tensor, eps: float | Tensor | None = None) -> None:
    """Raises ValueError if inputs leave [0, 1] or eps is not positive."""
    if not (inputs.min() >= 0 and inputs.max() <= 1):
        raise ValueError("inputs must lie in [0, 1]: put the normalisation inside the model")
    if eps is not None and not (torch.as_tensor(eps) > 0).all():
        raise ValueError(f"eps must be > 0, got {eps}")


def per_image(value: float | Tensor, inputs: Tensor) -> Tensor:
    """A number, or one per image `[B]`, in a shape that multiplies `inputs` `[B, C, H, W]`."""
    return torch.as_tensor(value, device=inputs.device, dtype=inputs.dtype).reshape(-1, *[1] * (inputs.ndim - 1))


def project(inputs: Tensor, delta: Tensor, eps: Tensor, norm: str) -> Tensor:
    """The perturbation brought into the ball of radius eps (`per_image`), then `inputs + delta` into [0, 1], which
    only makes it shorter."""
    if norm == "Linf":
        delta = torch.minimum(torch.maximum(delta, -eps), eps)
    elif norm == "L2":
        length = per_image(delta.flatten(1).norm(dim=1), inputs)
        delta = delta * (eps / length.clamp(min=1e-12)).clamp(max=1)
    else:
        raise ValueError(f"there is no budget in {norm}, only in Linf and L2")
    return (inputs + delta).clamp(0, 1) - inputs


def to_8bit(attacked: Tensor, clean: Tensor, norm: str | None = None, eps: float | Tensor | None = None) -> Tensor:
    """uint8 `[B, C, H, W]`: the attacked images as a file holds them, never farther from the clean ones than `eps`.

    Args:
        attacked: in [0, 1].
        clean: in [0, 1], of 8-bit values.
        norm, eps: the budget, eps one for all or `[B]`; None: there is none, and every pixel is rounded to the nearest.

    L∞: rounded to the nearest, but no further than `floor(255 eps)` levels. L2: rounding to the nearest would erase
    a perturbation below half a level per pixel, and lengthen others; so each pixel is rounded towards the clean image
    first, then one level away again where that recovers most for its length, until the length of the attacked
    image's perturbation (or of eps, if shorter) is used up.
    """
    grid = (clean * 255).round()
    delta = (attacked.double() * 255 - grid).clamp(-255, 255)
    nearest = delta.round()
    delta = torch.where((delta - nearest).abs() < 1e-3, nearest, delta)  # a level missed by a rounding error
    if eps is None:
        whole = nearest
    elif norm == "Linf":
        levels = torch.floor(255 * per_image(eps, delta) * (1 + 1e-9))
        whole = torch.minimum(torch.maximum(nearest, -levels), levels)
    elif norm == "L2":
        longest = 255 * per_image(eps, delta)
        length = per_image(delta.flatten(1).norm(dim=1), delta)
        delta = delta * (longest * (1 + 1e-9) / length.clamp(min=1e-12)).clamp(max=1)
        whole = delta.sign() * _longest_whole(delta.abs(), longest.flatten())
    else:
        raise ValueError(f"there is no budget in {norm}, only in Linf and L2")
    return (grid + whole).clamp(0, 255).byte()


def _longest_whole(size: Tensor, eps: Tensor) -> Tensor:
    """Whole numbers, each that of `size` rounded down or up, no longer together than `size` and eps `[B]` or `[]`."""
    low = size.floor()
    cost = 2 * low + 1  # what the square of the length grows by with one level more
    order = ((size - low) / cost).flatten(1).argsort(dim=1, descending=True, stable=True)
    spent = cost.flatten(1).gather(1, order).cumsum(dim=1)
    length = torch.minimum(size.flatten(1).norm(dim=1), eps.to(size.device))
    room = length**2 * (1 + 1e-9) - low.flatten(1).square().sum(dim=1)
    up = (spent <= room[:, None]) & ((size - low).flatten(1).gather(1, order) > 0)
    return low + torch.zeros_like(low).flatten(1).scatter(1, order, up.double()).view_as(low)
