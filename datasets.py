"""The data sets: what they hold, and their images as tensors in [0, 1].

`prepare_data.py` writes `Dataset/<name>/manifest.csv` and `manifest.json`; this module reads them and nothing else, so
images of a split are exactly those that the manifest lists. Decoded, resized images are kept in
`Dataset/<name>/cache/` and memory-mapped from there.

Images are float32 `[C, H, W]` in [0, 1]: noise, attacks and radii live in that pixel space. Mean/std normalisation is
the first layer inside each classifier, never done here.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import files
from images import RESAMPLING, read_image, to_array

SPLITS = ("train", "val", "test")
PROTOCOLS = ("official", "stratified")
MANIFEST_COLUMNS = ("path", "label", "class", "split", "group", "sha256", "width", "height", "excluded")


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a data set is. That of a known one stands in `DATASETS`; that of a prepared one in its manifest.json, which
    is all that is known of a user's own.

    `disease` names the classes that a clinician must not miss; `aliases` maps other spellings of a class folder to the
    class; `schemes` other ways to label, each from class to class; `mean` and `std` are of one grey channel at 64 px on
    the training split, on the [0, 1] scale, once the images are prepared. `group_by` is a regular expression that finds
    in an image's path whose it is; `near` the correlation from which two images count as one picture (None: only
    identical ones do). `window` and `fit` say how files become images (`images.read_image`, `images.to_array`).
    """

    title: str
    classes: tuple[str, ...]
    disease: tuple[str, ...] = ()
    mean: float | None = None
    std: float | None = None
    citation: str = ""
    licence: str = ""
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)
    schemes: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    group_by: str | None = None
    near: float | None = 0.98
    kaggle: str | None = None
    torchvision: str | None = None
    synthetic: bool = False
    window: tuple[float, float] | None = None
    fit: str = "resize"

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The labels of `disease` and of `healthy`; {} where all classes are one or the other."""
        sick = tuple(label for label, name in enumerate(self.classes) if name in self.disease)
        well = tuple(label for label in range(len(self.classes)) if label not in sick)
        return {"disease": sick, "healthy": well} if sick and well else {}

    def plain(self) -> dict[str, Any]:
        """As JSON and checkpoints hold it: what matters once the images are prepared."""
        left_out = ("aliases", "schemes", "group_by", "near", "kaggle", "torchvision")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> DatasetInfo:
        """The inverse of `plain`."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()})


_BRAIN_CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
_CELLS = {  # each with what it is in the scheme of three classes
    "dyskeratotic": "abnormal",
    "koilocytotic": "abnormal",
    "metaplastic": "benign",
    "parabasal": "normal",
    "superficial_intermediate": "normal",
}
_CELL_GROUPS = r"([^/]+)/(?:CROPPED/)?(\d+)_\d+\.[^/]+$"  # the class and the number of the photographed cluster

