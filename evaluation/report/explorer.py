"""The data behind the explorer: what the page looks up, and never computes. All counts are made here, by the functions
that make_tables.py uses, at every place where the slider can stop."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.certificates import (
    ABSTAIN,
    Certification,
    abstention_rate,
    certified_accuracy,
    clopper_pearson,
    columns_of,
    paired,
    rms_grey_levels,
)
from evaluation.report.charts import nice_step
from evaluation.report.sources import Attempt, Sources, has_groups, noise_key, pictured

STATES = ("right", "wrong", "uncertified", "abstained")
TILES = 2000  # images that the page shows one by one; of more, a sample
RISKIEST = 400  # of a sample: those at the greatest risk; the rest is drawn at random
STOPS = 100  # about as many places as the slider can stop at


def states(rows: np.ndarray, radius: float) -> tuple[int, int, int, int]:
    """How many images are certified right at `radius`, certified wrong, answered but not certified there, abstained."""
    if not len(rows):
        return 0, 0, 0, 0
    right = round(certified_accuracy(rows, radius) * len(rows))
    abstained = round(abstention_rate(rows) * len(rows))
    wrong = int(((rows["predict"] != ABSTAIN) & ~rows["correct"] & (rows["radius"] >= radius)).sum())
    return right, wrong, len(rows) - right - wrong - abstained, abstained


def longest_radius(certifications: Sequence[Certification]) -> float:
    """The largest radius that is known of any image."""
    ends = [min(each.asked, float(each.rows["radius"].max())) for each in certifications]
    return max([*ends, *(r for each in certifications for r in each.settings.get("radii") or [])])


def stops(certifications: Sequence[Certification], radii: Sequence[float]) -> list[float]:
    """Where the slider can stop: even steps up to the largest radius that is known of any image, and all of `radii`
    and of --radii up to there."""
    asked = {r for each in certifications for r in each.settings.get("radii") or []}
    longest = longest_radius(certifications)
    step = nice_step(longest, STOPS)
    even = (round(k * step, 6) for k in range(int(longest / step + 1e-9) + 1))
    return sorted({*even, *(r for r in [*radii, *asked] if r <= longest)})


def risk(each: Certification) -> dict[int, tuple[bool, float]]:
    """What images are sorted by, the greatest risk first: diseased before healthy, then by the signed group radius (of
    tables without groups, the radius). It is negative where the certified answer is wrong, and 0 without one."""
    rows, grouped = each.rows, has_groups(each)
    if grouped:
        sick, radius = rows["group_label"] == "disease", rows["group_radius"]
        right, answered = rows["group_predict"] == rows["group_label"], rows["group_predict"] != str(ABSTAIN)
    else:
        sick, radius = np.ones(len(rows), bool), rows["radius"]
        right, answered = rows["correct"], rows["predict"] != ABSTAIN
    signed = np.where(answered, np.where(right, radius, -radius), 0.0)
    return {
        idx: (not ill, margin)
        for idx, ill, margin in zip(rows["idx"].tolist(), sick.tolist(), signed.tolist(), strict=True)
    }


def by_risk(each: Certification) -> list[int]:
    """The images (idx) of a certification, the greatest risk first."""
    margins = risk(each)
    return sorted(margins, key=lambda idx: (margins[idx], idx))


def tiles(sources: Sources) -> list[int]:
    """The images that are shown one by one, by idx: all, or of very many a sample, always the same: those at the
    greatest risk for the main pipeline, and others at random."""
    everything = sorted({idx for each in sources.certifications for idx in each.rows["idx"].tolist()})
    if len(everything) <= TILES:
        return everything
    first = by_risk(sources.main)[:RISKIEST]
    rest = np.array(sorted(set(everything) - set(first)))
    drawn = np.random.default_rng(0).choice(rest, TILES - len(first), replace=False)
    return sorted([*first, *drawn.tolist()])


def filters(sources: Sources) -> list[tuple[str, set[int]]]:
    """The choices of classes: a name and its labels; the first is all of them."""
    count, sick = len(sources.classes), sources.diseased
    found = [("all classes", set(range(count)))]
    if sick and len(sick) < count:
        found += [("disease", sick), ("healthy", set(range(count)) - sick)]
    return found + [(sources.classes[label], {label}) for label in range(count)]


def explorer(sources: Sources, shown: Sequence[int]) -> dict[str, Any]:
    """Everything that the page looks up about the images `shown` and the counts of all images, as plain numbers."""
    where, choices = stops(sources.certifications, sources.radii), filters(sources)
    how: dict[str, int] = {}  # each way to attack, numbered
    labels: dict[int, int] = {}
    for each in sources.certifications:
        labels |= zip(each.rows["idx"].tolist(), each.rows["label"].tolist(), strict=True)
    certs = []
    for place, each in enumerate(sources.certifications):
        found = _lines(each, shown) | {"counts": counts(each, where, choices)}
        found["bound"] = [int(each.is_lower_bound(radius)) for radius in where]
        certs.append(found | _attempts(sources.attempts(place), shown, how))
    asked = [radius for radius in sources.radii if radius in where]
    return {
        "classes": sources.classes,
        "sick": [int(label in sources.diseased) for label in range(len(sources.classes))],
        "filters": [{"name": name, "labels": sorted(own)} for name, own in choices],
        "stops": where,
        "rms": [rms_grey_levels(radius, sources.values) for radius in where] if sources.values else None,
        "images": {
            "idx": list(shown),
            "label": [labels[idx] for idx in shown],
            "name": [sources.file_name(idx) for idx in shown],
        },
        "all": len(labels),
        "how": list(how),
        "certs": certs,
        "main": sources.certifications.index(sources.main),
        "start": where.index(sources.radius),
        "radii": [where.index(radius) for radius in asked],
        "pairs": pairs(sources.certifications, asked),
    }


def counts(
    each: Certification, where: Sequence[float], choices: Sequence[tuple[str, set[int]]]
) -> list[list[list[int | None]]]:
    """How many images are in each state: for each choice of classes, each of `STATES` and each stop; None beyond
    --radii."""
    found = []
    for _, own in choices:
        chosen = each.rows[np.isin(each.rows["label"], list(own))]
        by_stop = [states(chosen, radius) if radius <= each.asked else (None,) * len(STATES) for radius in where]
        found.append([list(state) for state in zip(*by_stop, strict=True)])
    return found


def _lines(each: Certification, shown: Sequence[int]) -> dict[str, Any]:
    """What one certification says about the images shown, None about those that it lacks."""
    line = {idx: i for i, idx in enumerate(each.rows["idx"].tolist())}
    order = {idx: i for i, idx in enumerate(by_risk(each))}

    def column(name: str) -> list | None:
        if name not in columns_of(each.rows):
            return None
        values = each.rows[name].tolist()
        return [values[line[idx]] if idx in line else None for idx in shown]

    votes = column("votes")
    return {
        "name": each.name,
        "sigma": each.sigma,
        "noise": noise_key(each),
        "images": len(each.rows),
        "asked": each.asked if each.asked < math.inf else None,
        "predict": column("predict"),
        "radius": column("radius"),
        "group": column("group_predict"),
        "group_radius": column("group_radius"),
        "draws": column("draws"),
        "votes": votes,
        "intervals": None if votes is None else [None if own is None else vote_intervals(own) for own in votes],
        "risk": [order.get(idx) for idx in shown],
    }


def _attempts(attempts: dict[int, list[Attempt]], shown: Sequence[int], how: dict[str, int]) -> dict[str, Any]:
    """The attacks on the images shown, each with the number that `how` gives to its kind, and which one is pictured."""
    tried = {idx: attempts[idx] for idx in shown if idx in attempts}
    return {
        "attempts": {
            str(idx): [
                [how.setdefault(one.how, len(how)), int(one.own), one.l2, one.answer, int(one.changed), one.found_in]
                for one in own
            ]
            for idx, own in tried.items()
        },
        "pictured": {str(idx): number for idx, own in tried.items() if (number := pictured(own)) is not None},
    }


@functools.lru_cache(100_000)
def vote_intervals(votes: tuple[int, ...]) -> list[list[float]]:
    """The 95% Clopper–Pearson interval of each class's share of the votes, to three decimals."""
    total = sum(votes)
    return [[round(end, 3) for end in clopper_pearson(own, total)] if total else [0.0, 1.0] for own in votes]


