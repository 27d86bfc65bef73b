"""The flags that the three training scripts share, and the set-up that follows from them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import cli
from models.device import resolve_amp, select_device
from training.optim import OPTIMIZERS, SCHEDULES
from training.zeroth_order import ESTIMATORS, queries_of

# None unless given: without zeroth order they would be ignored, and are refused.
QUERY_FLAGS = ("zo_method", "q", "mu", "zo_grey", "zo_pool", "zo_batch", "zo_precision", "query_budget")
# The step of finite differences that the rounding of the answers allows, at the denoised image and behind an encoder
# (results/zeroth_order). tf32: a GPU's convolutions with factors rounded to 10 bits; float32 on a CPU.
STEPS = {
    "float32": {"DS": 0.005, "AE_DS": 0.005},
    "tf32": {"DS": 0.1, "AE_DS": 0.02},
    "bfloat16": {"DS": 0.5, "AE_DS": 0.05},
}
# Peak learning rates; estimated gradients are mostly noise (results/Brain_Tumor_64/training).
RATES = {"FO": 3e-4, "ZO": 3e-5}


def add_training_flags(
    parser: cli.Parser,
    lr: float | None,
    epochs: int,
    weight_decay: float,
    dataset_help: str,
    outdir_required: bool = True,
) -> None:
    """Add data, optimisation and run flags; the defaults that differ between scripts are arguments. Without an `lr`,
    `check_method` sets it."""
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
    rates = "" if lr else f" (default: {RATES['FO']:g}; with --optimization_method ZO {RATES['ZO']:g})"
    optimisation.add_argument("--lr", type=cli.positive_float, default=lr, help=f"(peak) learning rate{rates}")
    optimisation.add_argument("--sgd_lr", type=cli.positive_float, metavar="LR",
                              help="of AdamThenSGD: the (peak) rate of SGD (default: --lr, as published)")  # fmt: skip
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
        type=cli.positive_float,
        nargs="+",
        default=[0.25],
        metavar="SD",
        help="noise on the [0, 1] scale: one value, or LOW HIGH to train on all between",
    )


def add_query_flags(parser: cli.Parser) -> None:
    """Add --optimization_method and what zeroth order needs."""
    zeroth = parser.add_argument_group("optimisation method")
    zeroth.add_argument("--optimization_method", choices=["FO", "ZO"], default="FO", help="with gradients, or queries")
    zeroth.add_argument("--zo_method", choices=[*ESTIMATORS, "guided"],
                        help="gradient estimate (default: RGE_orthogonal); guided: by a surrogate's")  # fmt: skip
    zeroth.add_argument("--q", type=cli.positive_int, help="directions per image (default: 192; CGE: all coordinates)")
    zeroth.add_argument(
        "--mu", type=cli.positive_float, help="step of the finite differences (default: by --zo_precision)"
    )
    zeroth.add_argument("--zo_grey", action="store_true", default=None,
                        help="directions that change all channels alike, for grey images; of DS")  # fmt: skip
    zeroth.add_argument("--zo_pool", type=cli.positive_int, metavar="P",
                        help="a step draws its images from P batches, mostly those of large loss")  # fmt: skip
    zeroth.add_argument("--zo_batch", type=cli.positive_int, help="queries per pass (default: 64, on CUDA 1024)")
    zeroth.add_argument("--zo_precision", choices=list(STEPS),
                        help="of f's answers (default: float32); others are faster, and coarser")  # fmt: skip
    zeroth.add_argument("--query_budget", type=cli.positive_int, help="never spend more queries than this, in all; "
                        "sets --epochs if they would take more")  # fmt: skip
    zeroth.add_argument("--force", action="store_true", help="even where a step takes more queries than it should")


def check_method(args: argparse.Namespace) -> None:
    """Set the defaults of --lr, --zo_method, --zo_precision and --mu. Raises ValueError if a flag of zeroth order is
    given without it, or does not fit the others."""
    args.lr = args.lr or RATES[args.optimization_method]
    given = [name for name in QUERY_FLAGS if getattr(args, name) is not None]
    if args.optimization_method == "FO":
        if given:
            raise ValueError(f"--{given[0]}: says how gradients are estimated; only with --optimization_method ZO")
        return
    args.zo_method, args.zo_precision = args.zo_method or "RGE_orthogonal", args.zo_precision or "float32"
    args.mu = args.mu or STEPS[args.zo_precision][args.model_type]
    if args.zo_grey and args.model_type == "AE_DS":
        raise ValueError("--zo_grey: a latent has no colours; only with --model_type DS")
    if args.zo_grey and args.zo_method == "guided":
        raise ValueError("--zo_grey: not with --zo_method guided, whose first direction is not grey")
    if (args.zo_method == "guided") != bool(args.surrogates):
        raise ValueError("--zo_method guided and --surrogates go together; without ZO, surrogates take f's place")


def check_queries(args: argparse.Namespace, dimension: int, images: int, device: torch.device) -> int:
    """Set the defaults of --q and --zo_batch; the queries that an estimate takes per image. Raises ValueError if it is
    impossible, or costs too much."""
    args.q = args.q or (dimension if args.zo_method.startswith("CGE") else min(192, dimension))
    args.zo_batch = args.zo_batch or (1024 if device.type == "cuda" else 64)
    if args.q > dimension and args.zo_method not in ("RGE", "RGE_antithetic"):
        raise ValueError(f"--q {args.q}: z has only {dimension} numbers, so --zo_method {args.zo_method} has no more")
    queries = queries_of(args.zo_method, args.q)
    if queries > 4096 and not args.force:
        raise ValueError(
            f"--zo_method {args.zo_method} over {args.q} of the {dimension} numbers of z takes {queries} queries per "
            f"image and step, {queries * images:,} per epoch; use AE_DS, a smaller --q, or --force"
        )
    return queries


def fit_epochs(args: argparse.Namespace, least: int, epoch: int) -> None:
    """Let --epochs be no more than --query_budget pays for, to the nearest: the schedule of the learning rate must end
    when the queries do, not be cut off in its warm-up. `epoch`: the queries of one, `least`: those of one step and
    validation. Raises ValueError if the budget is less than that."""
    if args.query_budget is None:
        return
    if args.query_budget < least:
        raise ValueError(f"--query_budget {args.query_budget}: one step and its validation take {least:,} queries")
    epochs = min(args.epochs, max(1, round(args.query_budget / epoch)))
    print(f"--query_budget {args.query_budget:,}: an epoch takes {epoch:,} queries; --epochs {epochs}")
    args.epochs = epochs


def settle(args: argparse.Namespace, path: Path | None, held: dict[str, object]) -> None:
    """Set the flags of a network to what it is (`held`, by flag). Raises ValueError where one was given and the
    checkpoint `path` holds something else."""
    for name, value in held.items():
        if getattr(args, name) not in (None, value):
            raise ValueError(f"--{name} {getattr(args, name)}: {path} has {name} {value}")
        setattr(args, name, value)


def set_up(args: argparse.Namespace) -> torch.device:
    """Choose the device, resolve `--amp`, seed torch's generators; nothing else in training is random."""
    device = select_device(args.device)
    args.amp = resolve_amp(args.amp, device)
    torch.manual_seed(args.seed)
    return device
