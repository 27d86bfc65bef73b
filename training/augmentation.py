"""Random changes of training images `[B, C, H, W]` in [0, 1], drawn from torch's generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_affine(
    images: Tensor,
    shift: float = 0.1,
    rotation: float = 15.0,
    scale: float = 0.15,
    flip: float = 0.5,
    moved: float = 0.8,
) -> Tensor:
    """Light augmentation of `[B, C, H, W]`: each image mirrored (probability `flip`) and, with probability `moved`,
    shifted by up to `shift` of its side, turned by up to `rotation` degrees and scaled by up to ±`scale`.

    Interpolation blurs, and a network that only ever saw blurred images errs on sharp ones (measured: ResNet-18 at
    64 px lost six points of validation accuracy to bilinear interpolation of every image). Hence bicubic, and a share
    that stays as it is. Border pixels are repeated; results are clamped to [0, 1].
    """
    count = len(images)
    still = torch.rand(count) >= moved

    def uniform(limit: float) -> Tensor:
        return ((torch.rand(count) * 2 - 1) * limit).masked_fill(still, 0)

    angle, zoom = torch.deg2rad(uniform(rotation)), 1 + uniform(scale)
    mirror = torch.where(torch.rand(count) < flip, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1], theta[:, 0, 2] = (
        mirror * zoom * angle.cos(),
        -zoom * angle.sin(),
        uniform(2 * shift),
    )
    theta[:, 1, 0], theta[:, 1, 1], theta[:, 1, 2] = mirror * zoom * angle.sin(), zoom * angle.cos(), uniform(2 * shift)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)


def random_changes(images: Tensor) -> Tensor:
    """What a classifier must not mind in `[B, C, H, W]`: where the head lies, and how bright its tissues are."""
    return random_contrast(random_affine(images))


def random_contrast(images: Tensor, gamma: float = 0.3, gain: float = 0.2) -> Tensor:
    """`gain · x^gamma` of each image of `[B, C, H, W]`, clamped to [0, 1]: scanners and window settings differ.

    The gain is uniform in 1 ± `gain`, the exponent log-uniform in e^±`gamma`.
    """

    def uniform(limit: float) -> Tensor:
        return ((torch.rand(len(images)) * 2 - 1) * limit).to(images.device).view(-1, 1, 1, 1)

    return (images ** uniform(gamma).exp() * (1 + uniform(gain))).clamp(0, 1)
