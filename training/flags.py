"""The flags that the three training scripts share, and the set-up that follows from them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from common import cli
from models.device import resolve_amp, select_device
from models.foreign import is_foreign
from models.registry import names
from training.front import TRAIN_METHODS
from training.noise import noise_range
from training.optim import OPTIMIZERS, SCHEDULES
from training.zeroth_order import ESTIMATORS, queries_of

# None unless given: without zeroth order they would be ignored, and raise an error.
QUERY_FLAGS = ("zo_method", "q", "mu", "zo_grey", "zo_pool", "zo_batch", "zo_precision", "query_budget", "force")
# The step of finite differences that the rounding of the answers allows, at the denoised image and behind an encoder
# (results/zeroth_order). tf32: a GPU's convolutions with factors rounded to 10 bits.
STEPS = {
    "float32": {"DS": 0.005, "AE_DS": 0.005},
    "tf32": {"DS": 0.1, "AE_DS": 0.02},
    "bfloat16": {"DS": 0.5, "AE_DS": 0.05},
    "labels": {"DS": 1.0, "AE_DS": 0.2},  # of --scores labels: an answer changes where a step crosses a border
}
NOISE_SD = 0.25  # of --noise_sd
# The pixels of a pass of queries: memory, and on the CPU its caches on one hand, weights that are read for each pass on
# the other.
PIXELS = {"cpu": 128 * 64**2, "cuda": 1024 * 64**2}
# Flags of some optimisers and schedules, None unless given: (whose, which of them, default). With others they raise an
# error.
ONLY_OF = {
    "switch_epoch": ("optimizer", ("AdamThenSGD",), None),
    "sgd_lr": ("optimizer", ("AdamThenSGD",), None),
    "momentum": ("optimizer", ("SGD", "AdamThenSGD"), 0.9),
    "lr_step_size": ("schedule", ("step",), 30),
    "gamma": ("schedule", ("step",), 0.1),
}
# Peak learning rates; estimated gradients are mostly noise (results/Brain_Tumor_64/training).
RATES = {"FO": 3e-4, "ZO": 3e-5}


def add_training_flags(
    parser: cli.Parser,
    lr: float | str,
    epochs: int,
    weight_decay: float,
    dataset_help: str,
    outdir_required: bool = True,
) -> None:
    """Add data, optimisation and run flags; the defaults that differ between scripts are arguments. `lr` is a number,
    or words for the help where the script sets the default later."""
    parser.add_data_flags(dataset_help)
    loading = parser.add_argument_group("loading")
    loading.add_argument(
        "--workers",
        type=cli.non_negative_int,
        default=0,
        help="number of processes that load images; 0: the main process loads them (they are cached)",
    )
    loading.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, default=True, help="change training images at random"
    )
    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--epochs", type=cli.positive_int, default=epochs, help="passes over the training images")
    optimisation.add_argument("--batch", type=cli.positive_int, default=32, help="images per step")
    optimisation.add_argument("--optimizer", choices=OPTIMIZERS, default="AdamW", help="optimiser")
    optimisation.add_argument(
        "--switch_epoch",
        type=cli.positive_int,
        metavar="EPOCH",
        help="last epoch with Adam; only with --optimizer AdamThenSGD (default: a third of all epochs)",
    )
    rate, words = (None, f" (default: {lr})") if isinstance(lr, str) else (lr, "")
    optimisation.add_argument("--lr", type=cli.positive_float, default=rate, help=f"peak learning rate{words}")
    optimisation.add_argument(
        "--sgd_lr",
        type=cli.positive_float,
        metavar="LR",
        help="peak learning rate of SGD; only with --optimizer AdamThenSGD (default: --lr, as published)",
    )
    optimisation.add_argument(
        "--momentum",
        type=cli.non_negative_float,
        help="momentum; only with --optimizer SGD or AdamThenSGD (default: 0.9)",
    )
    optimisation.add_argument("--weight_decay", type=cli.non_negative_float, default=weight_decay, help="weight decay")
    optimisation.add_argument("--schedule", choices=SCHEDULES, default="onecycle", help="schedule of the learning rate")
    optimisation.add_argument(
        "--lr_step_size",
        type=cli.positive_int,
        metavar="EPOCHS",
        help="epochs between two changes of the learning rate; only with --schedule step (default: 30)",
    )
    optimisation.add_argument(
        "--gamma", type=cli.positive_float, help="factor of each change; only with --schedule step (default: 0.1)"
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--outdir", type=Path, required=outdir_required, help="folder of this run: checkpoints, log, curves"
    )
    run.add_argument("--resume", action="store_true", help="resume the run in --outdir, if there is one")
    cli.amp_flag(run)


def add_noise_flag(group: cli.Flags) -> None:
    """Add --noise_sd: one value, or LOW HIGH (see `training.noise.noise_range`)."""
    group.add_argument(
        "--noise_sd",
        type=cli.positive_float,
        nargs="+",
        default=[NOISE_SD],
        metavar="SD",
        help="standard deviation of the noise on the [0, 1] scale: one value, or LOW HIGH to train on all between",
    )


def add_front_flags(group: cli.Flags) -> None:
    """Add what stands in front of the classifier in end-to-end training, and what of it is trained."""
    group.add_argument(
        "--surrogates",
        type=Path,
        nargs="+",
        default=[],
        metavar="F",
        help="checkpoints of other classifiers; each step takes one of them at random, in place of f or, "
        "with --zo_method guided, to guide the estimate",
    )
    group.add_argument(
        "--model_type",
        choices=["DS", "AE_DS"],
        default="DS",
        help="DS: a denoiser; AE_DS: a denoiser with an autoencoder behind it",
    )
    group.add_argument(
        "--pretrained_denoiser",
        type=Path,
        help="denoiser to start from: a checkpoint, weights of a DRUNet, a folder of diffusers, or package.module:name "
        "(default: train from scratch)",
    )
    cli.scale_flag(group)
    group.add_argument(
        "--pretrained_encoder",
        type=Path,
        help="checkpoint of an autoencoder, or of its encoder, to start from; only with AE_DS",
    )
    group.add_argument(
        "--pretrained_decoder",
        type=Path,
        help="checkpoint of the decoder, if it is not in the encoder's file; only with AE_DS",
    )
    group.add_argument(
        "--arch",
        metavar="NAME",
        help=f"architecture of a new denoiser: {', '.join(names('denoiser'))} (default: nafnet4); any other "
        "name is that of a file of weights (--classifier_arch)",
    )
    group.add_argument(
        "--latent",
        type=cli.positive_int,
        help="size of a new autoencoder's latent in numbers; only with AE_DS (default: 576)",
    )
    group.add_argument(
        "--train_method",
        choices=TRAIN_METHODS,
        help="what is trained: part: D; whole: D and E; whole_plus: D, E and Dec (default: part for DS, "
        "whole for AE_DS)",
    )


def add_objective_flags(group: cli.Flags) -> None:
    """Add what end-to-end training is for."""
    group.add_argument(
        "--train_objective",
        choices=["classification", "reconstruction"],
        default="classification",
        help="what the frozen network does: classify images, or reconstruct them from measurements",
    )
    group.add_argument(
        "--objective",
        choices=["stability", "classification"],
        default="stability",
        help="target of the loss: stability: f's own answer to the clean image; classification: the label "
        "(reconstruction: the true image)",
    )
    group.add_argument(
        "--mse_weight",
        type=cli.non_negative_float,
        default=0.0,
        help="weight of the reconstruction error of D in the loss",
    )
    group.add_argument(
        "--consistency",
        type=cli.non_negative_float,
        default=0.0,
        metavar="LAMBDA",
        help="weight of the disagreement between the answers to two noisy copies of an image; only with FO",
    )


def add_query_flags(parser: cli.Parser) -> None:
    """Add --optimization_method and what zeroth order needs."""
    zeroth = parser.add_argument_group("optimisation method")
    zeroth.add_argument(
        "--optimization_method",
        choices=["FO", "ZO"],
        default="FO",
        help="FO: backpropagate through the classifier; ZO: estimate gradients from queries (black box)",
    )
    zeroth.add_argument(
        "--zo_method",
        choices=[*ESTIMATORS, "guided"],
        help="gradient estimator (default: RGE_orthogonal); guided starts from the gradient of a surrogate",
    )
    zeroth.add_argument(
        "--q", type=cli.positive_int, help="directions per image and step (default: 192; CGE: all coordinates)"
    )
    zeroth.add_argument(
        "--mu",
        type=cli.positive_float,
        help="step size of the finite differences (default for DS, AE_DS by --zo_precision, or with --scores labels: "
        + "; ".join(f"{kind} {steps['DS']:g}, {steps['AE_DS']:g}" for kind, steps in STEPS.items())
        + ")",
    )
    zeroth.add_argument(
        "--zo_grey",
        action="store_true",
        default=None,
        help="change all channels alike, for grey images; only with --model_type DS",
    )
    zeroth.add_argument(
        "--zo_pool",
        type=cli.positive_int,
        metavar="P",
        help="choose the images of a step from P batches, mostly those with a large loss (default: one batch, all of "
        "its images)",
    )
    zeroth.add_argument(
        "--zo_batch",
        type=cli.positive_int,
        help="queries per forward pass (default: 128 at 64 px, on CUDA 1024; fewer for larger images)",
    )
    zeroth.add_argument(
        "--zo_precision",
        choices=["float32", "tf32", "bfloat16"],
        help="precision of the classifier's answers (default: float32); only for checkpoints; the others "
        "are faster, and coarser; tf32 needs CUDA",
    )
    zeroth.add_argument(
        "--query_budget",
        type=cli.positive_int,
        help="maximum number of queries of the whole run; reduces --epochs if these would take more",
    )
    zeroth.add_argument(
        "--force", action="store_true", default=None, help="allow more than 4096 queries per image and step"
    )


def settle_arch(args: argparse.Namespace) -> None:
    """Move an --arch that is no denoiser's to --classifier_arch. Raises ValueError if it is neither's."""
    if args.arch is None or args.arch in names("denoiser"):
        return
    if args.classifier_arch is not None or args.classifier is None:
        raise ValueError(f"--arch {args.arch}: must be one of {', '.join(names('denoiser'))}")
    args.arch, args.classifier_arch = None, args.arch


def check_objective(args: argparse.Namespace) -> None:
    """Raises ValueError if the flags of `main_ds.py` that say what is trained, and for what, contradict each other."""
    zeroth_order, reconstructs = args.optimization_method == "ZO", args.train_objective == "reconstruction"
    noise_range(args.noise_sd)
    if zeroth_order and args.train_method == "whole_plus":
        raise ValueError("--train_method whole_plus: with ZO the decoder is behind the queries and gets no gradient")
    if args.consistency and (zeroth_order or reconstructs):
        raise ValueError("--consistency: only for a classifier, and only with --optimization_method FO")
    if args.surrogates and reconstructs:
        raise ValueError("--surrogates: only for a classifier, not with --train_objective reconstruction")


def check_method(args: argparse.Namespace) -> None:
    """Set the defaults of --lr, --zo_method, --zo_precision and --mu. Raises ValueError if a flag of zeroth order is
    given without it, or does not fit the others."""
    args.lr = args.lr or RATES[args.optimization_method]
    given = [name for name in QUERY_FLAGS if getattr(args, name) is not None]
    args.force = bool(args.force)
    if args.latent and args.model_type == "DS":
        raise ValueError("--latent: DS has no autoencoder; only with --model_type AE_DS")
    if args.optimization_method == "FO":
        if given:
            raise ValueError(f"--{given[0]}: is about estimated gradients; only with --optimization_method ZO")
        return
    check_steps(args)
    check_directions(args)


def check_steps(args: argparse.Namespace) -> None:
    """Set the defaults of --zo_method, --zo_precision and --mu. Raises ValueError if they do not fit the answers."""
    queried = args.classifier or args.reconstructor
    if args.zo_precision not in (None, "float32") and queried and is_foreign(queried):
        raise ValueError(
            f"--zo_precision {args.zo_precision}: only for a checkpoint, and {queried} is none; set the step with --mu"
        )
    args.zo_method, args.zo_precision = args.zo_method or "RGE_orthogonal", args.zo_precision or "float32"
    if args.scores == "labels" and args.model_type == "DS" and args.zo_method != "DCT" and args.mu is None:
        raise ValueError(
            "--scores labels: no step along a random direction of the denoised image changes a label; use "
            "--model_type AE_DS, --zo_method DCT, or a --mu of your own"
        )
    args.mu = args.mu or STEPS["labels" if args.scores == "labels" else args.zo_precision][args.model_type]


def check_directions(args: argparse.Namespace) -> None:
    """Raises ValueError if --zo_grey or --surrogates do not fit --zo_method and --model_type."""
    if args.zo_grey and args.model_type == "AE_DS":
        raise ValueError("--zo_grey: a latent has no colours; only with --model_type DS")
    if args.zo_grey and args.zo_method == "guided":
        raise ValueError("--zo_grey: not with --zo_method guided, whose first direction is not grey")
    if (args.zo_method == "guided") != bool(args.surrogates):
        raise ValueError("with ZO, --zo_method guided needs --surrogates, and --surrogates needs --zo_method guided")


def check_queries(args: argparse.Namespace, dimension: int, size: int, images: int, device: torch.device) -> int:
    """Set the defaults of --q and --zo_batch, and return the queries of an estimate per image (of `size` px). Raises
    ValueError if it is impossible, or takes too many queries for `images` images."""
    if args.zo_precision == "tf32" and device.type != "cuda":
        raise ValueError("--zo_precision tf32: needs a CUDA device")
    args.q = args.q or (dimension if args.zo_method.startswith("CGE") else min(192, dimension))
    args.zo_batch = args.zo_batch or max(1, PIXELS[device.type] // size**2)
    if args.q > dimension and args.zo_method not in ("RGE", "RGE_antithetic"):
        raise ValueError(
            f"--q {args.q}: --zo_method {args.zo_method} has at most {dimension} directions, one for each number of z"
        )
    queries = queries_of(args.zo_method, args.q)
    if queries > 4096 and not args.force:
        raise ValueError(
            f"--zo_method {args.zo_method} over {args.q} of the {dimension} numbers of z takes {queries} queries per "
            f"image and step, {queries * images:,} per epoch; use AE_DS, a smaller --q, or --force"
        )
    return queries


def fit_epochs(args: argparse.Namespace, least: int, epoch: int) -> None:
    """Reduce --epochs to what --query_budget pays for, rounded to the nearest: the schedule of the learning rate must
    end with the queries, not be cut off in its warm-up. `epoch` is the number of queries of an epoch, `least` that of
    one step and its validation. Raises ValueError if the budget is less than `least`."""
    if args.query_budget is None:
        return
    if args.query_budget < least:
        raise ValueError(f"--query_budget {args.query_budget}: one step and its validation take {least:,} queries")
    epochs = min(args.epochs, max(1, round(args.query_budget / epoch)))
    print(f"--query_budget {args.query_budget:,}: an epoch takes {epoch:,} queries; --epochs {epochs}")
    args.epochs = epochs
    check_switch(args)


def check_optimisation(args: argparse.Namespace) -> None:
    """Set the defaults of ONLY_OF. Raises ValueError if one was given that the optimiser or the schedule ignores."""
    for name, (whose, which, default) in ONLY_OF.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
        elif getattr(args, whose) not in which:
            raise ValueError(f"--{name}: only with --{whose} {' or '.join(which)}")
    check_switch(args)


def check_switch(args: argparse.Namespace) -> None:
    """Raises ValueError if training would end before AdamThenSGD switches to SGD."""
    if args.switch_epoch is not None and args.switch_epoch >= args.epochs:
        raise ValueError(f"--switch_epoch {args.switch_epoch}: SGD would never begin, for --epochs is {args.epochs}")


def settle(args: argparse.Namespace, path: Path | None, held: dict[str, object]) -> None:
    """Set the flags that describe a network to what the checkpoint `path` holds (`held`, by flag). Raises ValueError if
    the command line says something else."""
    for name, value in held.items():
        if getattr(args, name) not in (None, value):
            raise ValueError(f"--{name} {getattr(args, name)}: {path} has {name} {value}")
        setattr(args, name, value)


def set_up(args: argparse.Namespace) -> torch.device:
    """Check the flags of the optimisation, choose the device, resolve `--amp`, and seed torch's generators: training
    draws all its random numbers from them. Raises ValueError."""
    check_optimisation(args)
    device = select_device(args.device)
    args.amp = resolve_amp(args.amp, device)
    torch.manual_seed(args.seed)
    return device
