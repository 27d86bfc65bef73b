"""Read every image of a source folder once: its class, its size, the fingerprint of its pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from datasets import DatasetInfo
from images import PICTURES, read_image, to_array

SOURCE_SPLITS = ("Training", "Testing")
THUMBNAIL = 64


@dataclasses.dataclass
class Record:
    """One image file. `path` is relative to the source folder, with `/`; `source_split` is Training or Testing.

    `subject` names whose image it is where the file name tells, else "". `sha256` is of the decoded RGB pixels;
    `thumbnail` is grey, uint8 `[64, 64]`; `excluded` holds the reason why the image is set aside, or "".
    """

    path: str
    class_name: str
    source_split: str
    subject: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    thumbnail: np.ndarray | None = None
    excluded: str = ""


def find_images(source: Path, info: DatasetInfo) -> list[Record]:
    """List the images of `source/{Training,Testing}/<class>/`, sorted by path; nothing is opened yet.

    Raises FileNotFoundError if a folder is missing, ValueError on a class folder that the data set does not know or on
    a class without images.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"--source {source}: no such folder")
    spelled = {**{name: name for name in info.classes}, **info.aliases}
    records: list[Record] = []
    for source_split in SOURCE_SPLITS:
        folder = source / source_split
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing; --source must hold Training/<class>/ and Testing/<class>/")
        seen: set[str] = set()
        for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
            class_name = spelled.get(class_folder.name.lower())
            if class_name is None:
                raise ValueError(f"{class_folder}: unknown class; classes are {', '.join(info.classes)}")
            images = sorted(path for path in class_folder.rglob("*") if path.suffix.lower() in PICTURES)
            if images:
                seen.add(class_name)
            for path in images:
                relative = PurePosixPath(path.relative_to(source).as_posix())
                subject = _subject(relative.name) if info.synthetic else ""
                records.append(Record(str(relative), class_name, source_split, subject))
        empty = [name for name in info.classes if name not in seen]
        if empty:
            raise ValueError(f"{folder}: no images of class {', '.join(empty)}")
    return sorted(records, key=lambda record: record.path)


def read_images(records: Sequence[Record], source: Path) -> None:
    """Decode every image, in parallel, and fill in its size and fingerprint; a file that cannot be read is marked
    `excluded = "unreadable: …"`."""
    from tqdm import tqdm

    def read(record: Record) -> None:
        try:
            pixels = read_image(source / record.path)
        except (OSError, ValueError) as error:
            record.excluded = f"unreadable: {str(error).removeprefix(f'{source / record.path}: ')}"
            return
        record.width, record.height = pixels.size
        record.sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
        record.thumbnail = to_array(pixels, THUMBNAIL, 1)[0]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in tqdm(pool.map(read, records), total=len(records), desc="read images", disable=None, leave=False):
            pass


def _subject(file_name: str) -> str:
    """`s0123_02.png` → `s0123`: the phantoms' file names tell the subject."""
    match = re.match(r"(s\d+)_", file_name)
    return match.group(1) if match else ""
