"""Shortcuts: traits that predict the class but are no medicine, as image size, border, or how a file was saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict

from preparation.scan import Record
from preparation.splits import group_folds

LARGEST = 4000  # images looked at: more would not change the answer
FRAME = 3  # pixels of a thumbnail's border


def traits(record: Record) -> dict[str, list[float]]:
    """What is known of an image without looking at what it shows."""
    assert record.thumbnail is not None  # unreadable images are left out before
    grey = record.thumbnail / 255.0
    frame = np.concatenate(
        [grey[:FRAME].ravel(), grey[-FRAME:].ravel(), grey[:, :FRAME].ravel(), grey[:, -FRAME:].ravel()]
    )
    area = record.width * record.height
    return {
        "image size": [record.width, record.height],
        "border": [frame.mean(), frame.std()],
        "mean intensity": [grey.mean()],
        "how it was saved": [hash_of(record.format), hash_of(record.mode), record.quantisation, record.bytes / area],
    }


def hash_of(word: str) -> float:
    """A number that stands for a word; the same in every process."""
    return float(int.from_bytes(word.encode()[:6], "big"))


def shortcuts(records: Sequence[Record], groups: Sequence[str], seed: int = 0) -> dict[str, tuple[float, float]]:
    """For each trait (balanced accuracy, chance) of a random forest that sees it alone, on groups that it was not
    fitted to; {} where there are too few groups to cross-validate. A trait that all images share is at chance."""
    usable = [i for i, record in enumerate(records) if record.thumbnail is not None]
    if len(usable) > LARGEST:
        usable = sorted(np.random.default_rng(seed).choice(usable, LARGEST, replace=False))
    # As numbers: scikit-learn takes names such as "0" for numbers in one place and for text in another.
    labels = np.unique([records[i].class_name for i in usable], return_inverse=True)[1]
    owners = np.unique([groups[i] for i in usable], return_inverse=True)[1]
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < 5 or len(set(owners)) < 5:
        return {}
    chance = 1 / len(counts)
    table = [traits(records[i]) for i in usable]
    folds = list(group_folds(labels, owners, 5, seed))
    found = {}
    for name in table[0]:
        values = np.array([row[name] for row in table])
        if (values == values[0]).all():
            found[name] = (chance, chance)
            continue
        forest = RandomForestClassifier(50, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        guessed = cross_val_predict(forest, values, labels, cv=folds)
        found[name] = (float(balanced_accuracy_score(labels, guessed)), chance)
    return found
