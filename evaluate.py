"""Accuracy of a pipeline on clean or noisy images: overall, per class, with intervals.

python evaluate.py --classifier runs/Phantom_MRI/classifier/best.pth.tar
python evaluate.py --classifier … --pretrained_denoiser … --noise_sd 0.25 --outfile runs/noisy.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import cli
import files
from datasets import get_loader
from evaluation.metrics import summarize
from models import resolve_amp, select_device
from pipeline_args import open_pipeline, open_split


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument("--noise_sd", type=cli.non_negative_float, default=0.0, help="Gaussian noise, [0, 1] scale")
    parser.add_argument("--batch", type=cli.positive_int, default=64)
    parser.add_argument("--outfile", type=Path, help="also write everything, with the settings, as JSON")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)

    # ---- the pipeline and its images ----
    pipeline = open_pipeline(args, device)
    base_classifier = pipeline.at(args.noise_sd, resolve_amp(args.amp, device))
    dataset = open_split(args, pipeline, args.split)

    # ---- predictions: one noisy copy of each image ----
    generator = torch.Generator().manual_seed(args.seed)
    predictions = []
    for images, _ in tqdm(get_loader(dataset, args.batch), desc="evaluate", disable=None, leave=False):
        noisy = images + args.noise_sd * torch.randn(images.shape, generator=generator)
        with torch.inference_mode():
            predictions.append(base_classifier(noisy.to(device)).argmax(dim=1).cpu())

    # ---- the report ----
    report = summarize(dataset.labels.numpy(), torch.cat(predictions).numpy(), dataset.info.classes)
    low, high = report["accuracy_interval"]
    noise = f"noise {args.noise_sd:g}" if args.noise_sd else "clean"
    protocol = dataset.manifest.settings["protocol"]
    print(
        f"{dataset.name} {args.split} ({protocol}), {noise}: accuracy {report['accuracy']:.1%} "
        f"(95% {low:.1%}–{high:.1%}), balanced {report['balanced_accuracy']:.1%}, {report['images']} images"
    )
    for class_name, row in report["per_class"].items():
        shown = ", ".join(f"{key} {'–' if row[key] is None else format(row[key], '.1%')}"
                          for key in ("sensitivity", "specificity"))  # fmt: skip
        print(f"  {class_name:<18} {shown} ({row['images']} images)")
    if args.outfile is not None:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        settings |= {"dataset": dataset.name, "protocol": protocol, "manifest": dataset.manifest.digest}
        files.write_json(args.outfile, {"settings": settings, **report})
        print(f"report: {args.outfile}")


if __name__ == "__main__":
    cli.run(get_args_parser, main)
