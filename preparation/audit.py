"""The audit: faults of the images, their labels and their splits, and what was done about them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common import files
from common.figures import missing_letters
from common.lines import shown, table_line
from datasets import SPLITS
from imaging.catalogue import DatasetInfo
from imaging.not_pictures import OTHER_PICTURES
from preparation.duplicates import Near, identical_groups, near_groups
from preparation.scan import Record
from preparation.shortcuts import shortcuts
from preparation.splits import ALSO_IN, GROUP_IN

FEW = 5  # images of a class in a split below which a number on them means nothing
PAIRS = 48  # of alike images that are drawn
LARGE = 0.2  # of a class, in one group: as much as a test split has, or more
TEMPTING = 1.5  # times chance: from here on a shortcut is worth a warning
NOTHING = "–"  # was done about it
# As `Record.done` words it:
TURNED = ("turned", "page", "slice", "frame", "volume", "no orientation")  # how what reading did to form begins
SCALE = ", white is "  # between the kind of numbers and the one that is white


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the audit: `count` of what `check` names, and what was done about it.

    `severity` is ok, note, warning or error; an error makes the data unfit for use. `images` are the paths concerned,
    one tuple for each group, pair or single image.
    """

    check: str
    severity: str
    count: int
    detail: str
    done: str = ""
    images: tuple[tuple[str, ...], ...] = ()


def audit(
    records: Sequence[Record],
    near: Near,
    groups: Sequence[str],
    splits: Sequence[str],
    info: DatasetInfo,
    others: Mapping[str, int] | None = None,
) -> list[Finding]:
    """All checks, in the order in which a reader wants them; `others` maps suffixes to the number of files that were
    not read."""
    return [
        *check_files(records, others or {}),
        *check_flat(records),
        *check_levels(records),
        *check_turned(records),
        *check_duplicates(records, near, splits),
        *check_groups(records, groups, splits),
        *check_balance(records, groups, splits, info),
        *check_shortcuts(records, groups),
    ]


def check_files(records: Sequence[Record], others: Mapping[str, int]) -> list[Finding]:
    """Unreadable images, files of other kinds, and unusual pixel formats and sizes."""
    readable = [record for record in records if record.sha256]
    broken = [[record] for record in records if record.excluded.startswith("unreadable")]
    odd = [[record] for record in readable if record.mode not in ("L", "RGB")]
    small = [[record] for record in readable if min(record.width, record.height) < 32]
    reasons = "; ".join(record.excluded for (record,) in broken[:2])
    modes = Counter(record.mode for record in readable)
    pictures = {suffix: count for suffix, count in others.items() if suffix in OTHER_PICTURES}
    rest = {suffix: count for suffix, count in others.items() if suffix not in OTHER_PICTURES}
    return [
        _found("unreadable files", "warning", broken, reasons, "set aside, where --skip_unreadable asks for that"),
        _finding("pictures of other kinds", "warning", sum(pictures.values()), _suffixes(pictures), "not read"),
        _finding("other files", "note", sum(rest.values()), _suffixes(rest), "not read"),
        _found("odd pixel formats", "note", odd, _counted(modes), "read as 8-bit RGB"),
        _found("sides below 32 px", "warning", small, _sizes(readable), "kept"),
    ]


def check_flat(records: Sequence[Record]) -> list[Finding]:
    """Images that show nothing once they are read."""
    empty = [record for record in records if record.flat]
    kept = "kept; --window LOW HIGH may show more" if any(record.done for record in empty) else "kept"
    kinds = Counter(record.flat for record in empty)
    return [_found("flat images", "warning", [[record] for record in empty], _counted(kinds), kept)]


def check_levels(records: Sequence[Record]) -> list[Finding]:
    """What reading did to grey levels and colours. It is doubtful if numbers of one kind were given several scales, as
    pictures of 10 and of 12 bits stored in 16: a dark one of 12 looks like one of 10."""
    done = [[part for part in _done_to(record) if not part.startswith(TURNED)] for record in records]
    words = Counter(part for parts in done for part in parts)
    scales = [part.split(SCALE)[0] for part in words if SCALE in part]
    doubtful = len(scales) > len(set(scales))
    severity, advice = ("warning", "if all are of one depth: --window LOW HIGH") if doubtful else ("note", "")
    return [_finding("levels and colours", severity, sum(map(bool, done)), _counted(words, 4), advice)]


