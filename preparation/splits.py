"""Which image belongs to which split, so that no group (`duplicates.group_names`) lies on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from preparation.scan import Record

FOLDS = 5  # of the pooled protocol: one fifth for testing
VALIDATION = {"official": 10, "stratified": 8}  # one of so many parts of what is not tested: 10% of all images, or so


def assign_splits(
    records: Sequence[Record], groups: Sequence[str], protocol: str, seed: int, fold: tuple[int, int] = (0, FOLDS)
) -> list[str]:
    """The split of each record, stratified by class; marks (in place) the training images that `official` leaves out.

    `official`: Testing → test; Training → train and val (10%); a training image whose group also lies in Testing is
    excluded with the reason. `stratified`: everything pooled; part i of `fold` = (i, k) for testing, an eighth of the
    rest for validation. Groups stay whole in both. Excluded images belong to the split "". The splits depend on what
    the images hold, not on their names or their order.
    """
    splits = [""] * len(records)
    if protocol == "official":
        testing: dict[str, str] = {}
        for record, group in zip(records, groups, strict=True):
            if record.source_split == "Testing" and not record.excluded:
                testing.setdefault(group, record.path)
        for i, (record, group) in enumerate(zip(records, groups, strict=True)):
            if record.source_split == "Testing":
                splits[i] = "test"
            elif group in testing and not record.excluded:
                record.excluded = f"also in Testing: {testing[group]}"
        rest = [i for i, record in enumerate(records) if record.source_split == "Training" and not record.excluded]
    else:
        pooled = [i for i, record in enumerate(records) if not record.excluded]
        rest, test = _parted(records, groups, pooled, fold[1], fold[0], seed)
        for i in test:
            splits[i] = "test"
    train, val = _parted(records, groups, rest, VALIDATION[protocol], 0, seed + 1)
    for name, members in (("train", train), ("val", val)):
        for i in members:
            splits[i] = name
    return ["" if record.excluded else split for record, split in zip(records, splits, strict=True)]


def _parted(
    records: Sequence[Record], groups: Sequence[str], members: list[int], parts: int, part: int, seed: int
) -> tuple[list[int], list[int]]:
    """(the others, part `part` of `parts`) of `members`, whole groups, stratified by class. Too few images give empty
    parts: the caller checks what each split holds."""
    members = sorted(members, key=lambda i: (records[i].sha256, records[i].path))
    if len({groups[i] for i in members}) < parts:
        return members, []
    labels = np.array([records[i].class_name for i in members])
    owners = np.array([groups[i] for i in members])
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class smaller than `parts`: the caller says it better
        others, chosen = list(folds.split(members, labels, owners))[part]
    return [members[i] for i in others], [members[i] for i in chosen]
