"""Certify the images of a split into a TSV, or single image files."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from certification.certificate_file import CertificateFile
from core import Smooth
from datasets import ImageDataset
from evaluation.certificates import grey_radius, wanted_indices
from imaging.catalogue import DatasetInfo
from imaging.images import find_images, read_image, to_array, with_slice
from imaging.levels import flat
from models import Pipeline, QueriedClassifier
from smoothing.engine import fastest_batch
from smoothing.rules import Certificate, round_down

WORTH_A_TRIAL = 20_000  # draws; the trial of batch sizes takes some hundreds


def certify(
    pipeline: Pipeline, info: DatasetInfo, settings: dict, images: Iterable[tuple[int, torch.Tensor]], count: int
) -> Iterator[tuple[int, Certificate]]:
    """Certify `count` images, given as (index, image), with these settings; yield (index, certificate)."""
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
        batch = 64  # a trial would cost compilations or queries, or with few draws more time than it saves
    elif batch is None:
        shape = pipeline.channels, pipeline.image_size, pipeline.image_size
        batch = fastest_batch(base_classifier, shape, torch.device(settings["device"]))
    return smoothed.certify_images(
        images,
        settings["N0"],
        settings["N"],
        settings["alpha"],
        batch,
        settings.get("radii"),
        settings.get("radius_tol"),
        list(info.groups.values()),
        settings["group_rule"],
    )


def is_grey(image: torch.Tensor) -> bool:
    """Whether an image `[C, H, W]` is grey but stored as RGB: it has three equal channels."""
    return len(image) == 3 and bool((image[0] == image[1]).all() and (image[0] == image[2]).all())


def all_grey(dataset: ImageDataset, settings: dict) -> bool:
    """Whether `is_grey` holds for all images that a run with these settings certifies, in all its shards."""
    whole = wanted_indices(settings | {"shard": None})
    return all(is_grey(dataset[dataset.place(index)][0]) for index in whole)


def certify_dataset(
    pipeline: Pipeline, dataset: ImageDataset, settings: dict, outfile: Path, device: torch.device
) -> None:
    """Certify the images that `outfile` lacks. Append a line for each image as soon as it is done."""
    groups = dataset.info.groups
    group_of = {label: name for name, labels in groups.items() for label in labels}
    extra = ["draws", "bound", *(["group_label", "group_predict", "group_radius"] if groups else []), "votes"]
    tsv = CertificateFile(outfile, settings, extra)
    wanted = [index for index in wanted_indices(settings) if index not in tsv.done]
    images = ((index, dataset[dataset.place(index)][0].to(device)) for index in wanted)
    certificates = certify(pipeline, dataset.info, settings, images, len(wanted))

    def line(index: int, label: int, found: Certificate) -> list:
        values = [
            index,
            label,
            found.prediction,
            shown(found.radius),
            int(found.prediction == label),
            format_time(found.seconds),
            found.draws,
            found.bound,
        ]
        if groups:
            values += [group_of[label], name_of(found.group, list(groups)), shown(found.group_radius)]
        return [*values, ",".join(map(str, found.votes))]

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
    """One answer for each image in `paths` (files or folders): file, sigma, class, radius, group, group radius, draws,
    and the votes after the pilot; if `grey_as_rgb`, both radii also on the grey image behind the three equal channels.
    `warning` says if the image shows nothing (`levels.flat`).

    -1 stands for ABSTAIN. The noise of a file depends only on the seed and on its pixels, not on the other files. So
    with one seed a file always has the same answer, and two different images have independent noise.
    """
    found = [with_slice(path) for path in find_images(paths)]
    takes = pipeline.image_size, pipeline.channels, info.fit

    def read(path: Path) -> tuple[np.ndarray, str]:
        image = read_image(path, info.window)
        return to_array(image, *takes), flat(image)

    pixels, shows_nothing = zip(*map(read, found), strict=True)
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

    def answer(path: Path, index: int, wrong: str) -> dict:
        certificate, grey = certificates[index], is_grey(images[index])
        radius, group_radius = round_down(certificate.radius), round_down(certificate.group_radius)
        return {
            "file": str(path),
            "sigma": settings["sigma"],
            "class": name_of(certificate.prediction, info.classes),
            "radius": radius,
            "radius_grey": grey_radius(radius) if grey else None,
            "group": name_of(certificate.group, list(info.groups)),
            "group_radius": group_radius,
            "group_radius_grey": grey_radius(group_radius) if grey else None,
            "grey_as_rgb": grey,
            "draws": certificate.draws,
            "votes": dict(zip(info.classes, certificate.votes, strict=True)),
            "warning": f"{wrong} image" if wrong else "",
        }

    return [answer(*each) for each in zip(found, indices, shows_nothing, strict=True)]


def name_of(index: int, names: Sequence[str]) -> str | int:
    """The name of a class or group, or ABSTAIN."""
    return Smooth.ABSTAIN if index == Smooth.ABSTAIN else names[index]


def shown(radius: float) -> str:
    """A radius as text, rounded down: one that is too large by half a digit is not proved."""
    return f"{round_down(radius):.6f}"


def format_time(seconds: float) -> str:
    """`0:00:01.2`: hours, minutes, seconds with one digit."""
    tenths = round(10 * seconds)
    return f"{datetime.timedelta(seconds=tenths // 10)}.{tenths % 10}"
