"""3×3 convolutions of small maps by matrix products (`models.small_maps`) against PyTorch's own, in one run: in float32
on the CPU, each in the layout it likes best.

    python -m benchmarks.small_maps --outfile results/benchmarks/small_maps.json

The ratios say where `SmallMapConv2d.is_faster` should say yes.
"""

from __future__ import annotations

from common.script import start

import argparse
import copy
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.passes import milliseconds
from common import cli, files
from models import hardware, select_device
from models.small_maps import SmallMapConv2d


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--sides", type=cli.positive_int, nargs="+", default=[2, 4, 8, 16], help="sides of the maps in pixels"
    )
    parser.add_argument(
        "--channels",
        type=cli.positive_int,
        nargs="+",
        default=[64, 128, 256, 512],
        help="channels before the convolution; behind it there are as many, with stride 2 twice as many",
    )
    parser.add_argument("--images", type=cli.positive_int, nargs="+", default=[16, 128], help="images per batch")
    parser.add_argument(
        "--rounds", type=cli.positive_int, default=2, help="number of rounds, in each of which everybody has a turn"
    )
    parser.add_argument(
        "--seconds",
        type=cli.positive_float,
        default=0.1,
        help="length of a turn, but at least three runs; the fastest counts",
    )
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file to write")
    parser.add_common_flags()
    return parser


@torch.no_grad()
def answer(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return f(x)


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.autograd.grad(f(x).sum(), x)[0]


def turn(row: dict, seconds: float) -> None:
    """Add to `row` the times in ms of its convolution, the best so far, and the largest error of an answer, a share of
    the largest answer."""
    stride, channels, side = row["stride"], row["channels"], row["side"]
    usual = nn.Conv2d(channels, stride * channels, 3, stride, 1).requires_grad_(False)
    usual = usual.to(memory_format=torch.channels_last)
    ours = SmallMapConv2d(usual)
    x = torch.randn(row["images"], channels, side, side).contiguous(memory_format=torch.channels_last)
    by_pixel = x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1).requires_grad_()
    row["used"] = ours.is_faster(x.requires_grad_())
    with torch.no_grad():
        exact = copy.deepcopy(usual).double()(x.double())
        for whose, f in (("PyTorch", usual), ("ours", ours.by_products)):
            row[f"error, {whose}"] = ((f(x) - exact).abs().max() / exact.abs().max()).item()
    for asked in (answer, gradient):
        for whose, f, points in (("PyTorch", usual, x), ("ours", ours.by_products, by_pixel)):
            key = f"{asked.__name__}, {whose} (ms)"
            row[key] = min(row.get(key, float("inf")), milliseconds(functools.partial(asked, f, points), seconds))
        row[f"{asked.__name__}, ratio"] = row[f"{asked.__name__}, PyTorch (ms)"] / row[f"{asked.__name__}, ours (ms)"]


def main(args: argparse.Namespace) -> None:
    if select_device(args.device).type != "cpu":
        raise ValueError("--device cuda: only the CPU takes these products; use --device cpu")
    rows = [
        dict(zip(("stride", "side", "channels", "images"), case, strict=True))
        for case in itertools.product((1, 2), args.sides, args.channels, args.images)
    ]
    for _ in range(args.rounds):
        for row in tqdm(rows, unit="case"):
            turn(row, args.seconds)
    print(tabulate(rows, headers="keys", floatfmt=".3g"))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    found = {"settings": settings, "hardware": hardware("cpu"), "torch": torch.__version__, "rows": rows}
    files.write_json(args.outfile, found)
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
