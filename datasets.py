"""The images of a prepared data set as tensors in [0, 1]. What each data set is: `imaging/catalogue.py`.

`prepare_data.py` writes `Dataset/<name>/manifest.csv` and `manifest.json`; this module reads them and nothing else, so
images of a split are exactly those that the manifest lists. Decoded, resized images are kept in
`Dataset/<name>/cache/` and memory-mapped from there.

Images are float32 `[C, H, W]` in [0, 1]: noise, attacks and radii live in that pixel space. Mean/std normalisation is
the first layer inside each classifier, never done here.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from common import files, resources
from common.lines import read_table
from imaging.catalogue import DatasetInfo, dataset_info, dataset_name
from imaging.images import FITS, RESAMPLING, read_image, to_array

SPLITS = ("train", "val", "test")
PROTOCOLS = ("official", "stratified")
MANIFEST_COLUMNS = ("path", "label", "class", "split", "group", "sha256", "width", "height", "excluded")
MANIFEST_VERSION = 2  # of manifest.json: 1 had no number, and no fingerprint of the table


@dataclasses.dataclass(frozen=True)
class Manifest:
    """`manifest.csv` (one dict per image, all text) and the settings it was made with (`manifest.json`)."""

    path: Path
    rows: list[dict[str, str]]
    settings: dict

    @property
    def digest(self) -> str:
        """Fingerprint: equal digests mean the same images in the same splits, made square in the same way.

        It is that of the table, which covers the pixels as they were read (with `window`), and of --fit if that is not
        the default.
        """
        table, fit = files.sha256(self.path), self.info.fit
        return table if fit == FITS[0] else hashlib.sha256(f"{table} {fit}".encode()).hexdigest()

    @property
    def info(self) -> DatasetInfo:
        """What the data set is."""
        return DatasetInfo.from_plain(self.settings["info"])

    def described(self) -> dict[str, Any]:
        """The description of these images that a checkpoint stores."""
        return {"dataset": self.settings["dataset"], "manifest": self.digest, "info": self.settings["info"]}

    def split(self, name: str) -> list[dict[str, str]]:
        """The rows of a split, in the manifest's order; excluded images belong to none."""
        return [row for row in self.rows if row["split"] == name and not row["excluded"]]


def read_manifest(name: str, data_dir: Path | str = "Dataset", protocol: str | None = None) -> Manifest:
    """Read `data_dir/name/manifest.csv`.

    Raises FileNotFoundError if the data set is not prepared. Raises ValueError if the manifest is damaged, its table
    and its settings are from different runs, or it was made with another `protocol` than the given one (None accepts
    both).
    """
    name = dataset_name(name)
    path = Path(data_dir) / name / "manifest.csv"
    how = f"run: python prepare_data.py --dataset {name} --data_dir {data_dir}"
    if not path.is_file():
        dataset_info(name, data_dir)
        raise FileNotFoundError(f"{path} is missing; {how}")
    columns, rows = read_table(path)
    if tuple(columns)[: len(MANIFEST_COLUMNS)] != MANIFEST_COLUMNS:
        raise ValueError(f"{path}: its columns are not {', '.join(MANIFEST_COLUMNS)}; {how}")
    settings_path = path.with_suffix(".json")
    if not settings_path.is_file():
        raise FileNotFoundError(f"{settings_path} is missing; {how}")
    settings = files.read_json(settings_path)
    if "info" not in settings:
        raise ValueError(f"{settings_path}: written by an older version; {how}")
    if settings.get("version", 1) > MANIFEST_VERSION:
        raise ValueError(f"{settings_path}: written by a newer version of these scripts; {how}")
    if settings.get("sha256") not in (None, files.sha256(path)):
        raise ValueError(
            f"{path}: is not the table that {settings_path.name} beside it was written for (written "
            f"halfway, or changed by hand); {how}"
        )
    labels = {str(label) for label in range(len(settings["info"]["classes"]))}
    for row in rows:
        if row["label"] not in labels and not row["excluded"]:
            raise ValueError(f"{path}: {row['path']} has label {row['label']!r}, none of 0 … {len(labels) - 1}; {how}")
    if protocol is not None and protocol != settings["protocol"]:
        raise ValueError(f"{path} was made with --protocol {settings['protocol']}, not {protocol}; {how}")
    return Manifest(path, rows, settings)