def check_turned(records: Sequence[Record]) -> list[Finding]:
    """Orientations in the header, and files of several pages."""
    done = {record.path: [part for part in _done_to(record) if part.startswith(TURNED)] for record in records}
    words = Counter(part for parts in done.values() for part in parts)
    turned = [[record] for record in records if done[record.path]]
    return [_found("orientation and pages", "note", turned, _counted(words, 4), "turned; first page")]


def _done_to(record: Record) -> list[str]:
    return [part for part in record.done.split("; ") if part]


def _counted(counts: Counter[str], most: int | None = None) -> str:
    """`3 RGB, 1 L`: the most frequent first, and no more than `most`."""
    more = ["…"] if most is not None and len(counts) > most else []
    return ", ".join([*(f"{count} {name}" for name, count in counts.most_common(most)), *more])


def _suffixes(counts: Mapping[str, int]) -> str:
    """`2 without suffix, 1 .txt`."""
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(counts.items()))


def _sizes(readable: Sequence[Record]) -> str:
    """How many sizes the images have, the shortest and the longest side, and the two most frequent sizes."""
    sizes = Counter((record.width, record.height) for record in readable)
    sides = [side for size in sizes for side in size] or [0]
    common = ", ".join(f"{width}×{height} ({n})" for (width, height), n in sizes.most_common(2))
    number = "1 size" if len(sizes) == 1 else f"{len(sizes)} sizes"
    return f"{number}, sides {min(sides)} to {max(sides)} px, most often {common}"


def check_duplicates(records: Sequence[Record], near: Near, splits: Sequence[str]) -> list[Finding]:
    """Identical and nearly identical images: how many, on both sides of the published split, with two labels."""
    identical = identical_groups(records)
    alike = near_groups(records, near)
    split_of = dict(zip((record.path for record in records), splits, strict=True))
    done = functools.partial(_done, split_of=split_of, left_out=(ALSO_IN,))
    superfluous = sum(len(group) - 1 for group in identical)
    testing = sum(record.source_split == "test" for record in records)
    found = []
    for kind, members, wrong in (("identical", identical, "error"), ("nearly identical", alike, "warning")):
        across = [group for group in members if len({record.source_split for record in group}) > 1]
        conflicting = [group for group in members if len({record.class_name for record in group}) > 1]
        leaked = sum(record.source_split == "test" for group in across for record in group)
        detail = (
            f"groups, {superfluous} images superfluous" if kind == "identical" else "groups beyond the identical ones"
        )
        found += [
            _found(f"{kind} images", "note", members, detail, done(members)),
            _found(
                f"{kind}, published split",
                "warning",
                across,
                f"groups in two of its splits, with {leaked} of its {testing} test images" if across else "",
                done(across),
            ),
            _found(
                f"{kind}, two labels",
                wrong,
                conflicting,
                "groups: one label is wrong",
                f"{done(conflicting)}; labels as they are",
            ),
        ]
    return found


def _done(groups: Iterable[Sequence[Record]], split_of: dict[str, str], left_out: tuple[str, ...]) -> str:
    """What the splits did about groups of images that belong together. `left_out` is the beginning of the reasons for
    which images were left out because of their group."""
    groups = list(groups)
    torn = sum(len({split_of[record.path] for record in group} - {""}) > 1 for group in groups)
    out = sum(record.excluded.startswith(left_out) for group in groups for record in group)
    if torn:
        return f"– ({torn} of them in two splits)"
    return f"{out} image{'s' * (out != 1)} left out of training or validation" if out else "kept in one split"


