"""Compare certification with the published loop in one run: images per hour, levers, shares, noise, memory.

    python -m benchmarks.certification --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --outfile results/benchmarks/certification.json

The published loop (Cohen et al. 2019, as its pseudo-code reads) takes one image at a time, in float32, with n draws for
every image. It is timed on --published_draws draws per image and scaled to n, because its cost is linear in n. Ours is
`Smooth.certify_images` as AE_DS_verify.py runs it, in a process that keeps its freed memory
(`models.device.keep_freed_memory`). It is timed in full up to --timed_up_to; above, it is scaled to the draws that the
replays take (see below).

Certified accuracies must not suffer. This is checked in two parts. The rule: our votes of --fixed_n draws per image are
counted; then both rules are replayed --replays times on votes drawn with those frequencies, for every N. The network:
the share of --published_draws noisy inputs per image to which ours (bfloat16, folded) answers otherwise than it does in
float32.
"""

from __future__ import annotations

from common.script import start

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from attacks.folder import open_split
from benchmarks.memory import peak, reset_peak
from benchmarks.passes import Levers, hardware_limit, milliseconds_per_draw, time_levers, time_noise
from benchmarks.published import certify_as_published
from common import cli, files
from core import Smooth
from models import DenoisedClassifier, Pipeline, hardware, load_model, resolve_amp, select_device
from models.device import keep_freed_memory
from models.flags import open_pipeline
from smoothing.engine import count_votes, fastest_batch
from smoothing.noise import KINDS, Noise
from smoothing.rules import FixedDraws, Question, Rule, SequentialDraws, reaches


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument(
        "--sigma", type=cli.positive_float, default=0.25, help="standard deviation of the noise on the [0, 1] scale"
    )
    parser.add_argument("--N0", type=cli.positive_int, default=100, help="draws per image that choose the class")
    parser.add_argument(
        "--N",
        type=cli.positive_int,
        nargs="+",
        default=[10_000, 100_000],
        help="draws per image that bound its probability, at most; one comparison each",
    )
    parser.add_argument(
        "--timed_up_to",
        type=cli.positive_int,
        metavar="N",
        help="largest N that is timed in full; the time of a larger one is estimated: time per draw, times the draws "
        "that the replays take (default: all are timed)",
    )
    parser.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability per image")
    parser.add_argument(
        "--radii",
        type=cli.non_negative_float,
        nargs="+",
        default=[0.0, 0.25, 0.5, 0.75],
        help="L2 radii of interest on the [0, 1] scale, ascending",
    )
    parser.add_argument(
        "--images", type=cli.positive_int, default=20, help="number of images, spread evenly over the split"
    )
    parser.add_argument(
        "--batch", type=cli.positive_int, help="draws per forward pass of ours (default: as AE_DS_verify.py)"
    )
    parser.add_argument(
        "--published_batch",
        type=cli.positive_int,
        help="draws per forward pass of the published loop (default: 100, on CUDA 1000)",
    )
    parser.add_argument(
        "--published_draws",
        type=cli.positive_int,
        help="draws per image on which the published loop is timed (default: 200, on CUDA 10000)",
    )
    parser.add_argument(
        "--fixed_n", type=cli.positive_int, default=10_000, help="draws per image whose votes the replays are based on"
    )
    parser.add_argument("--replays", type=cli.positive_int, default=20, help="replays of each image")
    parser.add_argument(
        "--published_denoiser", type=Path, help="denoiser of the published loop (default: --pretrained_denoiser)"
    )
    parser.add_argument(
        "--seconds", type=cli.positive_float, default=3.0, help="seconds for which a forward pass is repeated"
    )
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file to write")
    parser.add_common_flags()
    return parser


# ---- the same decisions ----------------------------------------------------------------------------------------------


