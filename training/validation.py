"""The measures on the validation split after each epoch. They run under inference mode and autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from training import losses
from training.noise import add_fixed_noise

NOISE_SEED = 20260  # of the validation noise: the same in every epoch and every run
# Per image: with one, `best` is the epoch that its noise happened to suit (measured: 1.5 points in 328 images).
DRAWS = 8


def accuracy(
    classify: Callable[[Tensor, Tensor], Tensor],
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    noise_sd: tuple[float, float],
    reference: Callable[[Tensor], Tensor] | None = None,
    draws: int = DRAWS,
) -> dict[str, float]:
    """Shares of images under `draws` draws of noise each, where `classify(images + noise, noise_sd [B]) → logits`.

    `val_accuracy`: draws that give the label. `val_agreement`, only with a `reference`: draws that give the answer of
    that classifier to the clean image. `val_unanimous`: images all of whose draws give that answer (without a
    reference: the label), which large radii need. A noise range of (0, 0) means no noise, and one draw.
    """
    draws = draws if noise_sd[1] > 0 else 1
    hits: dict[str, float] = {"val_accuracy": 0} if reference is None else {"val_accuracy": 0, "val_agreement": 0}
    count, unanimous = 0, 0.0
    for batch, (images, labels) in enumerate(loader):
        images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
        answers = None if reference is None else reference(images).argmax(dim=1)
        always = torch.ones_like(labels, dtype=torch.bool)
        for draw in range(draws):
            noisy, sd = add_fixed_noise(images, noise_sd, NOISE_SEED + batch + 10_000 * draw)
            predictions = classify(noisy, sd).argmax(dim=1)
            hits["val_accuracy"] += (predictions == labels).sum().item()
            if answers is not None:
                hits["val_agreement"] += (predictions == answers).sum().item()
            always &= predictions == (labels if answers is None else answers)
        unanimous += draws * always.sum().item()
        count += draws * len(labels)
    if draws > 1:
        hits["val_unanimous"] = unanimous
    return {name: number / count for name, number in hits.items()}


def psnr(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    noise_sd: tuple[float, float],
    measure: Callable[[Tensor], Tensor] = lambda images: images,
    reference: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Mean over images of `-10 log10 MSE` in dB, peak 1, of the denoised image clamped to [0, 1].

    `measure` is applied to the image before the noise (`models.measurements`). With a `reference`, the error is against
    its output for the measured image without noise, instead of against the image.
    """
    total, count = 0.0, 0
    for batch, (images, _) in enumerate(loader):
        images = images.to(device, memory_format=torch.channels_last)
        measured = measure(images)
        noisy, sd = add_fixed_noise(measured, noise_sd, NOISE_SEED + batch)
        target = images if reference is None else reference(measured).float().clamp(0, 1)
        error = losses.reconstruction(denoiser(noisy, sd).float().clamp(0, 1), target)
        total += (-10 * error.clamp(min=1e-10).log10()).sum().item()
        count += len(images)
    return total / count