def check_groups(records: Sequence[Record], groups: Sequence[str], splits: Sequence[str]) -> list[Finding]:
    """Groups (a subject, a picture) in several published splits or in several of ours; the leak of a random split."""
    members: dict[str, list[Record]] = defaultdict(list)
    sides: dict[str, set[str]] = defaultdict(set)
    for record, group, split in zip(records, groups, splits, strict=True):
        members[group].append(record)
        sides[group] |= {split} - {""}
    published = [group for group in members.values() if len({record.source_split for record in group}) > 1]
    leaking = sum(len(found) > 1 for found in sides.values())
    split_of = dict(zip((record.path for record in records), splits, strict=True))
    dealt = sum(bool(found) for found in sides.values())
    subjects = len({record.subject for record in records} - {""})
    joined = f" ({subjects} subjects, some joined by alike images)" if dealt < subjects else ""
    leak = random_split_leak(groups)
    return [
        _found(
            "groups, published split",
            "warning",
            published,
            "groups (subjects, copies) in two of its splits",
            _done(published, split_of, (ALSO_IN, GROUP_IN)),
        ),
        _finding("groups in two splits", "error", leaking, f"of {dealt} groups{joined}", NOTHING),
        Finding(
            "a random split would leak",
            "note" if leak else "ok",
            round(100 * leak),
            "% of its test images: a group-mate in training (mean of 5 seeds)",
            "groups stay whole" * (leak > 0 and not leaking),
        ),
    ]


def random_split_leak(
    groups: Sequence[str], test_share: float = 0.2, train_share: float = 0.7, seeds: int = 5
) -> float:
    """The share of test images that would have a group-mate in training if images were split at random."""
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    count, leaks = len(codes), []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(count)
        ends = [max(1, round(test_share * count)), round((test_share + train_share) * count)]
        test, train, _ = np.split(order, ends)
        leaks.append(np.isin(codes[test], codes[train]).mean())
    return float(np.mean(leaks))


def check_balance(
    records: Sequence[Record], groups: Sequence[str], splits: Sequence[str], info: DatasetInfo
) -> list[Finding]:
    """Classes with few or no images in a split, class imbalance, and groups too large for a fair split."""
    counts = count_images(records, splits, info.classes)
    cells = [(counts[split][name], name, split) for split in SPLITS for name in info.classes]
    few = [f"{n} {name} in {split}" for n, name, split in cells if n < FEW]
    severity = "error" if any(n == 0 for n, _, _ in cells) else "warning"
    totals = {name: sum(counts[split][name] for split in SPLITS) for name in info.classes}
    ratio = max(totals.values()) / max(1, min(totals.values()))
    imbalance = f"classes; the largest has {ratio:.1f} times the images of the smallest"
    lacking = _lacking(records, info)
    large = _large_groups(records, groups, splits, totals)
    shares = "; ".join(f"one holds {share:.0%} of {name}" for share, name in large[:3])
    return [
        _finding("classes a split hardly has", severity, len(few), "; ".join(few[:4]), NOTHING),
        _finding("groups too large to deal", "warning", len(large), shares, NOTHING),
        _finding(
            "classes, published split", "warning", len(lacking), "; ".join(lacking[:4]), "pooled, unless official"
        ),
        Finding("class imbalance", "warning" if ratio > 3 else "ok", len(info.classes), imbalance),
    ]


def _lacking(records: Sequence[Record], info: DatasetInfo) -> list[str]:
    """The classes that are missing from a split of the published ones, in words."""
    held = {(record.source_split, record.class_name) for record in records}
    published = [split for split in SPLITS if any(split == other for other, _ in held)]
    return [f"no {name} in {split}" for split in published for name in info.classes if (split, name) not in held]


def _large_groups(
    records: Sequence[Record], groups: Sequence[str], splits: Sequence[str], totals: Mapping[str, int]
) -> list[tuple[float, str]]:
    """(share, class) of each group that holds too much of a class, the largest share first."""
    dealt = [(record, group) for record, group, split in zip(records, groups, splits, strict=True) if split]
    owned = Counter((record.class_name, group) for record, group in dealt)
    found = [(n / totals[name], name) for (name, _), n in owned.items() if n >= FEW and n > LARGE * totals[name]]
    return sorted(found, reverse=True)


def check_shortcuts(records: Sequence[Record], groups: Sequence[str]) -> list[Finding]:
    """How well traits that are no medicine predict the class: a network may learn them instead of the disease."""
    measured = shortcuts(records, groups)
    found = [] if measured else [Finding("shortcuts", "note", 0, "too few images or groups to look for them")]
    for name, (accuracy, chance) in measured.items():
        severity, done = ("warning", NOTHING) if accuracy > TEMPTING * chance else ("ok", "")
        detail = f"% balanced accuracy from it alone (chance {chance:.0%})"
        found.append(Finding(f"shortcut: {name}", severity, round(100 * accuracy), detail, done))
    return found