DATASETS: dict[str, DatasetInfo] = {
    "Brain_Tumor": DatasetInfo(
        title="Brain Tumor Classification (MRI)",
        classes=_BRAIN_CLASSES,
        disease=("glioma_tumor", "meningioma_tumor", "pituitary_tumor"),
        citation="Bhuvaji, Kadam, Bhumkar, Dedge, Kanchan: Brain Tumor Classification (MRI), Kaggle 2020, "
        "DOI 10.34740/KAGGLE/DSV/1183165",
        licence="MIT",
        aliases={
            "glioma": "glioma_tumor",
            "meningioma": "meningioma_tumor",
            "notumor": "no_tumor",
            "no": "no_tumor",
            "pituitary": "pituitary_tumor",
        },
        kaggle="sartajbhuvaji/brain-tumor-classification-mri",
    ),
    "SIPADMEK": DatasetInfo(
        title="SIPaKMeD: cells of Pap smears",
        classes=tuple(_CELLS),
        disease=("dyskeratotic", "koilocytotic"),
        citation="Plissiti, Dimitrakopoulos, Sfikas, Nikou, Krikoni, Charchanti: SIPaKMeD: a new dataset for feature "
        "and image based classification of normal and pathological cervical cells in Pap smear images, ICIP 2018",
        licence="for experiments, with the citation; images may not be passed on",
        schemes={"three": _CELLS},
        group_by=_CELL_GROUPS,
        kaggle="prahladmehandiratta/cervical-cancer-largest-dataset-sipakmed",
    ),
    "Phantom_MRI": DatasetInfo(
        title="Procedural brain MRI phantoms (SYNTHETIC)",
        classes=_BRAIN_CLASSES,
        disease=("glioma_tumor", "meningioma_tumor", "pituitary_tumor"),
        citation="generated by preparation/phantom_mri.py of this project; not patient data",
        licence="MIT",
        group_by=r"(s\d+)_\d+\.png$",
        synthetic=True,
    ),
    "Phantom_Cytology": DatasetInfo(
        title="Procedural Pap-smear cells (SYNTHETIC)",
        classes=tuple(_CELLS),
        disease=("dyskeratotic", "koilocytotic"),
        citation="generated by preparation/phantom_cytology.py of this project; not patient data",
        licence="MIT",
        schemes={"three": _CELLS},
        group_by=_CELL_GROUPS,
        synthetic=True,
    ),
    "CIFAR10": DatasetInfo(
        title="CIFAR-10",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        citation="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        licence="none given",
        near=None,  # the published split as it is, so that published tables are recomputed
        torchvision="CIFAR10",
    ),
    "MNIST": DatasetInfo(
        title="MNIST",
        classes=tuple("0123456789"),
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998",
        licence="CC BY-SA 3.0",
        near=None,  # two ones written by two hands correlate more than any threshold
        torchvision="MNIST",
    ),
}
ALIASES = {"sipakmed": "SIPADMEK", "cifar_10": "CIFAR10"}


def dataset_name(name: str) -> str:
    """The name as its folder is spelled: known sets have other spellings too. Raises ValueError if it cannot be one."""
    if not name or name.startswith(".") or set(name) & set("/\\"):
        raise ValueError(f"--dataset {name!r}: must be a plain folder name")
    known = {other.lower(): other for other in DATASETS} | ALIASES
    return known.get(name.lower().replace("-", "_"), name)


def dataset_info(name: str, data_dir: Path | str = "Dataset") -> DatasetInfo:
    """What is known of a data set: from its manifest, or, where it is not prepared, from the table. Raises ValueError
    that lists the known names."""
    name = dataset_name(name)
    settings = Path(data_dir) / name / "manifest.json"
    if settings.is_file() and "info" in (held := files.read_json(settings)):
        return DatasetInfo.from_plain(held["info"])
    if name not in DATASETS:
        raise ValueError(f"--dataset {name}: not in {data_dir}, and none of the known {', '.join(DATASETS)}; prepare "
                         f"your own images: python prepare_data.py --dataset {name} --source DIR")  # fmt: skip
    return DATASETS[name]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """`manifest.csv` (one dict per image, all text) and the settings it was made with (`manifest.json`)."""

    path: Path
    rows: list[dict[str, str]]
    settings: dict

    @property
    def digest(self) -> str:
        """Fingerprint of the table: equal digests mean the same images in the same splits."""
        return files.sha256(self.path)

    @property
    def info(self) -> DatasetInfo:
        """What the data set is."""
        return DatasetInfo.from_plain(self.settings["info"])

    def described(self) -> dict[str, Any]:
        """What a checkpoint that is trained on these images keeps of them."""
        return {"dataset": self.settings["dataset"], "manifest": self.digest, "info": self.settings["info"]}

    def split(self, name: str) -> list[dict[str, str]]:
        """The rows of a split, in the manifest's order; excluded images belong to none."""
        return [row for row in self.rows if row["split"] == name and not row["excluded"]]


def read_manifest(name: str, data_dir: Path | str = "Dataset", protocol: str | None = None) -> Manifest:
    """Read `data_dir/name/manifest.csv`.

    Raises FileNotFoundError if the data set was not prepared, ValueError if the manifest is damaged or was made with
    another `protocol` than the one asked for (None: whichever it is).
    """
    name = dataset_name(name)
    path = Path(data_dir) / name / "manifest.csv"
    how = f"run: python prepare_data.py --dataset {name} --data_dir {data_dir}"
    if not path.is_file():
        dataset_info(name, data_dir)
        raise FileNotFoundError(f"{path} is missing; {how}")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        if tuple(reader.fieldnames or ())[: len(MANIFEST_COLUMNS)] != MANIFEST_COLUMNS:
            raise ValueError(f"{path}: its columns are not {', '.join(MANIFEST_COLUMNS)}; {how}")
    settings_path = path.with_suffix(".json")
    if not settings_path.is_file():
        raise FileNotFoundError(f"{settings_path} is missing; {how}")
    settings = files.read_json(settings_path)
    if "info" not in settings:
        raise ValueError(f"{settings_path}: written by an older version; {how}")
    if protocol is not None and protocol != settings["protocol"]:
        raise ValueError(f"{path} was made with --protocol {settings['protocol']}, not {protocol}; {how}")
    return Manifest(path, rows, settings)


