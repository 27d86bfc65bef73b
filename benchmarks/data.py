"""How fast images come: the cache behind `datasets.get_loader` against torchvision's ImageFolder with a DataLoader that
decodes and resizes every image in every epoch, in one run.

    python -m benchmarks.data --dataset Brain_Tumor --outfile results/benchmarks/data_brain_tumor.json

Also the first preparation, as a user starts it (`prepare_data.py` on the same source, all checks included), and the
first epoch, which fills the cache.
"""

from __future__ import annotations

from common.script import start

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Subset

from common import cli, files
from datasets import Manifest, get_dataset, get_loader, read_manifest
from imaging.images import PICTURES, suffix_of
from models import hardware

ROOT = Path(__file__).resolve().parents[1]


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_data_flags("name of a prepared data set")
    parser.set_defaults(dataset="Phantom_MRI")
    parser.add_argument("--image_size", type=cli.positive_int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=cli.positive_int, default=32, help="images per batch")
    parser.add_argument("--epochs", type=cli.positive_int, default=5, help="epochs of each loader; the fastest counts")
    parser.add_argument("--workers", type=cli.non_negative_int, default=0, help="processes of ImageFolder's loader")
    parser.add_argument(
        "--images", type=cli.positive_int, default=1000, help="number of images that ImageFolder decodes"
    )
    parser.add_argument("--outfile", type=Path, help="JSON file to write the numbers to")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    manifest = read_manifest(args.dataset, args.data_dir)
    source = Path(manifest.settings["source"])
    found: dict[str, float] = {}

    # ---- a first preparation, and the epoch that fills the cache ----
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--dataset", args.dataset, "--source", source, "--data_dir", folder)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "prepare_data.py", *flags], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise ValueError(f"--dataset {args.dataset}: cannot be prepared from {source} alone ({last})")
        found["first preparation (s)"] = time.perf_counter() - began
        began = time.perf_counter()
        get_dataset(args.dataset, "train", args.image_size, data_dir=folder)
        found["filling the cache (s)"] = time.perf_counter() - began

    # ---- epochs ----
    data = get_dataset(args.dataset, "train", args.image_size, data_dir=args.data_dir)
    ours = images_per_second(get_loader(data, args.batch, train=True), len(data), args.epochs)
    theirs = images_per_second(*image_folder(manifest, args), args.epochs)
    found |= {"cached (images/s)": ours, "ImageFolder (images/s)": theirs, "ratio": ours / theirs}

    print(tabulate(found.items(), floatfmt=",.1f"))
    if args.outfile is not None:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        settings |= {
            "images": len(manifest.rows),
            "hardware": hardware(torch.device("cpu")),
            "torch": torch.__version__,
        }
        files.write_json(args.outfile, {"settings": settings, "found": found})


def images_per_second(loader: Iterable, count: int, epochs: int) -> float:
    """The best of `epochs` epochs of `count` images."""

    def seconds() -> float:
        began = time.perf_counter()
        for _ in loader:
            pass
        return time.perf_counter() - began

    return count / min(seconds() for _ in range(epochs))


def image_folder(manifest: Manifest, args: argparse.Namespace) -> tuple[DataLoader, int]:
    """ImageFolder over the pictures of the manifest's training split, and how many of them its loader gives."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Resize, ToTensor

    source = Path(manifest.settings["source"])
    paths = [source / row["path"] for row in manifest.split("train")]
    wanted = {str(path) for path in paths if suffix_of(path) in PICTURES}
    folder = source / "Training" if (source / "Training").is_dir() else source
    transform = Compose([Resize((args.image_size,) * 2), ToTensor()])
    data = ImageFolder(str(folder), transform, is_valid_file=wanted.__contains__, allow_empty=True)
    if not len(data):
        raise ValueError(f"{folder}: ImageFolder finds no training image in it; a folder for each class is needed")
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(args.seed))[: args.images].tolist()
    return DataLoader(Subset(data, chosen), args.batch, shuffle=True, num_workers=args.workers), len(chosen)


if __name__ == "__main__":
    start(get_args_parser, main)