def replayed_accuracies(
    frequencies: np.ndarray,
    labels: np.ndarray,
    question: Question,
    n0: int,
    n: int,
    radii: Sequence[float],
    replays: int,
) -> tuple[dict[str, list[float]], float]:
    """Certified accuracy (%) at each radius, of the published rule and of ours, both on the same votes, drawn with
    `frequencies` `[images, K]`; and the draws per image of ours."""
    rng = np.random.default_rng(0)
    rules: dict[str, Rule] = {"published": FixedDraws(question, n), "ours": SequentialDraws(question, n, radii)}
    hits, draws = {name: np.zeros(len(radii)) for name in rules}, 0
    for p, label in zip(frequencies, labels, strict=True):
        for _ in range(replays):
            votes = rng.choice(len(p), size=n0 + n, p=p)
            for name, rule in rules.items():
                course, found, taken = rule.begin(n0, np.random.PCG64(int(rng.integers(2**63)))), None, 0
                while found is None:
                    fresh = votes[taken : taken + course.wants]
                    taken += len(fresh)
                    found = course.look(np.bincount(fresh, minlength=len(p)))
                hits[name] += [found.prediction == label and reaches(found.radius, r) for r in radii]
                draws += found.draws * (name == "ours")
    runs = len(labels) * replays
    return {name: (100 * count / runs).tolist() for name, count in hits.items()}, float(draws / runs)


def base_as_published(classifier: Path, denoiser: Path | None, sigma: float, device: torch.device) -> nn.Module:
    """The networks as they were trained: float32, contiguous, batch norms not folded."""
    base = load_model(classifier, "classifier", device)[0]
    if denoiser:
        base = DenoisedClassifier(load_model(denoiser, "denoiser", device)[0], base, sigma)
    return base.to(memory_format=torch.contiguous_format)


def time_ours(
    base: Callable, num_classes: int, images: list, labels: np.ndarray, n: int, args: argparse.Namespace
) -> dict:
    """Time one full run of `Smooth.certify_images`, and the share of the network in it."""
    inside, device = 0.0, images[0][1].device

    def timed(x: Tensor) -> Tensor:
        nonlocal inside
        began = time.perf_counter()
        scores = base(x)
        if device.type == "cuda":
            torch.cuda.synchronize()
        inside += time.perf_counter() - began
        return scores

    smoothed, began = Smooth(timed, num_classes, args.sigma, args.seed, "exact"), time.perf_counter()
    certificates = smoothed.certify_images(images, args.N0, n, args.alpha, args.batch, args.radii)
    found = dict(tqdm(certificates, desc=f"ours, N = {n}", total=len(images), disable=None))
    seconds, draws = time.perf_counter() - began, sum(certificate.draws for certificate in found.values())
    answers = [(found[index], label) for (index, _), label in zip(images, labels, strict=True)]
    return {
        "N": n,
        "images/h": 3600 * len(images) / seconds,
        "draws/image": draws / len(images),
        "ms/draw": 1000 * seconds / draws,
        "model share": inside / seconds,
        "peak MiB": peak(device),
        "certified %": [
            100 * float(np.mean([c.prediction == label and reaches(c.radius, r) for c, label in answers]))
            for r in args.radii
        ],
    }


def time_published(base: Callable, num_classes: int, images: list, args: argparse.Namespace) -> float:
    """Seconds per draw of the published loop."""

    def certify(x: Tensor, n: int) -> None:
        certify_as_published(base, num_classes, x, args.sigma, 1, n, args.alpha, args.published_batch)

    certify(images[0][1], args.published_batch)  # warms up
    began = time.perf_counter()
    for _, x in tqdm(images, desc="published", disable=None):
        certify(x, args.published_draws - 1)
    return (time.perf_counter() - began) / len(images) / args.published_draws


