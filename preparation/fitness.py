"""Are the images fit for use? What stops their preparation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import SPLITS
from imaging.catalogue import DatasetInfo
from preparation.audit import Finding
from preparation.scan import Record


def must_be_readable(unreadable: Sequence[Record], root: Path) -> None:
    """Raises ValueError that names the first unreadable images, if there are any."""
    if unreadable:
        named = "; ".join(f"{root / record.path} ({record.excluded})" for record in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise ValueError(f"{len(unreadable)} unreadable image(s): {named}{more}; --skip_unreadable sets them aside")


def must_be_filled(source: Path, info: DatasetInfo, counts: dict[str, dict[str, int]], held: Sequence[str]) -> None:
    """Raises ValueError if a split lacks a class; `held` names the group of each image that is in a split."""
    for split in SPLITS:
        empty = [class_name for class_name in info.classes if not counts[split][class_name]]
        if empty:
            few = f" ({len(held)} images are {len(set(held))} groups; try --near, --group_by, --fold 0/3)"
            raise ValueError(f"{source}: too few images, split {split} has none of class {', '.join(empty)}{few}")


def must_pass(source: Path, protocol: str, findings: Sequence[Finding]) -> None:
    """Raises ValueError if the audit found an error."""
    errors = [found.check for found in findings if found.severity == "error"]
    if errors:
        raise ValueError(f"{source}: not fit for use under --protocol {protocol}: {', '.join(errors)}")
