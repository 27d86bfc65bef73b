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

    `official`: the published split, with a tenth of its training images for validation where it has no validation
    images; what also lies, or whose group also lies, in the test split is excluded from the others with the reason, and
    what lies in validation from training. `stratified`: everything pooled; part i of `fold` = (i, k) for testing, an
    eighth of the rest for validation. Groups stay whole in both. Excluded images belong to the split "". The splits
    depend on what the images hold, not on their names or their order. Raises ValueError if `official` finds no
    published split.
    """
    splits = [record.source_split if protocol == "official" and not record.excluded else "" for record in records]
    usable = [i for i, record in enumerate(records) if not record.excluded]
    if protocol == "official":
        if any(splits[i] == "" for i in usable) or "test" not in splits:
            raise ValueError("--protocol official: the source has no published split into training and testing images; "
                             "use --protocol stratified")  # fmt: skip
        taken: dict[str, int] = {}
        for split in ("test", "val", "train"):
            for i in (i for i in usable if splits[i] == split):
                first = taken.setdefault(groups[i], i)
                if splits[first] != split:
                    records[i].excluded = f"also in {splits[first]}: {records[first].path}"
    else:
        rest, test = _parted(records, groups, usable, fold[1], fold[0], seed)
        for name, members in (("train", rest), ("test", test)):
            for i in members:
                splits[i] = name
    if "val" not in splits:
        training = [i for i in usable if splits[i] == "train" and not records[i].excluded]
        for i in _parted(records, groups, training, VALIDATION[protocol], 0, seed + 1)[1]:
            splits[i] = "val"
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
