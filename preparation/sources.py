"""The layouts in which images come, and whose image each is: folders and tables → `Record`s, nothing opened yet.

source/Training/<class>/…, source/Testing/<class>/…   a published split (train, val, test_set, seg_train …)
source/<class>/…                                      no split; or source/<class>/train/…, source/<class>/test/…
source/im_<Class>/im_<Class>/CROPPED/…                SIPaKMeD as Kaggle serves it: only CROPPED counts
source/archive/…                                      one of the above
table.csv                                             path,label[,group][,split]

Which folder is the class: `layouts.py`. Which images are masks of others: `masks.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.lines import shown
from imaging.catalogue import DatasetInfo
from imaging.images import KINDS, images_in, suffix_of
from preparation.classes import class_called, classes_of, is_class, must_hold
from preparation.folder_names import alike, split_of
from preparation.layouts import Place, find_places, tell
from preparation.masks import is_left_out, must_hold_no_masks
from preparation.scan import Record
from preparation.source_table import from_table
from preparation.volumes import choose_slices, owner

CROPPED = "CROPPED"
JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # folders that systems put beside those of their users
ABSTAINS = "ABSTAIN"  # what an answer says that names no class


class Reading(NamedTuple):
    """How the folders of a source are meant: `layout` as in `layouts.find_places`, shell patterns of what is left out,
    and whether masks are images of their class too."""

    layout: str | None = None
    leave_out: Sequence[str] = ()
    keep_masks: bool = False


PLAIN = Reading()


def find_images(
    source: Path,
    info: DatasetInfo | None,
    slices: int | None = None,
    volume: int | None = None,
    reading: Reading = PLAIN,
) -> tuple[list[Record], tuple[str, ...]]:
    """The images of `source`, a folder or a CSV file, sorted by path, and the names of their classes in natural order.
    (Those of torchvision are sorted by split and number, so that image i of a split is the published one.)

    `info` describes a known data set; None: the classes are the names of the folders (or those in the table). For
    `slices` and `volume` see `volumes.choose_slices`. Raises FileNotFoundError if a folder is missing, and OSError if
    one may not be read. Raises ValueError on an unknown class, a class without images, fewer than two classes, two
    classes whose names differ only in case, images outside of classes and splits, masks among the images, folders that
    can be read in two ways, or if there is nothing to take several slices of.
    """
    if source.is_dir():
        records, classes = _from_folders(source, info, reading)
    elif source.suffix.strip().lower() == ".csv":
        if reading.layout:
            raise ValueError(f"--layout {reading.layout}: --source {source} is a table, which names the class of each")
        records, classes = from_table(source, info, reading.leave_out)
    elif source.exists():
        raise ValueError(f"--source {source}: is neither a folder nor a .csv table")
    else:
        raise FileNotFoundError(f"--source {source}: no such folder")
    _must_be_named_well(records, classes, source)
    root = source if source.is_dir() else source.parent
    found = sorted(choose_slices(records, root, slices, volume), key=lambda record: record.path)
    _must_be_one_each(found, source)
    if info and info.torchvision:
        found.sort(key=lambda record: (record.source_split, PurePosixPath(record.path).name))
    return found, classes


def what_was_read(records: Sequence[Record], source: Path, info: DatasetInfo | None) -> list[str]:
    """What a user should see of how the folders were read."""
    if not source.is_dir():
        return []
    found = ((PurePosixPath(record.path), record.class_name, record.source_split) for record in records)
    notes = tell(found, within=info is None)
    if info is None and any(CROPPED in PurePosixPath(record.path).parts for record in records):
        notes.append(f"where a class has a folder {CROPPED}, only that is read")
    return notes


def _must_be_named_well(records: Sequence[Record], classes: Sequence[str], source: Path) -> None:
    """Raises ValueError on a path that is not UTF-8, on fewer than two classes, on two that differ in case or blanks
    only, or on one that is called as the answer of a classifier that abstains."""
    for record in records:
        if not record.path.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in record.path):
            raise ValueError(f"{source}: the name of {record.path!a} is not UTF-8; rename it")
    spellings = Counter(map(alike, classes))
    twice = sorted(name for name in classes if spellings[alike(name)] > 1)
    if twice:
        how = "case" if len({name.strip() for name in twice}) == len(twice) else "case or in blanks"
        raise ValueError(f"{source}: classes {', '.join(twice)} differ only in {how}; are they one class?")
    if ABSTAINS in classes:
        raise ValueError(f"{source}: a class is called {ABSTAINS}, as the answer that names none; rename it")
    if len(classes) < 2:
        each = ", each a folder of images" if source.is_dir() else ""
        raise ValueError(f"{source}: has {len(classes)} class(es); at least two are needed{each}")


def _must_be_one_each(records: Sequence[Record], source: Path) -> None:
    """Raises ValueError if two images have one path: a slice of a volume, and a file that is called as this slice."""
    paths = Counter(record.path for record in records)
    path, count = paths.most_common(1)[0] if paths else ("", 1)
    if count > 1:
        raise ValueError(f"{source}: {shown(path)} is a file and also the name of a slice; rename the file")


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


def _from_folders(source: Path, info: DatasetInfo | None, reading: Reading) -> tuple[list[Record], tuple[str, ...]]:
    everything = _images_below(source, info)
    images = [image for image in everything if not is_left_out(image, reading.leave_out)]
    for pattern in reading.leave_out:
        if not any(is_left_out(image, (pattern,)) for image in everything):
            raise ValueError(f"--leave_out {pattern}: matches no image of {source}, by its path, name or folders")
    if not images:
        raise ValueError(f"{source}: no images in it; it must hold a folder for each class, or Training/ and Testing/")
    if not (info or reading.keep_masks):
        must_hold_no_masks(images, source)
    places = find_places(images, source, reading.layout, careful=info is None)
    if info and not any(place.split or is_class(place.class_name, info) for place in places):
        raise ValueError(
            f"{source}: holds neither Training/ and Testing/ nor a folder for each class ({', '.join(info.classes)})"
        )
    if reading.layout != "innermost":
        _must_be_filled(source, everything, images, places)
    records = list(_of_classes(images, places, source, info))
    must_hold(info, records, source)
    if info:
        _each_split_must_hold(info, records, images, places, source)
    return records, classes_of(records, info)


def _each_split_must_hold(
    info: DatasetInfo,
    records: Sequence[Record],
    images: Sequence[PurePosixPath],
    places: Sequence[Place],
    source: Path,
) -> None:
    """Raises ValueError if the folder of a split lacks a class of a known data set."""
    around = {image.parts[: place.depth] for image, place in zip(images, places, strict=True)}
    for folders in sorted(folders for folders in around if any(map(split_of, folders))):
        inside = "".join(f"{name}/" for name in folders)
        must_hold(info, [record for record in records if record.path.startswith(inside)], source.joinpath(*folders))


def _images_below(source: Path, info: DatasetInfo | None) -> list[PurePosixPath]:
    """The paths of all images in `source`, within it, those in no folder first. Of a known data set in a folder
    `process` only these."""
    top = source / "process" if info and (source / "process").is_dir() else source
    ours = {"duplicates.png"} if (top / "audit.csv").is_file() else set()
    found = sorted(
        path
        for path in top.iterdir()
        if path.is_file() and suffix_of(path) in KINDS and not path.name.startswith(".") and path.name not in ours
    )
    found += [path for folder in _subfolders(top) for path in images_in(folder)]
    images = (PurePosixPath(path.relative_to(source).as_posix()) for path in found)
    return [image for image in images if not set(image.parts) & set(JUNK)]


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, without hidden ones and without what earlier runs of ours wrote beside the images."""
    ours = any((folder / name).is_file() for name in ("manifest.csv", "audit.csv", "cache/read.csv"))
    left_out = ("cache", "AT_*", "phantoms_*") if ours else ()
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", *JUNK)) and not any(map(path.match, left_out))
    )


