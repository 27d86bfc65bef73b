"""Certify a classifier, alone or behind a denoiser, at one or several sigma. Writes one TSV per sigma.

    python AE_DS_verify.py --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/stability/best.pth.tar --sigma 0.25 0.5 --outfile runs/certify.tsv

Columns: idx label predict radius correct time; predict -1 means that the smoothed classifier abstained, with radius 0.
Radii are L2 on the [0, 1] pixel scale, rounded down. Further columns: draws (pilot included); bound (top or margin);
group_label group_predict group_radius, if the data set tells disease from healthy: no perturbation within group_radius
turns one into the other; votes (of the draws after the pilot, one number per class). Settings go to <outfile>.json.

What a radius says: it holds for the smoothed classifier, with probability 1 - alpha per image (class and group radius
together 1 - 2 alpha), at the classifier's input size after resizing and rounding to 8 bits, for this pipeline on this
kind of hardware. It holds for images that were fixed before the seed was known. Someone who knows the seed can search
for an image whose draws happen to agree, and someone who tries several seeds and keeps the best result loses the level
1 - alpha. The settings therefore list every seed that was tried on a file. If grey images are stored as RGB
(`grey_as_rgb` in the settings), a radius r is r/√3 on the grey image.

--group_rule vote decides disease or healthy by the summed votes of each group; the class is certified only if it
belongs to the group that won. --group_rule class takes the group of the class with most votes.

Draws for an image stop as soon as each of --radii is proved or improbable. With --no-sequential every image gets N
draws, as published. After an interruption the same command resumes. Many workers: --shard 0/4 … --shard 3/4, or
`torchrun --nproc_per_node 4 -- AE_DS_verify.py …`; then merge_certificates.py. --split FGSM certifies the attacked
images that attacks/generate.py saved: the answer of the smoothed classifier there, and the radius around them.

    python AE_DS_verify.py --classifier … --pretrained_denoiser … --sigma 0.25 --predict slice.png folder/ scan.dcm

certifies image files (pictures, DICOM, NIfTI). It prints class or ABSTAIN, radius, group, group radius and draws, what
was done to each file to make it square and 8-bit, and with --outfile writes them as JSON, with --report as a page. The
seed is a secret one from the operating system unless --seed names one; it is printed with the answer. For a split the
default is --seed 0.
"""

from __future__ import annotations

from common.script import start

import argparse
import secrets
import sys
from pathlib import Path

import torch

from attacks.folder import open_images
from certification.answers import answers_table, done_text, what_is_proved
from certification.certificate_file import shard_of_launcher, shard_path
from certification.draws import check_draws
from certification.flags import add_smoothing_flags, check_flags
from certification.pictures import page_of_files
from certification.run import all_grey, certify_dataset, certify_files
from certification.settings import describe
from common import cli, files
from datasets import ImageDataset
from evaluation.certificates import (
    Certification,
    abstention_rate,
    average_certified_radius,
    caveats,
    certified_accuracy,
    read_rows,
    read_settings,
)
from evaluation.tables import certified_text
from imaging.catalogue import DatasetInfo
from imaging.images import pictures_not_read
from models import Pipeline, select_device
from models.flags import info_of, open_pipeline, say_order


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags(split=False)
    parser.add_split_flag()
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="certify only every SKIP-th image")
    parser.add_argument("--max", type=int, default=-1, help="stop before this image index; -1: no limit")
    add_smoothing_flags(parser.add_argument_group("smoothing"))
    parser.add_argument(
        "--predict",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="certify these image files or folders instead of a split",
    )
    parser.add_argument(
        "--outfile",
        type=Path,
        help="TSV to write, with several sigma as NAME_sigma_0.25.tsv; needed unless --predict is given",
    )
    parser.add_argument(
        "--report", type=Path, metavar="PAGE.html", help="with --predict: a page that shows each image and its answer"
    )
    parser.add_argument(
        "--shard",
        type=cli.shard,
        metavar="I/K",
        help="certify only part I (from 0) of K parts of the split; torchrun sets it",
    )
    parser.add_common_flags(None, "seed of all random numbers (default: 0; with --predict a secret one)")
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    check_flags(args)
    if args.report is not None and not args.predict:
        raise ValueError("--report: shows the answers of --predict; for a split use make_report.py")
    secret = args.seed is None and args.predict is not None
    if args.seed is None:
        args.seed = secrets.randbits(63) if secret else 0
    pipeline = open_pipeline(args, device)
    info = info_of(args, pipeline)
    say_order(args.classifier, pipeline.info or pipeline.outputs, info)
    settings = describe(args, pipeline, info, device)
    for sigma in args.sigma:
        if line := check_draws(settings, sigma, args.asked):
            print(f"AE_DS_verify.py: warning: {line}", file=sys.stderr)
    if args.predict:
        predict(args, pipeline, info, settings | {"secret_seed": secret}, device)
    else:
        certify_split(args, pipeline, settings, device)


