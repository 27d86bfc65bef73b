"""The layouts in which images come, and whose image each is: folders and tables → `Record`s, nothing opened yet.

source/Training/<class>/…, source/Testing/<class>/…   a published split (also train, val, valid, test …)
source/<class>/…                                      no split; or source/<class>/train/…, source/<class>/test/…
source/im_<Class>/im_<Class>/CROPPED/…                SIPaKMeD as Kaggle serves it: only CROPPED counts
source/process/…                                      one of the above
table.csv                                             path,label[,group][,split]
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from imaging.catalogue import DatasetInfo
from imaging.images import KINDS, images_in, suffix_of
from preparation.scan import Record
from preparation.volumes import choose_slices, owner

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


def find_images(
    source: Path, info: DatasetInfo | None, slices: int | None = None, volume: int | None = None
) -> tuple[list[Record], tuple[str, ...]]:
    """The images of `source`, a folder or a CSV file, sorted by path, and the names of their classes. (Those of
    torchvision are sorted by split and number, so that image i of a split is the published one.)

    `info` describes a known data set; None: the classes are the names of the folders (or those in the table). For
    `slices` and `volume` see `volumes.choose_slices`. Raises FileNotFoundError if a folder is missing, and OSError if
    one may not be read. Raises ValueError on an unknown class, a class without images, fewer than two classes, two
    classes whose names differ only in case, images outside of classes and splits, or if there is nothing to take
    several slices of.
    """
    if source.suffix.lower() == ".csv":
        records, classes = _from_table(source, info)
    elif source.is_dir():
        records, classes = _from_folders(source, info)
    elif source.exists():
        raise ValueError(f"--source {source}: is neither a folder nor a .csv table")
    else:
        raise FileNotFoundError(f"--source {source}: no such folder")
    _must_be_named_well(records, classes, source)
    root = source if source.is_dir() else source.parent
    found = sorted(choose_slices(records, root, slices, volume), key=lambda record: record.path)
    if info and info.torchvision:
        found.sort(key=lambda record: (record.source_split, PurePosixPath(record.path).name))
    return found, classes


def _must_be_named_well(records: Sequence[Record], classes: Sequence[str], source: Path) -> None:
    """Raises ValueError on a path that is not UTF-8, on fewer than two classes, or on two that differ in case only."""
    for record in records:
        if any(0xD800 <= ord(letter) < 0xE000 for letter in record.path):
            raise ValueError(f"{source}: the name of {record.path!a} is not UTF-8; rename it")
    spellings = Counter(map(str.casefold, classes))
    twice = sorted(name for name in classes if spellings[name.casefold()] > 1)
    if twice:
        raise ValueError(f"{source}: classes {', '.join(twice)} differ only in case; are they one class?")
    if len(classes) < 2:
        each = ", each a folder of images" if source.is_dir() else ""
        raise ValueError(f"{source}: has {len(classes)} class(es); at least two are needed{each}")


def other_files(source: Path) -> Counter[str]:
    """How many files of which suffix lie in the folders of `source` that are not read as images; hidden ones do not
    count."""
    folders = _subfolders(source) if source.is_dir() else []
    inside = (path for folder in folders for path in folder.rglob("*"))
    found = (path for path in inside if path.is_file() and not path.name.startswith("."))
    return Counter(suffix for path in found if (suffix := suffix_of(path)) not in KINDS)


def relabel(records: Sequence[Record], scheme: dict[str, str], disease: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Give each record the class that `scheme` maps its class to; (the new classes, those of `disease` among them)."""
    for record in records:
        record.class_name = scheme[record.class_name]
    return tuple(dict.fromkeys(scheme.values())), tuple(dict.fromkeys(scheme[name] for name in disease))


def find_subjects(records: Sequence[Record], source: Path, pattern: str | None) -> None:
    """Fill in `subject`: what the groups of the regular expression `pattern` match in the path (without groups: the
    whole match). Without a pattern, a slice belongs to its volume and a DICOM file to its patient, hashed (if that is
    not stored: study, or series).

    Raises ValueError if the pattern is no regular expression, or finds nothing in some path.
    """
    try:
        find = re.compile(pattern or "").search
    except re.error as error:
        raise ValueError(f"--group_by {pattern}: not a regular expression ({error})") from None
    nameless = [record for record in records if not record.subject]
    if pattern is None:
        for record in nameless:
            record.subject = owner(record, source)
        return
    matches = [find(record.path) for record in nameless]
    lost = [record.path for record, match in zip(nameless, matches, strict=True) if match is None]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ValueError(f"--group_by {pattern}: finds nothing in {lost[0]}{more}")
    for record, match in zip(nameless, matches, strict=True):
        if match is not None:
            record.subject = "/".join(map(str, match.groups())) if match.groups() else match[0]


def _from_folders(source: Path, info: DatasetInfo | None) -> tuple[list[Record], tuple[str, ...]]:
    if (source / "process").is_dir():
        inside, classes = _from_folders(source / "process", info)
        for record in inside:
            record.path = f"process/{record.path}"
        return inside, classes
    folders = _subfolders(source)
    split_folders = [folder for folder in folders if folder.name.lower() in SPLIT_FOLDERS]
    _none_outside(source)
    if split_folders:
        records = _from_splits(source, info, folders, split_folders)
    else:
        spelled = _spelled(info)
        if info and not any(_plain(folder.name) in spelled for folder in folders):
            raise ValueError(
                f"{source}: holds neither Training/ and Testing/ nor a folder for each class "
                f"({', '.join(info.classes)})"
            )
        records = [r for folder in folders for r in _of_class(folder, source, "", spelled, info)]
    if not records:
        raise ValueError(f"{source}: no images in it; it must hold a folder for each class, or Training/ and Testing/")
    _must_hold(info, records, source)
    return records, _classes_of(records, info)


