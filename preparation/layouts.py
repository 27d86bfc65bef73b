"""Which of the folders that lead to an image names its class, and which its split: from the paths alone.

What the names leave open is not guessed: an error spells out both readings, and the flag that chooses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.lines import shown
from preparation.folder_names import (
    SPLITS,
    alike,
    are_numbered_parts,
    may_be_class,
    names_files,
    split_and_rest,
    split_of,
)

LAYOUTS = ("classes", "splits", "innermost")  # of --layout
TOLD = 4  # classes that a message spells out

Way = tuple[str, ...]  # the folders between the source and an image


class Place(NamedTuple):
    """Where an image belongs: its class as the folder is spelled, which is number `depth` of its way (from 0), and its
    split, train, val, test, or "" if no folder says it."""

    class_name: str
    split: str
    depth: int


def find_places(
    images: Sequence[PurePosixPath], source: Path, layout: str | None = None, careful: bool = True
) -> list[Place]:
    """The place of each image, by its path within `source`. Folders around everything (`archive/…`) are passed over.

    `layout` says which folders are the classes: `classes` the first, `splits` those within the first, which are parts
    of the set (training, testing, folds), `innermost` the last. None: what the names say. If `careful`, names that
    leave it open are an error; if not, the classes are known, and whoever calls compares.

    Raises ValueError on images outside of folders of classes, and on names that can be read in two ways.
    """
    ways = [image.parts[:-1] for image in images]
    depth = _around(ways)
    _none_outside(images, [len(way) > depth for way in ways], source)
    chosen = layout or _first_folders(images, depth, source, careful)
    places = _read(images, depth, chosen, source)
    if layout is None and careful:
        _must_hold_the_same(places, chosen, source)
        _must_be_as_deep(images, places, chosen, source)
        _must_name_classes(places, chosen, source)
    return places


def _around(ways: Sequence[Way]) -> int:
    """The number of folders around everything, each with folders in it, and no split."""
    depth = 0
    while all(len(way) > depth + 1 for way in ways) and len({way[depth] for way in ways}) == 1:
        if split_and_rest(ways[0][depth])[0]:
            break
        depth += 1
    return depth


def _none_outside(images: Sequence[PurePosixPath], inside: Sequence[bool], source: Path) -> None:
    """Raises ValueError if an image is not `inside` a folder of a class: it must not vanish unseen."""
    stray = [image for image, held in zip(images, inside, strict=True) if not held]
    if stray:
        more = f", nor do {len(stray) - 1} more" if len(stray) > 1 else ""
        raise ValueError(
            f"{source / stray[0]}: lies in no folder of a class{more}; a table path,label can name the class of each, "
            "and --leave_out leaves images out"
        )


# ---- what the first folders are --------------------------------------------------------------------------------------


def _first_folders(images: Sequence[PurePosixPath], depth: int, source: Path, careful: bool) -> str:
    """Whether the first folders are `classes` or `splits`. Raises ValueError if only some look like splits and, if
    `careful`, if they look like parts of a set."""
    firsts = {image.parts[depth]: image for image in reversed(images)}
    said = {split_and_rest(name) for name in firsts}
    if all(split for split, _ in said) and len({rest for _, rest in said}) == 1:
        return "splits"
    splits = sorted(filter(split_of, firsts))
    if splits:
        other = next(image for name, image in firsts.items() if name not in splits)
        raise ValueError(
            f"{source.joinpath(*other.parts[: depth + 1])}: holds images ({shown(other.name)} …) but is no split as "
            f"{shown(splits[0])}/ is; leave one of them out with --leave_out, or if all of these folders are classes: "
            "--layout classes"
        )
    if careful:
        deeper = {name for image in images for name in image.parts[depth + 1 : -1]}
        _must_be_no_parts(images, list(firsts), deeper, source)
    return "classes"


def _must_be_no_parts(
    images: Sequence[PurePosixPath], firsts: Sequence[str], deeper: Iterable[str], source: Path
) -> None:
    """Raises ValueError if the first folders look like a split and a class in one, or like parts or patients."""
    if _are_combined(firsts):
        _two_readings(images, source, "classes", "splits")
    numbered = are_numbered_parts(firsts)
    if (numbered or not any(map(may_be_class, firsts))) and any(map(may_be_class, deeper)):
        _two_readings(images, source, "classes", "splits", "innermost")
    if numbered:
        raise ValueError(
            f"{source}: {_listed(sorted(firsts))} look like parts of one set, and no folders in them are classes; a "
            "table path,label can name the class of each image; if they are classes: --layout classes"
        )


def _are_combined(names: Iterable[str]) -> bool:
    """Whether names are of a split and a class: `train_benign`, `test_benign`."""
    splits: dict[Way, set[str]] = defaultdict(set)
    for name in names:
        split, rest = split_and_rest(name)
        splits[rest].add(split)
    every = set().union(*splits.values())
    return () not in splits and "" not in every and len(splits) > 1 and max(map(len, splits.values())) > 1


# ---- readings --------------------------------------------------------------------------------------------------------


def _read(images: Sequence[PurePosixPath], depth: int, layout: str, source: Path) -> list[Place]:
    """The place of each image in this layout; `depth` folders around everything are passed over."""
    ways = [image.parts[:-1] for image in images]
    if layout == "splits":
        places = _in_parts(images, depth, source)
    elif layout == "innermost":
        places = [_innermost(way, depth) for way in ways]
    else:
        split = _splits_below(ways, [depth] * len(ways))
        places = [Place(way[depth], split(way, depth), depth) for way in ways]
    evaluation = "val" if any(place.split == "test" for place in places) else "test"
    return [place._replace(split=evaluation) if place.split == "eval" else place for place in places]


def _innermost(way: Way, depth: int) -> Place:
    """The last folder that may be a class, else the first that is no split."""
    split = next(filter(None, map(split_of, way[depth:])), "")
    first = next((k for k in range(depth, len(way)) if not split_of(way[k])), depth)
    last = next((k for k in reversed(range(first, len(way))) if may_be_class(way[k])), first)
    return Place(way[last], split, last)


def _splits_below(ways: Sequence[Way], depths: Sequence[int]) -> Callable[[Way, int], str]:
    """What tells the split of an image (its way, the depth of its class) by the folder within that of its class. Beside
    folders that are no splits, only the plainest names count."""
    names: dict[Way, set[str]] = defaultdict(set)
    for way, depth in zip(ways, depths, strict=True):
        names[way[: depth + 1]].add(way[depth + 1] if len(way) > depth + 1 else "")

    def tell(way: Way, depth: int) -> str:
        name = way[depth + 1] if len(way) > depth + 1 else ""
        return split_of(name) if name.lower() in SPLITS or all(map(split_of, names[way[: depth + 1]])) else ""

    return tell


def _in_parts(images: Sequence[PurePosixPath], depth: int, source: Path) -> list[Place]:
    """Classes within parts: their first folders, but for those that are called as the part is, or as splits."""
    ways = [image.parts[:-1] for image in images]
    if _are_combined({way[depth] for way in ways}):
        return [Place("_".join(rest), split, depth) for split, rest in (split_and_rest(way[depth]) for way in ways)]
    _none_outside(images, [len(way) > depth + 1 for way in ways], source)
    depths = _depths_in_parts(ways, depth)
    below = _splits_below(ways, depths)
    places = []
    for way, own in zip(ways, depths, strict=True):
        above = reversed([split_and_rest(way[depth])[0], *map(split_of, way[depth + 1 : own])])
        places.append(Place(way[own], next(filter(None, above), below(way, own)), own))
    return places


def _depths_in_parts(ways: Sequence[Way], depth: int) -> list[int]:
    """Where in each way the folder of the class is, if its `depth`-th is a part. A folder that is the only one in every
    part is none."""
    parts: dict[str, list[Way]] = defaultdict(list)
    for way in ways:
        parts[way[depth]].append(way)
    at = {part: _class_depth(own, depth + 1) for part, own in parts.items()}
    while len({way[at[way[depth]]] for way in ways}) == 1 and all(len(way) > at[way[depth]] + 1 for way in ways):
        at = {part: _class_depth(own, at[part] + 1) for part, own in parts.items()}
    return [at[way[depth]] for way in ways]


def _class_depth(ways: Sequence[Way], depth: int) -> int:
    """Where the folders of classes are in a part, from `depth` on: not where there is but one, called as the one around
    it or by words that tell nothing, nor where all are splits."""
    while all(len(way) > depth + 1 for way in ways):
        names = {way[depth] for way in ways}
        again = len(names) == 1 and not may_be_class(ways[0][depth], ways[0][depth - 1])
        if not (again or all(map(split_of, names))):
            break
        depth += 1
    return depth


# ---- doubts ----------------------------------------------------------------------------------------------------------


def _must_hold_the_same(places: Sequence[Place], layout: str, source: Path) -> None:
    """Raises ValueError if two splits hold classes each that the other lacks: one class is called in two ways."""
    held: dict[str, dict[str, str]] = defaultdict(dict)
    for place in places:
        held[place.split].setdefault(alike(place.class_name), place.class_name)
    named = [split for split in ("train", "val", "test") if split in held]
    for one, other in ((a, b) for a in named for b in named):
        only, lacking = ([held[a][k] for k in held[a] if k not in held[b]] for a, b in ((one, other), (other, one)))
        if only and lacking:
            raise ValueError(
                f"{source}: the splits hold other classes: only {one} has {_listed(only)}, only {other} has "
                f"{_listed(lacking)}; call the folders of one class alike, or leave some out with --leave_out; if each "
                f"is a class of its own: --layout {layout}"
            )


def _must_name_classes(places: Sequence[Place], layout: str, source: Path) -> None:
    """Raises ValueError if the classes are called as folders of files are."""
    names = list(dict.fromkeys(place.class_name for place in places))
    if len(names) > 1 and all(map(names_files, names)):
        raise ValueError(
            f"{source}: the folders {_listed(names)} are called as no class is; a table path,label can name the class "
            f"of each image; if they are classes: --layout {layout}"
        )


def _must_be_as_deep(images: Sequence[PurePosixPath], places: Sequence[Place], layout: str, source: Path) -> None:
    """Raises ValueError if folders within the classes may be the classes: several classes hold folders of the same
    names, or only some hold further folders."""
    below: dict[str, set[str]] = defaultdict(set)
    for image, place in zip(images, places, strict=True):
        inner = (name for name in image.parts[place.depth + 1 : -1] if may_be_class(name, place.class_name))
        below[alike(place.class_name)].add(alike(next(inner, "")))
    holders = Counter(name for names in below.values() for name in names if name)
    most = max(holders.values(), default=0)
    if most > 1 and len(holders) > 1:
        _two_readings(images, source, layout, "splits", "innermost")
    elif 0 < most < len(below) and any("" in names for names in below.values()):
        _two_readings(images, source, layout, "innermost")


def _two_readings(images: Sequence[PurePosixPath], source: Path, *layouts: str) -> None:
    """Raises ValueError that spells out the first of `layouts`, and those others that give other, and several, classes.
    Does nothing if none does."""
    readings: dict[str, list[Place]] = {}
    classes: list[set[str]] = []
    for layout in dict.fromkeys(layouts):
        try:
            places = find_places(images, source, layout)
        except ValueError:
            continue
        found = {place.class_name for place in places}
        if not readings or (len(found) > 1 and found not in classes):
            readings[layout] = places
            classes.append(found)
    if len(readings) > 1:
        in_all = set.intersection(*classes)
        each = (f"--layout {layout}: {_told(images, places, in_all)}" for layout, places in readings.items())
        number = {2: "two", 3: "three"}[len(readings)]
        raise ValueError(f"{source}: its folders can be read in {number} ways, say which: {'; or '.join(each)}")


def _told(images: Sequence[PurePosixPath], places: Sequence[Place], last: Collection[str]) -> str:
    """The classes of a reading, each with its number of images and one of them, those of `last` last; the splits."""
    members: dict[str, list[PurePosixPath]] = defaultdict(list)
    for image, place in zip(images, places, strict=True):
        members[place.class_name].append(image)
    in_order = sorted(members.items(), key=lambda each: each[0] in last)
    each = [f"{shown(name, 40)} ({len(own)} images, as {shown(str(own[0]))})" for name, own in in_order]
    splits = Counter(place.split for place in places if place.split)
    parted = f", split into {', '.join(f'{split} ({n})' for split, n in splits.items())}" if splits else ""
    return f"{len(each)} classes, {_listed(each)}{parted}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:TOLD])) + f" and {len(names) - TOLD} more" * (len(names) > TOLD)


def tell(found: Iterable[tuple[PurePosixPath, str, str]], within: bool = True) -> list[str]:
    """What a user should see of a reading, given as (image, class, split): which folders are splits, and, if `within`
    is True, which folders in those of the classes were passed over."""
    splits: Counter[tuple[str, str]] = Counter()
    inner: Counter[str] = Counter()
    for image, class_name, split in found:
        folders = image.parts[:-1]
        if split:
            named = (name for name in reversed(folders) if split_and_rest(name)[0] in (split, "eval"))
            splits[split, next(named, "")] += 1
        at = next((k for k, name in enumerate(folders) if alike(name) == alike(class_name)), len(folders))
        inner.update(name for name in folders[at + 1 :] if may_be_class(name, class_name))
    order = ("train", "val", "test")
    in_order = sorted(splits.items(), key=lambda each: (order.index(each[0][0]), each[0][1]))
    lines = [f"{split} = {shown(folder)} ({count} images)" for (split, folder), count in in_order]
    notes = [f"published split: {', '.join(lines)}"] if lines else []
    if inner and within:
        names = ", ".join(shown(name) for name, _ in inner.most_common(TOLD))
        notes.append(f"folders within those of the classes are passed over ({names} …); --layout innermost takes them")
    return notes
