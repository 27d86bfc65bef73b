"""Certify the images of a split into a TSV, or single image files."""

from __future__ import annotations

import datetime
import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from tqdm import tqdm

from certification.certificate_file import CertificateFile
from common import resources
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
    """Certify `count` images, given as (index, image), with these settings; yield (index, certificate).

    Where memory is too small for a batch, the next one has half as many draws: the votes do not depend on it.
    """
    base_classifier = pipeline.at(settings["sigma"], settings["amp"], settings["compile"])
    smoothed = Smooth(base_classifier, pipeline.num_classes, settings["sigma"], settings["seed"], settings["noise"])
    batch = chosen_batch(pipeline, base_classifier, settings, count)
    waiting, begun = iter(images), dict[int, torch.Tensor]()

    def given() -> Iterator[tuple[int, torch.Tensor]]:
        yield from list(begun.items())  # those that a pass without memory broke off
        for index, image in waiting:
            begun[index] = image
            yield index, image

    asked = batch
    while True:
        with resources.Exhausted() as failed:
            for index, certificate in smoothed.certify_images(
                given(),
                settings["N0"],
                settings["N"],
                settings["alpha"],
                batch,
                settings.get("radii"),
                settings.get("radius_tol"),
                list(info.groups.values()),
                settings["group_rule"],
            ):
                if batch < asked:
                    warnings.warn(resources.too_large(asked, batch), stacklevel=1)
                    asked = batch
                del begun[index]
                yield index, certificate
            return
        batch = failed.halved(batch)


def chosen_batch(pipeline: Pipeline, base_classifier: torch.nn.Module, settings: dict, count: int) -> int:
    """Draws per forward pass: --batch, or what is likely to be fastest; never more than `count` images need."""
    draws, on_gpu = count * (settings["N0"] + settings["N"]), settings["device"] == "cuda"
    if settings["batch"] is not None:
        return max(1, min(settings["batch"], draws))
    if on_gpu:
        return 1000
    if settings["compile"] or isinstance(pipeline.classifier, QueriedClassifier) or draws < WORTH_A_TRIAL:
        return 64  # a trial would cost compilations or queries, or with few draws more time than it saves
    shape = pipeline.channels, pipeline.image_size, pipeline.image_size
    with resources.Exhausted():
        return fastest_batch(base_classifier, shape, torch.device(settings["device"]))
    return 32


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
    """One answer for each image in `paths` (files or folders): file, what was done to it, sigma, class, radius, group
    and group radius if there are groups, draws, and the votes after the pilot; if `grey_as_rgb`, the radii also on the
    grey image behind the three equal channels. `warning` says if the image shows nothing (`levels.flat`).

    -1 stands for ABSTAIN. The noise of a file depends only on the seed and on its pixels, not on the other files. So
    with one seed a file always has the same answer, and two different images have independent noise.
    """
    found = [with_slice(path) for path in find_images(paths)]
    takes = pipeline.image_size, pipeline.channels, info.fit

    def read(path: Path) -> tuple[np.ndarray, str, str]:
        image = read_image(path, info.window)
        return to_array(image, *takes), what_was_done(image, *takes), flat(image)

    pixels, done, shows_nothing = zip(*map(read, found), strict=True)
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

    def answer(path: Path, index: int, done: str, wrong: str) -> dict:
        certificate, grey = certificates[index], is_grey(images[index])

        def radius_of(name: str, radius: float) -> dict:
            shown = round_down(radius)
            return {name: shown, f"{name}_grey": grey_radius(shown) if grey else None}

        groups = list(info.groups)
        of_group = {"group": name_of(certificate.group, groups), **radius_of("group_radius", certificate.group_radius)}
        return {
            "file": str(path),
            "done": done,
            "sigma": settings["sigma"],
            "class": name_of(certificate.prediction, info.classes),
            **radius_of("radius", certificate.radius),
            **(of_group if groups else {}),
            "grey_as_rgb": grey,
            "draws": certificate.draws,
            "votes": dict(zip(info.classes, certificate.votes, strict=True)),
            "warning": f"{wrong} image" if wrong else "",
        }

    return [answer(*each) for each in zip(found, indices, done, shows_nothing, strict=True)]


def what_was_done(image: Image, image_size: int, channels: int, fit: str) -> str:
    """What made the 8-bit square of `image_size` pixels out of a file, in words: while it was read, and after."""
    done, (width, height) = [image.info.get("done")], image.size
    if channels == 1 and image.convert("L").convert("RGB").tobytes() != image.tobytes():
        done.append("colours to grey")
    if (width, height) != (image_size, image_size):
        how = "" if width == height else ", stretched" if fit == "resize" else ", edges repeated to a square"
        done.append(f"{width}×{height} → {image_size}×{image_size}{how}")
    return "; ".join(each for each in done if each) or "nothing"


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
