"""Export a model: as a small checkpoint without the training state, or, a classifier or a reconstructor, as ONNX.

    python export_model.py --model runs/Phantom_MRI/stability/best.pth.tar --outfile stability.pth.tar
    python export_model.py --model runs/Phantom_MRI/classifier/best.pth.tar --outfile classifier.onnx

A small checkpoint loads wherever the original does and takes a sixth to an eighth of its space: its matrices are
rounded to bfloat16, as inference in bfloat16 rounds them anyway. An ONNX file is a black box: main_ds.py
(--optimization_method ZO) defends it and AE_DS_verify.py certifies it by queries alone.
"""

from __future__ import annotations

from common.script import start

import argparse
from pathlib import Path

from common import cli
from models import export_checkpoint, export_classifier, kind_of, load_checkpoint
from models.measurements import export_reconstructor


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    parser.add_argument(
        "--model",
        "--classifier",
        type=Path,
        required=True,
        help="checkpoint to export; for ONNX it must be a classifier or a reconstructor",
    )
    parser.add_argument(
        "--outfile", type=Path, required=True, help="file to write: NAME.pth.tar (checkpoint) or NAME.onnx"
    )
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    if args.outfile.suffix == ".onnx":
        checkpoint = load_checkpoint(args.model)
        classifies = kind_of(checkpoint["arch"]) == "classifier"
        if not classifies and "measurement" not in checkpoint:
            raise ValueError(
                f"--model {args.model}: only a classifier or a reconstructor becomes ONNX; this is neither"
            )
        (export_classifier if classifies else export_reconstructor)(args.model, args.outfile)
        print(f"images [B, C, H, W] in [0, 1] → {'logits' if classifies else 'reconstructions'}: {args.outfile}")
    elif args.outfile.name.endswith(".pth.tar"):
        export_checkpoint(args.model, args.outfile)
        print(f"{args.outfile.stat().st_size / 1e6:.1f} MB of {args.model.stat().st_size / 1e6:.1f}: {args.outfile}")
    else:
        raise ValueError(f"--outfile {args.outfile}: must end with .pth.tar or .onnx")


if __name__ == "__main__":
    start(get_args_parser, main)
