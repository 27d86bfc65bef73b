"""The images that a report shows: the certified ones, and attacked ones beside them."""

from __future__ import annotations

from pathlib import Path

from attacks.folder import get_attacked, read_attacked
from datasets import SPLITS, ImageDataset, Manifest, get_dataset, read_manifest
from evaluation.certificates import Certification
from evaluation.report.sources import AttackedSet


def images_of(
    about: Certification, data_dir: Path, with_images: bool = True
) -> tuple[ImageDataset | None, Manifest | None, list[str]]:
    """The certified images, their manifest, and sentences about what is missing; None for what is not there.

    Raises ValueError if another split of the data set lies there: its images are others. Without images (`with_images`)
    that is a sentence, too.
    """
    s = about.settings
    if not {"dataset", "split", "image_size", "channels", "manifest"} <= set(s):
        return None, None, [f"{about.path}: no settings say which images these are, so the page has none"]
    name, split, takes = s["dataset"], s["split"], (s["image_size"], s["channels"])
    dataset: ImageDataset | None = None
    if not (prepared := data_dir / name / "manifest.csv").is_file():
        return None, None, [f"the images are not here, so the page has none ({prepared} is missing)"]
    try:
        if split in SPLITS:
            manifest = read_manifest(name, data_dir)
        else:
            dataset = get_attacked(name, split, *takes, s.get("protocol"), data_dir)
            manifest = dataset.manifest
        if manifest.digest != s["manifest"]:
            other = f"{manifest.path}: is another split of {name} than the certified one"
            if not with_images:
                return None, None, [f"{other}, so nothing is said of the data"]
            raise ValueError(f"{other}; name the folder of that one with --data_dir, or give --no_images")
        if not with_images:
            return None, manifest, []
        found = dataset or get_dataset(name, split, takes[0], None, takes[1], data_dir)
    except FileNotFoundError as error:
        return None, None, [f"the images are not here, so the page has none ({error})"]
    beyond = [idx for idx in about.rows["idx"].tolist() if idx >= len(found) * found.step]
    if beyond:
        raise ValueError(f"{about.path}: image {beyond[0]}: split {split} of {name} has {len(found)} images")
    return found, manifest, []


def attacked_set(folder: Path, about: Certification) -> AttackedSet:
    """A folder of attacked images. Raises ValueError if they are not of the certified images."""
    rows, settings = read_attacked(folder)
    if settings["dataset_manifest"] != about.settings.get("manifest"):
        raise ValueError(f"--attacks {folder}: is of another split than {about.path}")
    rows = [row for row in rows if row["split"] == about.settings["split"]]
    if not rows:
        raise ValueError(f"--attacks {folder}: holds no image of the split {about.settings['split']}")
    return AttackedSet(folder, rows, settings)