class Images(Protocol):
    """Images that are read one at a time, uint8 `[C, H, W]`."""

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class ImageDataset(Dataset):
    """The images of one split: `dataset[i]` is (image float32 `[C, H, W]` in [0, 1], label int).

    `rows[i]` is the manifest's row of image i (its path, class, group …), `labels` an int64 tensor `[N]`. Image i is
    number i · `step` of its split: of attacked images there may be only every `step`-th.
    """

    def __init__(
        self,
        name: str,
        split: str,
        manifest: Manifest,
        rows: list[dict[str, str]],
        pixels: np.ndarray | Images,
        at: list[int],
        step: int = 1,
    ):
        self.name, self.split, self.manifest, self.rows, self.step = name, split, manifest, rows, step
        self.info = manifest.info
        self.labels = torch.tensor([int(row["label"]) for row in rows], dtype=torch.int64)
        # uint8 [M, C, H, W] of all splits, memory-mapped; image i is _pixels[at[i]].
        self._pixels, self._at = pixels, at

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def place(self, number: int) -> int:
        """Where the image with this number in its split is."""
        return number // self.step

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Many at once, as a DataLoader asks for a batch: read and converted together."""
        at = [self._at[i] for i in indices]
        held = self._pixels  # of attacked images these are files, read one at a time
        pixels = held[at] if isinstance(held, np.ndarray) else np.stack([held[i] for i in at])
        images = torch.from_numpy(pixels).float().div_(255)
        return list(zip(images, self.labels[list(indices)].tolist(), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process that is spawned: where the pixels lie, for it to map, in place of all of them."""
        held = self.__dict__.copy()
        if isinstance(self._pixels, np.memmap):
            held["_pixels"] = Path(str(self._pixels.filename))
        return held

    def __setstate__(self, held: dict[str, Any]) -> None:
        self.__dict__.update(held)
        if isinstance(self._pixels, Path):
            self._pixels = np.load(self._pixels, mmap_mode="r")


def get_dataset(
    name: str,
    split: str,
    image_size: int = 64,
    protocol: str | None = None,
    channels: int = 3,
    data_dir: Path | str = "Dataset",
    origins: Mapping[str, tuple[str, str]] | None = None,
) -> ImageDataset:
    """The images of `split` (train, val or test) resized to `image_size`² with `channels` 1 (grey) or 3 (RGB).

    `origins` holds the training data of the models that will see them: file → (data set, digest of its manifest).
    Raises FileNotFoundError if the data set is not prepared or an image is missing. Raises ValueError on an unknown
    name, split, protocol, size or number of channels, an empty split, or a model that was trained on another split of
    this data set.
    """
    if split not in SPLITS:
        raise ValueError(f"--split {split}: must be one of {', '.join(SPLITS)}")
    if channels not in (1, 3):
        raise ValueError(f"--channels {channels}: must be 1 (grey) or 3 (RGB)")
    if image_size < 8:
        raise ValueError(f"--image_size {image_size}: must be at least 8")
    manifest = read_manifest(name, data_dir, protocol)
    for path, (trained_on, digest) in (origins or {}).items():
        if trained_on == manifest.settings["dataset"] and digest != manifest.digest:
            raise ValueError(
                f"{path}: was trained on another split of {trained_on} than {manifest.path} holds, and may have seen "
                "its test images; prepare the data as it was then, or train anew"
            )
    rows = manifest.split(split)
    if not rows:
        raise ValueError(f"{manifest.path}: split {split} is empty")
    used = [row for row in manifest.rows if not row["excluded"]]
    pixels = _cached_pixels(manifest, used, image_size, channels)
    position = {row["path"]: i for i, row in enumerate(used)}
    at = [position[row["path"]] for row in rows]
    return ImageDataset(manifest.settings["dataset"], split, manifest, rows, pixels, at)


