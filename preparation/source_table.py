"""A table of images, `path,label[,group][,split]` → `Record`s, nothing opened yet."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from datasets import SPLITS
from imaging.catalogue import DatasetInfo
from imaging.images import of_volume
from preparation.classes import class_called, classes_of, must_hold
from preparation.folder_names import split_of
from preparation.masks import is_left_out
from preparation.scan import Record


def from_table(path: Path, info: DatasetInfo | None, leave_out: Sequence[str]) -> tuple[list[Record], tuple[str, ...]]:
    columns, *lines = _lines_of(path)
    records: list[Record] = []
    seen: dict[str, int] = {}
    for number, cells in lines:
        record = _of_row(f"{path}, line {number}", columns[1], cells, info, path.parent)
        if is_left_out(PurePosixPath(record.path), leave_out):
            continue
        if record.path in seen:
            raise ValueError(f"{path}, line {number}: names {record.path} again, after line {seen[record.path]}")
        seen[record.path] = number
        records.append(record)
    must_hold(info, records, path)
    return records, classes_of(records, info)


def _lines_of(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each line of a table that is not empty; the names of the columns come first. Raises
    FileNotFoundError, or ValueError if it is no such table."""
    if not path.is_file():
        raise FileNotFoundError(f"--source {path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a UTF-8 table ({error})") from None
    columns = [name.strip() for name in lines[0][1]] if lines else []
    if len(lines) < 2 or not {"path", "label"} <= set(columns):
        raise ValueError(
            f"{path}: must have the columns path,label (and may have group, split), separated by commas, "
            f"and at least one row; its first line is {','.join(columns)!r:.80}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path}: has a column twice ({','.join(columns)})")
    return [(1, columns), *lines[1:]]


def _of_row(where: str, columns: Sequence[str], cells: Sequence[str], info: DatasetInfo | None, folder: Path) -> Record:
    """The image of a table's row; its path is relative to `folder`. Raises ValueError that names `where` the row is if
    something is wrong with it."""
    if len(cells) > len(columns):
        raise ValueError(f"{where}: has {len(cells)} cells, not {len(columns)}; a cell that holds a comma needs quotes")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False)}
    row = dict.fromkeys(("path", "label", "group", "split"), "") | row
    split = split_of(row["split"])
    if row["split"] and split not in SPLITS:
        raise ValueError(f"{where}: split {row['split']!r} is none of train, training, val, validation, test, testing")
    if not row["path"] or not row["label"]:
        raise ValueError(f"{where}: has no path or no label")
    path = _on_disk(folder, dict(zip(columns, cells, strict=False))["path"])
    return Record(path, class_called(row["label"], info, where), split, row["group"])


def _on_disk(folder: Path, name: str) -> str:
    """How a file that a table names is called on this disk: as it stands there, without the blanks around it, with
    accents composed in the other way, or with the separators of Windows. If there is none, without the blanks."""
    plain = name.strip()
    spellings = [name, plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))]
    for spelling in (*spellings, *(each.replace("\\", "/") for each in spellings)):
        if _exists(of_volume(folder / spelling)[0]):
            return spelling
    return plain


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False
