"""Random changes of training images `[B, C, H, W]` in [0, 1], drawn from torch's generator."""

from __future__ import annotations

import math

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
    """What a classifier must not mind in `[B, C, H, W]`: where the head lies, how bright its tissues are, how sharp the
    image is."""
    return random_blur(random_contrast(random_affine(images)))


def random_contrast(images: Tensor, gamma: float = 0.3, gain: float = 0.2) -> Tensor:
    """`gain · x^gamma` of each image of `[B, C, H, W]`, clamped to [0, 1]: scanners and window settings differ.

    The gain is uniform in 1 ± `gain`, the exponent log-uniform in e^±`gamma`.
    """

    def uniform(limit: float) -> Tensor:
        return ((torch.rand(len(images)) * 2 - 1) * limit).to(images.device).view(-1, 1, 1, 1)

    return (images ** uniform(gamma).exp() * (1 + uniform(gain))).clamp(0, 1)


def random_blur(images: Tensor, most: float = 0.025, blurred: float = 0.5) -> Tensor:
    """Gaussian blur of a share `blurred` of `[B, C, H, W]`, with a standard deviation of up to `most` of the side.

    Scanners resolve more or less; and what a denoiser returns is smoother than any image, so that a classifier which
    needs the finest detail is the first to err behind one.
    """
    count, channels, height, width = images.shape
    sd = torch.rand(count) * most * width * (torch.rand(count) < blurred)
    reach = max(1, math.ceil(3 * most * width))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sd.clamp(min=1e-3).view(-1, 1)) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0).to(images)
    x = images.reshape(1, count * channels, height, width)
    for shape, padding in (((1, -1), (reach, reach, 0, 0)), ((-1, 1), (0, 0, reach, reach))):
        kernel = weights.view(count * channels, 1, *(len(offsets) if side == -1 else 1 for side in shape))
        x = F.conv2d(F.pad(x, padding, mode="replicate"), kernel, groups=count * channels)
    return x.view_as(images)
