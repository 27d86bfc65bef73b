"""Certify the images of a split into a TSV, or single image files into a table."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from certification.certificate_file import CertificateFile
from core import Smooth
from datasets import ImageDataset
from evaluation.certificates import wanted_indices
from imaging.catalogue import DatasetInfo
from imaging.images import find_images, read_image, to_array, with_slice
from models import Pipeline, QueriedClassifier
from smoothing.engine import fastest_batch
from smoothing.rules import Certificate, round_down

WORTH_A_TRIAL = 20_000  # draws; the trial of batch sizes takes some hundreds


def certify(
    pipeline: Pipeline, info: DatasetInfo, settings: dict, images: Iterable[tuple[int, torch.Tensor]], count: int
) -> Iterator[tuple[int, Certificate]]:
    """(index, image) → (index, certificate), as the settings say, of `count` images."""
    base_classifier = pipeline.at(settings["sigma"], settings["amp"], settings["compile"])
    smoothed = Smooth(base_classifier, pipeline.num_classes, settings["sigma"], settings["seed"], settings["noise"])
    batch = settings["batch"]
    if batch is None and settings["device"] == "cuda":
        batch = 1000
    elif batch is None and (
        settings["compile"]
        or isinstance(pipeline.classifier, QueriedClassifier)
        or count * (settings["N0"] + settings["N"]) < WORTH_A_TRIAL
    ):
        batch = 64  # trying others would cost compilations, queries or, where there is little to do, more than it gains
    elif batch is None:
        shape = pipeline.channels, pipeline.image_size, pipeline.image_size
        batch = fastest_batch(base_classifier, shape, torch.device(settings["device"]))
    return smoothed.certify_images(
        images, settings["N0"], settings["N"], settings["alpha"], batch, settings.get("radii"),
        settings.get("radius_tol"), list(info.groups.values()),
    )  # fmt: skip


def certify_dataset(
    pipeline: Pipeline, dataset: ImageDataset, settings: dict, outfile: Path, device: torch.device
) -> None:
    """Certify the images that `outfile` lacks, appending a line for each as soon as it is done."""
    groups = dataset.info.groups
    group_of = {label: name for name, labels in groups.items() for label in labels}
    extra = ["draws", "bound", *(["group_label", "group_predict", "group_radius"] if groups else [])]
    tsv = CertificateFile(outfile, settings, extra)
    wanted = [index for index in wanted_indices(settings) if index not in tsv.done]
    images = ((index, dataset[dataset.place(index)][0].to(device)) for index in wanted)
    certificates = certify(pipeline, dataset.info, settings, images, len(wanted))

    def line(index: int, label: int, found: Certificate) -> list:
        values = [index, label, found.prediction, shown(found.radius), int(found.prediction == label),
                  format_time(found.seconds), found.draws, found.bound]  # fmt: skip
        if groups:
            values += [group_of[label], name_of(found.group, list(groups)), shown(found.group_radius)]
        return values

    everything = len(wanted) + len(tsv.done)
    with tqdm(
        total=everything, initial=len(tsv.done), desc=f"certify sigma {settings['sigma']:g}", disable=None, unit="image"
    ) as progress:
        correct, draws = 0, 0
        try:
            for count, (index, found) in enumerate(certificates, 1):
                label = int(dataset.labels[dataset.place(index)])
                tsv.append(*line(index, label, found))
                progress.update()
                correct, draws = correct + (found.prediction == label), draws + found.draws
                progress.set_postfix(certified=f"{correct / count:.1%}", draws=f"{draws / count:.0f}")
        finally:
            tsv.close()


def certify_files(
    pipeline: Pipeline, info: DatasetInfo, settings: dict, paths: Sequence[Path], device: torch.device
) -> list[dict]:
    """One answer for each image in `paths` (files or folders): file, sigma, class, radius, group, its radius, draws.

    -1 stands for ABSTAIN. The noise of a file depends on its pixels, not on which other files are named: a file has one
    answer, wherever it lies.
    """
    found = [with_slice(path) for path in find_images(paths)]
    takes = pipeline.image_size, pipeline.channels, info.fit
    pixels = [to_array(read_image(path, info.window), *takes) for path in found]
    indices = [int.from_bytes(hashlib.sha256(each.tobytes()).digest()[:8], "big") for each in pixels]
    images = {
        index: torch.from_numpy(each.astype("float32") / 255).to(device)
        for index, each in zip(indices, pixels, strict=True)
    }
    certificates = dict(
        tqdm(
            certify(pipeline, info, settings, images.items(), len(images)),
            total=len(images),
            desc=f"certify sigma {settings['sigma']:g}",
            disable=None,
            leave=False,
            unit="image",
        )
    )
    return [
        {
            "file": str(path),
            "sigma": settings["sigma"],
            "class": name_of(certificates[index].prediction, info.classes),
            "radius": round_down(certificates[index].radius),
            "group": name_of(certificates[index].group, list(info.groups)),
            "group_radius": round_down(certificates[index].group_radius),
            "draws": certificates[index].draws,
        }
        for path, index in zip(found, indices, strict=True)
    ]


def name_of(index: int, names: Sequence[str]) -> str | int:
    """The name of a class or group, or ABSTAIN."""
    return Smooth.ABSTAIN if index == Smooth.ABSTAIN else names[index]


def shown(radius: float) -> str:
    """Rounded down: a radius that is too large by half a digit is not proved."""
    return f"{round_down(radius):.6f}"


def format_time(seconds: float) -> str:
    """`0:00:01.2`: hours, minutes, seconds with one digit."""
    tenths = round(10 * seconds)
    return f"{datetime.timedelta(seconds=tenths // 10)}.{tenths % 10}"
