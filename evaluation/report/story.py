"""What the sections of a report say, as plain numbers and sentences; the templates lay them out."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings as quiet
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.certificates import (
    ABSTAIN,
    Certification,
    caveats,
    clopper_pearson,
    columns_of,
    grey_radius,
    group_certified_rate,
    rms_grey_levels,
)
from evaluation.metrics import RATES, summarize
from evaluation.report.explorer import by_risk, longest_radius
from evaluation.report.sources import Sources, has_groups, seconds_of
from evaluation.robustness import summary
from evaluation.tables import certified_accuracy_records, clinical_records, summary_records

SPLITS = ("train", "val", "test")
FEW_SIZES = 4  # of image files; of more, thirds are shown
FEW_FOLDERS = 12
FAILURES = 12  # that are listed


@dataclasses.dataclass(frozen=True)
class Share:
    """A proportion with its 95% interval; `at_least`: it is a lower bound, and has no upper limit."""

    hits: int
    count: int
    low: float
    high: float | None
    at_least: bool = False

    @property
    def value(self) -> float:
        return self.hits / self.count


def share(hits: int, count: int, at_least: bool = False) -> Share | None:
    """None of none."""
    if not count:
        return None
    low, high = clopper_pearson(hits, count)
    return Share(hits, count, low, None if at_least else high, at_least)


def certified_share(each: Certification, radius: float) -> Share | None:
    """Certified accuracy at a radius, as make_tables.py has it; None beyond --radii."""
    (record,) = certified_accuracy_records([each], [radius])
    if record["certified_accuracy"] is None:
        return None
    hits = round(record["certified_accuracy"] * len(each.rows))
    return Share(hits, len(each.rows), record["low"], record["high"], record["is_lower_bound"])


def clinical_share(each: Certification, rate: str, radius: float) -> Share | None:
    """Certified sensitivity or specificity at a radius, as make_tables.py has it; None without groups or beyond
    --radii."""
    group = "disease" if rate == "sensitivity" else "healthy"
    records = clinical_records([each], [radius])
    if not records or records[0][f"certified_{rate}"] is None:
        return None
    hits, count = group_certified_rate(each.rows, group, radius)
    return Share(hits, count, records[0][f"{rate}_low"], records[0][f"{rate}_high"], records[0]["is_lower_bound"])


# ---- the answer ------------------------------------------------------------------------------------------------------


def default_radius(each: Certification, radii: Sequence[float]) -> float:
    """The radius of the first sentence: the smallest of `radii` above 0 that is decided; else 0."""
    end = min(each.asked, float(each.rows["radius"].max()))
    return min((radius for radius in radii if 0 < radius <= end), default=0.0)


def answer(sources: Sources) -> dict[str, Any]:
    """The numbers of the first two sentences, and the bars below them."""
    main, radius = sources.main, sources.radius
    same = [each for each in sources.certifications if each.sigma == main.sigma and each.asked >= radius]
    others = [each for each in same if each is not main]
    shares = [(each, certified_share(each, radius), certified_share(each, 0.0)) for each in same]
    return {
        "certified": certified_share(main, radius),
        "kept": clinical_share(main, "sensitivity", radius),
        "sent_home": clinical_share(main, "specificity", radius),
        "baseline": others[0] if others else None,
        "baseline_certified": certified_share(others[0], radius) if others else None,
        "baseline_kept": clinical_share(others[0], "sensitivity", radius) if others else None,
        "bars": [
            {"name": each.name, "sigma": each.sigma, "share": found, "clean": clean, "main": each is main}
            for each, found, clean in shares
        ],
        "rms": rms_grey_levels(radius, sources.values) if sources.values else None,
        "grey": grey_radius(radius) if main.is_grey else None,
    }


# ---- the images ------------------------------------------------------------------------------------------------------


def data(sources: Sources) -> dict[str, Any]:
    """How many images, whose, and what the audit found."""
    held = sources.manifest
    info, name = held.get("info", {}), sources.settings.get("dataset")
    found = [row for row in sources.audit if row["severity"] != "ok" and row["count"] != "0"]
    certified = Counter(sources.main.rows["label"].tolist())
    return {
        "dataset": name or "an unnamed data set",
        "title": info.get("title") or name or "Images of an unnamed data set",
        "citation": info.get("citation", ""),
        "licence": info.get("licence", ""),
        "protocol": held.get("protocol") or sources.settings.get("protocol"),
        "seed": held.get("seed"),
        "group_by": held.get("group_by"),
        "digest": sources.settings.get("manifest"),
        "certified": [(name, certified.get(label, 0)) for label, name in enumerate(sources.classes)],
        "findings": [row | {"words": finding(row)} for row in found],
        "audited": bool(sources.audit),
        "passed": sum(row["severity"] == "ok" for row in sources.audit),
    } | _dealt(sources)


def _dealt(sources: Sources) -> dict[str, Any]:
    """How the manifest dealt images and groups into the splits, and how many it left out; empty without one."""
    by_split, rows = sources.manifest.get("counts", {}), sources.manifest_rows
    used = [row for row in rows if row["split"] and not row["excluded"]]
    counts = {name: [by_split[split].get(name, 0) for split in SPLITS] for name in sources.classes} if by_split else {}
    groups = {split: len({row["group"] for row in used if row["split"] == split}) for split in SPLITS} if used else {}
    return {"counts": counts, "groups": groups, "excluded": len(rows) - len(used)}


def finding(row: dict[str, str]) -> str:
    """A line of the audit as a phrase: its count and what it counts."""
    count, detail = row["count"], row["detail"]
    if detail[:1].isdigit():  # it begins with another number
        return f"{count} ({detail})"
    return f"{count}{detail}" if detail.startswith("%") else f"{count} {detail}".strip()


# ---- on clean images -------------------------------------------------------------------------------------------------


def clean(sources: Sources) -> list[dict[str, Any]]:
    """The performance on unattacked, noiseless images: the reports of evaluate.py on a split, and the smoothed
    classifier of the main certification, whose answers are those of its certificates."""
    found = []
    for name, images, report in sources.reports:
        settings = report["settings"]
        if settings["split"] in SPLITS and not settings["noise_sd"]:
            title = f"{name}, {images}, asked once"
            found.append({"title": title, "report": report, "split": settings["split"]})
    rows = sources.main.rows
    report = _summarized(rows["label"], rows["predict"], sources.classes)
    report["groups"] = _group_rates(sources.main)
    title = f"{sources.main.name}, σ = {sources.main.sigma:g}, by the vote under noise (answers of the certificates)"
    return [*found, {"title": title, "report": report, "split": sources.settings.get("split") or "test"}]


def _group_rates(each: Certification) -> dict[str, dict]:
    """Disease and healthy as `metrics.summarize` has groups; {} if the table has none."""
    if not has_groups(each):
        return {}
    code = {"disease": 0, "healthy": 1, str(ABSTAIN): ABSTAIN}
    truth, said = (np.array([code[text] for text in each.rows[f"group_{which}"]]) for which in ("label", "predict"))
    return _summarized(truth, said, ["disease", "healthy"], {"disease": [0], "healthy": [1]})["groups"]


def _summarized(truth: np.ndarray, said: np.ndarray, names: list[str], groups: dict | None = None) -> dict:
    """`metrics.summarize`, without scikit-learn's warning that there is only one class: the table shows that."""
    with quiet.catch_warnings():
        quiet.simplefilter("ignore", UserWarning)
        return summarize(truth, said, names, groups=groups)


