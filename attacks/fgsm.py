"""Fast Gradient Sign Method (Goodfellow, Shlens, Szegedy 2015)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.budget import check_inputs


def fgsm(
    model: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor, eps: float, targeted: bool = False
) -> Tensor:
    """`clip(x + eps · sign(∇_x CE(model(x), y)), 0, 1)`: one step of length `eps` in the L∞ norm.

    Args:
        model: images `[B, C, H, W]` → logits `[B, K]`, differentiable; normalisation inside.
        inputs: `[B, C, H, W]` in [0, 1].
        labels: `[B]`, the true classes; with `targeted` the wanted ones.
        eps: on the [0, 1] pixel scale, > 0.

    Returns the attacked images, whether they fool the model or not: compare predictions to know.
    Raises ValueError if inputs leave [0, 1] or eps is not positive.
    """
    check_inputs(inputs, eps)
    with torch.enable_grad():
        x = inputs.detach().clone().requires_grad_(True)
        # Summed, so that each image's gradient is its own whatever the batch.
        loss = F.cross_entropy(model(x).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    step = -eps if targeted else eps
    return (inputs + step * gradient.sign()).clamp(0, 1).detach()
