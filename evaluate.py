"""Measure the accuracy of a pipeline on clean, noisy or attacked images: overall, per class and per group, with 95%
intervals.

    python evaluate.py --classifier runs/Phantom_MRI/classifier/best.pth.tar
    python evaluate.py --classifier … --pretrained_denoiser … --noise_sd 0.25 --outfile runs/noisy.json
    python evaluate.py --classifier … --pretrained_denoiser … --split PGD --denoiser_sd 0.25 --outfile runs/pgd.json
    python evaluate.py --classifier … --pretrained_denoiser … --split PGD --noise_sd 0.25 --N 1000 --outfile runs/g.json

The last command evaluates the smoothed classifier: PREDICT of Cohen et al. 2019 with N draws per image; abstentions
count as errors. Disease or health is then decided as in certification. --group_rule vote: by the summed votes of each
group; if the class lies outside the group that won, the classifier abstains. --group_rule class: by the class answer.
Without --N a single pass answers with one class, and the group is that of the class.

--split PGD takes the images that attacks/generate.py saved. They may have been made on another pipeline (transfer).
--outfile is JSON; a CSV and a figure (confusion matrix, calibration) are written beside it.
"""

from __future__ import annotations

from common.script import start

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset
from tqdm import tqdm

from attacks.flags import check_votes
from attacks.folder import open_images
from attacks.randomness import image_generator, normal
from common import cli, files, resources
from common.lines import shown
from core import Smooth, decide
from datasets import ImageDataset, get_loader
from evaluation.certificates import DECIDED
from evaluation.figures import evaluation_png
from evaluation.metrics import metric_records, report_text, summarize
from evaluation.tables import to_csv
from models import hardware, resolve_amp, select_device
from models.flags import open_pipeline, say_order

Answers = TypeVar("Answers", np.ndarray, Tensor)


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    parser.add_pipeline_flags(split=False)
    parser.add_split_flag()
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="use only every SKIP-th image of the split")
    parser.add_argument(
        "--noise_sd",
        type=cli.non_negative_float,
        default=0.0,
        help="standard deviation of Gaussian noise on the [0, 1] scale, drawn once per image; with --N: sigma of the "
        "smoothed classifier",
    )
    parser.add_argument(
        "--denoiser_sd",
        type=cli.non_negative_float,
        help="noise level that the denoiser is told, on the [0, 1] scale; needed if images are attacked rather than "
        "noisy (default: --noise_sd)",
    )
    parser.add_argument(
        "--N",
        type=cli.positive_int,
        help="evaluate the smoothed classifier with N draws per image (default: a single pass)",
    )
    parser.add_argument(
        "--alpha",
        type=cli.probability,
        default=0.001,
        help="with --N: failure probability per image; it abstains unless the votes decide at this level",
    )
    parser.add_argument(
        "--group_rule",
        choices=list(DECIDED),
        help="with --N: decide disease or health by the summed votes of each group (vote) or by the class answer "
        "(class) (default: vote)",
    )
    parser.add_argument("--batch", type=cli.positive_int, default=64, help="images, or draws, per forward pass")
    parser.add_argument(
        "--outfile", type=Path, help="JSON report to write, with settings; a CSV and a PNG are written beside it"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE.tsv",
        help="write idx, label, predict and correct of every image; predict -1: it abstained",
    )
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    check_flags(args)

    # ---- the pipeline and its images ----
    pipeline = open_pipeline(args, device)
    told = args.noise_sd if args.denoiser_sd is None else args.denoiser_sd
    args.amp = resolve_amp(args.amp, device)
    base_classifier = pipeline.at(told, args.amp)
    dataset = open_images(args, pipeline, args.split)
    say_order(args.classifier, pipeline.info or pipeline.outputs, dataset.info)
    chosen = list(range(0, len(dataset), args.skip))
    labels = dataset.labels[chosen].numpy()

    # ---- predictions ----
    groups = dataset.info.groups
    probabilities: np.ndarray | None
    group_predictions: np.ndarray | None = None
    if args.N is None:
        scores = in_batches(
            args.batch,
            lambda size: noisy_scores(base_classifier, dataset, chosen, args.noise_sd, args.seed, size, device),
        )
        predictions = scores.argmax(dim=1).numpy()
        probabilities = None if args.scores == "labels" else scores.softmax(dim=1).numpy()  # a label has no confidence
    else:
        args.group_rule = args.group_rule or "vote"
        smoothed = Smooth(base_classifier, pipeline.num_classes, args.noise_sd, args.seed, "exact")
        counts = in_batches(args.batch, lambda size: votes(smoothed, dataset, chosen, args.N, size, device))
        predictions, group_predictions = answers(counts, list(groups.values()), args.group_rule, args.alpha)
        probabilities = counts / args.N
    if args.predictions is not None:
        write_predictions(args.predictions, [i * dataset.step for i in chosen], labels, predictions)

    # ---- the report ----
    report = summarize(labels, predictions, dataset.info.classes, probabilities, groups, group_predictions)
    title = f"{shown(dataset.name)} {args.split} ({dataset.manifest.settings['protocol']}), {noise_in_words(args)}"
    if args.outfile is not None:
        write_report(args, dataset, device, report, title)
    decided = DECIDED[args.group_rule] if args.N else "by the predicted class (single pass)"
    print(f"{title}: {report_text(report, decided)}")
    if args.outfile is not None:
        print(f"report: {args.outfile}, and .csv, .png beside it")


