"""The layouts in which images come, and whose image each is: folders and tables → `Record`s, nothing opened yet.

source/Training/<class>/…, source/Testing/<class>/…   a published split (also train, val, valid, test …)
source/<class>/…                                      no split
source/im_<Class>/im_<Class>/CROPPED/…                SIPaKMeD as Kaggle serves it: only CROPPED counts
source/process/…                                      one of the above
table.csv                                             path,label[,group][,split]
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from catalogue import DatasetInfo
from images import DICOM, KINDS, images_in, of_volume, slices_of, suffix_of
from preparation.scan import Record

SPLIT_FOLDERS = {
    "training": "train",
    "train": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "testing": "test",
    "test": "test",
}
CROPPED = "CROPPED"
# Whose a DICOM file is, by the first of these that it tells: anonymised files have lost the patient.
OWNERS = (("patient", "PatientID"), ("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID"))


def find_images(source: Path, info: DatasetInfo | None, slices: int = 1) -> tuple[list[Record], tuple[str, ...]]:
    """The images of `source`, a folder or a CSV file, sorted by path, and the names of their classes.

    `info` is that of a known data set; None: classes are what the folders (or the table) are called. Of a NIfTI volume,
    or a DICOM file of several frames, come `slices` slices, evenly from its middle half. Raises FileNotFoundError if a
    folder is missing, OSError if one may not be read, ValueError on a class that the data set does not know, on one
    without images, on fewer than two, or if there is nothing to take several slices of.
    """
    if source.suffix.lower() == ".csv":
        records, classes = _from_table(source, info)
    elif source.is_dir():
        records, classes = _from_folders(source, info)
    else:
        raise FileNotFoundError(f"--source {source}: no such folder")
    if len(classes) < 2:
        raise ValueError(f"{source}: has {len(classes)} class(es); at least two are needed, each a folder of images")
    root = source if source.is_dir() else source.parent
    sliced = [each for record in records for each in _slices(record, root, slices)]
    if slices > 1 and len(sliced) == len(records):
        raise ValueError(f"--slices {slices}: {source} holds no NIfTI volume and no DICOM file of several frames; any "
                         "other file is one image")  # fmt: skip
    return sorted(sliced, key=lambda record: record.path), classes


def relabel(records: Sequence[Record], scheme: dict[str, str], disease: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Give each record the class that `scheme` maps its class to; (the new classes, those of `disease` among them)."""
    for record in records:
        record.class_name = scheme[record.class_name]
    return tuple(dict.fromkeys(scheme.values())), tuple(dict.fromkeys(scheme[name] for name in disease))


def find_subjects(records: Sequence[Record], source: Path, pattern: str | None) -> None:
    """Fill in `subject`: what the groups of the regular expression `pattern` find in the path (without groups: all it
    matches). Without a pattern, a slice belongs to its volume and a DICOM file to its patient (where that is not told:
    study, series), whose name is hashed.

    Raises ValueError if the pattern is none, or finds nothing in some path.
    """
    if pattern is not None:
        try:
            find = re.compile(pattern).search
        except re.error as error:
            raise ValueError(f"--group_by {pattern}: not a regular expression ({error})") from None
        lost = [record.path for record in records if not record.subject and not find(record.path)]
        if lost:
            raise ValueError(
                f"--group_by {pattern}: finds nothing in {lost[0]}" + f" and {len(lost) - 1} more" * (len(lost) > 1)
            )
    for record in records:
        if record.subject:
            continue
        if pattern is not None:
            found = find(record.path)
            record.subject = "/".join(map(str, found.groups())) if found.groups() else found[0]
            continue
        file, number = of_volume(source / record.path)
        volume = "" if number is None else record.path.rpartition("[")[0]
        record.subject = (suffix_of(file) in DICOM and _patient(file)) or volume


