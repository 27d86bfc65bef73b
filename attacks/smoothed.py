"""The smoothed classifier as something that can be differentiated, so that every attack works on it (EOT)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class SmoothedModel:
    """`log(1/m Σ_j softmax f(x + n_j))`, `n_j ~ N(0, σ² I)`: images `[B, C, H, W]` → `[B, K]`. As logits of a
    cross-entropy they give `-log(1/m Σ_j F_y(x + n_j))`, the loss of Salman et al. 2019 (SmoothAdv), an estimate
    of the expected answer over the noise.

    The draws are the same for every image and, as published, for every step of an attack: the model is a function of
    the image alone, whatever batch it stands in. Images are not cut to [0, 1] after the noise, as in certification.

    Args:
        base_classifier: f, differentiable where gradients are asked for.
        sigma: σ on the [0, 1] pixel scale.
        draws: m.
        shape: `[C, H, W]` of the images.
        seed: of the draws; not the one by which the result is judged, or the attack knows its judge's noise.
        fresh: new draws at every call instead, the same ones again after `restart`.
        batch: images per pass of f; beyond it f runs again in the backward pass, and memory depends on `batch` alone.
    """

    def __init__(
        self,
        base_classifier: Callable[[Tensor], Tensor],
        sigma: float,
        draws: int,
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        seed: int = 0,
        fresh: bool = False,
        batch: int = 64,
    ) -> None:
        self.base_classifier, self.sigma, self.draws, self.shape = base_classifier, sigma, draws, tuple(shape)
        self.device, self.seed, self.fresh, self.batch = device, seed, fresh, batch
        self.restart()
        self._noise = None if fresh else self._draw()

    def restart(self) -> None:
        """Begin the draws anew: call it before each attack, so that none depends on those before it."""
        self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, x: Tensor) -> Tensor:
        noise = self._draw() if self._noise is None else self._noise
        parts = noise.split(max(1, self.batch // len(x)))
        if len(parts) > 1 and torch.is_grad_enabled():
            sums = [checkpoint(self._probabilities, x, part, use_reentrant=False) for part in parts]
        else:
            sums = [self._probabilities(x, part) for part in parts]
        return (functools.reduce(torch.add, sums) / self.draws).clamp(min=torch.finfo(torch.float32).tiny).log()

    def _probabilities(self, x: Tensor, noise: Tensor) -> Tensor:
        """Σ_j softmax f(x + n_j) over these draws, `[B, K]`."""
        noisy = (x[:, None] + noise).flatten(0, 1)
        return self.base_classifier(noisy).float().softmax(dim=1).view(len(x), len(noise), -1).sum(dim=1)

    def _draw(self) -> Tensor:
        return self.sigma * torch.randn((self.draws, *self.shape), generator=self._generator).to(self.device)


def grouped(
    model: Callable[[Tensor], Tensor], groups: Sequence[Sequence[int]], rule: str = "vote"
) -> Callable[[Tensor], Tensor]:
    """Logits of the groups of classes (disease and healthy, say). By `vote` their softmax sums that of the members; by
    `class` a group is as likely as its likeliest member, which is the class that is answered if the group wins."""

    def classify(x: Tensor) -> Tensor:
        scores = model(x).float()
        parts = [scores[:, list(members)] for members in groups]
        return torch.stack([part.logsumexp(1) if rule == "vote" else part.amax(1) for part in parts], dim=1)

    return classify