def rate_rows(report: dict) -> list[dict[str, Any]]:
    """A report of `metrics.summarize` as rows: a class or group, its images, its rates with intervals."""
    return [
        {"of": of, "images": row["images"], "rates": [(row[rate], row[f"{rate}_interval"]) for rate in RATES]}
        for key in ("per_class", "groups")
        for of, row in report.get(key, {}).items()
    ]


# ---- under attack ----------------------------------------------------------------------------------------------------


def under_attack(sources: Sources) -> list[dict[str, Any]]:
    """For each certification that was attacked: its claims, and what became of them."""
    found = []
    for place, each in enumerate(sources.certifications):
        check = sources.checks.get(place)
        sets = [some for some in sources.attacks if some.is_of(each)]
        judge = max([0.0, *([check.settings["alpha"]] if check else []), *(s.settings.get("alpha") or 0 for s in sets)])
        how = [f"PGD (L2), {check.settings['steps']} steps on {check.settings['draws']} draws"] if check else []
        how += [some.how for some in sets]
        once = bool(sets) or bool(check and "answer_again" not in check.lines[0])
        for claim in sources.claims(place):
            # Chance is worked out for two judgements, which both err with probability judge²; one errs with judge.
            err = math.sqrt(judge) if once else judge
            numbers = summary(claim, each.settings.get("alpha") or 0.001, err)
            found.append({"each": each, "claim": claim, "numbers": numbers, "how": how, "once": once})
    return found


