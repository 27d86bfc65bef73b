"""How much memory a large data set takes: made-up images, their first preparation, and an epoch of them.

    python -m benchmarks.many_images --images 100000 --outfile results/benchmarks/many_images.json

The figure is the process's own memory (RssAnon of Linux). Pages of mapped files belong to the system, which takes them
back when it needs them.
"""

from __future__ import annotations

from common.script import start

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from common import cli, files
from models import hardware

ROOT = Path(__file__).resolve().parents[1]
EPOCH = """
import sys
from datasets import get_dataset, get_loader
for images, labels in get_loader(get_dataset("Many", "train", int(sys.argv[2]), data_dir=sys.argv[1]), 128, train=True):
    pass
"""


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    parser.add_argument("--images", type=cli.positive_int, default=10_000, help="number of images to make")
    parser.add_argument("--side", type=cli.positive_int, default=64, help="side of the images in pixels")
    parser.add_argument("--folder", type=Path, help="folder to make them in (default: the system's temporary one)")
    parser.add_argument("--outfile", type=Path, help="JSON file to write the numbers to")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    if not Path("/proc/self/status").is_file():
        raise ValueError("this system has no /proc, where the memory of a process is told")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_images(Path(folder) / "S", args.images, args.side, args.seed)
        prepare = ("prepare_data.py", "--dataset", "Many", "--source", f"{folder}/S", "--data_dir", folder)
        rows = [("first preparation", *watched(prepare)), ("an epoch", *watched(("-c", EPOCH, folder, str(args.side))))]
    whole = args.images * 3 * args.side**2 / 2**20
    print(tabulate(rows, ("", "seconds", "MiB at most"), floatfmt=",.0f"))
    print(f"{args.images:,} images of {args.side} px: {whole:,.0f} MiB of 8-bit RGB, four times as much as numbers")
    if args.outfile is not None:
        settings = {"images": args.images, "side": args.side, "seed": args.seed}
        settings |= {"hardware": hardware(torch.device("cpu")), "torch": torch.__version__}
        found = {name: {"seconds": seconds, "mib": mib} for name, seconds, mib in rows}
        files.write_json(args.outfile, {"settings": settings, "found": found, "images_mib": whole})


def make_images(source: Path, count: int, side: int, seed: int) -> None:
    """`count` smooth grey images of two classes, no two alike."""
    for name in "ab":
        (source / name).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in tqdm(range(count), desc="make images", disable=None, leave=False):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(source / "ab"[i % 2] / f"{i:07d}.png")


def watched(command: tuple[str, ...]) -> tuple[float, float]:
    """Run Python with these arguments; (seconds, the most MiB that it held, looked at ten times a second). Raises
    ValueError with its last line if it fails."""
    began, most = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        held = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
        most = max([most, *(each / 1024 for each in held)])
        time.sleep(0.1)
    _, errors = process.communicate()
    said = errors.strip().splitlines()
    if process.returncode:
        raise ValueError(f"{command[0]}: {(said or ['it says nothing'])[-1]}")
    return time.perf_counter() - began, most


if __name__ == "__main__":
    start(get_args_parser, main)
