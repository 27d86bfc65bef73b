"""Read every image once: its size, the fingerprint of its pixels, and what the audit asks of it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from catalogue import DatasetInfo
from images import PICTURES, of_volume, read_image, suffix_of, to_array

THUMBNAIL = 64


@dataclasses.dataclass
class Record:
    """One image. `path` is relative to the source folder, with `/`; a slice of a volume is `scan.nii.gz[80]`.

    `source_split` is the published one: train, val, test, or "" where there is none. `subject` names whose image it is
    where that is known, else "". `sha256` is of the decoded RGB pixels; `thumbnail` is grey, uint8 `[64, 64]`; `mode`,
    `format` and `bytes` are those of the file, `quantisation` the mean of a JPEG's first table, of luminance (small:
    high quality). `excluded` holds the reason why the image is set aside, or "".
    """

    path: str
    class_name: str
    source_split: str = ""
    subject: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    thumbnail: np.ndarray | None = None
    mode: str = ""
    format: str = ""
    quantisation: float = 0.0
    bytes: int = 0
    excluded: str = ""


def read_images(records: Sequence[Record], source: Path, info: DatasetInfo) -> None:
    """Decode every image, in parallel, and fill in what `Record` holds of it; one that cannot be read is marked
    `excluded = "unreadable: …"`."""
    from tqdm import tqdm

    def read(record: Record) -> None:
        path = source / record.path
        try:
            pixels = read_image(path, info.window)
            record.bytes = of_volume(path)[0].stat().st_size
            _read_header(record, path)
        except (OSError, ValueError) as error:
            record.excluded = f"unreadable: {str(error).removeprefix(f'{path}: ')}"
            return
        record.width, record.height = pixels.size
        record.sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
        record.thumbnail = to_array(pixels, THUMBNAIL, 1)[0]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in tqdm(pool.map(read, records), total=len(records), desc="read images", disable=None, leave=False):
            pass


def mean_and_std(records: Sequence[Record]) -> tuple[float, float]:
    """Of the grey pixels of these images at 64 px, on the [0, 1] scale, to three digits: what a classifier's first
    layer subtracts and divides by."""
    # Counted by grey level: however many images there are, their pixels are never in memory as numbers of 4 bytes.
    counts = sum(np.bincount(record.thumbnail.ravel(), minlength=256) for record in records)
    levels = np.arange(256) / 255
    mean = np.average(levels, weights=counts)
    std = np.sqrt(np.average((levels - mean) ** 2, weights=counts))
    return round(float(mean), 3), max(round(float(std), 3), 0.001)


def _read_header(record: Record, path: Path) -> None:
    if suffix_of(path) not in PICTURES:
        record.format = record.mode = suffix_of(of_volume(path)[0]).strip(".").upper()
        return
    with Image.open(path) as image:
        record.mode, record.format = image.mode, image.format
        tables = getattr(image, "quantization", None)
        record.quantisation = float(np.mean(tables[min(tables)])) if tables else 0.0
