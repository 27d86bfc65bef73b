"""Which image belongs to which split, so that nothing identical and no subject lies on both sides.

A *group* is the unit that never crosses splits: images with identical pixels, or of one subject, or linked by a chain
of both.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from preparation.scan import Record


def group_ids(records: Sequence[Record]) -> list[str]:
    """A group name per record: connected components of "same pixels" and "same subject" (union-find)."""
    parent = list(range(len(records)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, record in enumerate(records):
        for key in (f"pixels:{record.sha256}" if record.sha256 else "", f"subject:{record.subject}"):
            if key not in ("", "subject:"):
                parent[root(i)] = root(first.setdefault(key, i))
    members: dict[int, list[Record]] = defaultdict(list)
    for i, record in enumerate(records):
        members[root(i)].append(record)
    # The name depends on content alone, not on the order in which a file system lists its files.
    names = {i: min(m.subject or m.sha256[:16] or m.path for m in group) for i, group in members.items()}
    return [names[root(i)] for i in range(len(records))]


def assign_splits(records: Sequence[Record], protocol: str, seed: int) -> tuple[list[str], list[str]]:
    """Split and group of each record; marks (in place) the training images that `official` must leave out.

    `official`: Testing → test; Training → train and val (10%, stratified by class); a training image whose group also
    lies in Testing is excluded with the reason. `stratified`: everything pooled, 70/10/20, stratified by class. Groups
    stay whole in both. Excluded images belong to the split "".
    """
    groups = group_ids(records)
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
        pooled = [i for i, record in enumerate(records) if record.source_split == "Training"]
        shares = {"val": 0.1, "train": 0.9}
    else:
        pooled = list(range(len(records)))
        shares = {"test": 0.2, "val": 0.1, "train": 0.7}
    pooled = [i for i in pooled if not records[i].excluded]
    for i, split in zip(
        pooled, _stratified([records[i] for i in pooled], [groups[i] for i in pooled], shares, seed), strict=True
    ):
        splits[i] = split
    return ["" if record.excluded else split for record, split in zip(records, splits, strict=True)], groups


def _stratified(records: Sequence[Record], groups: Sequence[str], shares: dict[str, float], seed: int) -> list[str]:
    """Deal whole groups to the splits so that, within each class, image counts come as near as they can to `shares`.

    Groups are dealt in an order given by a hash of (seed, group): the same on every machine, independent of file names.
    A group of several classes (conflicting labels) is dealt with the class of its first image.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    by_class: dict[str, list[str]] = defaultdict(list)
    for group, indices in members.items():
        by_class[records[indices[0]].class_name].append(group)
    split_of: dict[str, str] = {}
    names = list(shares)
    for class_groups in by_class.values():
        order = sorted(class_groups, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).hexdigest())
        total = sum(len(members[group]) for group in order)
        wanted = np.array([shares[name] * total for name in names])
        dealt = np.zeros(len(names))
        for group in order:
            # To the split that lacks most, relative to its share.
            split = int(np.argmax((wanted - dealt) / wanted))
            dealt[split] += len(members[group])
            split_of[group] = names[split]
    return [split_of[group] for group in groups]