def _from_folders(source: Path, info: DatasetInfo | None) -> tuple[list[Record], tuple[str, ...]]:
    if (source / "process").is_dir():
        records, classes = _from_folders(source / "process", info)
        for record in records:
            record.path = f"process/{record.path}"
        return records, classes
    folders = _subfolders(source)
    split_folders = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    spelled = _spelled(info)
    records: list[Record] = []
    if not split_folders:
        if info and not any(_plain(folder.name) in spelled for folder in folders):
            raise ValueError(f"{source}: holds neither Training/ and Testing/ nor a folder for each class "
                             f"({', '.join(info.classes)})")  # fmt: skip
        records = [r for folder in folders for r in _of_class(folder, source, "", spelled, info)]
    for split_folder in split_folders:
        split = SPLIT_FOLDERS[split_folder.name.lower()]
        found = [r for folder in _subfolders(split_folder) for r in _of_class(folder, source, split, spelled, info)]
        _must_hold(info, found, split_folder)
        records += found
    if not records:
        raise ValueError(f"{source}: no images in it; it must hold a folder for each class, or Training/ and Testing/")
    _must_hold(info, records, source)
    return records, info.classes if info else tuple(sorted({record.class_name for record in records}))


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, without hidden ones and without what earlier runs of ours wrote beside the images."""
    ours = any((folder / name).is_file() for name in ("manifest.csv", "audit.csv"))
    left_out = ("cache", "AT_*", "phantoms_*") if ours else ()
    return sorted(
        path for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__MACOSX")) and not any(map(path.match, left_out))
    )  # fmt: skip


def _of_class(
    folder: Path, source: Path, split: str, spelled: dict[str, str], info: DatasetInfo | None
) -> list[Record]:
    """The images of one class folder. Raises ValueError if it holds none, or a known data set has no such class."""
    class_name = folder.name
    if info:
        if _plain(folder.name) not in spelled:
            raise ValueError(f"{folder}: unknown class; classes are {', '.join(info.classes)}")
        class_name = spelled[_plain(folder.name)]
    paths = images_in(folder)
    if not paths:
        raise ValueError(f"{folder}: no images in it; files that are read end in {', '.join(sorted(KINDS))}")
    cropped = [path for path in paths if CROPPED in path.relative_to(folder).parts]
    return [
        Record(PurePosixPath(path.relative_to(source).as_posix()).as_posix(), class_name, split)
        for path in cropped or paths
    ]


def _spelled(info: DatasetInfo | None) -> dict[str, str]:
    """How the classes of a known data set may be spelled."""
    return {**{name: name for name in info.classes}, **info.aliases} if info else {}


def _plain(folder_name: str) -> str:
    """`im_Superficial-Intermediate` → `superficial_intermediate`."""
    return re.sub(r"[^a-z0-9]+", "_", folder_name.lower()).strip("_").removeprefix("im_")


def _must_hold(info: DatasetInfo | None, records: Sequence[Record], folder: Path) -> None:
    empty = sorted(set(info.classes) - {record.class_name for record in records}) if info else []
    if empty:
        raise ValueError(f"{folder}: no images of class {', '.join(empty)}")


def _from_table(path: Path, info: DatasetInfo | None) -> tuple[list[Record], tuple[str, ...]]:
    if not path.is_file():
        raise FileNotFoundError(f"--source {path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a UTF-8 table ({error})") from None
    columns = lines[0][1] if lines else []
    if len(lines) < 2 or not {"path", "label"} <= set(columns):
        raise ValueError(f"{path}: must have the columns path,label (and may have group, split) and at least one row")
    spelled = _spelled(info)
    records: list[Record] = []
    seen: dict[str, int] = {}
    for number, cells in lines[1:]:
        if len(cells) > len(columns):
            raise ValueError(f"{path}, line {number}: has {len(cells)} cells, not {len(columns)}; a cell that holds a "
                             "comma needs quotes")  # fmt: skip
        row = dict.fromkeys(("path", "label", "group", "split"), "") | dict(zip(columns, cells, strict=False))
        split = row["split"].lower()
        if split and split not in SPLIT_FOLDERS:
            raise ValueError(f"{path}, line {number}: split {split!r} is none of {', '.join(SPLIT_FOLDERS)}")
        if not row["path"] or not row["label"]:
            raise ValueError(f"{path}, line {number}: has no path or no label")
        if row["path"] in seen:
            raise ValueError(f"{path}, line {number}: names {row['path']} again, after line {seen[row['path']]}")
        seen[row["path"]] = number
        class_name = spelled.get(_plain(row["label"])) if info else row["label"]
        if class_name is None:
            raise ValueError(f"{path}, line {number}: unknown class {row['label']!r}; classes are "
                             f"{', '.join(info.classes)}")  # fmt: skip
        records.append(Record(row["path"], class_name, SPLIT_FOLDERS.get(split, ""), row["group"]))
    _must_hold(info, records, path)
    return records, info.classes if info else tuple(sorted({record.class_name for record in records}))


def _slices(record: Record, source: Path, count: int) -> list[Record]:
    """A volume's slices, evenly from its middle half; any other record as it is."""
    try:
        depth = slices_of(source / record.path)
    except (OSError, ValueError):  # read_images will say what is wrong with the file
        depth = None
    if depth is None:
        return [record]
    chosen = {int(depth * (0.25 + 0.5 * (k + 0.5) / count)) for k in range(count)}
    return [
        Record(f"{record.path}[{number}]", record.class_name, record.source_split, record.subject)
        for number in sorted(chosen)
    ]


def _patient(path: Path) -> str:
    try:
        import pydicom

        data = pydicom.dcmread(path, stop_before_pixels=True)
    except Exception:  # read_images will say what is wrong with the file
        return ""
    told = ((word, str(data.get(tag) or "").strip()) for word, tag in OWNERS)
    return next((f"{word} {hashlib.sha256(name.encode()).hexdigest()[:12]}" for word, name in told if name), "")