# ---- what a radius looks like ----------------------------------------------------------------------------------------


def scale(sources: Sources) -> list[dict[str, Any]]:
    """Each radius of the tables as grey levels, and the worst perturbation of about that size that is at hand: of those
    that changed an answer, the longest that is no longer than the radius; else the shortest beyond it."""
    if sources.values is None:
        return []
    longest = longest_radius(sources.certifications)
    known = _fooling(sources)
    return [
        {
            "radius": radius,
            "rms": rms_grey_levels(radius, sources.values),
            "grey": grey_radius(radius) if sources.main.is_grey else None,
            "attack": max((one for one in known if one["l2"] <= radius), key=_length, default=None)
            or min(known, key=_length, default=None),
        }
        for radius in sources.radii
        if 0 < radius <= longest
    ]


def _fooling(sources: Sources) -> list[dict[str, Any]]:
    """The attacked images that changed an answer, of the images at hand."""
    return [
        {
            "l2": float(row["l2"]),
            "set": number,
            "idx": int(row["idx"]),
            "how": some.how,
            "was": sources.name(int(row["label"])),
            "became": sources.name(int(row["predict_saved"])),
        }
        for number, some in enumerate(sources.attacks)
        for row in some.rows
        if row["success_saved"] == "1" and int(row["idx"]) in sources.images and float(row["l2"]) > 0
    ]


def _length(attack: dict[str, Any]) -> float:
    return attack["l2"]


# ---- what it cost ----------------------------------------------------------------------------------------------------


def costs(sources: Sources) -> dict[str, Any]:
    """Draws and hours of the certificates, queries and hours of the attacks, hours and queries of the training."""
    certificates = [
        {
            "name": each.name,
            "sigma": each.sigma,
            "images": record["images"],
            "draws": record["draws"],
            "all_draws": int(each.rows["draws"].sum()) if "draws" in columns_of(each.rows) else None,
            "seconds": seconds_of(each.path),
            "hardware": each.settings.get("hardware"),
        }
        for each, record in zip(sources.certifications, summary_records(sources.certifications), strict=True)
    ]
    attacks = [
        {
            "how": some.how,
            "images": len(some.rows),
            "queries": sum(int(row["queries"]) for row in some.rows),
            "seconds": sum(float(row["seconds"]) for row in some.rows),
            "hardware": some.settings.get("hardware"),
        }
        for some in sources.attacks
    ]
    for place, check in sources.checks.items():
        attacks.append(
            {
                "how": f"certificates of {sources.certifications[place].name}, σ = "
                f"{sources.certifications[place].sigma:g}, at multiples of their radii",
                "images": len({line["idx"] for line in check.lines}),
                "queries": None,
                "seconds": sum(float(line["seconds"]) for line in check.lines if line.get("seconds")),
                "hardware": check.settings.get("hardware"),
            }
        )
    training = [
        {
            "name": log.name,
            "epochs": len(log.rows),
            "seconds": log.total("seconds"),
            "queries": log.rows[-1].get("queries"),
            "validation": next(((c, [row[c] for row in log.rows]) for c in log.columns if c.startswith("val_")), None),
        }
        for log in sources.logs
    ]
    return {"certificates": certificates, "attacks": attacks, "training": training}