@torch.inference_mode()
def votes_that_differ(ours: Callable, plain: Callable, noise: Noise, num: int, batch: int) -> int:
    """The number of noisy inputs, out of `num`, to which the two answer differently."""
    differ = 0
    for first in range(0, num, batch):
        x = noise.noisy(first, min(batch, num - first))
        differ += int((ours(x).argmax(1) != plain(x).argmax(1)).sum())
    return differ


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device, keep_memory=False)
    amp = resolve_amp(args.amp, device)
    timed = set_defaults(args, device)

    # ---- the networks as published and as we run them ----
    pipeline = open_pipeline(args, device)
    plain = base_as_published(args.classifier, args.pretrained_denoiser, args.sigma, device)
    published = plain
    if args.published_denoiser:
        published = base_as_published(args.classifier, args.published_denoiser, args.sigma, device)
    images, labels = spread_images(args, pipeline, device)
    shape, num_classes = tuple(images[0][1].shape), pipeline.num_classes

    # ---- ms per draw: the published loop first, while this process does not keep its freed memory yet ----
    published_ms = 1000 * time_published(published, num_classes, images, args)
    published_pass = milliseconds_per_draw(plain, shape, Levers(args.published_batch), device, args.seconds)
    if device.type == "cpu":
        keep_freed_memory()
    base = pipeline.at(args.sigma, amp, args.compile)
    args.batch = args.batch or (1000 if device.type == "cuda" else fastest_batch(base, shape, device))
    result: dict[str, Any] = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "hardware": hardware(device),
        "torch": torch.__version__,
        "published ms/draw": published_ms,
    }
    ours = Levers(args.batch, torch.channels_last)
    milliseconds_per_draw(base, shape, ours, device, args.seconds)  # warms up, compiles
    reset_peak(device)
    rows: list[dict[str, Any]] = [time_ours(base, num_classes, images, labels, n, args) for n in timed]
    print(f"published {published_ms:.3f} ms per draw, ours {rows[-1]['ms/draw']:.3f}")

    # ---- where the time goes, and where it comes from ----
    result |= noise_share(images[0][1], rows[-1]["model share"], args)
    result["levers, ms/draw"] = time_levers(
        plain, shape, device, published_pass, args.published_batch, args.batch, amp, args.compile, args.seconds
    )
    print(tabulate(result["levers, ms/draw"], headers="keys", floatfmt=".3f"))
    dtype = torch.bfloat16 if amp else torch.float32
    result |= distance_to_limit(plain, torch.rand(1, *shape, device=device), dtype, rows[-1]["ms/draw"])

    # ---- the same decisions ----
    counts, found = count_and_compare(base, plain, images, num_classes, args)
    result |= found
    result["votes"] = {"index": [index for index, _ in images], "label": labels.tolist(), "counts": counts.tolist()}
    result["replayed"] = [replay(counts, labels, n, args) for n in args.N]

    # ---- images per hour ----
    untimed = [each for each in result["replayed"] if each["N"] not in timed]
    result["images per hour"] = images_per_hour(rows, untimed, published_ms, args.N0)
    files.write_json(args.outfile, result)
    print(f"raw: {args.outfile}")


def set_defaults(args: argparse.Namespace, device: torch.device) -> list[int]:
    """Set the flags whose default depends on the device; return those of --N that are timed. Raises ValueError if none
    is."""
    on_cuda = device.type == "cuda"
    args.published_batch = args.published_batch or (1000 if on_cuda else 100)
    args.published_draws = args.published_draws or (10_000 if on_cuda else 200)
    timed = [n for n in args.N if n <= (args.timed_up_to or n)]
    if not timed:
        raise ValueError(f"--timed_up_to {args.timed_up_to}: must be at least the smallest --N ({min(args.N)})")
    return timed


def spread_images(
    args: argparse.Namespace, pipeline: Pipeline, device: torch.device
) -> tuple[list[tuple[int, Tensor]], np.ndarray]:
    """--images images, spread evenly over the split, as (index, image), and their labels."""
    data = open_split(args, pipeline, args.split)
    indices = np.linspace(0, len(data) - 1, args.images).astype(int).tolist()
    return [(index, data[index][0].to(device)) for index in indices], data.labels.numpy()[indices]


