"""The published loop, plainly: what every predecessor runs, kept as the thing to compare with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from core import Smooth
from smoothing.bounds import lower_confidence_bound
from smoothing.rules import top_radius


@torch.no_grad()
def certify_as_published(
    base_classifier: Callable[[Tensor], Tensor],
    num_classes: int,
    x: Tensor,
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    batch_size: int,
) -> tuple[int, float]:
    """CERTIFY and SAMPLEUNDERNOISE of Cohen et al. 2019: (class or ABSTAIN, radius) of one image `[C, H, W]`."""

    def sample_under_noise(num: int) -> np.ndarray:
        counts = np.zeros(num_classes, dtype=int)
        while num > 0:
            this = min(batch_size, num)
            num -= this
            batch = x.repeat((this, 1, 1, 1))
            for prediction in base_classifier(batch + torch.randn_like(batch) * sigma).argmax(1).cpu().numpy():
                counts[prediction] += 1
        return counts

    top = int(sample_under_noise(n0).argmax())
    p_a = lower_confidence_bound(int(sample_under_noise(n)[top]), n, alpha)
    return (top, top_radius(sigma, p_a)) if p_a > 0.5 else (Smooth.ABSTAIN, 0.0)
