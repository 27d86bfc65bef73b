"""Projected gradient descent (Madry et al. 2018), in the L∞ and in the L2 ball."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.budget import check_inputs, per_image, project
from attacks.randomness import normal, uniform


def pgd(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    norm: str = "Linf",
    steps: int = 40,
    step_size: float | None = None,
    generators: Sequence[torch.Generator] | None = None,
    targeted: bool = False,
) -> Tensor:
    """`x_{t+1} = Π(x_t + α · d(∇_x CE(model(x_t), y)))`, with d the sign (L∞) or the unit vector (L2) and Π the
    projection onto the ball of radius ε around x and onto [0, 1].

    Args:
        model, inputs, labels, targeted: as in `attacks.fgsm.fgsm`.
        eps: ε on the [0, 1] pixel scale, > 0; one for all images, or `[B]`.
        norm: "Linf" or "L2".
        steps: passes forward and backward.
        step_size: α as a share of ε; None: 2.5 / steps, with which any point of the ball can be reached.
        generators: one per image: start at a random point of the ball. None: at the image itself.

    Returns the last iterates, whether they fool the model or not.
    Raises ValueError if inputs leave [0, 1], eps is not positive or the norm is another one.
    """
    check_inputs(inputs, eps)
    if norm not in ("Linf", "L2"):
        raise ValueError(f"PGD knows the norms Linf and L2, not {norm}")
    eps = per_image(eps, inputs)
    alpha = eps * (2.5 / steps if step_size is None else step_size) * (-1 if targeted else 1)
    delta = torch.zeros_like(inputs) if generators is None else _start(inputs, eps, norm, generators)
    for _ in range(steps):
        with torch.enable_grad():
            x = (inputs + delta).requires_grad_(True)
            # Summed, so that each image's gradient is its own whatever the batch.
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x).float(), labels, reduction="sum"), x)
        direction = gradient.sign_() if norm == "Linf" else gradient / per_image(_length(gradient), inputs)
        delta = project(inputs, delta + alpha * direction, eps, norm)
    return (inputs + delta).clamp(0, 1)  # x + δ - x may leave the box by a rounding error


def _start(inputs: Tensor, eps: Tensor, norm: str, generators: Sequence[torch.Generator]) -> Tensor:
    """Uniform in the ball, then brought into [0, 1]."""
    if norm == "Linf":
        return project(inputs, eps * (2 * uniform(inputs, generators) - 1), eps, norm)
    direction, share = normal(inputs, generators), uniform(inputs[:, :1, :1, :1], generators)
    radius = eps * share ** (1 / inputs[0].numel())
    return project(inputs, radius * direction / per_image(_length(direction), inputs), eps, norm)


def _length(x: Tensor) -> Tensor:
    """L2 norm of each image `[B]`; a zero gradient has no direction, and its step is none."""
    return x.flatten(1).norm(dim=1).clamp(min=1e-12)