def noise_share(x: Tensor, model_share: float, args: argparse.Namespace) -> dict[str, Any]:
    """What is not the network: the time of both kinds of noise on an image `x` `[C, H, W]`."""
    found = {kind: time_noise(x, args.sigma, args.seed, kind, args.seconds) for kind in KINDS}
    print(
        f"{model_share:.1%} of the time in the network; exact noise takes {found['exact']:.2f} ns per value, "
        f"{found['exact'] * x.numel() / 1e6:.4f} ms per draw"
    )
    return {"noise, ns/value": found}


def distance_to_limit(base: nn.Module, image: Tensor, dtype: torch.dtype, ms: float) -> dict[str, Any]:
    """The least time per draw that the hardware allows, and how far ours, `ms`, is from it."""
    limit = hardware_limit(base, image, dtype)
    ratio = ms / limit["ms"]
    print(
        f"{limit['flops'] / 1e6:.0f} MFLOP per draw at {limit['peak flop/s'] / 1e9:.0f} GFLOP/s: at least "
        f"{limit['ms']:.3f} ms; ours takes {ratio:.2f} times that"
    )
    floor = {"flops/draw": limit["flops"], "peak flop/s": limit["peak flop/s"], "ms/draw": limit["ms"]}
    return {"floor": {**floor, "ours / floor": ratio}}


def count_and_compare(
    base: Callable, plain: Callable, images: list, num_classes: int, args: argparse.Namespace
) -> tuple[np.ndarray, dict[str, Any]]:
    """Our votes `[images, K]` of --fixed_n draws, and the share of votes that differ from those in float32."""
    counts, differ = np.zeros((len(images), num_classes), dtype=int), 0
    for row, (index, x) in enumerate(tqdm(images, desc=f"{args.fixed_n} draws", disable=None)):
        noise = Noise(x, args.sigma, args.seed + 1, index, "exact")
        for first in range(0, args.fixed_n, args.batch):
            counts[row] += count_votes(base, noise.noisy(first, min(args.batch, args.fixed_n - first)), num_classes)[0]
        differ += votes_that_differ(base, plain, noise, args.published_draws, args.batch)
    percent = 100 * differ / len(images) / args.published_draws
    print(f"{percent:.2f}% of the votes differ from those in float32")
    return counts, {"other votes than in float32, %": percent}


def replay(counts: np.ndarray, labels: np.ndarray, n: int, args: argparse.Namespace) -> dict[str, Any]:
    """Certified accuracies of both rules with at most `n` draws, and the largest difference between them."""
    frequencies, question = counts / counts.sum(1, keepdims=True), Question(args.sigma, args.alpha)
    found, draws = replayed_accuracies(frequencies, labels, question, args.N0, n, args.radii, args.replays)
    gap = float(np.abs(np.subtract(found["ours"], found["published"])).max())
    table = [[name, *values] for name, values in found.items()]
    print(tabulate(table, headers=[f"certified %, N = {n}, r =", *args.radii], floatfmt=".2f"))
    return {"N": n, "radii": args.radii, **found, "draws/image": draws, "largest gap": gap}


def images_per_hour(rows: list[dict], untimed: list[dict], published_ms: float, n0: int) -> list[dict]:
    """The timed `rows`, and one for each of the `untimed` replays at the time per draw of the last of them; all beside
    the published loop, which takes `published_ms` per draw."""
    seconds = rows[-1]["ms/draw"] / 1000
    rows = [
        *rows,
        *(
            {
                "N": each["N"],
                "images/h": 3600 / (each["draws/image"] * seconds),
                "draws/image": each["draws/image"],
                "scaled": True,
            }
            for each in untimed
        ),
    ]
    for row in rows:
        row["published images/h"] = 3600 / (published_ms / 1000 * (n0 + row["N"]))
        row["ratio"] = row["images/h"] / row["published images/h"]
    shown = [{key: value for key, value in row.items() if key != "certified %"} for row in rows]
    print(tabulate(shown, headers="keys", floatfmt=".4g"))
    return rows


if __name__ == "__main__":
    start(get_args_parser, main)