class ImageDataset(Dataset):
    """The images of one split: `dataset[i]` is (image float32 `[C, H, W]` in [0, 1], label int).

    `rows[i]` is the manifest's row of image i (its path, class, group …), `labels` an int64 tensor `[N]`.
    """

    def __init__(
        self, name: str, split: str, manifest: Manifest, rows: list[dict[str, str]], pixels: np.ndarray, at: list[int]
    ):
        self.name, self.split, self.manifest, self.rows = name, split, manifest, rows
        self.info = manifest.info
        self.labels = torch.tensor([int(row["label"]) for row in rows], dtype=torch.int64)
        # uint8 [M, C, H, W] of all splits, memory-mapped; image i is _pixels[at[i]].
        self._pixels, self._at = pixels, at

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._pixels[self._at[index]]
        return torch.from_numpy(pixels.astype(np.float32) / 255.0), int(self.labels[index])


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

    `origins` is what the models that will see them were trained on: file → (data set, digest of its manifest). Raises
    FileNotFoundError if the data set was not prepared or an image has gone, ValueError on an unknown name, split,
    protocol, size or number of channels, an empty split, or a model that was trained on another split of this data set.
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
    dataset: Dataset,
    batch: int,
    train: bool = False,
    workers: int = 0,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> DataLoader:
    """Batches (images `[B, C, H, W]`, labels `[B]`); `train` shuffles and drops a last batch of one image.

    `transform` changes each batch of images, as those of `training.augmentation` do. The order and what is random in
    it come from torch's global generator, so that a run is reproduced by its seed.
    """
    collate = functools.partial(_collate, transform=transform)
    # Batch norm cannot train on a single image.
    drop_last = train and len(dataset) % batch == 1 and len(dataset) > batch
    return DataLoader(
        dataset,
        batch_size=batch,
        shuffle=train,
        drop_last=drop_last,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _collate(samples: Sequence[tuple[Tensor, int]], transform: Callable[[Tensor], Tensor] | None):
    images = torch.stack([image for image, _ in samples])
    labels = torch.tensor([label for _, label in samples])
    return (images if transform is None else transform(images)), labels


def _cached_pixels(manifest: Manifest, rows: list[dict[str, str]], image_size: int, channels: int) -> np.ndarray:
    """uint8 `[N, C, H, W]` of `rows`, memory-mapped from the cache, which is built when it is missing."""
    key = hashlib.sha256("\n".join(f"{row['path']} {row['sha256']}" for row in rows).encode()).hexdigest()[:12]
    how = manifest.info.fit if manifest.info.fit != "resize" else RESAMPLING.name.lower()
    path = manifest.path.parent / "cache" / f"{image_size}px_{channels}ch_{how}_{key}.npy"
    if not path.is_file():
        root = Path(manifest.settings["source"])
        with files.replacing(path) as temporary:
            shape = (len(rows), channels, image_size, image_size)
            pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            _decode_all([root / row["path"] for row in rows], pixels, manifest.info)
            pixels.flush()
    return np.load(path, mmap_mode="r")


def _decode_all(paths: list[Path], out: np.ndarray, info: DatasetInfo) -> None:
    """Decode and resize every file into `out` (uint8 `[N, C, H, W]`), in parallel (Pillow releases the GIL)."""
    from tqdm import tqdm

    def decode(index: int) -> None:
        out[index] = to_array(read_image(paths[index], info.window), out.shape[-1], out.shape[1], info.fit)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        progress = tqdm(pool.map(decode, range(len(paths))), total=len(paths), desc="decode", disable=None, leave=False)
        for _ in progress:
            pass