# ---- subgroups and failures ------------------------------------------------------------------------------------------


def subgroups(sources: Sources) -> list[dict[str, Any]]:
    """Certified accuracy of the main pipeline by class, source folder and size of the image file."""
    rows, found = sources.main.rows, []
    numbered = list(enumerate(rows["idx"].tolist()))
    for kind, name_of in _kinds(sources).items():
        members: dict[str, list[int]] = defaultdict(list)
        for i, idx in numbered:
            if idx in name_of:
                members[name_of[idx]].append(i)
        for name in sources.classes if kind == "class" else sorted(members, key=_natural):
            if own := members.get(name):
                part = dataclasses.replace(sources.main, rows=rows[own])
                found.append(
                    {
                        "kind": kind,
                        "name": name,
                        "images": len(own),
                        "answered": certified_share(part, 0.0),
                        "certified": certified_share(part, sources.radius),
                        "kept": clinical_share(part, "sensitivity", sources.radius),
                    }
                )
    return found


def _kinds(sources: Sources) -> dict[str, dict[int, str]]:
    """Kind of subgroup → idx → the name of its subgroup. Of many sizes of files, thirds of the images are shown."""
    rows, images = sources.main.rows, sources.images
    labels = zip(rows["idx"].tolist(), rows["label"].tolist(), strict=True)
    kinds = {"class": {idx: sources.classes[label] for idx, label in labels}}
    folders = {idx: row["path"].partition("/")[0] for idx, row in images.items() if "/" in row["path"]}
    if sources.named and 1 < len(set(folders.values())) <= FEW_FOLDERS:
        kinds["source folder"] = folders
    sides = {idx: max(int(row["width"]), int(row["height"])) for idx, row in images.items() if row.get("width")}
    distinct = np.unique(list(sides.values()))
    if 1 < len(distinct) <= FEW_SIZES:
        kinds["longer side of the file"] = {idx: f"{side} px" for idx, side in sides.items()}
    elif len(distinct) > FEW_SIZES:
        cuts = np.unique(np.quantile(list(sides.values()), [1 / 3, 2 / 3], method="nearest"))
        parts = [distinct[np.searchsorted(cuts, distinct) == part] for part in range(len(cuts) + 1)]
        names = [f"{part[0]} to {part[-1]} px" if len(part) else "" for part in parts]
        kinds["longer side of the file"] = {idx: names[int(np.searchsorted(cuts, side))] for idx, side in sides.items()}
    return kinds


def _natural(name: str) -> list[tuple[int, str]]:
    """What names are sorted by: numbers in them count as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def failures(sources: Sources) -> dict[str, Any]:
    """The worst failures of the main pipeline at the radius of the report: images certified wrong, the surest first,
    and diseased images that are certified as healthy there."""
    main, radius = sources.main, sources.radius
    rows = main.rows
    wrong = rows[(rows["predict"] != ABSTAIN) & ~rows["correct"] & (rows["radius"] >= radius)]
    order = np.argsort(-wrong["radius"], kind="stable")
    hidden = 0
    if has_groups(main):
        ill = rows[rows["group_label"] == "disease"]
        hidden = int(((ill["group_predict"] == "healthy") & (ill["group_radius"] >= radius)).sum())
    return {
        "wrong": [
            {
                "idx": int(row["idx"]),
                "was": sources.name(int(row["label"])),
                "answer": sources.name(int(row["predict"])),
                "radius": float(row["radius"]),
            }
            for row in wrong[order][:FAILURES]
        ],
        "count": len(wrong),
        "hidden": hidden,
        "riskiest": by_risk(main)[:FAILURES],
    }


def warnings(sources: Sources) -> list[str]:
    """What make_tables.py would warn of, and what is missing."""
    return [*caveats(sources.certifications, sources.radii), *sources.missing]
