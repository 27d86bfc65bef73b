"""Certify a classifier, alone or behind a denoiser, at several sigma: one TSV per sigma.

    python AE_DS_verify.py --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/stability/best.pth.tar --sigma 0.25 0.5 --outfile runs/certify.tsv

Columns: idx label predict radius correct time; predict is -1 (abstained) with radius 0; radii are L2 on the [0, 1]
pixel scale, rounded down. Then draws (pilot included), bound (top or margin), where the data set tells disease from
health group_label group_predict group_radius: within it no perturbation turns one into the other, and votes (of the
draws after the pilot, one number for each class). Settings go to <outfile>.json.

What is proved: of the smoothed classifier, with probability 1 - alpha per image (class and group radius together 1 - 2
alpha), at the classifier's input size after resizing, for f as it runs on this kind of hardware. It holds for images
that were fixed before the seed was known; whoever knows the seed can look for an image whose draws happen to agree, and
whoever tries seeds until he likes the result has no such level. The settings therefore keep every seed that was tried
on a file. Of grey images stored as RGB (`grey_as_rgb` in the settings) a radius r is r/√3 on the grey image.

--group_rule vote decides between disease and health by the summed votes of each group; the class is named only if it
belongs to the group that won. With class it is the class with most votes that no perturbation moves to the other group.

Draws stop as soon as every radius of --radii is proved or improbable (--no-sequential: N for every image, as
published). The same command again goes on where it was interrupted. Many workers: --shard 0/4 … --shard 3/4, or
`torchrun --nproc_per_node 4 -- AE_DS_verify.py …`; then merge_certificates.py. --split FGSM certifies the attacked
images that attacks/generate.py saved: what the smoothed classifier answers there, and the radius around them.

    python AE_DS_verify.py --classifier … --pretrained_denoiser … --sigma 0.25 --predict slice.png folder/ scan.dcm

certifies image files (pictures, DICOM, NIfTI): class or ABSTAIN, radius, group, its radius, draws; with --outfile also
as JSON. Its seed is a secret one from the operating system, told with the answer, unless --seed names one (a split:
--seed 0).
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from tabulate import tabulate

from attacks.folder import open_images
from certification.certificate_file import shard_of_launcher, shard_path
from certification.run import all_grey, certify_dataset, certify_files
from certification.settings import describe
from common import cli, files
from core import Smooth
from evaluation.certificates import (
    DECIDED,
    Certification,
    abstention_rate,
    average_certified_radius,
    caveats,
    certified_accuracy,
    read_rows,
    read_settings,
)
from evaluation.tables import certified_text
from models import select_device
from models.flags import info_of, open_pipeline
from smoothing.noise import KINDS
from smoothing.rules import GROUP_RULES

RADII = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags(split=False)
    parser.add_split_flag()
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="only every SKIP-th image")
    parser.add_argument("--max", type=int, default=-1, help="stop before this index (-1: never)")
    smoothing = parser.add_argument_group("smoothing")
    smoothing.add_argument("--sigma", type=cli.positive_float, nargs="+", required=True, help="noise, [0, 1] scale")
    smoothing.add_argument("--N0", type=cli.positive_int, default=100, help="draws that choose the class")
    smoothing.add_argument(
        "--N", type=cli.positive_int, default=10_000, help="draws that bound its probability, at most"
    )
    smoothing.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability per image")
    smoothing.add_argument(
        "--sequential",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stop when the radii of interest are decided; --no-sequential: always N draws",
    )
    smoothing.add_argument(
        "--group_rule",
        choices=GROUP_RULES,
        default="vote",
        help="what decides between disease and health: the summed votes of each group, or the class",
    )
    smoothing.add_argument(
        "--radii",
        type=cli.non_negative_float,
        nargs="+",
        metavar="R",
        help=f"radii of interest, ascending (default: {' '.join(map(str, RADII))})",
    )
    smoothing.add_argument(
        "--radius_tol",
        type=cli.positive_float,
        metavar="TOL",
        help="for curves and ACR: plan the draws so that about TOL * sigma of radius is lost",
    )
    smoothing.add_argument(
        "--noise",
        choices=KINDS,
        default="exact",
        help="exact: certificates hold in floating point; float: as published",
    )
    smoothing.add_argument(
        "--batch", type=cli.positive_int, help="draws per forward pass (default: 32, 64 or 128 by trial, on CUDA 1000)"
    )
    smoothing.add_argument(
        "--compile", action="store_true", help="torch.compile the pipeline: a minute or two first, then faster draws"
    )
    parser.add_argument(
        "--predict", type=Path, nargs="+", metavar="IMAGE", help="certify these files or folders instead of a split"
    )
    parser.add_argument(
        "--outfile", type=Path, help="the TSV; with several sigma, _sigma_0.25 … is put before its ending"
    )
    parser.add_argument("--shard", type=cli.shard, metavar="I/K", help="only part I (from 0) of K; torchrun sets it")
    parser.add_common_flags()
    parser.set_defaults(seed=None)  # a split's is 0, --predict draws one
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    if args.N < args.N0:
        raise ValueError(f"--N {args.N}: must be at least --N0 ({args.N0})")
    if args.radius_tol is not None and (args.radii or not args.sequential):
        raise ValueError("--radius_tol plans the draws by itself: leave out --radii and --no-sequential")
    args.radii = args.radii or RADII
    args.sigma = list(dict.fromkeys(args.sigma))
    if args.radii != sorted(set(args.radii)):
        raise ValueError(f"--radii {' '.join(map(str, args.radii))}: must be ascending")
    if args.outfile is None and not args.predict:
        raise ValueError("--outfile is needed (or --predict IMAGE …)")
    if args.predict and (args.shard or args.skip > 1 or args.max >= 0):
        raise ValueError("--shard, --skip and --max choose images of a split; --predict certifies all that it names")
    if args.predict and args.outfile is not None and args.outfile.suffix != ".json":
        raise ValueError(f"--outfile {args.outfile}: with --predict it is JSON; name it .json")
    if args.outfile is not None and args.outfile.suffix == ".csv":
        raise ValueError(f"--outfile {args.outfile}: certificates are separated by tabs; name it .tsv")

    secret = args.seed is None and args.predict is not None
    if args.seed is None:
        args.seed = secrets.randbits(63) if secret else 0

    # ---- the pipeline, and what it is asked ----
    pipeline = open_pipeline(args, device)
    info = info_of(args, pipeline)
    settings = describe(args, pipeline, info, device)
    if args.predict:
        answers = [
            answer
            for sigma in args.sigma
            for answer in certify_files(pipeline, info, {**settings, "sigma": sigma}, args.predict, device)
        ]
        print(f"{answers_table(answers)}\n{what_is_proved(settings, secret)}")
        if args.outfile is not None:
            files.write_json(args.outfile, {"settings": {**settings, "secret_seed": secret}, "answers": answers})
            print(f"answers: {args.outfile}")
        return

    # ---- the images of a split: one TSV per sigma ----
    dataset = open_images(args, pipeline, args.split)
    count = len(dataset) if args.max < 0 else min(args.max, len(dataset))
    settings |= {
        "split": args.split,
        "manifest": dataset.manifest.digest,
        "protocol": dataset.manifest.settings["protocol"],
        "disease": list(dataset.info.disease),
        "skip": args.skip * dataset.step,
        "end": count * dataset.step,
    }
    settings["grey_as_rgb"] = all_grey(dataset, settings)
    launched = shard_of_launcher()
    shard = args.shard or launched
    if launched not in (None, shard):
        raise ValueError(f"--shard {shard[0]}/{shard[1]}: torchrun (RANK and WORLD_SIZE) says another")
    settings["shard"] = "/".join(map(str, shard)) if shard else None
    certified = []
    for sigma in args.sigma:
        outfile = args.outfile
        if len(args.sigma) > 1:
            outfile = outfile.with_name(f"{outfile.stem}_sigma_{sigma:g}{outfile.suffix}")
        outfile = shard_path(outfile, shard) if shard else outfile
        certify_dataset(pipeline, dataset, {**settings, "sigma": sigma}, outfile, device)
        rows, torn = read_rows(outfile, may_be_empty=True)
        if not len(rows):
            print(f"sigma {sigma:g}: no image falls to this shard: {outfile}")
            continue
        # Where draws stop as soon as the radii are decided, nothing else is, and the mean is a lower bound.
        asked = settings.get("radii")
        radius = max((r for r in asked if r <= sigma), default=asked[0]) if asked else sigma
        print(
            f"sigma {sigma:g}: certified accuracy {certified_accuracy(rows, 0):.1%} at r = 0, "
            f"{certified_accuracy(rows, radius):.1%} at r = {radius:g}; "
            f"ACR {'≥ ' if asked else ''}{average_certified_radius(rows):.3f}; "
            f"abstained {abstention_rate(rows):.1%}; {len(rows)} images: {outfile}"
        )
        certified.append(Certification(args.outfile.stem, sigma, outfile, rows, torn, read_settings(outfile)))
    if certified and not shard:
        print(f"\n{certified_text(certified, args.radii)}")
    for line in caveats(certified):
        print(f"AE_DS_verify.py: warning: {line}", file=sys.stderr)


def answers_table(answers: list[dict]) -> str:
    """The answers for the screen: without the votes, and without radii on grey images where none is grey."""
    left_out = {"grey_as_rgb", "votes"}
    if not any(answer["grey_as_rgb"] for answer in answers):
        left_out |= {"radius_grey", "group_radius_grey"}
    columns = [name for name in answers[0] if name not in left_out]
    rows = [["ABSTAIN" if answer[name] == Smooth.ABSTAIN else answer[name] for name in columns] for answer in answers]
    return tabulate(rows, columns, disable_numparse=True)


def what_is_proved(settings: dict, secret: bool) -> str:
    """What the answers of --predict are a statement about, and under which seed."""
    seed, alpha = settings["seed"], settings["alpha"]
    known = (
        f"The seed was secret until now: {seed}. Whoever asks again until he likes the answer has no such probability."
        if secret
        else f"They hold for images that were fixed before --seed {seed} was known."
    )
    return (
        "L2 radii on the [0, 1] scale, of the smoothed classifier, with probability "
        f"{1 - alpha:g} per image (class and group together {1 - 2 * alpha:g}), at its input size after resizing "
        f"({settings['image_size']} px), for f as it runs on this kind of hardware; radius_grey is the radius on the "
        "grey image behind three equal channels. Disease or health is decided "
        f"{DECIDED[settings['group_rule']]}. {known} Research only, no medical device."
    )


if __name__ == "__main__":
    cli.run(get_args_parser, main)