def get_loader(
    dataset: ImageDataset | Subset,
    batch: int,
    train: bool = False,
    workers: int = 0,
) -> DataLoader:
    """Batches (images `[B, C, H, W]`, labels `[B]`); `train` shuffles and drops a last batch of one image.

    The order comes from torch's global generator, so that a run is reproduced by its seed, with however many workers.
    Raises ValueError if there is too little shared memory for what the workers send: they would wait for ever.
    """
    if workers:
        _check_shared_memory(dataset, min(batch, len(dataset)), workers)
    # Batch norm cannot train on a single image.
    drop_last = train and len(dataset) % batch == 1 and len(dataset) > batch
    return DataLoader(
        dataset,
        batch_size=batch,
        shuffle=train,
        drop_last=drop_last,
        num_workers=workers,
        prefetch_factor=PREFETCH
        if workers
        else None,  # not persistent ones, whose later epochs would draw other orders
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


SHARED = Path("/dev/shm")
PREFETCH = 2  # batches that a worker makes ahead


def _check_shared_memory(dataset: ImageDataset | Subset, batch: int, workers: int) -> None:
    if not SHARED.is_dir():  # not on this system
        return
    image, _ = dataset[0]
    needed, free = workers * PREFETCH * batch * image.nbytes, shutil.disk_usage(SHARED).free
    if needed > free:
        raise ValueError(
            f"--workers {workers}: {resources.amount(needed)} of shared memory ({SHARED}) are needed, and "
            f"{resources.amount(free)} are free; use --workers 0, or in a container a larger --shm-size"
        )


def _collate(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def _cached_pixels(manifest: Manifest, rows: list[dict[str, str]], image_size: int, channels: int) -> np.ndarray:
    """uint8 `[N, C, H, W]` of `rows`, memory-mapped from the cache, which is built when it is missing; in memory where
    it may not be written."""
    key = hashlib.sha256("\n".join(f"{row['path']} {row['sha256']}" for row in rows).encode()).hexdigest()[:12]
    how = manifest.info.fit if manifest.info.fit != "resize" else RESAMPLING.name.lower()
    path = manifest.path.parent / "cache" / f"{image_size}px_{channels}ch_{how}_{key}.npy"
    if not path.is_file():
        what = rows, Path(manifest.settings["source"]), manifest.info, (channels, image_size)
        try:
            _write_pixels(path, *what)
        except OSError as error:
            if error.filename != str(path) or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            warnings.warn(f"{path.parent}: may not be written; the images are held in memory", stacklevel=1)
            return np.stack(list(_decoded(*what)))
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError):
        raise ValueError(f"{path}: damaged; delete it, and the next run rebuilds it") from None


def _write_pixels(
    path: Path, rows: list[dict[str, str]], root: Path, info: DatasetInfo, shape: tuple[int, int]
) -> None:
    """Write the images `rows` of the folder `root` as one array, with `shape` (channels, pixels). It is written in
    order, and its space is set aside first: a mapped file on a full disk would end the process without a word."""
    channels, size = shape
    about = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), channels, size, size)}
    with files.replacing(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, about)
        files.reserve(stream, stream.tell() + len(rows) * channels * size**2)
        for pixels in _decoded(rows, root, info, shape):
            stream.write(pixels.tobytes())


def _decoded(rows: list[dict[str, str]], root: Path, info: DatasetInfo, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Decode and resize every file in parallel (Pillow releases the GIL), uint8 `[C, H, W]` each, in order. Raises
    ValueError if one holds other pixels than the manifest's row says."""
    from tqdm import tqdm

    def decode(row: dict[str, str]) -> np.ndarray:
        path = root / row["path"]
        try:
            image = read_image(path, info.window)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; if the images were moved, run prepare_data.py again") from None
        if hashlib.sha256(image.tobytes()).hexdigest() != row["sha256"]:
            raise ValueError(f"{path}: is not the image any more that prepare_data.py read; run prepare_data.py again")
        channels, size = shape
        return to_array(image, size, channels, info.fit)

    with ThreadPoolExecutor(resources.cores()) as pool:
        yield from tqdm(pool.map(decode, rows), total=len(rows), desc="decode", disable=None, leave=False)
