"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable

import torch
from torch import nn

OPTIMIZERS = ("AdamW", "Adam", "SGD", "AdamThenSGD")
SCHEDULES = ("onecycle", "step", "cosine", "constant")


def build_optimizer(
    parameters: Iterable[nn.Parameter], args: argparse.Namespace, steps_per_epoch: int
) -> torch.optim.Optimizer:
    """The optimiser that `--optimizer --lr --momentum --weight_decay --switch_epoch --sgd_lr` ask for."""
    if args.optimizer == "AdamThenSGD":
        adam_steps = steps_per_epoch * (args.epochs // 3 if args.switch_epoch is None else args.switch_epoch)
        return AdamThenSGD(parameters, args.lr, args.momentum, args.weight_decay, adam_steps, args.sgd_lr)
    if args.optimizer == "SGD":
        return torch.optim.SGD(parameters, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    kind = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam}[args.optimizer]
    return kind(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)  # one pass over memory, not ten


class AdamThenSGD(torch.optim.Optimizer):
    """Adam for the first `adam_steps` steps, then SGD (Zhang et al. 2022: 200 of 600 epochs, at one learning rate).

    With `sgd_lr` SGD has a rate of its own, and the schedule acts on both: Adam's steps are of the size of its rate
    whatever the gradient's, SGD's are in proportion to it, so that Adam's rate hardly moves SGD.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        adam_steps: int,
        sgd_lr: float | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        trained = self.param_groups[0]["params"]
        self.adam = torch.optim.Adam(trained, lr=lr, weight_decay=weight_decay, fused=True)
        self.sgd = torch.optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.adam_steps, self.steps, self.ratio = adam_steps, 0, (sgd_lr or lr) / lr

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody here has a closure to give
        current, ratio = (self.adam, 1.0) if self.steps < self.adam_steps else (self.sgd, self.ratio)
        current.param_groups[0]["lr"] = ratio * self.param_groups[0]["lr"]
        current.step()
        self.steps += 1

    def state_dict(self) -> dict:
        return {"adam": self.adam.state_dict(), "sgd": self.sgd.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.adam.load_state_dict(state["adam"])
        self.sgd.load_state_dict(state["sgd"])
        self.steps = state["steps"]


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
