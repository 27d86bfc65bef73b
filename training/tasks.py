"""The tasks of end-to-end training: to defend a classifier's answer, or a network's reconstruction."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from models import load_classifier
from models.measurements import load_reconstructor
from training import losses, validation


@dataclasses.dataclass(frozen=True)
class Task:
    """`measure`: images → the undisturbed input of the denoiser. `loss(output, target)` → `[B]`; the target is the
    network's own answer to the undisturbed input (if `stability`), else `truth(images, labels)`. `validate(defended,
    answer, loader, device, noise_sd)` → the numbers to log, at `queries` queries per image; `score` names the one that
    chooses the best epoch."""

    measure: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    truth: Callable[[Tensor, Tensor], Tensor]
    stability: bool
    validate: Callable[..., dict[str, float]]
    queries: int
    score: str


def classification(objective: str) -> Task:
    """Answers under noise that agree with the classifier's clean ones (stability), or with the labels."""
    stability = objective == "stability"

    def validate(defended, answer, loader, device, noise_sd):
        return validation.accuracy(defended, loader, device, noise_sd, answer)

    return Task(
        measure=lambda images: images,
        loss=losses.stability if stability else losses.classification,
        truth=lambda images, labels: labels,
        stability=stability,
        validate=validate,
        queries=1 + validation.DRAWS,
        score="val_agreement" if stability else "val_accuracy",
    )


def reconstruction(objective: str, measure: Callable[[Tensor], Tensor]) -> Task:
    """Reconstructions under noise that are near the network's own from clean measurements (stability), or near the
    image (Zhang et al. 2022, section 5, "image reconstruction")."""
    stability = objective == "stability"

    def validate(
        defended: Callable, answer: Callable, loader: Iterable, device: torch.device, noise_sd: tuple[float, float]
    ) -> dict[str, float]:
        return {"val_psnr": validation.psnr(defended, loader, device, noise_sd, measure, answer if stability else None)}

    return Task(
        measure=measure,
        loss=losses.reconstruction,
        truth=lambda images, labels: images,
        stability=stability,
        validate=validate,
        queries=1 + stability,
        score="val_psnr",
    )


def load_task(
    args: argparse.Namespace, device: torch.device, described: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any], Task]:
    """The network to defend, its description, and the task; `described` is its description on the command line. Raises
    ValueError if flags contradict each other."""
    reconstructs = args.train_objective == "reconstruction"
    if reconstructs == (args.reconstructor is None) or reconstructs == (args.classifier is not None):
        needed = "--reconstructor" if reconstructs else "--classifier"
        raise ValueError(f"--train_objective {args.train_objective} needs {needed}, and no other network")
    foreign = {"scores": "logits"} if reconstructs else {"measurement": None, "acceleration": None}
    for name, default in foreign.items():
        if getattr(args, name) != default:
            raise ValueError(f"--{name}: not with --train_objective {args.train_objective}")
    if reconstructs:
        network, measure, made = load_reconstructor(args.reconstructor, device, **described)
        return network, made, reconstruction(args.objective, measure)
    return *load_classifier(args.classifier, device, **described), classification(args.objective)
