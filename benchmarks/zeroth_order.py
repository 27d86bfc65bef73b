"""A zeroth-order gradient estimate against the plain loop over directions, side by side in one run.

    python -m benchmarks.zeroth_order --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --outfile results/benchmarks/zeroth_order.json

RGE at the denoised image (DS), with an encoder also at the latent (AE_DS), of the same images with the same number of
directions, in float32 (or what --zo_precision says, on both sides). The plain loop is the paper's: one forward pass of
the batch per direction, the networks as they were trained. Ours is `training.zeroth_order` as main_ds.py runs it, in
a process that keeps its freed memory (`models.device.keep_freed_memory`).
"""

from __future__ import annotations

from common.script import start

import argparse
import copy
import functools
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from benchmarks.memory import peak, reset_peak
from benchmarks.passes import hardware_limit
from common import cli, files
from datasets import get_dataset
from models import autocast, frozen, hardware, load_classifier, load_front, prepare, select_device
from models.device import keep_freed_memory
from models.flags import described_classifier
from training.flags import PIXELS, STEPS
from training.front import run_front
from training.noise import add_fixed_noise
from training.zeroth_order import in_batches, rge


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument(
        "--noise_sd", type=cli.positive_float, default=0.25, help="standard deviation of the noise on the [0, 1] scale"
    )
    parser.add_argument("--batch", type=cli.positive_int, default=32, help="number of images")
    parser.add_argument("--q", type=cli.positive_int, default=192, help="directions per image")
    parser.add_argument("--mu", type=cli.positive_float, default=5e-3, help="step size of the finite differences")
    parser.add_argument(
        "--zo_batch", type=cli.positive_int, help="queries per forward pass (default: as in main_ds.py)"
    )
    parser.add_argument(
        "--zo_precision", choices=list(STEPS), default="float32", help="precision of the classifier's answers"
    )
    parser.add_argument("--repeats", type=cli.positive_int, default=3, help="runs of each; the fastest counts")
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file to write")
    parser.add_common_flags()
    return parser


@torch.no_grad()
def rge_as_published(loss: Callable[[Tensor], Tensor], z: Tensor, mu: float, q: int) -> Tensor:
    """Zhang et al. 2022, eq. 4, direction by direction; `loss` maps `[B, *S]` to `[B]`."""
    here, gradient = loss(z), torch.zeros_like(z)
    for _ in range(q):
        u = torch.randn_like(z)
        u = u / u.flatten(1).norm(dim=1).view(-1, *[1] * (z.dim() - 1))
        slope = (loss(z + mu * u) - here) / mu
        gradient += slope.view(-1, *[1] * (z.dim() - 1)) * u
    return gradient * z[0].numel() / q


def fastest(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of the fastest of `repeats` runs after one to warm up."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def composed(f: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """`f(decode(z))`."""
    return f(decode(z))


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device, keep_memory=False)
    torch.backends.cudnn.allow_tf32 = args.zo_precision == "tf32"
    classifier, made = load_classifier(args.classifier, device, **described_classifier(args))
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    args.zo_batch = args.zo_batch or max(1, PIXELS[device.type] // size**2)  # as main_ds.py
    parts: dict[str, tuple[Path | None, Path | None, Path | None]] = {"DS": (args.pretrained_denoiser, None, None)}
    if args.pretrained_encoder:
        parts["AE_DS"] = (args.pretrained_denoiser, args.pretrained_encoder, args.pretrained_decoder)
    data = get_dataset(args.dataset or made["dataset"], args.split, size, args.protocol, channels, args.data_dir)
    images = torch.stack([data[i][0] for i in range(args.batch)]).to(device)
    noisy, sd = add_fixed_noise(images, (args.noise_sd, args.noise_sd), args.seed)

    def answers(f: Callable, decode: Callable, points: Tensor) -> Tensor:
        with autocast(device, args.zo_precision == "bfloat16"):
            return f(decode(points)).float()

    # ---- the plain loop, in a process as it is ----
    fronts = {
        space: load_front(channels, size, device, *paths, space, scale=args.denoiser_scale)[0]
        for space, paths in parts.items()
    }
    with torch.no_grad():
        target = classifier(images).argmax(dim=1)
    plain_seconds = {}
    for space, front in fronts.items():
        plain_f, plain_front = (
            copy.deepcopy(m).to(device).to(memory_format=torch.contiguous_format).eval() for m in (classifier, front)
        )
        with torch.no_grad():
            _, z, decode = run_front(plain_front, noisy, sd)

        def plain_loss(points: Tensor, decode=decode, f=plain_f) -> Tensor:
            return F.cross_entropy(answers(f, decode, points), target, reduction="none")

        published = functools.partial(rge_as_published, plain_loss, z, args.mu, args.q)
        plain_seconds[space] = fastest(published, args.repeats, device)

    # ---- ours, in a process that keeps its freed memory ----
    if device.type == "cpu":
        keep_freed_memory()
    ours_f, rows = frozen(copy.deepcopy(classifier)), []
    for space, front in fronts.items():
        ours_front = prepare(front.to(device).eval(), device)
        with torch.no_grad():
            _, z, decode = run_front(ours_front, noisy, sd)
        z = z.contiguous()

        def our_loss(points: Tensor, sample: Tensor, decode=decode) -> Tensor:
            return F.cross_entropy(answers(ours_f, decode, points), target[sample], reduction="none")

        def ours(z=z, loss=our_loss) -> None:
            generator = torch.Generator(device=device).manual_seed(args.seed)
            rge(in_batches(loss, args.zo_batch), z, args.mu, args.q, generator, max(1, args.zo_batch // len(z)))

        reset_peak(device)
        seconds = fastest(ours, args.repeats, device)
        memory = peak(device)
        dtype = torch.bfloat16 if args.zo_precision == "bfloat16" else torch.float32
        limit = hardware_limit(functools.partial(composed, classifier, decode), z[:1], dtype)
        queries = args.batch * (args.q + 1)
        rows.append(
            {
                "z": space,
                "numbers": z[0].numel(),
                "queries": queries,
                "plain ms/query": 1000 * plain_seconds[space] / queries,
                "ours ms/query": 1000 * seconds / queries,
                "limit ms/query": limit["ms"],  # of the arithmetic, in that precision
                "ratio": plain_seconds[space] / seconds,
                "peak MiB": memory,  # on the CPU with what the rows above keep
            }
        )
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    files.write_json(
        args.outfile, {"settings": settings, "hardware": hardware(device), "torch": torch.__version__, "rows": rows}
    )
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