def pairs(certifications: Sequence[Certification], radii: Sequence[float]) -> dict[str, list[list[float] | None]]:
    """`a-b` (places of two certifications of the same images) → at each of `radii` the numbers of images certified
    right by both, only by a, only by b, by neither, and McNemar's exact p; None beyond --radii of either."""
    found: dict[str, list[list[float] | None]] = {}
    for (i, a), (j, b) in itertools.combinations(enumerate(certifications), 2):
        if set(a.rows["idx"].tolist()) == set(b.rows["idx"].tolist()):
            known = min(a.asked, b.asked)
            found[f"{i}-{j}"] = [_pair(a.rows, b.rows, radius) if radius <= known else None for radius in radii]
    return found


def _pair(a: np.ndarray, b: np.ndarray, radius: float) -> list[float]:
    only_b, only_a, p = paired(a, b, radius)
    both = states(a, radius)[0] - only_a
    return [both, only_a, only_b, len(a) - both - only_a - only_b, p]


def sampling_note(shown: int, everything: int) -> str:
    """What the reader must know if not all images are shown; empty if they are."""
    if shown == everything:
        return ""
    return (
        f"{shown:,} of {everything:,} images are shown one by one: the {RISKIEST} at the greatest risk, and others "
        "drawn at random. All counts are of all images."
    )
