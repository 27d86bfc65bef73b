"""Certification TSVs and the numbers that papers report of them.

A TSV has one line per certified image under the header `idx label predict radius correct time`, possibly with further
columns to the right; the predicted class -1 is an abstention and has radius 0. It is the format of the published logs
of locuslab/smoothing and microsoft/denoised-smoothing; ours have their settings beside them in `<file>.json`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv
from scipy.stats import binomtest

ABSTAIN = -1
COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
ROW = np.dtype([("idx", int), ("label", int), ("predict", int), ("radius", float), ("correct", bool)])
# Further columns of our own TSVs: draws, the certificate of the group (disease or healthy), and the votes of the draws
# after the pilot, a tuple of K whole numbers, which files of older versions lack.
GROUPS = ("disease", "healthy")
EXTRA: dict[str, Any] = {
    "draws": int,
    "group_label": "U8",
    "group_predict": "U8",
    "group_radius": float,
    "votes": object,
}
SHARED_SETTINGS = (
    "dataset",
    "split",
    "image_size",
    "channels",
    "N0",
    "N",
    "alpha",
    "method",
    "radii",
    "radius_tol",
    "noise",
    "disease",
    "group_rule",
    "rule_version",
    "noise_version",
    "instruction_set",
)  # what a fair comparison holds fixed
# The values of settings that files of older versions lack.
ASSUMED = {"group_rule": "vote", "rule_version": 1, "noise_version": 1}
# How disease or health is decided, by group rule.
DECIDED = {"vote": "by the summed votes of each group", "class": "by the class answer"}


@dataclass(frozen=True)
class Certification:
    """One TSV: one method certified at one noise level."""

    name: str
    sigma: float
    path: Path
    rows: np.ndarray  # of dtype ROW and those columns of EXTRA that the file has, one entry per image
    torn: bool  # the last line was incomplete and is left out
    settings: dict  # {} for published logs

    @property
    def is_phantom(self) -> bool:
        return bool(self.settings.get("synthetic")) or str(self.settings.get("dataset", "")).startswith("Phantom")

    @property
    def asked(self) -> float:
        """The largest of --radii: beyond it nothing was tried. inf if all N draws were taken."""
        return max(self.settings["radii"]) if self.settings.get("radii") else math.inf

    @property
    def is_grey(self) -> bool:
        """Whether all its images are grey but stored as RGB."""
        return bool(self.settings.get("grey_as_rgb"))

    @property
    def group_rule(self) -> str:
        """How disease or health was decided."""
        return self.settings.get("group_rule", ASSUMED["group_rule"])

    def is_lower_bound(self, radius: float) -> bool:
        """Whether more images may be certified at `radius` than are counted: it lies below the largest of --radii but
        is not one of them, so the draws stopped without trying it."""
        return radius < self.asked and radius not in (self.settings.get("radii") or [radius])


# ---- metrics: of `rows` only the named columns are used, so a pandas DataFrame of the TSV does as well --------------


def certified_accuracy(rows: np.ndarray, radius: float) -> float:
    """Share of all images classified correctly and certified at least up to `radius` (Cohen et al. 2019, section 4).

    CA(r) = 1/n · Σ_i 1[ĉ_i = y_i and R_i ≥ r]. An abstention stays in n and is never correct. Each R_i holds with
    probability 1 − α, which is why Cohen et al. call this the *approximate* certified accuracy.
    """
    return float(np.mean((rows["correct"] == 1) & (rows["radius"] >= radius)))


def average_certified_radius(rows: np.ndarray) -> float:
    """ACR = 1/n · Σ_i R_i · 1[ĉ_i = y_i], which is the area under CA(r) (Zhai et al. 2020, MACER, section 5)."""
    return float(np.mean(rows["radius"] * rows["correct"]))


def group_certified_rate(rows: np.ndarray, group: str, radius: float) -> tuple[int, int]:
    """(certified, all): of all images of `group`, how many stay in it under any perturbation up to `radius`.

    For `disease` the quotient is the *certified sensitivity* at that radius (no perturbation turns these tumours into
    "no tumour"), for `healthy` the certified specificity. An abstention counts as not certified.
    """
    own = rows[rows["group_label"] == group]
    return int(np.sum((own["group_predict"] == group) & (own["group_radius"] >= radius))), len(own)


def grey_radius(radius: float) -> float:
    """The L2 `radius` (with six decimals) of an image with three equal channels, converted to the grey image behind
    them: radius / √3, because a change of a grey value changes all three. Rounded down to six decimals."""
    millionths = math.floor(radius * 1e6 + 1e-3)  # 0.35 is a little less than 35/100
    return math.isqrt(millionths**2 // 3) / 1e6


def rms_grey_levels(radius: float, values: int) -> float:
    """What an L2 `radius` is to the eye: the root mean square change of a number of the image, in grey levels of 255.
    `values` is C·H·W; three equal channels and the grey image behind them have the same."""
    return 255 * radius / math.sqrt(values)


def abstention_rate(rows: np.ndarray) -> float:
    """Share of all images on which the smoothed classifier abstained: 1/n · Σ_i 1[ĉ_i = ABSTAIN]."""
    return float(np.mean(rows["predict"] == ABSTAIN))


def accuracy_curve(rows: np.ndarray, asked: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """CA(r) as the corners (r, CA) of a left-continuous step function, from r = 0 until it has fallen to 0, or up to
    `asked`, the largest of --radii."""
    radii = np.sort(rows["radius"][rows["correct"] == 1])
    counts = np.arange(len(radii), 0, -1)  # how many radii are >= the i-th
    r = np.concatenate([[0.0], radii, radii[-1:]])
    accuracy = np.concatenate([[len(radii)], counts, [0] * len(radii[-1:])]) / len(rows)
    if asked < r[-1]:
        kept = r < asked
        r, accuracy = np.append(r[kept], asked), np.append(accuracy[kept], certified_accuracy(rows, asked))
    return r, accuracy


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion: quantiles of Beta distributions (Clopper & Pearson 1934).

    For a certified accuracy it says how far another sample of as many images could move it. It does not include the
    failure probability α of the certificates.
    """
    tail = (1 - confidence) / 2
    low = betaincinv(successes, trials - successes + 1, tail) if successes > 0 else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - tail) if successes < trials else 1.0
    return float(low), float(high)


