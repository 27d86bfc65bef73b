"""Whether a network answers as a function does: one answer per image, whenever it is asked and in whatever company."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

IMAGES = 16  # that are asked about
QUERIES = 4 * IMAGES  # images that `check` asks about in all
ROUNDING = 1e-3  # of what decides an answer: differences up to here are not worth a word
TOLERATED = 0.1  # beyond it answers change too often


def probes(x: Tensor) -> Tensor:
    """`IMAGES` images `[16, C, H, W]` from a batch: its first ones and, if there are fewer, noisy copies of these."""
    images = x[torch.arange(IMAGES, device=x.device) % len(x)].detach().clone()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    images[len(x) :] += 0.25 * noise[len(x) :]
    return images


def check(ask: Callable[[Tensor], Tensor], x: Tensor, name: str) -> Tensor:
    """Ask `ask` about the same images twice, and once among others; return its answers `[16, …]`.

    Without this, noise of the network would be counted like that of smoothing. Votes of a network that mixes the images
    of a batch are not independent, and their certificate is false. No randomness can be repeated, so that a run that
    is resumed gives other answers. Answers may differ by `TOLERATED` of what decides them (`difference`); a warning
    reports differences above `ROUNDING`. Raises ValueError that names the network if they differ more.
    """
    images = probes(x)
    first, second = ask(images), ask(images)
    among = ask(torch.cat([1 - images, images]))[len(images) :]
    for other, when, cause in (
        (second, "when it is asked about the same images again", "random layers such as dropout are on"),
        (among, "when other images are in the batch", "batch norm is in train mode"),
    ):
        found = difference(first, other)
        said = f"{name}: answers differently {when}"
        if found > TOLERATED:
            raise ValueError(
                f"{said}; an attack or a certificate needs one answer per image. The usual reason: {cause}; call "
                ".eval() before it answers, or before it is exported"
            )
        if found > ROUNDING:
            warnings.warn(f"{said}, by {found:.1%} of what decides an answer: some votes may change", stacklevel=2)
    return first


def difference(first: Tensor, second: Tensor) -> float:
    """How much two answers to the same images differ, as a share of what decides them: of scores `[B, K]` the lead of
    the best class over each other one, against the median lead over the second best; of images their range."""
    first, second = first.double(), second.double()
    if first.ndim == 2:
        best = first.argmax(dim=1, keepdim=True)
        leads, others = (scores.gather(1, best) - scores for scores in (first, second))
        scale = leads.topk(2, dim=1, largest=False).values[:, 1].median()
    else:
        leads, others = first, second
        scale = first.max() - first.min()
    found = (leads - others).abs().max()
    return 0.0 if found == 0 else float(found / scale.clamp(min=1e-12))
