"""The training objectives, each as published, per sample `[B]` (the loop takes the mean)."""

from __future__ import annotations

import math
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


def consistency(logits: Tensor, strength: float, entropy: float = 0.5) -> Tensor:
    """`λ/m Σ_i KL(F̂ ‖ F(x + n_i)) + η H(F̂)` with F̂ the mean of the m predictions F: what p_A loses is the votes that
    differ from draw to draw (Jeong and Shin, "Consistency regularization for certified robustness of smoothed
    classifiers", NeurIPS 2020; λ `strength`, η `entropy`). Logits of m draws `[m, B, K]` → `[B]`."""
    log_each = logits.float().log_softmax(dim=-1)
    log_mean = log_each.logsumexp(dim=0) - math.log(len(logits))
    mean = log_mean.exp()
    divergence = (mean * (log_mean - log_each)).sum(dim=-1).mean(dim=0)
    return strength * divergence - entropy * (mean * log_mean).sum(dim=-1)


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