def paired(before: np.ndarray, after: np.ndarray, radius: float) -> tuple[int, int, float]:
    """Compare two tables of the same images: the number certified at L2 `radius` only in `after`, the number certified
    only in `before`, and McNemar's exact two-sided p. Raises ValueError if the images differ."""
    before, after = np.sort(before, order="idx"), np.sort(after, order="idx")
    if not all(np.array_equal(before[name], after[name]) for name in ("idx", "label")):
        raise ValueError("the two tables hold different images")
    held, kept = ((rows["correct"] == 1) & (rows["radius"] >= radius) for rows in (before, after))
    more, fewer = int((kept & ~held).sum()), int((held & ~kept).sum())
    return more, fewer, binomtest(more, more + fewer).pvalue if more + fewer else 1.0


# ---- reading ---------------------------------------------------------------------------------------------------------


def load(name: str, path: Path, sigma: float | None = None) -> Certification:
    """Read one TSV and its settings; without settings, sigma is the one given or else the one in its path."""
    rows, torn = read_rows(path)
    settings = read_settings(path)
    stated = settings.get("sigma")
    if None not in (stated, sigma) and stated != sigma:
        raise ValueError(f"{path}: given as sigma {sigma:g}, but its settings {path}.json say {stated:g}")
    sigma = stated or sigma or sigma_in(path)
    if sigma is None:
        raise ValueError(
            f"{path}: sigma is unknown: there is no {path}.json that says it and neither the file nor a folder above "
            f"is called like sigma_0.25; give it as NAME={path}@0.25"
        )
    return Certification(name, float(sigma), path, rows, torn, settings)


