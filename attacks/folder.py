"""Attacked images on disk: `Dataset/<name>/AT_<ATTACK>/<label>/<split>_<idx>.png`, `manifest.csv` and its settings.

Failed attempts are saved like the others; the manifest tells them apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import files
from common.lines import read_table
from datasets import SPLITS, ImageDataset, Manifest, get_dataset
from imaging.catalogue import dataset_name
from imaging.images import read_image, to_array
from models import Pipeline

COLUMNS = (
    "split",
    "idx",
    "path",
    "source",
    "label",
    "predict_clean",
    "predict_attacked",
    "predict_saved",
    "success",
    "success_saved",
    "l2",
    "linf",
    "queries",
    "seconds",
)
COSTS = ("queries", "seconds")
# Settings that may differ between the run that began a folder and the run that resumes it.
NOT_COMPARED = {"batch", "device", "command", "hardware", "torch", "classifier", "denoiser"}


class AttackedFolder(files.Table):
    """Opens `folder` for writing; `done` holds the (split, idx) that its manifest lists.

    Raises ValueError if another run is writing to it, or if it was made with other settings; with `overwrite` it is
    then deleted and begun anew.
    """

    def __init__(self, folder: Path, settings: dict, overwrite: bool = False) -> None:
        manifest, cure = folder / "manifest.csv", "give --suffix, --overwrite"
        self.folder, self._held = folder, files.HeldFolder(folder, "attacked images", "give --suffix")
        try:
            if overwrite and manifest.is_file() and not _resumes(manifest, settings):
                _empty(folder)
            super().__init__(manifest, COLUMNS, settings, NOT_COMPARED, "attacked images", cure)
        except BaseException:
            self._held.release()
            raise
        self.done = {(row["split"], int(row["idx"])) for row in self.rows}

    def save(self, split: str, idx: int, source: str, label: int, pixels: np.ndarray, *others: object) -> None:
        """Write the image (uint8 `[C, H, W]`), then its line; `others` are the columns from predict_clean on."""
        path = Path(str(label)) / f"{split}_{idx:05d}.png"
        with files.replacing(self.folder / path) as temporary:
            Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(temporary)
        self.append(split, idx, path.as_posix(), source, label, *others)

    def close(self, order: Callable[[str], Any] | None = None) -> None:
        """Close the manifest, its lines sorted by split and index."""
        try:
            super().close(order or _place)
        finally:
            self._held.release()


def _empty(folder: Path) -> None:
    """Delete what is in a folder, but not the folder, which this run holds."""
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _place(line: str) -> tuple[int, int]:
    split, index, *_ = line.split(",")
    return SPLITS.index(split), int(index)


def _resumes(manifest: Path, settings: dict) -> bool:
    """Whether a run with these settings can resume the one that wrote the manifest."""
    try:
        made_with = files.read_json(files.settings_path(manifest))
    except (OSError, ValueError):
        return False
    with manifest.open(encoding="utf-8", errors="replace") as stream:
        same_columns = stream.readline().strip() in ("", ",".join(COLUMNS))
    return same_columns and not files.differences(made_with, json.loads(json.dumps(settings)), NOT_COMPARED)


def read_attacked(folder: Path) -> tuple[list[dict[str, str]], dict]:
    """The rows of a folder's manifest, and its settings. Raises FileNotFoundError if there is none."""
    path = folder / "manifest.csv"
    for each in (path, files.settings_path(path)):
        if not each.is_file():
            raise FileNotFoundError(f"{each} is missing; make the images with attacks/generate.py")
    (_, rows), settings = read_table(path), files.read_json(files.settings_path(path))
    if not {"images", "skip", "protocol", "command"} <= set(settings):
        raise ValueError(f"{files.settings_path(path)}: was not written by attacks/generate.py")
    return rows, settings


def open_split(args: argparse.Namespace, pipeline: Pipeline, split: str) -> ImageDataset:
    """The images of a split as the pipeline takes them. Raises what `datasets.get_dataset` does, ValueError also if the
    classifier has other classes."""
    dataset = get_dataset(
        args.dataset or pipeline.dataset,
        split,
        pipeline.image_size,
        args.protocol,
        pipeline.channels,
        args.data_dir,
        pipeline.origins,
    )
    dataset.info.check_classes(args.classifier, pipeline.info)
    return dataset


