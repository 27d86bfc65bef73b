"""Write a classifier as an ONNX file, to be defended (main_ds.py --optimization_method ZO) and certified by queries
alone.

    python export_classifier.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --outfile runs/classifier.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cli
from models import export_classifier


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--classifier", type=Path, required=True, help="checkpoint of f")
    parser.add_argument("--outfile", type=Path, required=True, help="the ONNX file")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    export_classifier(args.classifier, args.outfile)
    print(f"images [B, C, H, W] in [0, 1] → logits: {args.outfile}")


if __name__ == "__main__":
    cli.run(get_args_parser, main)