def read_rows(path: Path, may_be_empty: bool = False) -> tuple[np.ndarray, bool]:
    """The images of a TSV as an array of dtype ROW, with the columns of EXTRA that the file has, and whether its last
    line was torn (and is left out).

    A last line without a newline is still being written, or its writer was interrupted; even a whole number at its end
    may have lost digits. Any other malformed line raises ValueError.
    """
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if not lines:
        raise ValueError(f"{path}, line 1: there is no complete line; the first must be '{' '.join(COLUMNS)}'")
    header = lines[0].split("\t")
    if tuple(header[: len(COLUMNS)]) != COLUMNS:
        missing = ", ".join(column for column in COLUMNS if column not in header) or "none, but the order is another"
        raise ValueError(
            f"{path}, line 1: the header must begin with '{' '.join(COLUMNS)}', tab separated (missing: {missing})"
        )
    extra = [(name, kind) for name, kind in EXTRA.items() if name in header[len(COLUMNS) :]]
    rows: list[tuple] = []
    line_of: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            row = _parse(line, len(header)) + _parse_extra(line, header, [name for name, _ in extra])
            if row[0] in line_of:
                raise ValueError(f"idx {row[0]} is already on line {line_of[row[0]]}; each image must be there once")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        line_of[row[0]] = number
        rows.append(row)
    if not (rows or may_be_empty):
        raise ValueError(f"{path}, line 2: there is no certified image (yet); there must be at least one complete line")
    return np.array(rows, dtype=np.dtype(ROW.descr + extra)), bool(rest)


def columns_of(rows: np.ndarray) -> tuple[str, ...]:
    """The names of the columns that a file has."""
    return rows.dtype.names or ()


def _parse(line: str, columns: int) -> tuple[int, int, int, float, bool]:
    fields = line.split("\t")
    if len(fields) != columns:
        raise ValueError(f"has {len(fields)} tab-separated values, must have {columns} like the header")
    idx = _whole(fields[0], "idx", at_least=0)
    label = _whole(fields[1], "label", at_least=0)
    predict = _whole(fields[2], "predict", at_least=ABSTAIN)
    radius = _radius(fields[3], "radius")
    if predict == ABSTAIN and radius > 0:
        raise ValueError(f"an abstention (predict {ABSTAIN}) must have radius 0, got {fields[3]}")
    if fields[4] not in ("0", "1"):
        raise ValueError(f"correct must be 0 or 1, got {fields[4]!r}")
    if (fields[4] == "1") != (predict == label):
        raise ValueError(f"correct is {fields[4]} for label {label}, predict {predict}; it must be 1 where they agree")
    return idx, label, predict, radius, predict == label


