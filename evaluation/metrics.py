"""What a clinician asks of a classifier: accuracy by class, with intervals, from predictions alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from evaluation.certificates import clopper_pearson


def summarize(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> dict:
    """Accuracy (with its 95% Clopper–Pearson interval), balanced accuracy, sensitivity and specificity of every class
    and the confusion matrix (rows: true class). `labels` and `predictions` are int `[N]`."""
    matrix = confusion_matrix(labels, predictions, labels=range(len(classes)))
    hits, count = int(np.trace(matrix)), len(labels)
    per_class = {}
    for k, name in enumerate(classes):
        positives = int(matrix[k].sum())
        negatives = count - positives
        false_alarms = int(matrix[:, k].sum() - matrix[k, k])
        per_class[name] = {
            "images": positives,
            "sensitivity": float(matrix[k, k] / positives) if positives else None,
            "specificity": float(1 - false_alarms / negatives) if negatives else None,
        }
    return {
        "images": count,
        "accuracy": hits / count,
        "accuracy_interval": clopper_pearson(hits, count),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predictions)),
        "per_class": per_class,
        "confusion": matrix.tolist(),
    }