def _from_splits(
    source: Path, info: DatasetInfo | None, folders: Sequence[Path], split_folders: Sequence[Path]
) -> list[Record]:
    """The images of a published split, `split_folders` among the `folders` of `source`."""
    for folder in folders:
        if folder not in split_folders and (stray := images_in(folder)):
            raise ValueError(
                f"{folder}: holds images ({stray[0].name} …) but is no split as {split_folders[0].name}/ is; "
                f"splits are called {', '.join(SPLIT_FOLDERS)}"
            )
    spelled = _spelled(info)
    records: list[Record] = []
    for split_folder in split_folders:
        _none_outside(split_folder)
        split = SPLIT_FOLDERS[split_folder.name.lower()]
        found = [r for folder in _subfolders(split_folder) for r in _of_class(folder, source, split, spelled, info)]
        _must_hold(info, found, split_folder)
        records += found
    return records


def _classes_of(records: Sequence[Record], info: DatasetInfo | None) -> tuple[str, ...]:
    """The classes of a known data set, or those that the images have."""
    return info.classes if info else tuple(sorted({record.class_name for record in records}))


def _none_outside(folder: Path) -> None:
    """Raises ValueError if images lie in `folder` itself: they are of no class, and must not vanish unseen."""
    ours = {"duplicates.png"} if (folder / "audit.csv").is_file() else set()
    stray = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and suffix_of(path) in KINDS and not path.name.startswith(".") and path.name not in ours
    )
    if stray:
        more = f", nor do {len(stray) - 1} more" if len(stray) > 1 else ""
        raise ValueError(f"{stray[0]}: lies in no folder of a class{more}")


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, without hidden ones and without what earlier runs of ours wrote beside the images."""
    ours = any((folder / name).is_file() for name in ("manifest.csv", "audit.csv", "cache/read.csv"))
    left_out = ("cache", "AT_*", "phantoms_*") if ours else ()
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__MACOSX")) and not any(map(path.match, left_out))
    )


def _of_class(
    folder: Path, source: Path, split: str, spelled: dict[str, str], info: DatasetInfo | None
) -> list[Record]:
    """The images of one class folder. Raises ValueError if it holds none, or a known data set has no such class."""
    class_name = unicodedata.normalize("NFC", folder.name)  # as macOS does not write it
    if info:
        if _plain(folder.name) not in spelled:
            raise ValueError(f"{folder}: unknown class; classes are {', '.join(info.classes)}")
        class_name = spelled[_plain(folder.name)]
    paths = images_in(folder)
    if not paths:
        raise ValueError(f"{folder}: no images in it; files that are read end in {', '.join(sorted(KINDS))}")
    cropped = [path for path in paths if CROPPED in path.relative_to(folder).parts]

    def split_below(path: Path) -> str:
        first, *rest = path.relative_to(folder).parts
        return SPLIT_FOLDERS.get(first.lower(), "") if rest else ""

    return [
        Record(path.relative_to(source).as_posix(), class_name, split or split_below(path)) for path in cropped or paths
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
    columns, *lines = _lines_of(path)
    records: list[Record] = []
    seen: dict[str, int] = {}
    for number, cells in lines:
        record = _of_row(f"{path}, line {number}", columns[1], cells, info)
        if record.path in seen:
            raise ValueError(f"{path}, line {number}: names {record.path} again, after line {seen[record.path]}")
        seen[record.path] = number
        records.append(record)
    _must_hold(info, records, path)
    return records, _classes_of(records, info)


def _lines_of(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each line of a table that is not empty; the names of the columns come first. Raises
    FileNotFoundError, or ValueError if it is no such table."""
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
        raise ValueError(
            f"{path}: must have the columns path,label (and may have group, split), separated by commas, "
            f"and at least one row; its first line is {','.join(columns)!r:.80}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path}: has a column twice ({','.join(columns)})")
    return lines


def _of_row(where: str, columns: Sequence[str], cells: Sequence[str], info: DatasetInfo | None) -> Record:
    """The image of a table's row. Raises ValueError that names `where` the row is if something is wrong with it."""
    if len(cells) > len(columns):
        raise ValueError(f"{where}: has {len(cells)} cells, not {len(columns)}; a cell that holds a comma needs quotes")
    row = dict.fromkeys(("path", "label", "group", "split"), "") | dict(zip(columns, cells, strict=False))
    split = row["split"].lower()
    if split and split not in SPLIT_FOLDERS:
        raise ValueError(f"{where}: split {split!r} is none of {', '.join(SPLIT_FOLDERS)}")
    if not row["path"] or not row["label"]:
        raise ValueError(f"{where}: has no path or no label")
    class_name = unicodedata.normalize("NFC", row["label"])
    if info:
        spelled = _spelled(info)
        if _plain(row["label"]) not in spelled:
            raise ValueError(f"{where}: unknown class {row['label']!r}; classes are {', '.join(info.classes)}")
        class_name = spelled[_plain(row["label"])]
    return Record(row["path"], class_name, SPLIT_FOLDERS.get(split, ""), row["group"])
