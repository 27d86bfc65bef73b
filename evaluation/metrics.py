"""Clinical metrics of a classifier: accuracy per class, with intervals, and the calibration of its confidence.

A prediction of the smoothed classifier may be -1, ABSTAIN. An abstention is never correct: it counts against
sensitivity and specificity. It states nothing, so neither predictive value contains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, matthews_corrcoef, roc_auc_score

from common.lines import shown
from evaluation.certificates import ABSTAIN, clopper_pearson

RATES = ("sensitivity", "specificity", "ppv", "npv")


def summarize(
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
    probabilities: np.ndarray | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    group_predictions: np.ndarray | None = None,
) -> dict:
    """All metrics as plain numbers (None where they are not defined), every proportion with its 95% Clopper–Pearson
    interval beside it.

    Args:
        labels: int `[N]`.
        predictions: int `[N]`, ABSTAIN allowed.
        classes: K names.
        probabilities: `[N, K]`, for AUC and calibration; None: they are not known.
        groups: name → its classes, e.g. of disease and healthy; adds the rates of each group.
        group_predictions: int `[N]`, the predicted group, ABSTAIN allowed; None: the group of the predicted class.

    `confusion` has a row per true class and a column per predicted class. If there are abstentions, the last column
    counts them.
    """
    k, count = len(classes), len(labels)
    abstained = int((predictions == ABSTAIN).sum())
    columns = [*range(k), ABSTAIN]
    matrix = confusion_matrix(labels, predictions, labels=columns)[:k, : k + (abstained > 0)]
    hits = int(np.trace(matrix))
    per_class = {name: rates(labels == i, predictions == i, predictions != ABSTAIN) for i, name in enumerate(classes)}
    recalls = [row["sensitivity"] for row in per_class.values() if row["sensitivity"] is not None]
    report = {
        "images": count,
        "accuracy": hits / count,
        "accuracy_interval": clopper_pearson(hits, count),
        "balanced_accuracy": float(np.mean(recalls)),
        "mcc": float(matthews_corrcoef(labels, predictions)),
        "abstained": abstained / count,
        **(confidence(labels, probabilities) if probabilities is not None else {}),
        "per_class": per_class,
    }
    if groups:
        parts = [list(members) for members in groups.values()]
        if group_predictions is None:
            said, answered = [np.isin(predictions, own) for own in parts], predictions != ABSTAIN
        else:
            said, answered = [group_predictions == i for i in range(len(parts))], group_predictions != ABSTAIN
        report["groups"] = {
            name: rates(np.isin(labels, own), of, answered) for name, own, of in zip(groups, parts, said, strict=True)
        }
    return {**report, "confusion": matrix.tolist()}


def rates(truth: np.ndarray, said: np.ndarray, answered: np.ndarray) -> dict:
    """Sensitivity P(said | truth), specificity P(denied | not truth), predictive values P(truth | said) and
    P(not truth | denied), each with its interval; denied is answered, but not said. All arguments are bool `[N]`."""
    denied = answered & ~said
    found: dict[str, Any] = {"images": int(truth.sum())}
    for name, of, right in zip(RATES, (truth, ~truth, said, denied), (said, denied, truth, ~truth), strict=True):
        hits, count = int((of & right).sum()), int(of.sum())
        found[name] = hits / count if count else None
        found[f"{name}_interval"] = clopper_pearson(hits, count) if count else None
    return found


def confidence(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> dict:
    """Macro AUC, the expected calibration error (Guo et al. 2017, eq. 3), and the bins of that error. Macro AUC is the
    mean area under the one-against-all ROC, over the classes for which there are images of this class and of others."""
    areas = [
        roc_auc_score(labels == i, probabilities[:, i])
        for i in range(probabilities.shape[1])
        if 0 < (labels == i).sum() < len(labels)
    ]
    reliability = calibration(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)
    error = sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in reliability) / len(labels)
    return {"macro_auc": float(np.mean(areas)) if areas else None, "ece": error, "reliability": reliability}


def calibration(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> list[dict]:
    """Mean confidence and accuracy in each of `bins` equal intervals (low, high] of confidence that is not empty."""
    which = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "images": int((which == b).sum()),
            "confidence": float(confidences[which == b].mean()),
            "accuracy": float(correct[which == b].mean()),
        }
        for b in np.unique(which).tolist()
    ]


def metric_records(report: dict) -> list[dict]:
    """A report of `summarize` as one record per number: `of` (all, or a class or group), metric, value, low, high. The
    confusion matrix follows: metric `answered NAME` counts the images of a class that were answered as NAME. A class
    that is called `all`, or as a group is, is `class NAME` in `of`."""

    def record(of: str, name: str, row: dict) -> dict:
        low, high = row.get(f"{name}_interval") or (None, None)
        return {"of": of, "metric": name, "value": row[name], "low": low, "high": high}

    overall = ("accuracy", "balanced_accuracy", "mcc", "macro_auc", "ece", "abstained", "images")
    groups, taken = report.get("groups", {}), {"all", *report.get("groups", {})}
    classes = [f"class {name}" if name in taken else name for name in report["per_class"]]
    parts = [*zip(classes, report["per_class"].values(), strict=True), *groups.items()]
    records = [record("all", name, report) for name in overall if name in report]
    records += [record(of, name, row) for of, row in parts for name in ("images", *RATES)]
    return records + [
        {"of": of, "metric": f"answered {answer}", "value": count, "low": None, "high": None}
        for of, row in zip(classes, report["confusion"], strict=True)
        for answer, count in zip([*report["per_class"], "ABSTAIN"], row, strict=False)
    ]


def report_text(report: dict, decided: str) -> str:
    """A report of `summarize` for the screen: the overall numbers, then a line per class and group. `decided` says how
    disease or health was decided."""
    lines = [_overall(report)]
    if "groups" in report:
        lines.append(f"  disease or health: {decided}")
    for of, row in [*report["per_class"].items(), *report.get("groups", {}).items()]:  # names may be in both
        each = ", ".join(f"{rate} {_percent(row[rate])}" for rate in RATES)
        lines.append(f"  {shown(of, 40):<18} {each} ({row['images']} images)")
    return "\n".join(lines)


def _overall(report: dict) -> str:
    low, high = report["accuracy_interval"]
    others = [f"balanced {report['balanced_accuracy']:.1%}", f"MCC {report['mcc']:.3f}"]
    others += [f"AUC {report['macro_auc']:.3f}"] if report.get("macro_auc") is not None else []
    others += [f"ECE {report['ece']:.3f}"] if "ece" in report else []
    others += [f"abstained {report['abstained']:.1%}"] if report["abstained"] else []
    return (
        f"accuracy {report['accuracy']:.1%} (95% {low:.1%}–{high:.1%}), {', '.join(others)}, {report['images']} images"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
