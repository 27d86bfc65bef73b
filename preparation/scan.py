"""Read every image once: its size, the fingerprint of its pixels, and what the audit asks of it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from common import files, resources
from imaging.catalogue import DatasetInfo
from imaging.images import of_volume, read_image, suffix_of, to_array
from imaging.levels import flat

THUMBNAIL = 64
AT_ONCE = 256  # images that are read before they are written
READING = 3  # the version of `images.read_image` and `Record`: what another one found is read again
COLUMNS = ("path", "bytes", "modified", "sha256", "width", "height", "mode", "format", "quantisation", "done", "flat")


@dataclasses.dataclass
class Record:
    """One image. `path` is relative to the source folder, with `/`; a slice of a volume is `scan.nii.gz[80]`.

    `source_split`: the published split, train, val or test, or "" if there is none. `subject`: the patient or other
    owner if known, else "". `sha256`: of the decoded RGB pixels. `thumbnail`: grey, uint8 `[64, 64]`. `mode`, `format`,
    `bytes`: of the file. `quantisation`: the mean of a JPEG's first table, of luminance (small: high quality).
    `done`: what reading did to the image, in words that semicolons part. `flat`: what is wrong with an image that shows
    nothing (`levels.flat`). `excluded`: the reason why the image is left out, or "".
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
    done: str = ""
    flat: str = ""
    bytes: int = 0
    excluded: str = ""


def read_images(records: Sequence[Record], source: Path, info: DatasetInfo, kept: Path) -> None:
    """Decode every image, in parallel, and fill in its `Record`; an image that cannot be read is marked `excluded =
    "unreadable: …"`.

    Results are written to the folder `kept` image by image. A later (or resumed) run reads them from there for files
    with the same size and time of change. Thumbnails stay on the disk, memory-mapped.
    """
    from tqdm import tqdm

    how = {"reading": READING, "window": info.window, "source": str(source.resolve())}
    with contextlib.closing(Kept(kept, how)) as known:
        unread = [record for record in records if not known.fill(record, source)]

        def read(record: Record) -> tuple[Record, np.ndarray | None]:
            path = source / record.path
            try:
                pixels = read_image(path, info.window)
            except (OSError, ValueError) as error:
                record.excluded = f"unreadable: {_reason(error, record, source)}"
                return record, None
            record.width, record.height = pixels.size
            _take_over(record, pixels, path)
            record.sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
            return record, to_array(pixels, THUMBNAIL, 1)[0]

        done = len(records) - len(unread)
        progress = tqdm(desc="read images", initial=done, total=len(records), disable=None, leave=False)
        with ThreadPoolExecutor(resources.cores()) as pool, progress:
            # Some at a time: what is read waits in memory until it is written, and an interruption for all of these.
            for start in range(0, len(unread), AT_ONCE):
                for record, thumbnail in pool.map(read, unread[start : start + AT_ONCE]):
                    if thumbnail is not None:
                        known.append(record, source, thumbnail)
                    progress.update()
        known.fill_thumbnails(records)


