"""How well each zeroth-order estimate points along the true gradient, against the queries it takes.

    python -m benchmarks.gradient_estimates --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar \\
        --pretrained_encoder runs/Phantom_MRI/autoencoder/best.pth.tar --outdir results/zeroth_order

The gradient of the stability loss at z, for noisy images of a split: z is the denoised image (DS) and, with an encoder,
also its latent (AE_DS). Truth is backpropagation in float32. Writes cosine.csv (space, estimator, queries per
image, mean cosine and relative error over the images) and cosine.png. With --surrogates F G also the estimates that
their gradients guide; of images with several channels, at z of DS, also those that change all channels alike (grey).
"""

from __future__ import annotations

from common.script import start

import argparse
import csv
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from common import cli, files
from datasets import get_dataset
from models import hardware, load_classifier, load_front, load_surrogates, prepare, select_device
from models.flags import described_classifier
from training import losses
from training.front import run_front
from training.noise import add_fixed_noise
from training.run_directory import plain
from training.zeroth_order import ESTIMATORS, gradient, grey, guided, in_batches, queries_of

COLUMNS = ("space", "dimension", "estimator", "q", "queries", "cosine", "relative_error")
GREY = ("RGE", "RGE_orthogonal", "RGE_antithetic", "DCT")  # coordinates of one pixel are no better for being grey


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument(
        "--noise_sd", type=cli.positive_float, default=0.25, help="standard deviation of the noise on the [0, 1] scale"
    )
    parser.add_argument("--images", type=cli.positive_int, default=16, help="number of images, spread over the split")
    parser.add_argument(
        "--q",
        type=cli.positive_int,
        nargs="+",
        default=[12, 24, 48, 96, 192, 384],
        help="numbers of directions per image",
    )
    parser.add_argument("--mu", type=cli.positive_float, default=5e-3, help="step size of the finite differences")
    parser.add_argument("--zo_batch", type=cli.positive_int, default=64, help="queries per forward pass")
    parser.add_argument(
        "--surrogates",
        type=Path,
        nargs="+",
        default=[],
        metavar="F",
        help="checkpoints of classifiers whose gradients guide one estimate each",
    )
    parser.add_argument("--outdir", type=Path, required=True, help="folder to write table and figure to")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)

    # ---- the pipeline ----
    classifier, made = load_classifier(args.classifier, device, **described_classifier(args))
    classifier = classifier.requires_grad_(False)
    surrogates = load_surrogates(args.surrogates, made, device)
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    parts: dict[str, tuple[Path | None, Path | None, Path | None]] = {"DS": (args.pretrained_denoiser, None, None)}
    if args.pretrained_encoder:
        parts["AE_DS"] = (args.pretrained_denoiser, args.pretrained_encoder, args.pretrained_decoder)
    data = get_dataset(args.dataset or made["dataset"], args.split, size, args.protocol, channels, args.data_dir)
    chosen = torch.linspace(0, len(data) - 1, args.images).long().tolist()
    images = torch.stack([data[i][0] for i in chosen]).to(device)
    noisy, sd = add_fixed_noise(images, (args.noise_sd, args.noise_sd), args.seed)

    # ---- cosines ----
    rows = []
    for space, paths in parts.items():
        front = prepare(load_front(channels, size, device, *paths, space, scale=args.denoiser_scale)[0], device).eval()
        with torch.no_grad():
            target = classifier(images)
            _, z, decode = run_front(front, noisy, sd)

        def loss(points: torch.Tensor, sample: torch.Tensor, decode=decode, target=target) -> torch.Tensor:
            return losses.stability(classifier(decode(points)), target[sample])

        everyone, dimension = torch.arange(len(z), device=device), z[0].numel()
        truth = gradient(lambda z: loss(z, everyone), z).flatten(1)  # noqa: B023 — used within this turn only
        estimators = dict(ESTIMATORS)
        if space == "DS" and channels > 1:
            estimators |= {f"{name} grey": grey(ESTIMATORS[name]) for name in GREY}
        for path, surrogate in zip(args.surrogates, surrogates, strict=True):
            estimators[f"guided by {path.parent.name}"] = guided_by(surrogate, decode, target)
        for name, counts in directions(list(estimators), args.q, dimension, channels).items():
            for q in tqdm(counts, desc=f"{space} {name}", disable=None, leave=False):
                generator = torch.Generator(device=device).manual_seed(args.seed)
                block = max(1, args.zo_batch // len(z))
                found, queries = estimators[name](in_batches(loss, args.zo_batch), z, args.mu, q, generator, block)
                assert queries == queries_of(name.removesuffix(" grey"), q)
                cosine = F.cosine_similarity(found.flatten(1), truth).mean().item()
                error = ((found.flatten(1) - truth).norm(dim=1) / truth.norm(dim=1)).mean().item()
                rows.append((space, dimension, name, q, queries, f"{cosine:.4f}", f"{error:.4f}"))

    # ---- table and figure ----
    with files.replacing(args.outdir / "cosine.csv") as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    draw(rows, args.outdir / "cosine.png", data.info.synthetic)
    files.write_json(
        args.outdir / "cosine.json", plain(vars(args)) | {"hardware": hardware(device), "torch": torch.__version__}
    )
    print(f"{len(rows)} estimates of {len(images)} images' gradients: {args.outdir}/cosine.csv, cosine.png")


def guided_by(surrogate: nn.Module, decode: Callable[[Tensor], Tensor], target: Tensor) -> Callable:
    """The estimator that the gradient of a surrogate guides."""

    def loss(z: Tensor) -> Tensor:
        return losses.stability(surrogate(decode(z)), target)

    return guided(functools.partial(gradient, loss))


def directions(names: list[str], counts: list[int], dimension: int, channels: int) -> dict[str, list[int]]:
    """The numbers of directions for each estimator: those of `counts` that it can take, and all that there are, where
    these are not many more."""
    found = {
        name: [q for q in counts if q <= (dimension // channels if name.endswith("grey") else dimension)]
        for name in names
    }
    if dimension <= 2 * max(counts):
        for name in ("CGE", "CGE_forward", "RGE_orthogonal"):
            found[name] = sorted({*found[name], dimension})
    return found


def draw(rows: list[tuple], path: Path, synthetic: bool) -> None:
    """One panel per space: cosine against queries, a line per estimator, of one look in all of them."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    spaces = list(dict.fromkeys((row[0], row[1]) for row in rows))
    names = list(dict.fromkeys(row[2] for row in rows))
    looks = dict(zip(names, itertools.product(("-", "--"), map(mpl.colormaps["tab10"], range(10))), strict=False))
    figure, axes = plt.subplots(
        1, len(spaces), figsize=(4.5 * len(spaces) + 2, 4.2), squeeze=False, layout="constrained"
    )
    handles = {}
    for axis, (space, dimension) in zip(axes[0], spaces, strict=True):
        for name in names:
            own = sorted((int(row[4]), float(row[5])) for row in rows if row[0] == space and row[2] == name)
            if own:
                style, color = looks[name]
                label = name.replace("_", " ")
                (handles[label],) = axis.plot(*zip(*own, strict=True), style, color=color, marker="o", markersize=3)
        title = f"{space.replace('_', '-')}: z has {dimension} numbers"
        axis.set(title=title, xlabel="queries per image", xscale="log", ylim=(0, 1.02))
        axis.set_xticks([12, 25, 50, 100, 200, 400, 800])
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("cosine to the true gradient")
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize="small")
    if synthetic:
        figure.suptitle("SYNTHETIC phantom data")
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    start(get_args_parser, main)
