"""Evaluate a reconstruction network on clean, noisy and attacked measurements, with and without a denoiser before it.

    python evaluate_reconstruction.py --reconstructor runs/Phantom_MRI/R/best.pth.tar --noise_sd 0.1 --eps 1.0 \\
        --pretrained_denoiser runs/Phantom_MRI/R_defended/best.pth.tar --outfile runs/reconstruction.json

It prints the error of the reconstructions against the images, and that of the `smoothed` ones: the mean over --draws
reconstructions under noise (Zhang et al. 2022, section 5). The attack is PGD in the L2 ball of radius --eps; it attacks
the pipeline of its row, denoiser included, without the smoothing. A black box is not attacked.
"""

from __future__ import annotations

from common.script import start

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm

from attacks.pgd import pgd
from attacks.randomness import image_generator, normal
from common import cli, files
from datasets import get_dataset, get_loader
from models import Queried, frozen, hardware, load_front, origins, prepare, select_device
from models.flags import described_reconstructor
from models.measurements import load_reconstructor
from training.losses import reconstruction

COLUMNS = ("pipeline", "measurements", "rmse", "psnr", "rmse_smoothed", "psnr_smoothed")


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    cli.reconstructor_flags(parser)
    cli.image_flags(parser)
    parser.add_argument(
        "--pretrained_denoiser", "--denoiser", type=Path, help="checkpoint of the denoiser D (default: none, R alone)"
    )
    parser.add_argument(
        "--noise_sd",
        type=cli.positive_float,
        default=0.1,
        help="standard deviation of the noise, also that of the smoothing, on the [0, 1] scale",
    )
    parser.add_argument(
        "--draws",
        type=cli.positive_int,
        default=10,
        help="noisy reconstructions that are averaged",
    )
    parser.add_argument(
        "--eps", type=cli.positive_float, default=1.0, help="L2 budget of the attack on the [0, 1] scale"
    )
    parser.add_argument("--steps", type=cli.positive_int, default=40, help="steps of the attack")
    parser.add_data_flags("name of a prepared data set (default: the one the network was trained on)")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="split to evaluate")
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="only every SKIP-th image")
    parser.add_argument("--batch", type=cli.positive_int, default=64, help="images per forward pass")
    parser.add_argument("--outfile", type=Path, help="JSON file to write the table and the settings to")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    files.check_writable(args.outfile)

    # ---- the pipelines and the images ----
    network, measure, made = load_reconstructor(args.reconstructor, device, **described_reconstructor(args))
    network = frozen(network)
    pipelines: dict[str, Callable[[Tensor], Tensor]] = {"R": network}
    channels, size = made["arch_kwargs"]["channels"], made["image_size"]
    if args.pretrained_denoiser is not None:
        front = frozen(prepare(load_front(channels, size, device, args.pretrained_denoiser)[0], device))
        pipelines["D + R"] = lambda x: network(front(x, args.noise_sd))
    trained = origins((args.reconstructor, args.pretrained_denoiser))
    name = args.dataset or made["dataset"]
    data = get_dataset(name, args.split, size, args.protocol, channels, args.data_dir, trained)
    chosen = range(0, len(data), args.skip)

    # ---- errors, image by image ----
    errors: dict[tuple[str, str], list[tuple[float, float]]] = {}
    batches = enumerate(get_loader(Subset(data, chosen), args.batch))
    for number, (images, _) in tqdm(batches, total=-(-len(chosen) // args.batch), desc="evaluate", disable=None):
        images = images.to(device)
        measured = measure(images)
        of_image = [image_generator(args.seed, chosen[args.batch * number + i]) for i in range(len(images))]
        noise = [args.noise_sd * normal(measured, of_image) for _ in range(args.draws + 1)]
        for title, pipeline in pipelines.items():
            disturbed = {"clean": measured, "noisy": measured + noise[0]}
            if not isinstance(network, Queried):
                disturbed["attacked"] = attack(pipeline, measured, images, args.eps, args.steps)
            for kind, x in disturbed.items():
                errors.setdefault((title, kind), []).extend(errors_of(pipeline, x, noise[1:], images))

    # ---- the table ----
    rows = [(title, kind, *summary(values)) for (title, kind), values in errors.items()]
    print(tabulate(rows, COLUMNS, floatfmt=("g", "g", ".4f", ".2f", ".4f", ".2f")))
    print(f"{len(chosen)} images of {name} {args.split}; noise {args.noise_sd:g}, L2 budget {args.eps:g}")
    if args.outfile is not None:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        settings |= {"dataset": name, "manifest": data.manifest.digest, "measurement": made["measurement"]}
        settings |= {"hardware": hardware(device), "torch": torch.__version__}
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        files.write_json(args.outfile, {"settings": settings, "images": len(chosen), "table": table})
        print(f"table: {args.outfile}")


def errors_of(
    pipeline: Callable[[Tensor], Tensor], x: Tensor, noise: Sequence[Tensor], images: Tensor
) -> list[tuple[float, float]]:
    """(squared error of the reconstruction from `x`, of the mean reconstruction under `noise`) of each image."""
    with torch.inference_mode():
        smoothed = functools.reduce(torch.add, [pipeline(x + n) for n in noise]) / len(noise)
        found = [reconstruction(each.clamp(0, 1), images).tolist() for each in (pipeline(x), smoothed)]
    return list(zip(*found, strict=True))


def summary(squared: Sequence[tuple[float, float]]) -> list[float]:
    """RMSE and PSNR over all images, without smoothing and with it."""
    mse = np.maximum(np.array(squared), 1e-10)
    rmse, psnr = np.sqrt(mse.mean(axis=0)), (-10 * np.log10(mse)).mean(axis=0)
    return [float(each[k]) for k in (0, 1) for each in (rmse, psnr)]


def attack(pipeline: Callable[[Tensor], Tensor], measured: Tensor, images: Tensor, eps: float, steps: int) -> Tensor:
    """The measurements within L2 distance `eps` for which PGD finds the largest error of the reconstruction. They stay
    between 0 and 1, or where the undisturbed ones go beyond, between their extremes."""
    low = measured.amin(dim=(1, 2, 3), keepdim=True).clamp(max=0)
    span = measured.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1) - low

    def as_scores(u: Tensor) -> Tensor:
        x = low + span * u  # PGD knows images in [0, 1]
        # The cross-entropy of these two scores with label 0 grows with the error, and its gradient points the same way.
        error = reconstruction(pipeline(x), images)
        return torch.stack([-error, error], dim=1)

    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    inputs = ((measured - low) / span).clamp(0, 1)
    return low + span * pgd(as_scores, inputs, labels, eps / span.flatten(), norm="L2", steps=steps)


if __name__ == "__main__":
    start(get_args_parser, main)