def _parse_extra(line: str, header: list[str], names: Sequence[str]) -> tuple:
    values: dict[str, Any] = dict(zip(header, line.split("\t"), strict=True))
    for name in ("group_label", "group_predict"):
        known = GROUPS if name == "group_label" else (*GROUPS, str(ABSTAIN))
        if name in names and values[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {values[name]!r}")
    if "draws" in names:
        values["draws"] = _whole(values["draws"], "draws", at_least=1)
    if "group_radius" in names:
        values["group_radius"] = _radius(values["group_radius"], "group_radius")
    if "votes" in names:
        values["votes"] = tuple(_whole(count, "votes", at_least=0) for count in values["votes"].split(","))
    return tuple(values[name] for name in names)


def _radius(text: str, column: str) -> float:
    try:
        radius = float(text)
    except ValueError:
        radius = math.nan
    if not 0 <= radius < math.inf:
        raise ValueError(f"{column} must be a number >= 0, got {text!r}")
    return radius


def _whole(text: str, column: str, at_least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = at_least - 1
    if value < at_least:
        raise ValueError(f"{column} must be a whole number >= {at_least}, got {text!r}")
    return value


def read_settings(path: Path) -> dict:
    """The settings in `<path>.json`; {} where there is no such file."""
    beside = Path(f"{path}.json")
    if not beside.exists():
        return {}
    try:
        settings = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{beside}: must be the JSON settings of {path.name}, but cannot be read: {error}") from None
    sigma = settings.get("sigma", 1) if isinstance(settings, dict) else None
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise ValueError(f'{beside}: must hold the settings of {path.name} as {{"sigma": 0.25, ...}}, sigma > 0')
    return settings


def sigma_in(path: Path) -> float | None:
    """Sigma as written in the file's name or else in the nearest folder: sigma_0.25, or else noise_0.25."""
    for part in reversed(path.absolute().parts):
        for word in ("sigma", "noise"):
            match = re.search(rf"{word}[_=-]?(\d*\.?\d+)", part, re.IGNORECASE)
            if match and float(match[1]) > 0:
                return float(match[1])
    return None


def wanted_indices(settings: dict) -> range:
    """The images that a run with these settings certifies: every `skip`-th below `end`, of these its shard's share."""
    shard, shards = map(int, (settings["shard"] or "0/1").split("/"))
    return range(0, settings["end"], settings["skip"])[shard::shards]


# ---- several certifications side by side -----------------------------------------------------------------------------


def arrange(certifications: Sequence[Certification]) -> list[Certification]:
    """Sort by sigma, then by name in the order of first appearance; each (name, sigma) may be there only once."""
    first: dict[tuple[str, float], Certification] = {}
    for each in certifications:
        other = first.setdefault((each.name, each.sigma), each)
        if other is not each:
            raise ValueError(
                f"{each.path}: {each.name!r} at sigma {each.sigma:g} is already {other.path}; give it another name"
            )
    names = list(dict.fromkeys(each.name for each in certifications))
    return sorted(certifications, key=lambda each: (each.sigma, names.index(each.name)))


def by_sigma(certifications: Sequence[Certification]) -> dict[float, list[Certification]]:
    """The certifications of each sigma, sigmas ascending."""
    sigmas = sorted({each.sigma for each in certifications})
    return {sigma: [each for each in certifications if each.sigma == sigma] for sigma in sigmas}


def caveats(certifications: Sequence[Certification], radii: Sequence[float] = ()) -> list[str]:
    """Warnings for a reader who compares these certifications at these `radii`, one line each: torn and unfinished
    files, several seeds, lower bounds, lines that contradict themselves, different images, different settings."""
    lines = [f"{each.path}: the last line is incomplete and left out" for each in certifications if each.torn]
    for each in certifications:
        lines += [f"{each.path}: {text}" for text in _of_one(each, radii)]
    for sigma, group in by_sigma(certifications).items():
        lines += [f"sigma {sigma:g}: {text}" for text in [*_different_images(group), *_different_settings(group)]]
    return lines


def _of_one(each: Certification, radii: Sequence[float]) -> Iterator[str]:
    """The warnings about one file."""
    wanted = set(wanted_indices(each.settings)) if {"end", "skip", "shard"} <= set(each.settings) else set()
    if missing := wanted - set(each.rows["idx"].tolist()):
        yield f"is unfinished, {len(missing)} of its {len(wanted)} images are missing"
    seeds = each.settings.get("seeds_tried", [])
    if len(seeds) > 1:
        yield (
            f"was made under {len(seeds)} seeds one after the other ({', '.join(map(str, seeds))}); "
            "its level holds only if the last was not chosen for its results"
        )
    if between := [f"{r:g}" for r in radii if each.is_lower_bound(r)]:
        decided = ", ".join(f"{r:g}" for r in each.settings["radii"])
        yield (f"certified accuracy at {', '.join(between)} is a lower bound, because --radii asked only for {decided}")
    if count := contradictions(each.rows):
        yield (
            f"{count} of its {len(each.rows)} lines contradict themselves: the class lies outside the certified group "
            "(an older version decided them independently)"
        )


def _different_images(group: Sequence[Certification]) -> Iterator[str]:
    """A warning if certifications of one sigma hold different images. The label tells images of two data sets apart,
    whose idx may well agree."""
    images = {each.name: frozenset(zip(each.rows["idx"], each.rows["label"], strict=True)) for each in group}
    if len(set(images.values())) > 1:
        counts = ", ".join(f"{name}: {len(those)}" for name, those in images.items())
        yield f"compared on different images ({counts})"


def _different_settings(group: Sequence[Certification]) -> Iterator[str]:
    """A warning for each setting that differs between certifications of one sigma. Published logs have no settings."""
    told = {each.name: {**ASSUMED, **each.settings} for each in group if each.settings}
    for key in SHARED_SETTINGS:
        values = {name: settings[key] for name, settings in told.items() if key in settings}
        if len(set(map(str, values.values()))) > 1:
            said = ", ".join(f"{name}: {value}" for name, value in values.items())
            yield f"compared at different {key} ({said})"


def contradictions(rows: np.ndarray) -> int:
    """The number of images whose certified class lies outside their certified group, as far as the labels in the table
    show which class belongs to which group."""
    if not {"group_label", "group_predict"} <= set(columns_of(rows)):
        return 0
    group_of = dict(zip(rows["label"].tolist(), rows["group_label"].tolist(), strict=True))
    return sum(
        group in GROUPS and group_of.get(predict, group) != group
        for predict, group in zip(rows["predict"].tolist(), rows["group_predict"].tolist(), strict=True)
    )
