"""The lines of a table as text, whatever its cells hold, and names as a screen can show them in one line."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

JOINERS = "\u200c\u200d"  # between letters of Persian, and within one emoji


def table_line(values: Sequence[object], separator: str = ",") -> str:
    r"""One line of a table, with its line feed. A cell that holds the separator, a quote or an end of line is quoted.

    This is what `csv.writer` writes, but for `\r`, which it leaves bare before Python 3.13 (and then cannot read)."""
    return separator.join(_cell(value, separator) for value in values) + "\n"


def _cell(value: object, separator: str) -> str:
    text = "" if value is None else str(value)
    return '"{}"'.format(text.replace('"', '""')) if set(text) & {separator, '"', "\n", "\r"} else text


def table_text(records: Sequence[Mapping[str, object]]) -> str:
    """Records of the same keys as a table with a header, separated by commas; None stays empty."""
    header = list(records[0])
    return table_line(header) + "".join(table_line([record[name] for name in header]) for record in records)


def lines_of(content: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a table, each with its line feed, and what follows the last one: a torn line. A line feed between
    quotes ends no line; no other sign does."""
    *parts, rest = content.split(b"\n")
    lines, begun = [], b""
    for part in parts:
        begun += part + b"\n"
        if begun.count(b'"') % 2 == 0:
            lines.append(begun)
            begun = b""
    return lines, begun + rest


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The names of the columns of a table that is separated by commas, and its rows. Raises ValueError that names the
    file if it is no such table, and OSError if it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            return list(reader.fieldnames or ()), rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is damaged, no table in UTF-8 ({error})") from None


def shown(name: str, longest: int | None = None) -> str:
    r"""A name in one line, without signs that a screen would obey: they are written as Python writes them (`\n`,
    `\x1b`, `\u202e`). One of more letters than `longest` is cut in its middle."""
    text = "".join(_shown(name))
    if longest is None or len(text) <= longest:
        return text
    head = longest // 2
    return f"{text[:head]}…{text[len(text) - (longest - head - 1) :]}"


def _shown(name: str) -> Iterator[str]:
    for letter in name:
        harmless = letter.isprintable() or letter in JOINERS or unicodedata.category(letter) == "Zs"
        yield letter if harmless else letter.encode("unicode_escape").decode()
