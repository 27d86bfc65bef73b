"""The training objectives, each as published, per sample `[B]` (the loop takes the mean)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction(denoised: Tensor, clean: Tensor) -> Tensor:
    """`‖D(x+n) − x‖²`, mean over pixels: the MSE objective of Salman et al. 2020, eq. 4. `[B, C, H, W]` → `[B]`."""
    return (denoised.float() - clean).square().mean(dim=(1, 2, 3))


def stability(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """`CE(f(D(x+n)), argmax f(x))`: agree with the classifier's own clean answer (Salman et al. 2020, eq. 5, with its
    hard prediction as the target, so that labels are never needed). Both `[B, K]` → `[B]`."""
    return F.cross_entropy(logits.float(), clean_logits.argmax(dim=1), reduction="none")


def classification(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`CE(f(D(x+n)), y)` with the true labels `[B]`. `[B, K]` → `[B]`.

    `label_smoothing` s mixes the target with the uniform one, (1 - s) · one_hot(y) + s / K (Szegedy et al. 2016)."""
    return F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)


def mixup(classifier: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, strength: float, **options) -> Tensor:
    """Classification of blended pairs, `λ x_i + (1 - λ) x_j`, with the loss blended likewise (Zhang et al. 2018).

    One λ ~ Beta(strength, strength) for the batch; 0 is plain classification. `[B, C, H, W]`, `[B]` → `[B]`.
    """
    if strength == 0:
        return classification(classifier(images), labels, **options)
    weight = torch.distributions.Beta(strength, strength).sample().item()
    other = torch.randperm(len(images), device=images.device)
    logits = classifier(weight * images + (1 - weight) * images[other])
    return weight * classification(logits, labels, **options) + (1 - weight) * classification(
        logits, labels[other], **options
    )