def check_flags(args: argparse.Namespace) -> None:
    """Raises ValueError if flags do not fit each other."""
    if args.N is not None and not args.noise_sd > 0:
        raise ValueError("--N smooths with the noise of --noise_sd, which must be > 0")
    if args.N is not None:
        check_votes(args.N, args.alpha)
    if args.N is None and args.group_rule is not None:
        raise ValueError("--group_rule needs --N: a single pass has no votes to sum")
    if args.denoiser_sd is not None and args.pretrained_denoiser is None:
        raise ValueError("--denoiser_sd: there is no denoiser to tell it; give --pretrained_denoiser")
    if args.outfile is not None and args.outfile.suffix != ".json":
        raise ValueError(f"--outfile {args.outfile}: must end in .json; .csv and .png are put beside it")
    files.check_writable(args.outfile)
    files.check_writable(args.predictions, "--predictions")


def noise_in_words(args: argparse.Namespace) -> str:
    """The noise of an evaluation, for its title."""
    if args.N:
        return f"smoothed with {args.noise_sd:g}, {args.N} draws"
    return f"noise {args.noise_sd:g}" if args.noise_sd else "no noise"


def write_predictions(path: Path, indices: Sequence[int], labels: np.ndarray, predictions: np.ndarray) -> None:
    """Write a TSV with one line per image."""
    rows = zip(indices, labels, predictions, labels == predictions, strict=True)
    lines = ["idx\tlabel\tpredict\tcorrect", *("\t".join(str(int(value)) for value in row) for row in rows)]
    files.write_text(path, "\n".join(lines) + "\n")


def write_report(
    args: argparse.Namespace, dataset: ImageDataset, device: torch.device, report: dict, title: str
) -> None:
    """Write the report as JSON with its settings, as CSV and as a figure."""
    protocol = dataset.manifest.settings["protocol"]
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    settings |= {"dataset": dataset.name, "protocol": protocol, "manifest": dataset.manifest.digest}
    settings |= {"synthetic": dataset.info.synthetic, "hardware": hardware(device), "torch": torch.__version__}
    files.write_json(args.outfile, {"settings": settings, **report})
    files.write_text(args.outfile.with_suffix(".csv"), to_csv(metric_records(report)))
    with files.replacing(args.outfile.with_suffix(".png")) as temporary:
        marked = f"SYNTHETIC: {title}" if dataset.info.synthetic else title
        temporary.write_bytes(evaluation_png(report, dataset.info.classes, marked))


def in_batches(batch: int, compute: Callable[[int], Answers]) -> Answers:
    """`compute` with batches of this size, or of a smaller one where memory is too small: no result depends on it."""
    found, size = resources.fitting(batch, compute)
    if size < batch:
        warnings.warn(resources.too_large(batch, size), stacklevel=1)
    return found


def votes(
    smoothed: Smooth, dataset: ImageDataset, chosen: Sequence[int], n: int, batch: int, device: torch.device
) -> np.ndarray:
    """Votes `[N, K]` of `n` draws for each of the `chosen` images."""
    places = tqdm(chosen, desc="evaluate", disable=None, leave=False, unit="image")
    return np.stack([smoothed.sample(dataset[i][0].to(device), n, batch, i) for i in places])


def noisy_scores(
    base_classifier: nn.Module,
    dataset: ImageDataset,
    chosen: Sequence[int],
    noise_sd: float,
    seed: int,
    batch: int,
    device: torch.device,
) -> Tensor:
    """Float32 logits `[N, K]` of the `chosen` images, each under one draw of noise. The noise depends only on the seed
    and on the place of the image in the data set."""
    scores, generators = [], (image_generator(seed, place) for place in chosen)
    for images, _ in tqdm(get_loader(Subset(dataset, chosen), batch), desc="evaluate", disable=None, leave=False):
        noisy = images + noise_sd * normal(images, [next(generators) for _ in images])
        with torch.inference_mode():
            scores.append(base_classifier(noisy.to(device)).cpu())
    return torch.cat(scores)


def answers(
    counts: np.ndarray, groups: Sequence[Sequence[int]], rule: str, alpha: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """The answers of the smoothed classifier from votes `[N, K]`: the classes and the `groups`, int `[N]` each (None
    without groups), ABSTAIN if undecided at level `alpha`.

    With rule `vote` the group is the one with significantly more summed votes; if the class lies outside it, or no
    group won, the class is ABSTAIN. With rule `class` the group is that of the class.
    """
    classes = np.array([decide(row, alpha) for row in counts])
    if not groups:
        return classes, None
    group_of = np.empty(counts.shape[1], dtype=int)
    for index, members in enumerate(groups):
        group_of[list(members)] = index
    own = np.where(classes == Smooth.ABSTAIN, Smooth.ABSTAIN, group_of[classes])
    if rule == "class":
        return classes, own
    sums = np.stack([counts[:, list(members)].sum(axis=1) for members in groups], axis=1)
    won = np.array([decide(row, alpha) for row in sums])
    return np.where(own == won, classes, Smooth.ABSTAIN), won


if __name__ == "__main__":
    start(get_args_parser, main)
