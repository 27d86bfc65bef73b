"""Attack a pipeline on a split and save the images losslessly, with what became of each.

    python -m attacks.generate --classifier runs/Phantom_MRI/classifier/best.pth.tar --attack FGSM --eps 0.03

writes Dataset/<name>/AT_<ATTACK>/<label>/<image>.png and AT_<ATTACK>/manifest.csv: source, label, predictions and
success before and after the 8-bit round trip, L2 and L∞ of what was saved, on the [0, 1] pixel scale.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

if __package__ in (None, ""):  # run as a file: the project's root is where its packages lie
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
import files
from attacks import ATTACKS
from datasets import get_loader
from models import resolve_amp, select_device
from pipeline_args import open_pipeline, open_split

COLUMNS = ("idx", "path", "source", "split", "label", "predict_clean", "predict_attacked", "predict_saved", "success",
           "success_saved", "l2", "linf")  # fmt: skip


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument("--noise_sd", type=cli.non_negative_float, default=0.25, help="what the denoiser is told")
    parser.add_argument("--attack", choices=list(ATTACKS), default="FGSM")
    parser.add_argument("--eps", type=cli.positive_float, default=8 / 255, help="L∞ budget on the [0, 1] scale")
    parser.add_argument("--batch", type=cli.positive_int, default=64)
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = select_device(args.device)
    if args.eps < 0.5 / 255:
        raise ValueError(f"--eps {args.eps:g}: nothing below 1/255 survives 8-bit images")

    # ---- the pipeline and its images ----
    pipeline = open_pipeline(args, device)
    model = pipeline.at(args.noise_sd, resolve_amp(args.amp, device))
    dataset = open_split(args, pipeline, args.split)
    outdir = args.data_dir / dataset.name / f"AT_{args.attack}"

    # ---- attack, save, and look again at what was saved ----
    rows: list[tuple] = []
    for images, labels in tqdm(get_loader(dataset, args.batch), desc=args.attack, disable=None, leave=False):
        images, labels = images.to(device), labels.to(device)
        attacked = ATTACKS[args.attack](model, images, labels, eps=args.eps)
        eight_bit = (attacked * 255).round().byte()
        saved = eight_bit.float() / 255
        with torch.inference_mode():
            clean, fooled, after = (model(x).argmax(dim=1) for x in (images, attacked, saved))
        delta = (saved - images).flatten(1)
        columns = (labels, clean, fooled, after, (clean == labels) & (fooled != labels),
                   (clean == labels) & (after != labels))  # fmt: skip
        table = torch.stack([column.long() for column in columns], dim=1).tolist()
        norms = torch.stack([delta.norm(dim=1), delta.abs().amax(dim=1)], dim=1).tolist()
        for pixels, numbers, (l2, linf) in zip(eight_bit.cpu().numpy(), table, norms, strict=True):
            idx = len(rows)
            path = Path(str(numbers[0])) / f"{idx:05d}.png"
            save_png(outdir / path, pixels)
            source = dataset.rows[idx]["path"]
            rows.append((idx, path.as_posix(), source, args.split, *numbers, f"{l2:.6f}", f"{linf:.6f}"))

    # ---- the record ----
    with files.replacing(outdir / "manifest.csv") as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    files.write_json(outdir / "settings.json", {**settings, "manifest": dataset.manifest.digest})
    print(summary(rows, args, outdir))


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 `[C, H, W]` losslessly."""
    with files.replacing(path) as temporary:
        Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(temporary)


def summary(rows: list[tuple], args: argparse.Namespace, outdir: Path) -> str:
    """One line: accuracy before and after, and where the images lie."""
    label = COLUMNS.index("label")
    clean, after = (
        sum(row[COLUMNS.index(name)] == row[label] for row in rows) / len(rows)
        for name in ("predict_clean", "predict_saved")
    )
    return (
        f"{args.attack} eps {args.eps:.4g} on {args.split}: accuracy {clean:.1%} clean, {after:.1%} on the "
        f"{len(rows)} saved images: {outdir}/manifest.csv"
    )


if __name__ == "__main__":
    cli.run(get_args_parser, main)
