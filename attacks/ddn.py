"""Decoupled direction and norm: minimal L2 perturbations (Rony et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.budget import check_inputs, per_image


def ddn(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    steps: int = 100,
    gamma: float = 0.05,
    init_norm: float = 1.0,
    levels: int | None = 256,
    targeted: bool = False,
) -> Tensor:
    """Algorithm 1: a step of length α_k along the gradient gives the direction, and the norm ε_k alone decides how far:
    `ε_{k+1} = (1 - γ) ε_k` where x_k is adversarial, `(1 + γ) ε_k` where not. α falls from 1 to 0.01 by a cosine.

    Args:
        model, inputs, labels, targeted: as in `attacks.fgsm.fgsm`.
        steps: K, passes forward and backward.
        gamma: γ.
        init_norm: ε_0, L2 on the [0, 1] pixel scale.
        levels: values a pixel may take, so that a file of 256 of them loses nothing; None: any.

    Returns for each image its shortest adversarial iterate; where there was none the last iterate, untried.
    Raises ValueError if inputs leave [0, 1].
    """
    check_inputs(inputs)
    delta = torch.zeros_like(inputs)
    farthest = torch.maximum(inputs, 1 - inputs).flatten(1).norm(dim=1)  # that the box allows
    eps = torch.full_like(farthest, init_norm)
    best, best_norm = inputs, torch.full_like(farthest, math.inf)
    for step in range(steps):
        with torch.enable_grad():
            x = (inputs + delta).requires_grad_(True)
            scores = model(x).float()
            loss = F.cross_entropy(scores, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
        adversarial = (scores.argmax(dim=1) == labels) == targeted
        norm = delta.flatten(1).norm(dim=1)
        better = adversarial & (norm < best_norm)
        best_norm = torch.where(better, norm, best_norm)
        best = torch.where(per_image(better, inputs).bool(), x.detach(), best)

        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        gradient = gradient / per_image(gradient.flatten(1).norm(dim=1).clamp(min=1e-12), inputs)
        delta = delta + (-alpha if targeted else alpha) * gradient
        eps = torch.minimum(eps * torch.where(adversarial, 1 - gamma, 1 + gamma), farthest)
        length = delta.flatten(1).norm(dim=1).clamp(min=1e-12)
        moved = (inputs + delta * per_image(eps / length, inputs)).clamp(0, 1)
        if levels is not None:
            moved = (moved * (levels - 1)).round() / (levels - 1)
        delta = moved - inputs
    return torch.where(per_image(best_norm.isfinite(), inputs).bool(), best, inputs + delta).clamp(0, 1)
