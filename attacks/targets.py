"""What is attacked: the bare classifier, the defended pipeline, or its smoothed version, each with its own judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks.smoothed import SmoothedModel
from core import Smooth
from models import Pipeline

TARGETS = ("base", "defended", "smoothed")


class Counted:
    """A model that counts the images it is asked about."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model, self.queries = model, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.queries += len(x)
        return self.model(x)


@dataclasses.dataclass(frozen=True)
class Target:
    """`model` is what the attack sees: images `[B, C, H, W]` → scores, differentiable. `predict(images, indices)` →
    int64 `[B]` gives the answers by which the attack is judged, -1 where the smoothed classifier abstains. `draws` is
    the number of passes of the classifier per query: 1, or more for `smoothed`. Call `restart` before each attack."""

    model: Counted
    predict: Callable[[Tensor, Sequence[int]], Tensor]
    draws: int = 1
    restart: Callable[[], None] = lambda: None


def make_target(
    pipeline: Pipeline,
    target: str,
    noise_sd: float,
    amp: bool,
    device: torch.device,
    seed: int,
    draws: int = 32,
    fresh: bool = False,
    n: int = 200,
    alpha: float = 0.001,
    batch: int = 64,
) -> Target:
    """The target that `--target` names.

    base: f alone. defended: the whole pipeline, its denoiser told `noise_sd`. smoothed: g of Cohen et al. 2019 with
    σ = `noise_sd`; attacked through `draws` fixed draws (`fresh`: new ones at each step), judged by PREDICT with `n`
    other draws at level `alpha`. `batch` images go through the network at once.

    Raises ValueError if the pipeline has no denoiser to defend it, or noise_sd is 0 where it must not be.
    """
    if target == "base":
        base = dataclasses.replace(pipeline, denoiser=None).at(noise_sd, amp)
    elif target == "defended" and pipeline.denoiser is None:
        raise ValueError("--target defended: needs a --pretrained_denoiser; without one it is --target base")
    else:
        base = pipeline.at(noise_sd, amp)
    if target != "smoothed":
        return Target(Counted(base), lambda images, indices: _answers(base, images, batch))
    shape = (pipeline.channels, pipeline.image_size, pipeline.image_size)
    if not noise_sd > 0:
        raise ValueError("--target smoothed: --noise_sd is its sigma and must be > 0")
    model = SmoothedModel(base, noise_sd, draws, shape, device, seed, fresh, batch)
    smooth = Smooth(base, pipeline.num_classes, noise_sd, seed)

    def predict(images: Tensor, indices: Sequence[int]) -> Tensor:
        each = [smooth.predict(x, n, alpha, batch, index) for x, index in zip(images, indices, strict=True)]
        return torch.tensor(each, device=images.device)

    return Target(Counted(model), predict, draws, model.restart)


@torch.no_grad()
def _answers(base: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
    scores = torch.cat([base(part) for part in images.split(batch)])
    if scores.isnan().any():
        raise FloatingPointError("the classifier's scores are NaN: check its weights, or use --no-amp")
    return scores.argmax(dim=1)
