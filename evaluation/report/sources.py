"""What a report is made of, as it was read: certificates, attacks, evaluations, manifest, audit, training logs."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import files
from evaluation.certificates import ABSTAIN, Certification, columns_of
from evaluation.inputs import Report
from evaluation.robustness import Claim, differ, outcome

GROUP_COLUMNS = {"group_label", "group_predict", "group_radius"}
# What attacks/generate.py attacks, by --target.
TARGETS = {"base": "the classifier alone", "defended": "denoiser and classifier", "smoothed": "the vote under noise"}
CHECK_COLUMNS = ("idx", "attacked", "multiple", "l2", "answer", "group_answer")


@dataclass(frozen=True)
class Check:
    """A table of attacks/check_certificates.py: its lines and settings."""

    path: Path
    lines: list[dict[str, str]]
    settings: dict


@dataclass(frozen=True)
class AttackedSet:
    """A folder of attacks/generate.py: the rows of its manifest about the certified split, and its settings."""

    folder: Path
    rows: list[dict[str, str]]
    settings: dict

    @property
    def how(self) -> str:
        """What was attacked, and with what."""
        norm, eps = self.settings.get("norm", ""), self.settings.get("eps")
        budget = f"{norm} at most {eps:.4g}" if eps is not None else f"{norm}, the smallest"
        targets = {
            "base": "the classifier alone",
            "defended": "denoiser and classifier",
            "smoothed": "the vote under noise",
        }
        return f"{self.settings.get('attack', 'attack')} ({budget}) on {targets.get(self.settings['target'], '?')}"

    def is_of(self, each: Certification) -> bool:
        """Whether it attacked this smoothed classifier at this sigma."""
        same = all(
            self.settings.get(key) == each.settings.get(key)
            for key in ("classifier_sha256", "denoiser_sha256", "encoder_sha256", "decoder_sha256")
        )
        return same and self.settings["target"] == "smoothed" and self.settings.get("noise_sd") == each.sigma


@dataclass(frozen=True)
class Log:
    """The log of a training run: one line per epoch."""

    name: str
    path: Path
    columns: list[str]
    rows: list[dict[str, float]]

    def total(self, column: str) -> float | None:
        """The sum of a column; None if there is none."""
        return sum(row[column] for row in self.rows) if column in self.columns else None


@dataclass(frozen=True)
class Attempt:
    """One attack on one image. `own`: it attacked this smoothed classifier, and `answer` (a class; ABSTAIN: undecided)
    is its answer; else that of what was attacked. `changed`: a certified answer became another, or of another target a
    right answer a wrong one. `found_in`: the number of the set that holds the picture, None if it was not kept."""

    how: str
    own: bool
    l2: float
    answer: int
    changed: bool
    found_in: int | None


@dataclass(frozen=True)
class Sources:
    """Everything that was read. `main` is the certification that the report is about, `radius` the radius of its first
    sentence. `images` holds the manifest's row of each certified image by idx; {} if the images are not here. `missing`
    says what could not be shown, and why."""

    certifications: list[Certification]
    main: Certification
    radius: float
    radii: list[float]
    classes: list[str]
    reports: list[Report] = field(default_factory=list)
    checks: dict[int, Check] = field(default_factory=dict)  # by the place of their certification
    attacks: list[AttackedSet] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    images: Mapping[int, dict[str, str]] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    manifest_rows: list[dict[str, str]] = field(default_factory=list)
    audit: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    named: bool = True  # whether the page may hold the names of image files

    @property
    def settings(self) -> dict:
        return self.main.settings

    @property
    def values(self) -> int | None:
        """How many numbers an image has, C·H·W; None if the settings do not say."""
        size, channels = (self.settings.get(key) for key in ("image_size", "channels"))
        return size * size * channels if size and channels else None

    @property
    def diseased(self) -> set[int]:
        """The labels that are disease, as far as the tables show; empty if no table has groups."""
        return {
            label
            for each in self.certifications
            if has_groups(each)
            for label in np.unique(each.rows["label"][each.rows["group_label"] == "disease"]).tolist()
        }

    def file_name(self, idx: int) -> str:
        """The path of an image in its source; empty if it is not known or may not be in the page."""
        return self.images[idx]["path"] if self.named and idx in self.images else ""

    def name(self, label: int) -> str:
        """The name of a class; ABSTAIN is "abstained"."""
        return "abstained" if label == ABSTAIN else self.classes[label]

    def claims(self, place: int) -> list[Claim]:
        """What attacks found out about the certification at `place`: certificates of classes and, if it has them, of
        groups, over the images that were attacked. [] if none was."""
        each, check = self.certifications[place], self.checks.get(place)
        rows = each.rows
        lines, attacked = list(check.lines) if check else [], set[int]()
        if check:
            attacked |= set(rows["idx"][:: check.settings["skip"]].tolist())
        for some in self.attacks:
            if some.is_of(each):
                lines += [as_line(row) for row in some.rows]
                attacked |= {int(row["idx"]) for row in some.rows}
        groups = ["disease", "healthy"] if has_groups(each) else []
        return outcome(rows[np.isin(rows["idx"], list(attacked))], lines, groups) if attacked else []

    def attempts(self, place: int) -> dict[int, list[Attempt]]:
        """All attacks on each image (by idx) that concern the certification at `place`, the shortest first."""
        each, check = self.certifications[place], self.checks.get(place)
        certified = dict(zip(each.rows["idx"].tolist(), each.rows["predict"].tolist(), strict=True))
        found: dict[int, list[Attempt]] = {idx: [] for idx in certified}

        def note(idx: int, how: str, own: bool, l2: str, answer: int, changed: bool, found_in: int | None) -> None:
            if idx in found:
                found[idx].append(Attempt(how, own, float(l2), answer, changed, found_in))

        for line in check.lines if check else []:
            idx, answer = int(line["idx"]), int(line["answer"])
            again = int(line.get("answer_again") or answer)
            own = certified.get(idx, ABSTAIN)
            how = f"PGD (L2) at {float(line['multiple']):g} times the radius of the {line['attacked']}"
            note(idx, how, True, line["l2"], answer, differ([answer], [own]) and differ([again], [own]), None)
        for number, some in enumerate(self.attacks):
            own_target = some.is_of(each)
            for row in some.rows:
                idx, answer = int(row["idx"]), int(row["predict_saved"])
                own = certified.get(idx, ABSTAIN)
                changed = differ([answer], [own]) if own_target else row["success_saved"] == "1"
                note(idx, some.how, own_target, row["l2"], answer, changed, number)
        return {idx: sorted(tried, key=lambda one: one.l2) for idx, tried in found.items() if tried}


def pictured(attempts: Sequence[Attempt]) -> int | None:
    """Which of the attempts on an image (the shortest first) is shown: of those whose picture was kept, the closest on
    this smoothed classifier that changed its answer, else the longest on it, else the same of other targets."""
    kept = [(number, one) for number, one in enumerate(attempts) if one.found_in is not None]
    for own in (True, False):
        some = [(number, one) for number, one in kept if one.own == own]
        if some:
            return next((number for number, one in some if one.changed), some[-1][0])
    return None


def as_line(row: Mapping[str, str]) -> dict[str, str]:
    """A row of an attacked set as a line of a check: its smoothed classifier was asked for the class alone, once."""
    nothing = str(ABSTAIN)
    return {
        "idx": row["idx"],
        "l2": row["l2"],
        "answer": row["predict_saved"],
        "group_answer": nothing,
        "answer_again": row["predict_saved"],
        "group_answer_again": nothing,
    }


def has_groups(each: Certification) -> bool:
    """Whether a table says what is disease."""
    return set(columns_of(each.rows)) >= GROUP_COLUMNS


def noise_key(each: Certification) -> str:
    """What the first draw of noise on an image depends on: certifications that agree in it share its picture."""
    return f"{each.sigma:g} {each.settings.get('seed')} {each.settings.get('noise')}"


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_check(path: Path) -> Check:
    """Read a table of attacks/check_certificates.py. Raises ValueError if it is something else, or has no settings."""
    lines = _table(path, CHECK_COLUMNS, "\t", "a table of attacks/check_certificates.py")
    beside = files.settings_path(path)
    settings = files.read_json(beside) if beside.is_file() else {}
    if not {"certificates_sha256", "skip"} <= set(settings):
        raise ValueError(f"{path}: the settings beside it ({beside.name}) must say which certificates were attacked")
    return Check(path, lines, settings)


def matched(checks: Sequence[Check], certifications: Sequence[Certification]) -> dict[int, Check]:
    """Each table of attacks by the place of the certificates that it attacked. Raises ValueError if it attacked
    others."""
    places = {files.sha256(each.path): place for place, each in enumerate(certifications)}
    found: dict[int, Check] = {}
    for check in checks:
        place = places.get(check.settings["certificates_sha256"])
        if place is None:
            raise ValueError(
                f"--checks {check.path}: attacked {check.settings.get('certificates')}, which is none of the tables of "
                "--add (or that table has changed since)"
            )
        if place in found:
            raise ValueError(f"--checks {check.path}: {found[place].path} is on the same certificates; give one")
        found[place] = check
    return found


def read_log(name: str, path: Path) -> Log:
    """Read the log of a training run: its folder, or the `log.txt` in it. Raises ValueError if it is no such log."""
    path = path / "log.txt" if path.is_dir() else path
    lines = _table(path, ("epoch",), "\t", "the log.txt of a training run")
    try:
        rows = [{key: float(value) for key, value in line.items()} for line in lines]
    except (TypeError, ValueError):
        raise ValueError(f"{path}: must hold numbers below its header, one line per epoch") from None
    return Log(name, path, list(lines[0]), rows)


def read_audit(path: Path) -> list[dict[str, str]]:
    """The findings of `audit.csv`, without the lines that list images; [] if there is no such file."""
    if not path.is_file():
        return []
    columns = ("check", "severity", "count", "detail", "done", "images")
    return [line for line in _table(path, columns, ",", "the audit of prepare_data.py") if not line["images"]]


def _table(path: Path, columns: Sequence[str], separator: str, what: str) -> list[dict[str, str]]:
    """The lines of a table. Raises ValueError unless it has these columns first, in any order of the rest, and a
    line."""
    with path.open(newline="", encoding="utf-8", errors="replace") as stream:
        reader = csv.DictReader(stream, delimiter=separator)
        found = list(reader)
    if not set(columns) <= set(reader.fieldnames or ()):
        raise ValueError(f"{path}: is not {what} (its header must hold {', '.join(columns)})")
    if not found:
        raise ValueError(f"{path}, line 2: there is no line yet; there must be at least one")
    if any(None in (line.get(name) for name in columns) for line in found):
        raise ValueError(f"{path}: a line has fewer values than the header")
    return found


def seconds_of(path: Path) -> float:
    """The seconds that the certificates of a TSV took: the sum of its column `time` (h:mm:ss.s)."""
    total = 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[1:-1]:
        found = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d+)?)", line.split("\t")[5])
        if found:
            days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
            total += 24 * 3600 * days + 3600 * hours + 60 * minutes + seconds
    return total


# ---- one report is about one data set --------------------------------------------------------------------------------


def must_be_one_data_set(certifications: Sequence[Certification], reports: Sequence[Report]) -> None:
    """Raises ValueError if tables or reports are of different data sets, or tables of different splits, image sizes or
    labels: numbers on different images must not stand side by side as if they were on the same."""
    first = certifications[0]
    for each in certifications[1:]:
        for key in ("dataset", "split", "image_size", "channels", "manifest"):
            one, other = first.settings.get(key), each.settings.get(key)
            if None not in (one, other) and one != other:
                raise ValueError(
                    f"{each.path}: {key} is {other}, but {one} in {first.path}; a report is about one set of images"
                )
    labels: dict[int, int] = {}
    for each in certifications:
        for idx, label in zip(each.rows["idx"].tolist(), each.rows["label"].tolist(), strict=True):
            if labels.setdefault(idx, label) != label:
                raise ValueError(
                    f"{each.path}: image {idx} has label {label}, elsewhere {labels[idx]}; a report is about one set "
                    "of images"
                )
    dataset = next((each.settings["dataset"] for each in certifications if each.settings.get("dataset")), None)
    for name, images, report in reports:
        own = report["settings"].get("dataset")
        if None not in (dataset, own) and own != dataset:
            raise ValueError(f"--empirical {name}:{images}: is of {own}, but the certificates are of {dataset}")


def class_names(count: int, *told: Sequence[str]) -> list[str]:
    """The names of `count` classes: the first of `told` that has them all, else class 0, class 1, …"""
    fitting = (list(names) for names in told if len(names) >= count)
    return next(fitting, [f"class {label}" for label in range(count)])


def classes_seen(certifications: Sequence[Certification]) -> int:
    """How many classes the tables name or count votes for."""
    seen = [max(each.rows["label"].max(), each.rows["predict"].max()) + 1 for each in certifications]
    seen += [len(each.rows["votes"][0]) for each in certifications if "votes" in columns_of(each.rows)]
    return int(max(seen))
