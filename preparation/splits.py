"""Assign each image to a split, so that no group (`duplicates.group_names`) lies in two splits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from preparation.scan import Record

FOLDS = 5  # of the pooled protocol: one fifth for testing
VALIDATION = {"official": 10, "stratified": 8}  # one of so many parts of what is not tested: 10% of all images, or so
ALSO_IN, GROUP_IN = "also in", "its group is in"  # how the reasons for leaving an image out begin


def assign_splits(
    records: Sequence[Record],
    groups: Sequence[str],
    protocol: str,
    seed: int,
    fold: tuple[int, int] = (0, FOLDS),
    pictures: Sequence[str] | None = None,
) -> list[str]:
    """The split of each record, stratified by class; marks (in place) the training images that `official` leaves out.

    `official`: the published split; if it has no validation images, a tenth of its training images become these. Images
    of training and validation are excluded, with the reason, if they or their group also lie in the test split; images
    of training also if they lie in validation. `stratified`: all images are pooled; part i of `fold` = (i, k) is for
    testing, an eighth of the rest for validation. Groups stay whole in both.

    `pictures` name the copies of one picture within the groups (None: a group is one picture); they only decide the
    reason. Excluded images have the split "". The splits depend on the pixels and on the groups, not on names, order or
    the version of scikit-learn. Raises ValueError if `official` finds no published split.
    """
    if protocol == "official":
        splits = _published(records)
        for names, reason in ((pictures or groups, f"{ALSO_IN} {{}}: {{}}"), (groups, f"{GROUP_IN} {{}}")):
            _leave_out(records, splits, names, reason)
    else:
        splits = _pooled(records, groups, seed, fold)
    if "val" not in splits:
        training = [i for i, record in enumerate(records) if splits[i] == "train" and not record.excluded]
        for i in _validation(records, groups, training, VALIDATION[protocol], seed + 1):
            splits[i] = "val"
    return ["" if record.excluded else split for record, split in zip(records, splits, strict=True)]


def _published(records: Sequence[Record]) -> list[str]:
    """The published split of each record, "" of those that are set aside. Raises ValueError if there is none."""
    splits = ["" if record.excluded else record.source_split for record in records]
    usable = [i for i, record in enumerate(records) if not record.excluded]
    of_none = [records[i].path for i in usable if splits[i] == ""]
    if 0 < len(of_none) < len(usable):
        raise ValueError(
            f"--protocol official: {len(of_none)} images are in no part of the published split, {of_none[0]} for one"
        )
    if of_none or "test" not in splits:
        raise ValueError(
            "--protocol official: the source has no published split into training and testing images; "
            "use --protocol stratified"
        )
    return splits


def _leave_out(records: Sequence[Record], splits: Sequence[str], names: Sequence[str], reason: str) -> None:
    """Mark the images of validation and training whose name in `names` an image of another split bears already, in the
    order test, validation, training. `reason` has places for that split and the path of that image."""
    taken: dict[str, int] = {}
    for split in ("test", "val", "train"):
        for i, record in enumerate(records):
            if splits[i] != split or record.excluded:
                continue
            first = taken.setdefault(names[i], i)
            if splits[first] != split:
                record.excluded = reason.format(splits[first], records[first].path)


def _pooled(records: Sequence[Record], groups: Sequence[str], seed: int, fold: tuple[int, int]) -> list[str]:
    """test for part i of `fold` = (i, k), train for the rest, "" for what is set aside."""
    usable = [i for i, record in enumerate(records) if not record.excluded]
    dealt = _parted(records, groups, usable, fold[1], seed)
    rest, test = dealt[fold[0]] if dealt else (usable, [])
    splits = [""] * len(records)
    for name, members in (("train", rest), ("test", test)):
        for i in members:
            splits[i] = name
    return splits


def group_folds(
    labels: Sequence[str] | np.ndarray, owners: Sequence[int] | np.ndarray, parts: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices of the other parts, indices of part k) for each of `parts` parts, in whole groups, stratified by class.
    Yields nothing if there are too few groups, or too few images of every class, for so many parts.

    `owners` number the groups 0, 1, …; the groups are shuffled here, because scikit-learn's own `shuffle` changed in
    version 1.8.
    """
    order = np.random.RandomState(seed).permutation(max(owners, default=-1) + 1)
    if len(order) < parts or max(np.unique(labels, return_counts=True)[1], default=0) < parts:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class smaller than `parts`: the caller says it better
        yield from StratifiedGroupKFold(parts).split(labels, labels, np.argsort(order)[owners])


def _parted(
    records: Sequence[Record], groups: Sequence[str], members: list[int], parts: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """(the others, part k) of `members` for each k, as `group_folds` deals them; groups are numbered as they come in
    the order of their pixels' fingerprints, so that no name matters."""
    members = sorted(members, key=lambda i: (records[i].sha256, records[i].path))
    number: dict[str, int] = {}
    owners = [number.setdefault(groups[i], len(number)) for i in members]
    folds = group_folds([records[i].class_name for i in members], owners, parts, seed)
    return [([members[i] for i in others], [members[i] for i in chosen]) for others, chosen in folds]


def _validation(
    records: Sequence[Record], groups: Sequence[str], training: list[int], parts: int, seed: int
) -> list[int]:
    """One of `parts` parts of `training`: the first that holds every class and leaves every class to the others. A
    small study is dealt in fewer parts until there is one; if there is none, the first part of all."""

    def classes(members: list[int]) -> set[str]:
        return {records[i].class_name for i in members}

    first: list[int] = []
    for count in range(min(parts, len({groups[i] for i in training})), 1, -1):
        for others, chosen in _parted(records, groups, training, count, seed):
            if classes(others) == classes(chosen) == classes(training):
                return chosen
            first = first or chosen
    return first
