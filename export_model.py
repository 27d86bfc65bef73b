"""Export a model: as a small checkpoint without the training state, as ONNX, or as a program of torch.export.

    python export_model.py --model runs/Phantom_MRI/stability/best.pth.tar --outfile stability.pth.tar
    python export_model.py --model runs/Phantom_MRI/classifier/best.pth.tar --outfile classifier.onnx
    python export_model.py --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --denoiser runs/Phantom_MRI/stability/best.pth.tar --sigma 0.25 --outfile defended.onnx

A small checkpoint loads wherever the original does and takes a sixth to an eighth of its space: its matrices are
rounded to bfloat16, as inference in bfloat16 rounds them anyway. An ONNX file is a black box: main_ds.py
(--optimization_method ZO) defends it and AE_DS_verify.py certifies it by queries alone. A program of torch.export
(NAME.pt2) lets gradients pass.

With --classifier the file holds the whole pipeline: images [B, C, H, W] in [0, 1] → logits, any B. The denoiser is told
--sigma, so certify the file at that sigma.
"""

from __future__ import annotations

from common.script import start

import argparse
from pathlib import Path

import torch

from common import cli
from models import export_checkpoint, export_classifier, kind_of, load_checkpoint
from models.export import SUFFIXES, export_pipeline
from models.flags import open_pipeline
from models.measurements import export_reconstructor


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    parser.add_argument(
        "--model", type=Path, help="checkpoint to export; for ONNX it must be a classifier or a reconstructor"
    )
    parser.add_pipeline_flags(split=False, required=False, amp=False)
    parser.add_argument(
        "--sigma",
        type=cli.positive_float,
        help="noise level that the denoiser is told, on the [0, 1] scale; needed with --pretrained_denoiser",
    )
    parser.add_argument(
        "--outfile",
        type=Path,
        required=True,
        help="file to write: NAME.pth.tar (checkpoint), NAME.onnx or NAME.pt2 (torch.export)",
    )
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    if (args.model is None) == (args.classifier is None):
        raise ValueError("give --model, a checkpoint to export, or --classifier, the pipeline to export")
    if args.outfile.name.endswith(".pth.tar"):
        small_checkpoint(args)
    elif args.outfile.suffix not in SUFFIXES:
        raise ValueError(f"--outfile {args.outfile}: must end with .pth.tar, .onnx or .pt2")
    elif args.model is not None and args.outfile.suffix == ".onnx":
        network(args.model, args.outfile)
    else:
        args.classifier = args.classifier or args.model
        whole_pipeline(args)


def small_checkpoint(args: argparse.Namespace) -> None:
    """Write a copy of a checkpoint without training state."""
    path = args.model or args.classifier
    if args.pretrained_denoiser is not None:
        raise ValueError(f"--outfile {args.outfile}: a whole pipeline becomes NAME.onnx or NAME.pt2")
    export_checkpoint(path, args.outfile)
    print(f"{args.outfile.stat().st_size / 1e6:.1f} MB of {path.stat().st_size / 1e6:.1f}: {args.outfile}")


def network(path: Path, outfile: Path) -> None:
    """Write a classifier or a reconstruction network of ours as ONNX."""
    checkpoint = load_checkpoint(path)
    classifies = kind_of(checkpoint["arch"]) == "classifier"
    if not classifies and "measurement" not in checkpoint:
        raise ValueError(f"--model {path}: only a classifier or a reconstructor becomes ONNX; this is neither")
    (export_classifier if classifies else export_reconstructor)(path, outfile)
    print(f"images [B, C, H, W] in [0, 1] → {'logits' if classifies else 'reconstructions'}: {outfile}")


def whole_pipeline(args: argparse.Namespace) -> None:
    """Write a classifier and the denoiser in front of it, if there is one, as one file."""
    if (args.sigma is None) != (args.pretrained_denoiser is None):
        raise ValueError("--sigma is the noise level that the --pretrained_denoiser is told: give both, or neither")
    pipeline = open_pipeline(args, torch.device("cpu"), freeze=False)
    export_pipeline(pipeline, args.sigma, args.outfile)
    told = "" if args.sigma is None else f", the denoiser is told sigma {args.sigma:g}"
    print(
        f"images [B, {pipeline.channels}, H, W] in [0, 1], H = W = {pipeline.image_size} → logits{told}: {args.outfile}"
    )


if __name__ == "__main__":
    start(get_args_parser, main)
