"""Random numbers that belong to an image: they depend on neither the batch nor on what was attacked before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def image_generator(seed: int, image: object) -> torch.Generator:
    """The generator of one image, given by what names it (split and index, say)."""
    digest = hashlib.blake2b(f"{seed} {image}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def uniform(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """U(0, 1) of the shape of `like`, image i's from generator i. Drawn on the CPU: the same on every device."""
    return torch.stack([torch.rand(like.shape[1:], generator=each) for each in generators]).to(like.device)


def normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """N(0, 1) of the shape of `like`, as `uniform`."""
    return torch.stack([torch.randn(like.shape[1:], generator=each) for each in generators]).to(like.device)