def predict(
    args: argparse.Namespace, pipeline: Pipeline, info: DatasetInfo, settings: dict, device: torch.device
) -> None:
    """Certify the files of --predict; print the answers, and write them to --outfile and --report."""
    files.check_writable(args.outfile)
    files.check_writable(args.report, "--report")
    answers = []
    for sigma in args.sigma:
        answers += certify_files(pipeline, info, {**settings, "sigma": sigma}, args.predict, device)
    statement = what_is_proved(settings, bool(info.groups))
    print(f"{answers_table(answers)}\n{done_text(answers)}\n{statement}")
    for suffix, count in sorted(pictures_not_read(args.predict).items()):
        print(f"AE_DS_verify.py: warning: {count} {suffix} not read; convert to PNG", file=sys.stderr)
    if args.outfile is not None:
        files.write_json(args.outfile, {"settings": settings, "answers": answers})
        print(f"answers: {args.outfile}")
    if args.report is not None:
        shown = (args.sigma[0], args.predict, answers, statement, device)
        files.write_text(args.report, page_of_files(pipeline, info, settings, *shown))
        print(f"report: {args.report}")


def certify_split(args: argparse.Namespace, pipeline: Pipeline, settings: dict, device: torch.device) -> None:
    """Certify the images of --split into one TSV per sigma; print what they show."""
    dataset = open_images(args, pipeline, args.split)
    settings = settings | of_split(args, dataset)
    settings["grey_as_rgb"] = all_grey(dataset, settings)
    shard = shard_of(args)
    settings["shard"] = "/".join(map(str, shard)) if shard else None
    certified = []
    for sigma in args.sigma:
        outfile = outfile_at(args, sigma, shard)
        certify_dataset(pipeline, dataset, {**settings, "sigma": sigma}, outfile, device)
        rows, torn = read_rows(outfile, may_be_empty=True)
        if not len(rows):
            print(f"sigma {sigma:g}: this shard gets no image: {outfile}")
            continue
        certified.append(Certification(args.outfile.stem, sigma, outfile, rows, torn, read_settings(outfile)))
        print(headline(certified[-1], settings.get("radii")))
    if certified and not shard:
        print(f"\n{certified_text(certified, args.radii)}")
    for line in caveats(certified):
        print(f"AE_DS_verify.py: warning: {line}", file=sys.stderr)


def of_split(args: argparse.Namespace, dataset: ImageDataset) -> dict:
    """The settings that say which images are certified."""
    count = len(dataset) if args.max < 0 else min(args.max, len(dataset))
    return {
        "split": args.split,
        "manifest": dataset.manifest.digest,
        "protocol": dataset.manifest.settings["protocol"],
        "disease": list(dataset.info.disease),
        "skip": args.skip * dataset.step,
        "end": count * dataset.step,
    }


def shard_of(args: argparse.Namespace) -> tuple[int, int] | None:
    """The part of the split that this process certifies. Raises ValueError if --shard and torchrun name two."""
    launched = shard_of_launcher()
    if args.shard is None or launched in (None, args.shard):
        return args.shard or launched
    raise ValueError(f"--shard {args.shard[0]}/{args.shard[1]}: torchrun (RANK and WORLD_SIZE) names another")


def outfile_at(args: argparse.Namespace, sigma: float, shard: tuple[int, int] | None) -> Path:
    """The TSV of one sigma and shard."""
    path = args.outfile
    if len(args.sigma) > 1:
        path = path.with_name(f"{path.stem}_sigma_{sigma:g}{path.suffix}")
    return shard_path(path, shard) if shard else path


def headline(found: Certification, asked: list[float] | None) -> str:
    """One line about the results of one sigma. Where draws stopped as soon as the radii `asked` were decided, nothing
    else is decided, and the mean radius is a lower bound."""
    rows, sigma = found.rows, found.sigma
    radius = max((r for r in asked if r <= sigma), default=asked[0]) if asked else sigma
    shown = ", ".join(f"{certified_accuracy(rows, r):.1%} at r = {r:g}" for r in dict.fromkeys((0, radius)))
    return (
        f"sigma {sigma:g}: certified accuracy {shown}; "
        f"ACR {'≥ ' if asked else ''}{average_certified_radius(rows):.3f}; "
        f"abstained {abstention_rate(rows):.1%}; {len(rows)} images: {found.path}"
    )


if __name__ == "__main__":
    start(get_args_parser, main)