class Kept:
    """What earlier runs read of images: `read.csv`, a line for each, and `thumbnails.bin` in the same order, in
    `folder`. What was read in another way (other `settings`) is forgotten."""

    def __init__(self, folder: Path, settings: dict) -> None:
        table, self._path = folder / "read.csv", folder / "thumbnails.bin"
        beside = files.settings_path(table)
        if not _holds(beside, settings):
            for old in (table, self._path, beside):
                old.unlink(missing_ok=True)
        self._table = files.Table(table, COLUMNS, settings, what="--data_dir")
        self._stream = self._path.open("ab", buffering=0)
        whole = min(len(self._table.rows), self._stream.tell() // THUMBNAIL**2)
        self._stream.truncate(len(self._table.rows) * THUMBNAIL**2)
        self._lines = {row["path"]: (number, row) for number, row in enumerate(self._table.rows) if number < whole}
        self._count = len(self._table.rows)
        self._numbers: dict[str, int] = {}

    def fill(self, record: Record, source: Path) -> bool:
        """Fill in what is known of an image, but for its thumbnail; False if it must be read."""
        number, row = self._lines.get(record.path, (0, None))
        try:
            if row is None or (row["bytes"], row["modified"]) != tuple(map(str, _stamp(source / record.path))):
                return False
        except OSError:  # whoever reads it says what is wrong
            return False
        for name in COLUMNS[3:]:
            setattr(record, name, row[name])
        record.width, record.height, record.bytes = (int(row[name]) for name in ("width", "height", "bytes"))
        record.quantisation = float(row["quantisation"])
        self._numbers[record.path] = number
        return True

    def append(self, record: Record, source: Path, thumbnail: np.ndarray) -> None:
        """Keep what was read of an image; its line comes last."""
        record.bytes, modified = _stamp(source / record.path)
        files.append(self._stream, thumbnail.tobytes(), self._path)
        values = (record.path, record.bytes, modified, *(getattr(record, name) for name in COLUMNS[3:]))
        self._table.append(*values)
        self._numbers[record.path], self._count = self._count, self._count + 1

    def fill_thumbnails(self, records: Sequence[Record]) -> None:
        """Give each record that was read its thumbnail, a view of the file."""
        if self._numbers:
            every = np.memmap(self._path, np.uint8, "r", shape=(self._count, THUMBNAIL, THUMBNAIL))
            for record in records:
                if record.path in self._numbers:
                    record.thumbnail = every[self._numbers[record.path]]

    def close(self) -> None:
        """Close both files."""
        self._stream.close()
        self._table.close(order=lambda line: 0)


def _holds(path: Path, settings: dict) -> bool:
    """Whether a file holds these settings; one that is missing or damaged does not."""
    try:
        return files.read_json(path) == json.loads(json.dumps(settings))
    except (OSError, ValueError):
        return False


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of an image's file."""
    found = of_volume(path)[0].stat()
    return found.st_size, found.st_mtime_ns


def mean_and_std(records: Sequence[Record]) -> tuple[float, float]:
    """Of the grey pixels of these images at 64 px, on the [0, 1] scale, to three digits: what a classifier's first
    layer subtracts and divides by."""
    # Counted by grey level: however many images there are, their pixels are never in memory as numbers of 4 bytes.
    counts = np.zeros(256, dtype=np.int64)
    for record in records:
        if record.thumbnail is not None:
            counts += np.bincount(record.thumbnail.ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = np.average(levels, weights=counts)
    std = np.sqrt(np.average((levels - mean) ** 2, weights=counts))
    return round(float(mean), 3), max(round(float(std), 3), 0.001)


def _reason(error: Exception, record: Record, source: Path) -> str:
    """What is wrong with an image, without the folder that it lies in: a manifest is the same wherever that is. A
    library may write a path as Python does, or with other blanks."""
    folders = (f"{source}/", repr(f"{source}/")[1:-1], repr(f"{source}/\"'")[1:-4])
    text = str(error)
    for folder in (*folders, *(" ".join(each.split()) for each in folders)):
        text = text.replace(folder, "")
    for name in (record.path, Path(record.path).name):  # quoted in two ways, by what the folder's name holds
        text = text.replace(f'"{name}"', f"'{name}'")
    text = text.removeprefix(f"{record.path}: ")
    return text.removeprefix(f"{of_volume(Path(record.path))[0].as_posix()}: ")


def _take_over(record: Record, image: Image.Image, path: Path) -> None:
    """What reading found out about an image and its file."""
    suffix = suffix_of(of_volume(path)[0]).strip(".").upper()
    record.mode, record.format = image.info.get("mode", suffix), image.info.get("format", suffix)
    record.quantisation = image.info.get("quantisation", 0.0)
    record.done, record.flat = image.info.get("done", ""), flat(image)
