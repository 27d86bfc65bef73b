"""The manifest: which image belongs to which split (`manifest.csv`), and how that was found (`manifest.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import files
from common.lines import table_line
from datasets import MANIFEST_COLUMNS, MANIFEST_VERSION
from imaging.catalogue import DatasetInfo
from preparation.scan import Record


def write_manifest(
    folder: Path,
    records: Sequence[Record],
    splits: Sequence[str],
    groups: Sequence[str],
    info: DatasetInfo,
    settings: dict[str, Any],
) -> None:
    """Write the table whose columns the design fixes, and beside it `settings` with the table's fingerprint: what is
    written halfway is found out by `datasets.read_manifest`. The same images and settings give the same table anywhere.
    """
    path = folder / "manifest.csv"
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        stream.write(table_line(MANIFEST_COLUMNS))
        for record, split, group in zip(records, splits, groups, strict=True):
            name = record.class_name
            pixels = (record.sha256, record.width, record.height)
            line = (record.path, info.classes.index(name), name, split, group, *pixels, record.excluded)
            stream.write(table_line(line))
    about = {"version": MANIFEST_VERSION, "sha256": files.sha256(path)}
    files.write_json(path.with_suffix(".json"), about | settings)
