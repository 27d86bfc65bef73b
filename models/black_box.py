"""Classifiers that may only be queried: scores come back, gradients and weights do not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class BlackBox:
    """`query(images [B, C, H, W] in [0, 1]) → scores [B, K]` of any callable, in float32 and without gradients;
    `queries` counts the images."""

    def __init__(self, classify: Callable[[Tensor], Tensor]) -> None:
        self._classify, self.queries = classify, 0

    def query(self, images: Tensor) -> Tensor:
        """Scores in float32. Never under autocast: in half precision, differences of neighbouring losses drown."""
        self.queries += len(images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._classify(images.float()).float()