def count_images(records: Sequence[Record], splits: Sequence[str], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Images per split and class."""
    counts = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for record, split in zip(records, splits, strict=True):
        if split:
            counts[split][record.class_name] += 1
    return counts


def counts_text(counts: dict[str, dict[str, int]], classes: Sequence[str]) -> str:
    """Images by split and class, for the screen."""
    headings = {name: shown(name, 40) for name in classes}
    width = max(12, *(len(heading) + 2 for heading in headings.values()))
    lines = [f"{'images':<8}" + "".join(f"{headings[name]:>{width}}" for name in classes) + f"{'all':>8}"]
    for split, row in counts.items():
        lines.append(f"{split:<8}" + "".join(f"{row[name]:>{width}}" for name in classes) + f"{sum(row.values()):>8}")
    return "\n".join(lines)


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """`audit.csv`: a line for each finding, then one for each group of images concerned; a path that holds the sign
    between them, `|`, is in quotes."""
    path = folder / "audit.csv"
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        stream.write(table_line(("check", "severity", "count", "detail", "done", "images")))
        for found in findings:
            stream.write(table_line((found.check, found.severity, found.count, found.detail, found.done, "")))
            for images in found.images:
                listed = " | ".join(path if "|" not in path else json.dumps(path) for path in images)
                stream.write(table_line((found.check, found.severity, len(images), "", "", listed)))


def as_text(findings: Sequence[Finding]) -> str:
    """The findings as a table for the screen."""
    from tabulate import tabulate

    rows = [
        (f.severity if f.severity != "ok" else "", f.check, f.count, shown(f.detail), shown(f.done)) for f in findings
    ]
    return tabulate(
        rows, ["severity", "check", "found", "details", "what was done"], maxcolwidths=[None, None, None, 60, 40]
    )


def draw_duplicates(path: Path, findings: Sequence[Finding], records: Sequence[Record], synthetic: bool) -> bool:
    """A picture of groups of alike images, for the user's own eyes: of each group the pair that makes the finding.
    Pairs with two labels and pairs across the published split come first. Returns False, and draws nothing, if there
    are none."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    by_path = {record.path: record for record in records}

    def caption(image: str) -> str:
        return f"{shown(by_path[image].class_name, 16)} {by_path[image].source_split}\n{shown(image)[-22:]}"

    pairs: dict[tuple[str, str], str] = {}
    for end, differs in (("two labels", "class_name"), ("published split", "source_split"), ("images", "sha256")):
        for found in findings:
            if found.check.endswith(end) and "identical" in found.check:
                for first, *others in found.images:
                    telling = (o for o in others if getattr(by_path[o], differs) != getattr(by_path[first], differs))
                    pairs.setdefault((first, next(telling, others[0])), found.check)
    chosen = list(pairs.items())[:PAIRS]
    if not chosen:
        path.unlink(missing_ok=True)  # of an earlier run, on other images
        return False
    rows = -(-len(chosen) // 6)
    title = f"alike images, {len(chosen)} of {len(pairs)}"
    with rc_context({"text.parse_math": False}):  # a file name may hold a $
        height = 0.4 + 1.7 * rows
        figure = Figure(figsize=(15, height))
        axes = figure.subplots(rows, 12, squeeze=False)
        figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.7 / height, wspace=0.1, hspace=0.45)
        for axis in axes.ravel():
            axis.axis("off")
        for k, (pair, check) in enumerate(chosen):
            for side, image in enumerate(pair):
                axis = axes[k // 6, 2 * (k % 6) + side]
                axis.imshow(by_path[image].thumbnail, cmap="gray", vmin=0, vmax=255)
                axis.set_title(f"{check * (side == 0)}\n{caption(image)}", fontsize=5)
        figure.suptitle(f"SYNTHETIC: {title}" if synthetic else title.capitalize(), fontsize=9, y=1 - 0.12 / height)
        with files.replacing(path) as temporary, missing_letters():
            figure.savefig(temporary, dpi=110)
    return True


def _finding(check: str, bad: str, count: int, detail: str, done: str) -> Finding:
    return Finding(check, bad if count else "ok", count, detail, done if count else "")


def _found(check: str, bad: str, groups: Iterable[Sequence[Record]], detail: str, done: str) -> Finding:
    images = tuple(tuple(record.path for record in group) for group in groups)
    return Finding(check, bad if images else "ok", len(images), detail, done if images else "", images)
