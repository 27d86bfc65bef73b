"""CIFAR-10 and MNIST as folders of images, so that they are prepared like any others."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from common import files
from imaging.catalogue import DatasetInfo


def write_images(info: DatasetInfo, target: Path, root: Path, download: bool) -> Path:
    """Write torchvision's copy of a data set under `root` to `target/images/{Training,Testing}/<class>/*.png`, and
    return that folder; what is written already stays. `download` fetches it into `root` first.

    Raises OSError that says what to do if the files are missing or the download fails.
    """
    folder = target / "images"
    if (folder / "complete").is_file():
        return folder
    import torchvision

    load = getattr(torchvision.datasets, str(info.torchvision))
    for split, train in (("Training", True), ("Testing", False)):
        try:
            data = load(root, train=train, download=download)
        except Exception as error:  # torchvision raises RuntimeError on missing files, urllib's on a failed download
            raise OSError(
                f"{info.torchvision} is not complete in {root} ({' '.join(str(error).split())[:80]}); give --source "
                "FOLDER that torchvision downloaded to, or --download"
            ) from None
        for index, (image, label) in enumerate(tqdm(data, desc=f"write {split}", disable=None, leave=False)):
            path = folder / split / info.classes[label] / f"{index:05d}.png"
            if not path.is_file():
                with files.replacing(path) as temporary:
                    image.save(temporary)
    files.write_text(folder / "complete", "")
    return folder