def open_images(args: argparse.Namespace, pipeline: Pipeline, split: str) -> ImageDataset:
    """`open_split`, where `split` may also name attacked images as `get_attacked` takes them.

    Raises what both do, and ValueError if the attacked images were made before the data set was split as it is now.
    """
    if split in SPLITS:
        return open_split(args, pipeline, split)
    name = args.dataset or pipeline.dataset
    attacked = get_attacked(name, split, pipeline.image_size, pipeline.channels, args.protocol, args.data_dir)
    originals = open_split(args, pipeline, split.partition(":")[2] or "test")
    if attacked.manifest.settings["dataset_manifest"] != originals.manifest.digest:
        raise ValueError(
            f"{attacked.manifest.path}: is of another split than {originals.manifest.path}; "
            "run attacks/generate.py again"
        )
    return attacked


def get_attacked(
    name: str, split: str, image_size: int, channels: int, protocol: str | None, data_dir: Path
) -> ImageDataset:
    """Attacked images as a data set whose `manifest` is that of the attack. `split` is the end of their folder's name
    after AT_: `FGSM` for those of the test split, `FGSM:val` for those of another split.

    Raises ValueError if there are none, the folder is unfinished, or it holds images of another shape or protocol.
    """
    attack, _, part = split.partition(":")
    root = data_dir / dataset_name(name)
    part, folder = part or "test", root / f"AT_{attack}"
    if part not in SPLITS or not folder.is_dir():
        present = ", ".join(sorted(each.name[3:] for each in root.glob("AT_*"))) or "none yet"
        raise ValueError(
            f"--split {split}: must be train, val, test or attacked images that attacks/generate.py has written to "
            f"{root} (as FGSM or FGSM:val): {present}"
        )
    rows, settings = read_attacked(folder)
    rows = [row for row in rows if row["split"] == part]
    missing = set(range(0, settings["images"][part], settings["skip"])) - {int(row["idx"]) for row in rows}
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} images of split {part} are missing; make them with --split {part} "
            f"in: {settings['command']}"
        )
    if protocol not in (None, settings["protocol"]):
        raise ValueError(f"{folder} was made with --protocol {settings['protocol']}, not {protocol}")
    if (settings["image_size"], settings["channels"]) != (image_size, channels):
        raise ValueError(
            f"{folder}: holds {settings['image_size']} px and {settings['channels']} channel(s), the "
            f"pipeline takes {image_size} and {channels}"
        )
    pixels = _Saved([folder / row["path"] for row in rows], image_size, channels)
    manifest = AttackManifest(folder / "manifest.csv", rows, settings)
    places = list(range(len(rows)))
    return ImageDataset(settings["dataset"], split, manifest, rows, pixels, places, settings["skip"])


class AttackManifest(Manifest):
    """The rows of one split in an attack's `manifest.csv`, and its settings."""

    @property
    def digest(self) -> str:
        """A fingerprint of these rows without their costs: neither another split in the folder nor a slower run changes
        it."""
        kept = [{name: value for name, value in row.items() if name not in COSTS} for row in self.rows]
        return hashlib.sha256(json.dumps([self.settings["dataset_manifest"], kept]).encode()).hexdigest()


class _Saved:
    """Image files as an array that is read one entry at a time."""

    def __init__(self, paths: Sequence[Path], image_size: int, channels: int) -> None:
        self.paths, self.image_size, self.channels = paths, image_size, channels

    def __getitem__(self, index: int) -> np.ndarray:
        image = read_image(self.paths[index])
        if image.size != (self.image_size,) * 2:
            raise ValueError(f"{self.paths[index]}: is {image.size[0]}×{image.size[1]}, not {self.image_size} px")
        return to_array(image, self.image_size, self.channels)


def starting_images(dataset: ImageDataset, per_class: int = 5) -> Tensor:
    """The first images of each class, for attacks that begin at an image of another class."""
    chosen = [i for k in dataset.labels.unique() for i in (dataset.labels == k).nonzero()[:per_class, 0].tolist()]
    return torch.stack([dataset[i][0] for i in chosen])
