"""The flags that the three training scripts share, and the set-up that follows from them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import cli
from models.device import resolve_amp, select_device
from training.optim import OPTIMIZERS, SCHEDULES


def add_training_flags(
    parser: cli.Parser,
    lr: float,
    epochs: int,
    weight_decay: float,
    dataset_help: str,
    outdir_required: bool = True,
) -> None:
    """Add data, optimisation and run flags; the defaults that differ between scripts are arguments."""
    parser.add_data_flags(dataset_help)
    loading = parser.add_argument_group("loading")
    loading.add_argument("--workers", type=cli.non_negative_int, default=0, help="loader processes (images are cached)")
    loading.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, default=True, help="change training images at random"
    )
    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--epochs", type=cli.positive_int, default=epochs)
    optimisation.add_argument("--batch", type=cli.positive_int, default=32, help="images per step")
    optimisation.add_argument("--optimizer", choices=OPTIMIZERS, default="AdamW")
    optimisation.add_argument("--switch_epoch", type=cli.positive_int, metavar="EPOCH",
                              help="of AdamThenSGD: the last one with Adam (default: a third of all)")  # fmt: skip
    optimisation.add_argument("--lr", type=cli.positive_float, default=lr, help="(peak) learning rate")
    optimisation.add_argument("--momentum", type=cli.non_negative_float, default=0.9, help="of SGD")
    optimisation.add_argument("--weight_decay", type=cli.non_negative_float, default=weight_decay)
    optimisation.add_argument("--schedule", choices=SCHEDULES, default="onecycle", help="of the learning rate")
    optimisation.add_argument("--lr_step_size", type=cli.positive_int, default=30, help="epochs per step (step)")
    optimisation.add_argument("--gamma", type=cli.positive_float, default=0.1, help="factor per step (step)")
    run = parser.add_argument_group("run")
    run.add_argument(
        "--outdir", type=Path, required=outdir_required, help="folder of this run: checkpoints, log, curves"
    )
    run.add_argument("--resume", action="store_true", help="go on with the run in --outdir, if there is one")
    cli.amp_flag(run)


def add_noise_flag(group: argparse._ArgumentGroup) -> None:
    """Add --noise_sd: one value, or LOW HIGH (see `training.noise.noise_range`)."""
    group.add_argument(
        "--noise_sd",
        type=cli.non_negative_float,
        nargs="+",
        default=[0.25],
        metavar="SD",
        help="noise on the [0, 1] scale: one value, or LOW HIGH to train on all between",
    )


def set_up(args: argparse.Namespace) -> torch.device:
    """Choose the device, resolve `--amp`, seed torch's generators; nothing else in training is random."""
    device = select_device(args.device)
    args.amp = resolve_amp(args.amp, device)
    torch.manual_seed(args.seed)
    return device
