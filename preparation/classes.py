"""The classes: how they may be spelled, and their order. Output k of a classifier means class k."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from imaging.catalogue import DatasetInfo
from preparation.scan import Record

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
MENTIONED = 12  # classes of an order in a hint


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names as people sort them: numbers by their value (`2` before `10`, `grade2` before `grade10`), letters
    without regard to case. Names that are alike in this are sorted as text."""
    names = set(names)
    return tuple(sorted(names, key=_value if all(map(NUMBER.fullmatch, names)) else _natural))


def _value(name: str) -> tuple[Decimal, str]:
    return Decimal(name), name


def _natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Text and numbers in turn; a number as (digits, digits), so that none is too long."""
    parts: list[str | tuple[int, str]] = []
    for place, part in enumerate(re.split(r"(\d+)", unicodedata.normalize("NFKC", name).casefold())):
        digits = "".join(str(int(digit)) for digit in part).lstrip("0") if place % 2 else ""
        parts.append((len(digits), digits) if place % 2 else part)
    return parts, name


def in_order(classes: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The `classes` in the order of --classes, `wanted`. Raises ValueError unless it names each of them once."""
    missing, unknown = ([name for name in a if name not in b] for a, b in ((classes, wanted), (wanted, classes)))
    twice = sorted({name for name in wanted if list(wanted).count(name) > 1})
    said = [
        f"{what} {', '.join(names)}"
        for what, names in (("lacks", missing), ("no such class:", unknown), ("named twice:", twice))
        if names
    ]
    if said:
        raise ValueError(f"--classes: {'; '.join(said)}; classes are {', '.join(classes)}")
    return tuple(wanted)


def other_order(classes: Sequence[str]) -> str:
    """A hint for whoever brings a classifier along, if others sort these classes in another way; else ""."""
    as_text = sorted(classes)
    if list(classes) == as_text:
        return ""
    named = as_text[:MENTIONED]
    dashed = any(name.startswith("-") and not NUMBER.fullmatch(name) for name in named)
    flags = " ".join(f"--classes={shlex.quote(name)}" for name in named) if dashed else f"--classes {shlex.join(named)}"
    more = " …" * (len(as_text) > MENTIONED)
    return f"sorted as text, as torchvision's ImageFolder and Keras sort them, they would be {flags}{more}"


def classes_of(records: Sequence[Record], info: DatasetInfo | None) -> tuple[str, ...]:
    """The classes of a known data set, or those that the images have, in natural order."""
    return info.classes if info else natural_order(record.class_name for record in records)


def class_called(name: str, info: DatasetInfo | None, where: str) -> str:
    """The class that the name of a folder, or a label, stands for: of a known data set one of its classes. Raises
    ValueError that says `where` if it has none of this name."""
    if info is None:
        return unicodedata.normalize("NFC", name)  # as macOS does not write it
    if not is_class(name, info):
        raise ValueError(f"{where}: unknown class {name!r}; classes are {', '.join(info.classes)}")
    return _spelled(info)[_plain(name)]


def is_class(name: str, info: DatasetInfo) -> bool:
    """Whether a known data set has a class of this name, in one of its spellings."""
    return _plain(name) in _spelled(info)


def must_hold(info: DatasetInfo | None, records: Sequence[Record], where: Path) -> None:
    """Raises ValueError if a class of a known data set has none of the images of `where`."""
    empty = sorted(set(info.classes) - {record.class_name for record in records}) if info else []
    if empty:
        raise ValueError(f"{where}: no images of class {', '.join(empty)}")


def _spelled(info: DatasetInfo) -> dict[str, str]:
    """How the classes of a known data set may be spelled."""
    return {**{name: name for name in info.classes}, **info.aliases}


def _plain(name: str) -> str:
    """`im_Superficial-Intermediate` → `superficial_intermediate`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").removeprefix("im_")
