"""The known data sets: their classes, which classes are disease, citation, licence.

A user's own data set is not listed here: its manifest.json describes it (`dataset_info`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from common import files
from common.lines import shown

MENTIONED = 40  # classes of an order


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The description of a data set: of a known one in `DATASETS`, of a prepared one in its manifest.json.

    `disease`: the classes that a clinician must not miss. `aliases`: other spellings of a class folder → class.
    `schemes`: other ways to label, each class → class. `mean`, `std`: of one grey channel at 64 px over the training
    split, [0, 1] scale; known once the images are prepared. `group_by`: a regular expression that finds the patient (or
    other group) in an image's path. `near`: the correlation from which two images count as one picture (None: only
    identical ones). `image_size`: the default input size of new networks in pixels. `window`, `fit`: how files become
    images (`images.read_image`, `images.to_array`).
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
    image_size: int = 64
    window: tuple[float, float] | None = None
    fit: str = "resize"

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The labels of `disease` and of `healthy`; {} if all classes are one or the other."""
        sick = tuple(label for label, name in enumerate(self.classes) if name in self.disease)
        well = tuple(label for label in range(len(self.classes)) if label not in sick)
        return {"disease": sick, "healthy": well} if sick and well else {}

    @property
    def order(self) -> str:
        """Which output of a classifier means which class: `0 = benign, 1 = malignant`."""
        meant = [f"{k} = {shown(name)}" for k, name in enumerate(self.classes)]
        return ", ".join(meant if len(meant) <= MENTIONED else [*meant[: MENTIONED - 1], "…", meant[-1]])

    def check_classes(self, path: Path | str, told: dict[str, Any] | None) -> None:
        """Raises ValueError if the network of `path` has other classes than these, or in another order. `told` is the
        description of its training data in its checkpoint (`plain`; None: there is none)."""
        if told is not None and tuple(told["classes"]) != self.classes:
            raise ValueError(
                f"{path}: its classes are {', '.join(told['classes'])}, in this order, but the classes of "
                f"the data are {', '.join(self.classes)}"
            )

    def plain(self) -> dict[str, Any]:
        """As JSON and checkpoints hold it: what matters once the images are prepared."""
        left_out = ("aliases", "schemes", "group_by", "near", "kaggle", "torchvision")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> DatasetInfo:
        """The inverse of `plain`."""
        held: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in plain.items()}
        return cls(**held)


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
        image_size=32,
    ),
    "MNIST": DatasetInfo(
        title="MNIST",
        classes=tuple("0123456789"),
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998",
        licence="CC BY-SA 3.0",
        near=None,  # two ones written by two hands correlate more than any threshold
        torchvision="MNIST",
        image_size=28,
    ),
}
ALIASES = {"sipakmed": "SIPADMEK", "cifar_10": "CIFAR10"}


def dataset_name(name: str) -> str:
    """The name as its folder is spelled; known sets have other spellings too. Raises ValueError if it is no folder
    name."""
    if not name or name.startswith(".") or set(name) & set("/\\"):
        raise ValueError(f"--dataset {name!r}: must be a plain folder name")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise ValueError(f"--dataset {name!a}: is not UTF-8; choose another name")
    known = {other.lower(): other for other in DATASETS} | ALIASES
    return known.get(name.lower().replace("-", "_"), name)


def prepared_info(name: str, data_dir: Path | str) -> DatasetInfo | None:
    """The description in a data set's manifest; None if the data set is not prepared."""
    settings = Path(data_dir) / dataset_name(name) / "manifest.json"
    held = files.read_json(settings) if settings.is_file() else {}
    return DatasetInfo.from_plain(held["info"]) if "info" in held else None


def dataset_info(name: str, data_dir: Path | str = "Dataset") -> DatasetInfo:
    """The description of a data set: from its manifest or, if it is not prepared, from `DATASETS`. Raises ValueError
    that lists the known names."""
    name = dataset_name(name)
    prepared = prepared_info(name, data_dir)
    if prepared is not None:
        return prepared
    if name not in DATASETS:
        raise ValueError(
            f"--dataset {name}: not in {data_dir}, and none of the known {', '.join(DATASETS)}; name its folder with "
            f"--data_dir, or prepare your own images: python prepare_data.py --dataset {name} --source DIR"
        )
    return DATASETS[name]
