"""What certification costs beside the network, and what its votes depend on: noise, engine, batches, threads, compiler.

    python -m benchmarks.engine --classifier checkpoints/Brain_Tumor_64/classifier.pth.tar \\
        --pretrained_denoiser checkpoints/Brain_Tumor_64/stability_0.25.pth.tar --outfile results/benchmarks/engine.json

Noise is timed per value, drawn by the table and by its definition, a search for each value. The engine is timed on a
network that costs nothing and gives 19 of 20 votes to one class. The votes are those of the pipeline, in float32 and
bfloat16: the same draws in other companies, places, batches and numbers of threads, against batches of 64. --compile
times torch.compile too, with and without frozen weights: minutes for each number format.
"""

from __future__ import annotations

from common.script import start

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from attacks.folder import open_split
from benchmarks.passes import milliseconds, time_noise
from common import cli, files
from core import Smooth
from models import hardware, select_device
from models.flags import open_pipeline
from smoothing import discrete
from smoothing.noise import CHUNK, KINDS, NOISE_VERSION, Noise


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument("--sigma", type=cli.positive_float, default=0.25, help="noise, [0, 1] scale")
    parser.add_argument("--images", type=cli.positive_int, default=12, help="how many, spread over the split")
    parser.add_argument("--draws", type=cli.positive_int, default=128, help="of each image, for the votes")
    parser.add_argument("--seconds", type=cli.positive_float, default=3.0, help="to time one thing for")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--outfile", type=Path, required=True, help="the JSON file")
    parser.add_common_flags()
    return parser


def noise_costs(x: Tensor, seed: int, seconds: float) -> list[dict]:
    """Nanoseconds per value, at several sigma, for images like `x` `[C, H, W]`."""
    num, rows = CHUNK * x.numel(), []
    for sigma in (0.12, 0.25, 0.5, 1.0):
        bits = np.random.SFC64(seed)

        def by_definition(sigma: float = sigma, bits: np.random.BitGenerator = bits) -> Tensor:
            return discrete.inverted(torch.from_numpy(bits.random_raw(num).view(np.int64)), sigma)

        drawn = {
            "by table": lambda sigma=sigma, bits=bits: discrete.drawn_by_table(bits, num, sigma),
            "by definition": by_definition,
        }
        row = {name: 1e6 * milliseconds(draw, seconds) / num for name, draw in drawn.items()}
        row |= {f"{kind}, on the image": time_noise(x, sigma, seed, kind, seconds) for kind in KINDS}
        rows.append(
            {"sigma": sigma, "open cells, %": 100 * float((discrete.table(sigma)[1] == discrete.OPEN).mean()), **row}
        )
    return rows


def engine_cost(x: Tensor, sigma: float, seed: int) -> float:
    """Microseconds per draw of `Smooth.certify_images`, 1,100 of each image, where the network costs none: the best of
    four runs."""

    def free(images: Tensor) -> Tensor:
        scores = torch.zeros(len(images), 4)
        scores[:, 0], scores[::20, 0] = 1, -1
        return scores

    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        smoothed = Smooth(free, 4, sigma, seed, "exact")
        found = smoothed.certify_images(((i, x) for i in range(4)), 100, 1000, 0.001, 64)
        taken = sum(certificate.draws for _, certificate in found)
        best = min(best, 1e6 * (time.perf_counter() - began) / taken)
    return best


@torch.inference_mode()
def logits_of(base: Callable[[Tensor], Tensor], x: Tensor, order: Tensor, batch: int, threads: int) -> Tensor:
    """Of the rows of `x`, in passes of `batch` rows that are taken in this `order`."""
    before = torch.get_num_threads()
    found: dict[int, Tensor] = {}
    torch.set_num_threads(threads)
    rows = torch.zeros(batch, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
    for part in order.split(batch):
        rows[: len(part)], rows[len(part) :] = x[part], 0
        found |= dict(zip(part.tolist(), base(rows).clone(), strict=False))
    torch.set_num_threads(before)
    return torch.stack([found[i] for i in range(len(x))])


def votes_elsewhere(base: Callable[[Tensor], Tensor], x: Tensor, seed: int) -> list[dict]:
    """How far the logits and the votes of `x` `[B, C, H, W]` differ from those in batches of 64 on one thread."""
    plain, mixed = torch.arange(len(x)), torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    expected, rows = logits_of(base, x, plain, 64, 1), []
    for batch, order, threads in itertools.product((64, 32, 100, 128), (plain, mixed), (1, 2)):
        found = logits_of(base, x, order, batch, threads)
        row: dict[str, int | float | str] = {
            "batch": batch,
            "company": "mixed" if order is mixed else "own",
            "threads": threads,
        }
        row["largest difference"] = float((found - expected).abs().max())
        row["other votes"] = int((found.argmax(1) != expected.argmax(1)).sum())
        rows.append(row | {"of": len(x)})
    return rows


def compile_costs(base: nn.Module, x: Tensor, seconds: float) -> dict[str, float]:
    """Milliseconds per row of `x`, and the seconds that it takes to compile."""
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "eager": base,
        "compiled": torch.compile(base, dynamic=False),
        "compiled, weights frozen": torch.compile(base, dynamic=False, options={"freezing": True}),
    }
    took = {}
    with torch.inference_mode():
        for name, run in found.items():
            began = time.perf_counter()
            run(x)
            took[f"{name}, s"] = time.perf_counter() - began
        return {name: milliseconds(functools.partial(run, x), seconds) / len(x) for name, run in found.items()} | took


def main(args: argparse.Namespace) -> None:
    device = select_device("cpu")
    pipeline = open_pipeline(args, device)
    data = open_split(args, pipeline, args.split)
    indices = np.linspace(0, len(data) - 1, args.images).astype(int).tolist()
    x = data[indices[0]][0]
    result: dict[str, Any] = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "hardware": hardware(device),
        "torch": torch.__version__,
        "version of the noise": NOISE_VERSION,
    }
    result["noise, ns/value"] = noise_costs(x, args.seed, args.seconds)
    print(tabulate(result["noise, ns/value"], headers="keys", floatfmt=".3g"))
    result["engine, us/draw"] = engine_cost(x, args.sigma, args.seed)
    print(f"the engine without a network: {result['engine, us/draw']:.0f} µs per draw")

    draws = [Noise(data[index][0], args.sigma, args.seed, index, "exact").noisy(0, args.draws) for index in indices]
    result["votes"], result["compile"] = {}, {}
    for name, amp in (("float32", False), ("bfloat16", True)):
        base = pipeline.at(args.sigma, amp)
        result["votes"][name] = votes_elsewhere(base, torch.cat(draws), args.seed)
        print(tabulate(result["votes"][name], headers="keys"))
        if args.compile:
            rows = torch.cat(draws)[:64].contiguous(memory_format=torch.channels_last)
            result["compile"][name] = compile_costs(base, rows, args.seconds)
            print({key: round(value, 3) for key, value in result["compile"][name].items()})
    files.write_json(args.outfile, result)
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
