"""Images that are the same picture: identical pixels, or nearly so.

Two images are *near duplicates* when the correlation of their grey thumbnails reaches a threshold: the same picture
compressed, resized or brightened again, the next slice of the same head, the same cell on an overlapping field. Looked
at side by side, pairs above 0.98 are such in both medical sets; below 0.96 they begin to be of different patients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from preparation.scan import Record

Near = Sequence[tuple[int, int, float]]  # (i, j, correlation) of two records that are alike


def identical_groups(records: Sequence[Record]) -> list[list[Record]]:
    """The groups of two or more readable images whose pixels are identical."""
    by_pixels: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.sha256:
            by_pixels[record.sha256].append(record)
    return [group for group in by_pixels.values() if len(group) > 1]


def near_groups(records: Sequence[Record], near: Near) -> list[list[Record]]:
    """The connected groups of near duplicates that are not all identical."""
    component = _components(len(records), [(i, j) for i, j, _ in near])
    members: dict[int, list[Record]] = defaultdict(list)
    for record, which in zip(records, component, strict=True):
        members[which].append(record)
    return [group for group in members.values() if len({record.sha256 for record in group}) > 1]


def near_pairs(
    thumbnails: Sequence[np.ndarray], least: float, block: int = 2048, many: int = 20_000
) -> list[tuple[int, int, float]]:
    """(i, j, correlation) of all i < j with a correlation of at least `least`; `thumbnails` N times uint8 `[H, W]`.

    A thumbnail of one grey value correlates with nothing. Memory is `block`² numbers, whatever N is: where two blocks
    hold more than `many` pairs, as those of a film do, only so many are returned that join the same images to groups.
    """
    from tqdm import tqdm

    found: list[tuple[int, int, float]] = []
    starts = range(0, len(thumbnails), block)
    both = [(start, other) for start in starts for other in starts if start <= other]
    for start, other in tqdm(both, desc="compare images", disable=None if len(both) > 3 else True, leave=False):
        if start == other:
            rows = columns = _standardised(np.stack(thumbnails[start : start + block]))
        else:
            columns = _standardised(np.stack(thumbnails[other : other + block]))
        correlation = rows @ columns.T
        alike = np.argwhere(correlation >= least)
        alike = alike[start + alike[:, 0] < other + alike[:, 1]]
        if len(alike) > many:
            alike = _spanning(alike, start, other)
        found += [(int(start + i), int(other + j), float(correlation[i, j])) for i, j in alike]
    return found


def _spanning(pairs: np.ndarray, start: int, other: int) -> np.ndarray:
    """As few of the pairs `[P, 2]` (of numbers that begin at `start` and `other`) as join the same things."""
    ends = pairs + (start, other)
    things, codes = np.unique(ends, return_inverse=True)
    codes = codes.reshape(-1, 2)
    graph = coo_matrix((np.ones(len(codes)), (codes[:, 0], codes[:, 1])), shape=(len(things),) * 2)
    tree = minimum_spanning_tree(graph).tocoo()
    return things[np.sort(np.stack([tree.row, tree.col], axis=1), axis=1)] - (start, other)


def near_duplicates(records: Sequence[Record], least: float | None) -> Near:
    """`near_pairs` of the readable records, identical ones included; none where `least` is None."""
    readable = [(i, record.thumbnail) for i, record in enumerate(records) if record.thumbnail is not None]
    if least is None or not readable:
        return []
    pairs = near_pairs([thumbnail for _, thumbnail in readable], least)
    return [(readable[i][0], readable[j][0], correlation) for i, j, correlation in pairs]


def group_names(records: Sequence[Record], near: Near, subjects: bool = True) -> list[str]:
    """A group name per record: the connected components of "same pixels", "near duplicate" and "same subject", the unit
    that never crosses splits; without `subjects` those of the first two, a picture and its copies."""
    first: dict[str, int] = {}
    links = [(i, j) for i, j, _ in near]
    whose = [record.subject if subjects else "" for record in records]
    for i, record in enumerate(records):
        keys = (f"pixels:{record.sha256}" * bool(record.sha256), f"subject:{whose[i]}" * bool(whose[i]))
        links += [(i, first.setdefault(key, i)) for key in keys if key]
    component = _components(len(records), links)
    members: dict[int, list[str]] = defaultdict(list)
    for record, subject, which in zip(records, whose, component, strict=True):
        members[which].append(subject or record.sha256[:16] or record.path)
    return [min(members[which]) for which in component]


def duplicate_counts(records: Sequence[Record], near: Near) -> dict[str, int]:
    """How many images are there more than once, on both sides of the published split, and under two labels."""

    def testing_images(groups: Iterable[Sequence[Record]]) -> set[str]:
        return {record.path for group in groups for record in group if record.source_split == "test"}

    def across_training_and_testing(groups: Iterable[Sequence[Record]]) -> list[Sequence[Record]]:
        return [group for group in groups if {"train", "test"} <= {record.source_split for record in group}]

    identical = identical_groups(records)
    across = across_training_and_testing(identical)
    pairs = [(records[i], records[j]) for i, j, _ in near if records[i].sha256 != records[j].sha256]
    leaked = testing_images(across)
    nearly = testing_images(across_training_and_testing(pairs))
    return {
        "testing_images": sum(record.source_split == "test" for record in records),
        "duplicate_groups": len(identical),
        "superfluous_images": sum(len(group) - 1 for group in identical),
        "duplicate_groups_across_training_and_testing": len(across),
        "testing_images_also_in_training": len(leaked),
        "testing_images_nearly_in_training": len(nearly - leaked),
        "duplicate_groups_with_conflicting_labels": sum(len({r.class_name for r in group}) > 1 for group in identical),
        "near_duplicate_pairs": len(pairs),
        "near_duplicate_pairs_with_conflicting_labels": sum(a.class_name != b.class_name for a, b in pairs),
    }


def _components(count: int, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which connected component each of `count` things belongs to."""
    ends = np.array(links, dtype=int).reshape(-1, 2)
    linked = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return connected_components(linked, directed=False)[1]


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    """float32 `[N, H·W]`, each of mean 0 and length 1, so that a scalar product is a correlation."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, np.inf)
