"""Volumes, and scans in many files: which of their slices are taken, and whose they are."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imaging.dicom import frame_count, open_dicom, tag
from imaging.dicom_levels import number_of
from imaging.images import DICOM, more_volumes, of_volume, slices_of, suffix_of
from preparation.scan import Record

# Whose a DICOM file is, by the first of these that it tells: anonymised files have lost the patient.
OWNERS = (("patient", "PatientID"), ("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID"))


def choose_slices(
    records: Sequence[Record], source: Path, slices: int | None, volume: int | None = None
) -> list[Record]:
    """Choose `slices` slices of each volume, frames of each DICOM file, and files of each DICOM series, evenly from the
    middle half. None: one slice or frame, and every file of a series. `volume`: of files that hold several, this one
    (None: the first, with a warning). Other records are unchanged. Raises ValueError if `slices` is above 1 and there
    is nothing to take several of, or if `volume` is given and no file has several."""
    kept, series = (records, 0) if slices is None else _of_series(records, source, slices)
    several = [record.path for record in kept if _volumes(source / record.path)]
    if volume is None and several:
        held = " x ".join(map(str, _volumes(source / several[0])))
        warnings.warn(
            f"{len(several)} file(s) hold several volumes ({several[0]}: {held}); the first of each is taken, another "
            "with --volume K",
            stacklevel=2,
        )
    elif volume is not None and not several:
        raise ValueError(f"--volume {volume}: {source} holds no NIfTI file of several volumes")
    sliced = [each for record in kept for each in _of_volume(record, source, slices or 1, volume)]
    if slices is not None and slices > 1 and len(sliced) == len(kept) and not series:
        raise ValueError(
            f"--slices {slices}: {source} holds no NIfTI volume, no DICOM file of several frames and no "
            "series of files; any other file is one image"
        )
    return sliced


def owner(record: Record, source: Path) -> str:
    """The patient of a DICOM file, hashed (if it is not stored: study, or series); the volume of a slice; "" if neither
    is known."""
    file, numbers = of_volume(source / record.path)
    volume = record.path.rpartition("[")[0] if numbers else ""
    return (suffix_of(file) in DICOM and _patient(file)) or volume


def middle(count: int, slices: int) -> set[int]:
    """So many of `count` numbers, evenly from their middle half; from all of them where that half has fewer."""
    inner = {int(count * (0.25 + 0.5 * (k + 0.5) / slices)) for k in range(slices)}
    return inner if len(inner) == slices else {int(count * (k + 0.5) / slices) for k in range(slices)}


def _of_volume(record: Record, source: Path, count: int, volume: int | None) -> list[Record]:
    """A volume's slices, evenly from its middle half; any other record as it is."""
    try:
        depth = slices_of(source / record.path)
    except (OSError, ValueError):  # read_images will say what is wrong with the file
        depth = None
    if depth is None:
        return [record]
    which = "" if volume is None or not _volumes(source / record.path) else f",{volume}"
    return [
        Record(f"{record.path}[{number}{which}]", record.class_name, record.source_split, record.subject)
        for number in sorted(middle(depth, count))
    ]


def _volumes(path: Path) -> tuple[int, ...]:
    """How many volumes a file holds, along each axis of them; () if one, or if it cannot be read."""
    try:
        return more_volumes(path)
    except (OSError, ValueError):  # read_images will say what is wrong with the file
        return ()


def _of_series(records: Sequence[Record], source: Path, count: int) -> tuple[list[Record], int]:
    """The records without those DICOM files of one frame of which their series has more than the `count` that are
    taken, evenly from its middle half in the order of the scan; (they, the number of series of several files)."""
    series: dict[tuple[str, str], list[tuple[float, Record]]] = defaultdict(list)
    for record in records:
        path = source / record.path
        told = _tags(path) if suffix_of(path) in DICOM else None
        name = None if told is None or not _is_single(told) else tag(told, "SeriesInstanceUID")
        if name:
            series[record.class_name, str(name)].append((_place(told), record))
    left_out: set[str] = set()
    for files in series.values():
        if len(files) <= count:
            continue
        ordered = [record for _, record in sorted(files, key=lambda each: (each[0], each[1].path))]
        left_out |= {record.path for k, record in enumerate(ordered) if k not in middle(len(ordered), count)}
    kept = [record for record in records if record.path not in left_out]
    return kept, sum(len(files) > 1 for files in series.values())


def _place(told) -> float:
    """Where a slice lies along the axis of its scan (position along the normal of its plane; else its number)."""
    try:
        row, column = (np.array(tag(told, "ImageOrientationPatient")[k : k + 3], dtype=float) for k in (0, 3))
        place = float(np.cross(row, column) @ np.array(tag(told, "ImagePositionPatient"), dtype=float))
    except (TypeError, ValueError):
        place = math.nan
    return place if math.isfinite(place) else number_of(tag(told, "InstanceNumber")) or 0.0


def _is_single(told) -> bool:
    """Whether a DICOM file holds one frame; one that tells no number does not."""
    try:
        return frame_count(told) == 1
    except ValueError:
        return False


def _tags(path: Path):
    """The header of a DICOM file; None where it cannot be read."""
    try:
        return open_dicom(path, header=True)
    except (OSError, ValueError):  # read_images will say what is wrong with the file
        return None


def _patient(path: Path) -> str:
    data = _tags(path)
    if data is None:
        return ""
    told = ((word, str(tag(data, name) or "").strip()) for word, name in OWNERS)
    return next((f"{word} {hashlib.sha256(name.encode()).hexdigest()[:12]}" for word, name in told if name), "")
