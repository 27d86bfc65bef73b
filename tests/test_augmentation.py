"""Augmentation, on closed forms."""

from __future__ import annotations

import torch

from training.augmentation import random_affine, random_blur, random_contrast


def test_contrast_closed_forms():
    images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_contrast(images, gamma=0, gain=0), images)
    torch.manual_seed(0)
    brighter = random_contrast(images, gamma=0, gain=0.2)
    ratio = (brighter / images)[images < 0.8].clamp(max=1.2)
    assert 0.8 - 1e-6 <= ratio.min() < 0.85
    assert ratio.max() > 1.15
    curved = random_contrast(images, gamma=0.3, gain=0)
    exponents = (curved.log() / images.log())[:, 0, 0, 0]
    assert exponents.log().abs().max() <= 0.3 + 1e-5
    assert exponents.std() > 0.1


def test_augmentation_closed_forms():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    still = random_affine(images, shift=0, rotation=0, scale=0, flip=0)
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
    mirrored = random_affine(images, shift=0, rotation=0, scale=0, flip=1)
    torch.testing.assert_close(mirrored, images.flip(-1), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    moved = random_affine(images)
    assert moved.shape == images.shape
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (moved - images).abs().amax(dim=(1, 2, 3)).min() > 0.05  # each image is moved


def test_blur_closed_forms():
    """A point becomes a Gaussian of the drawn width, with the same sum; flat images and unblurred ones stay."""
    point = torch.zeros(200, 1, 41, 41)
    point[:, :, 20, 20] = 1
    torch.manual_seed(0)
    blurred = random_blur(point, most=0.05, blurred=1)
    torch.testing.assert_close(blurred.sum(dim=(1, 2, 3)), torch.ones(200))
    offsets = torch.arange(41) - 20.0
    for axis in (1, 2):  # the variance along each axis is that of the Gaussian
        variance = (blurred.sum(dim=(1, axis + 1)) * offsets**2).sum(dim=1)
        assert 1.9**2 < variance.max() <= 2.05**2
        assert variance.min() < 0.1
    flat = torch.full((3, 3, 8, 8), 0.7)
    torch.testing.assert_close(random_blur(flat, blurred=1), flat)
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(random_blur(images, blurred=0), images)