def _must_be_filled(
    source: Path, everything: Sequence[PurePosixPath], images: Sequence[PurePosixPath], places: Sequence[Place]
) -> None:
    """Raises ValueError if a folder beside those of the classes holds no image; one whose images are left out may."""
    held = {way[:k] for way in {image.parts[:-1] for image in everything} for k in range(1, len(way) + 1)}
    for parts in sorted({image.parts[: place.depth] for image, place in zip(images, places, strict=True)}):
        for folder in _subfolders(source.joinpath(*parts)):
            if (*parts, folder.name) not in held:
                raise ValueError(f"{folder}: no images in it; files that are read end in {', '.join(sorted(KINDS))}")


def _of_classes(
    images: Sequence[PurePosixPath], places: Sequence[Place], source: Path, info: DatasetInfo | None
) -> Iterator[Record]:
    """The record of each image; where a class folder holds one called CROPPED, only of those in there. Raises
    ValueError if a known data set has no such class."""
    folders = [image.parts[: place.depth + 1] for image, place in zip(images, places, strict=True)]
    cropped = {folder for image, folder in zip(images, folders, strict=True) if CROPPED in image.parts[len(folder) :]}
    named = {folder: place.class_name for folder, place in zip(folders, places, strict=True)}
    classes = {folder: class_called(name, info, str(source.joinpath(*folder))) for folder, name in named.items()}
    for image, place, folder in zip(images, places, folders, strict=True):
        if folder not in cropped or CROPPED in image.parts[len(folder) :]:
            yield Record(str(image), classes[folder], place.split)
