"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable

import torch
from torch import nn

OPTIMIZERS = ("AdamW", "Adam", "SGD")
SCHEDULES = ("onecycle", "step", "cosine", "constant")


def build_optimizer(parameters: Iterable[nn.Parameter], args: argparse.Namespace) -> torch.optim.Optimizer:
    """The optimiser that `--optimizer --lr --momentum --weight_decay` ask for."""
    if args.optimizer == "SGD":
        return torch.optim.SGD(parameters, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    kind = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam}[args.optimizer]
    return kind(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)  # one pass over memory, not ten


def build_scheduler(
    optimizer: torch.optim.Optimizer, args: argparse.Namespace, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule that `--schedule --lr_step_size --gamma --epochs` ask for, to be stepped once per batch."""
    total = args.epochs * steps_per_epoch

    def factor(step: int) -> float:
        return lr_factor(args.schedule, step / total, step // steps_per_epoch, args.lr_step_size, args.gamma)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def lr_factor(schedule: str, progress: float, epoch: int, step_size: int, gamma: float, warm_up: float = 0.3) -> float:
    """What the learning rate is multiplied by when the share `progress` of the training is done.

    onecycle: cosine from 1/25 to 1 over the first 30%, then cosine to 0 (Smith & Topin 2018); cosine: from 1 to 0;
    step: `gamma` every `step_size` epochs; constant: 1.
    """
    if schedule == "onecycle" and progress < warm_up:
        return 1 / 25 + (1 - 1 / 25) * _half_cosine(progress / warm_up)
    if schedule == "onecycle":
        return 1 - _half_cosine((progress - warm_up) / (1 - warm_up))
    if schedule == "cosine":
        return 1 - _half_cosine(progress)
    return gamma ** (epoch // step_size) if schedule == "step" else 1.0


def _half_cosine(t: float) -> float:
    """0 → 1 as t goes 0 → 1, level at both ends."""
    return (1 - math.cos(math.pi * min(t, 1.0))) / 2
