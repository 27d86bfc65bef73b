"""The flags of `prepare_data.py`, and what they may not be together."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import cli
from datasets import PROTOCOLS
from imaging.catalogue import DATASETS, DatasetInfo
from imaging.images import FITS
from preparation.layouts import LAYOUTS
from preparation.splits import FOLDS


def add_flags(parser: cli.Parser) -> None:
    """Add the flags of the data, of their split, of the form of the images, and of the audit."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset", default="Phantom_MRI", help=f"{', '.join(DATASETS)}, or any name for your own images"
    )
    data.add_argument(
        "--source",
        type=Path,
        help="folder of images, or CSV table; for CIFAR10 and MNIST the folder that torchvision downloaded to",
    )
    data.add_argument(
        "--download",
        action="store_true",
        help="download the data set first, from Kaggle (needs kagglehub) or by torchvision",
    )
    data.add_argument(
        "--data_dir", type=Path, default=Path("Dataset"), help="folder to write <dataset>/manifest.csv to"
    )
    data.add_argument(
        "--label_scheme",
        help="merge classes by a scheme of the data set; SIPADMEK and Phantom_Cytology have one: three "
        "(abnormal, benign, normal)",
    )
    data.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        metavar="CLASS",
        help="the order of the classes, all of them: output k of a classifier means the k-th, from 0 (default: sorted, "
        "numbers by value; known data sets have an order of their own)",
    )
    data.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="which folders of --source are the classes: the first, those within the first, which are parts of the set "
        "(training, testing, folds), or the innermost (default: by their names; where these can be read in two ways, "
        "an error says so)",
    )
    data.add_argument(
        "--leave_out",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="leave out images (such as masks) whose path, name or folder matches a shell pattern: masks '*_mask*'",
    )
    data.add_argument(
        "--keep_masks",
        action="store_true",
        help="read images that are called like masks of others as images of their class, instead of raising an error",
    )
    data.add_argument(
        "--disease",
        nargs="+",
        action="extend",
        metavar="CLASS",
        help="for your own images: the classes that are disease and must not be missed",
    )
    data.add_argument(
        "--group_by",
        metavar="REGEX",
        help="regular expression that finds the patient (or other group) in an image's path; no group crosses splits",
    )
    data.add_argument(
        "--near",
        type=cli.positive_share,
        metavar="R",
        help="correlation from which two images count as one picture; 1: only identical ones (default: "
        "0.98; CIFAR10 and MNIST: 1)",
    )
    data.add_argument(
        "--skip_unreadable", action="store_true", help="leave unreadable images out instead of raising an error"
    )
    split = parser.add_argument_group("split")
    split.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="official: the published split (default for CIFAR10 and MNIST); stratified: all images "
        "pooled, 70%% for training, 10%% for validation, 20%% for testing (default for all others)",
    )
    split.add_argument(
        "--fold",
        type=cli.shard,
        default=(0, FOLDS),
        metavar="I/K",
        help="part I of K is for testing; only with --protocol stratified (default: 0/5)",
    )
    split.add_argument(
        "--leaky",
        action="store_true",
        help="split single images, not groups, as others do; only to show the effect of the leak; only "
        "with --protocol stratified",
    )
    form = parser.add_argument_group("form")
    form.add_argument(
        "--fit", choices=FITS, default="resize", help="resize: stretch to a square; letterbox: keep the proportions"
    )
    form.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values of DICOM, NIfTI and pictures of more than 8 bits that become black and white, in the units of "
        "the file (default: of DICOM its own window, else its range; of NIfTI the 1st and 99th percentile; of "
        "pictures 0 and the full scale)",
    )
    form.add_argument(
        "--volume",
        type=cli.non_negative_int,
        metavar="K",
        help="which volume of NIfTI files that hold several (4-D: times, or kinds of image), from 0 (default: the "
        "first, with a warning)",
    )
    form.add_argument(
        "--slices",
        type=cli.positive_int,
        help="slices per NIfTI volume, frames per DICOM file, or files per DICOM series, from the middle "
        "half (default: one slice or frame; all files of a series)",
    )
    form.add_argument(
        "--subjects", type=cli.positive_int, default=200, help="number of phantoms: subjects, or clusters of cells"
    )
    form.add_argument("--phantom_size", type=cli.positive_int, default=96, help="side of the phantoms in pixels")
    checks = parser.add_argument_group("audit")
    checks.add_argument("--audit", action="store_true", help="only audit; do not write the manifest")
    checks.add_argument("--strict", action="store_true", help="exit with code 1 if the audit finds an error")


def check_flags(args: argparse.Namespace, known: DatasetInfo | None) -> None:
    """Set the default of --protocol. Raises ValueError on flags that contradict each other."""
    if args.protocol is None:
        args.protocol = "official" if known and known.torchvision else "stratified"
    if args.window and not args.window[0] < args.window[1]:
        raise ValueError(f"--window {args.window[0]:g} {args.window[1]:g}: must be LOW HIGH with LOW < HIGH")
    if args.fold[1] < 2:
        raise ValueError("--fold {}/{}: K must be at least 2".format(*args.fold))
    if args.protocol == "official" and (args.leaky or args.fold != (0, FOLDS)):
        raise ValueError(f"{'--leaky' if args.leaky else '--fold'} deals images anew; it needs --protocol stratified")
