"""Augmentation, on closed forms."""

from __future__ import annotations

import torch

from training.augmentation import random_affine, random_contrast


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
