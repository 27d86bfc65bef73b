"""Certify a classifier, alone or behind a denoiser, at several sigma: one TSV per sigma.

    python AE_DS_verify.py --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/stability/best.pth.tar --sigma 0.25 0.5 --outfile runs/certify.tsv

Columns: idx label predict radius correct time; predict is -1 (abstained) with radius 0; radii are L2 on the [0, 1]
pixel scale, rounded down. Settings go to <outfile>.json. The same command again goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import math
import shlex
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import cli
import files
from core import Smooth
from datasets import ImageDataset, get_dataset
from evaluation.certificates import abstention_rate, average_certified_radius, certified_accuracy, read_rows
from models import hardware, load_pipeline, resolve_amp, select_device

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
# What may differ between the run that began a TSV and the one that goes on with it.
NOT_COMPARED = {"classifier", "denoiser", "skip", "max", "batch", "command", "hardware", "torch"}


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="only every SKIP-th image")
    parser.add_argument("--max", type=int, default=-1, help="stop before this index (-1: never)")
    smoothing = parser.add_argument_group("smoothing")
    smoothing.add_argument("--sigma", type=cli.positive_float, nargs="+", required=True, help="noise, [0, 1] scale")
    smoothing.add_argument("--N0", type=cli.positive_int, default=100, help="draws that choose the class")
    smoothing.add_argument("--N", type=cli.positive_int, default=10_000, help="draws that bound its probability")
    smoothing.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability per image")
    smoothing.add_argument("--batch", type=cli.positive_int, help="draws per forward pass (default: 100, on CUDA 1000)")
    parser.add_argument("--outfile", type=Path, required=True,
                        help="the TSV; with several sigma, _sigma_0.25 … is put before its ending")  # fmt: skip
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    amp = resolve_amp(args.amp, device)
    batch = args.batch or (1000 if device.type == "cuda" else 100)

    # ---- the pipeline and its images ----
    pipeline = load_pipeline(args.classifier, args.pretrained_denoiser, device)
    dataset = get_dataset(
        args.dataset or pipeline.dataset,
        args.split,
        pipeline.image_size,
        args.protocol,
        pipeline.channels,
        args.data_dir,
    )
    if pipeline.num_classes != len(dataset.classes):
        raise ValueError(
            f"{args.classifier}: knows {pipeline.num_classes} classes, but {dataset.name} has {len(dataset.classes)}"
        )

    # ---- one TSV per sigma ----
    for sigma in args.sigma:
        settings = {
            "dataset": dataset.name,
            "split": args.split,
            "manifest": dataset.manifest.digest,
            "protocol": dataset.manifest.settings["protocol"],
            "image_size": pipeline.image_size,
            "channels": pipeline.channels,
            "sigma": sigma,
            "N0": args.N0,
            "N": args.N,
            "alpha": args.alpha,
            "seed": args.seed,
            "amp": amp,
            "device": device.type,
            "classifier": str(args.classifier),
            "classifier_sha256": files.sha256(args.classifier),
            "denoiser": str(args.pretrained_denoiser) if args.pretrained_denoiser else None,
            "denoiser_sha256": files.sha256(args.pretrained_denoiser) if args.pretrained_denoiser else None,
            "skip": args.skip,
            "max": args.max,
            "batch": batch,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "hardware": hardware(device),
            "torch": torch.__version__,
        }
        outfile = args.outfile
        if len(args.sigma) > 1:
            outfile = outfile.with_name(f"{outfile.stem}_sigma_{sigma:g}{outfile.suffix}")
        smoothed = Smooth(pipeline.at(sigma, amp), pipeline.num_classes, sigma, args.seed)
        certify_dataset(smoothed, dataset, settings, outfile, device)
        rows, _ = read_rows(outfile)
        print(
            f"sigma {sigma:g}: certified accuracy {certified_accuracy(rows, 0):.1%} at r = 0, "
            f"{certified_accuracy(rows, sigma):.1%} at r = {sigma:g}; ACR {average_certified_radius(rows):.3f}; "
            f"abstained {abstention_rate(rows):.1%}; {len(rows)} images: {outfile}"
        )


def certify_dataset(
    smoothed: Smooth, dataset: ImageDataset, settings: dict, outfile: Path, device: torch.device
) -> None:
    """Certify the images that `outfile` lacks, appending a line for each as soon as it is done."""
    end = len(dataset) if settings["max"] < 0 else min(settings["max"], len(dataset))
    wanted = range(0, end, settings["skip"])
    done = continue_outfile(outfile, settings)
    with (
        outfile.open("a", encoding="utf-8") as stream,
        tqdm(total=len(wanted), desc=f"certify sigma {settings['sigma']:g}", disable=None, unit="image") as progress,
    ):
        certified, seen = 0, 0
        for index in wanted:
            if index not in done:
                image, label = dataset[index]
                began = time.perf_counter()
                prediction, radius = smoothed.certify(
                    image.to(device), settings["N0"], settings["N"], settings["alpha"], settings["batch"], index
                )
                took = datetime.timedelta(seconds=round(time.perf_counter() - began, 1))
                correct = int(prediction == label)
                # Rounded down: a radius that is too large by half a digit is not proved.
                radius = math.floor(radius * 1e6) / 1e6
                stream.write(f"{index}\t{label}\t{prediction}\t{radius:.6f}\t{correct}\t{format_time(took)}\n")
                stream.flush()
                certified, seen = certified + correct, seen + 1
                progress.set_postfix(certified=f"{certified / seen:.1%}")
            progress.update()


def continue_outfile(outfile: Path, settings: dict) -> set[int]:
    """Start `outfile`, or check that it was made with the same settings, cut a torn last line off and return the
    indices that it holds. Raises ValueError if the settings differ."""
    beside = Path(f"{outfile}.json")
    if not outfile.is_file():
        outfile.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(beside, settings)
        files.write_text(outfile, HEADER)
        return set()
    if not beside.is_file():
        raise ValueError(f"--outfile {outfile}: exists without its settings {beside.name}; name another file")
    before = files.read_json(beside)
    changed = [key for key in settings if key not in NOT_COMPARED and before.get(key) != settings[key]]
    if changed:
        what = ", ".join(f"{key} {before.get(key)} (now {settings[key]})" for key in changed)
        raise ValueError(f"--outfile {outfile}: was made with {what}; name another file or delete it")
    *lines, torn = outfile.read_text(encoding="utf-8").split("\n")
    if torn or not lines:
        files.write_text(outfile, "".join(f"{line}\n" for line in lines) or HEADER)
    return set() if len(lines) < 2 else set(read_rows(outfile)[0]["idx"].tolist())


def format_time(took: datetime.timedelta) -> str:
    """`0:00:01.2`: hours, minutes, seconds with one digit."""
    return f"{datetime.timedelta(seconds=int(took.total_seconds()))}.{took.microseconds // 100_000}"


if __name__ == "__main__":
    cli.run(get_args_parser, main)
