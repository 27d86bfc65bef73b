"""The networks that ds_main.py trains: their flags, defaults and descriptions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import cli
from models import DEFAULT_DENOISER, names
from models.measurements import MEASUREMENTS
from training.flags import NOISE_SD
from training.noise import noise_range

# Defaults of new networks.
NEW = {"model": "denoiser", "channels": 3, "latent": 576, "measurement": "undersampled", "acceleration": 4.0}
ARCHS = {"denoiser": DEFAULT_DENOISER, "reconstructor": "nafnet"}
# Flags that only some kinds of network have. With others they raise an error.
ONLY_OF = {
    "arch": ("denoiser", "reconstructor"),
    "latent": ("autoencoder",),
    "measurement": ("reconstructor",),
    "acceleration": ("reconstructor",),
}
# Peak learning rates. Those of denoisers were measured (results/benchmarks/denoisers.md); a reconstructor diverges at
# theirs (Brain Tumor MRI, epoch 7).
RATES = {"nafnet4": 3e-3, "denoiser": 1.5e-3, "autoencoder": 1.5e-3, "reconstructor": 5e-4}


def add_network_flags(group: cli.Flags) -> None:
    """Add the kind and shape of a new network, or the checkpoint of one."""
    group.add_argument(
        "--model",
        choices=["denoiser", "autoencoder", "reconstructor"],
        help="kind of network to train (default: that of the checkpoint, else denoiser)",
    )
    group.add_argument(
        "--arch",
        choices=names("denoiser"),
        help="architecture of a new denoiser or reconstructor "
        f"(default: {ARCHS['denoiser']}; of a reconstructor {ARCHS['reconstructor']})",
    )
    group.add_argument(
        "--measurement",
        choices=MEASUREMENTS,
        help="measurements that a new reconstructor takes: lines of k-space (undersampled) or random projections "
        "(gaussian) (default: undersampled)",
    )
    group.add_argument(
        "--acceleration",
        type=cli.positive_float,
        help="numbers of the image per measured number, of a new reconstructor (default: 4)",
    )
    group.add_argument(
        "--latent", type=cli.positive_int, help="numbers in the latent of a new autoencoder (default: 576)"
    )
    group.add_argument(
        "--image_size", type=cli.positive_int, help="input size in pixels (default: 64; CIFAR10 32, MNIST 28)"
    )
    group.add_argument("--channels", type=int, choices=[1, 3], help="3: RGB, as published (default); 1: grey")
    group.add_argument(
        "--pretrained_denoiser",
        "--pretrained_autoencoder",
        type=Path,
        help="checkpoint, or other denoiser as in main_ds.py, to start from; needed for --mode test and inference",
    )
    cli.scale_flag(group)


def set_defaults(args: argparse.Namespace) -> None:
    """Set the flags of a new network to their defaults. Raises ValueError if one does not apply to --model."""
    args.model = args.model or NEW["model"]
    for name, kinds in ONLY_OF.items():
        if getattr(args, name) is not None and args.model not in kinds:
            raise ValueError(f"--{name}: does not apply to --model {args.model}, only to {' and '.join(kinds)}")
    for name, value in NEW.items():
        setattr(args, name, getattr(args, name) or value)
    args.arch = args.arch or ARCHS.get(args.model)


def description(args: argparse.Namespace) -> dict[str, Any]:
    """The description of a new network, as its checkpoint will hold it."""
    described = {"arch": args.arch, "arch_kwargs": {"channels": args.channels}, "image_size": args.image_size}
    if args.model == "autoencoder":
        described["arch"] = "autoencoder"
        described["arch_kwargs"] |= {"image_size": args.image_size, "latent": args.latent}
    if args.model == "reconstructor":
        described["measurement"] = {"kind": args.measurement, "acceleration": args.acceleration, "seed": args.seed}
    return described


def settle_noise(args: argparse.Namespace) -> tuple[float, float]:
    """The range of the noise. Only denoisers have noise: for others --noise_sd is set to 0, and giving it raises
    ValueError."""
    if args.model != "denoiser":
        if args.noise_sd != [NOISE_SD]:
            raise ValueError(f"--noise_sd: only applies to denoisers; --model {args.model} is trained without noise")
        args.noise_sd = [0.0]
    return noise_range(args.noise_sd)


def rate(args: argparse.Namespace) -> float:
    """The default of --lr."""
    of_arch = args.model == "denoiser" and args.arch in RATES
    return RATES[args.arch if of_arch else args.model]
