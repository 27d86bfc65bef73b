"""Lookup tables as DICOM stores them: of grey levels, and the colours of a palette."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_WORD = 1 << 16


@dataclasses.dataclass(frozen=True)
class Table:
    """`entries` `[N]`, or `[N, 3]` of a palette, for the values from `first` on; lower ones take the first entry,
    higher ones the last. `white`: the entry of full brightness."""

    first: int
    entries: np.ndarray
    white: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """The entries of `values`, of which the whole part counts."""
        places = np.floor(values.astype(float)) - self.first
        return self.entries[np.clip(places, 0, len(self.entries) - 1).astype(int)]

    def brightness(self, values: np.ndarray) -> np.ndarray:
        """The entries of `values` as a share of full brightness, [0, 1]."""
        return np.clip(self.of(values) / self.white, 0, 1)


def table_of(
    descriptor: Sequence[int],
    columns: Sequence[bytes | int | Sequence[int]],
    little_endian: bool,
    below_zero: bool,
    segmented: bool = False,
) -> Table:
    """A table by its descriptor (number of entries, first value, bits of an entry) and the data of its one or three
    columns (DICOM PS3.3, C.11.1.1, C.11.2.1.1, C.7.6.3.1.5 and, `segmented`, C.7.9.2).

    Entries of 8 bits may stand in 16. If all entries fit into 8 or 12 bits where 16 are declared, white is that of 8 or
    12. `below_zero`: whether values can be negative, so that the first value is a signed number.

    Raises ValueError if there are fewer entries than declared.
    """
    count, first, bits = (int(each) for each in descriptor)
    count, first = count % _WORD or _WORD, first % _WORD
    first -= _WORD * (below_zero and first >= _WORD // 2)
    found = [_entries(column, count, bits, little_endian, segmented) for column in columns]
    short = min(map(len, found))
    if short < count:
        raise ValueError(f"its lookup table has {short} of {count} entries")
    entries = np.stack([each[:count] for each in found], axis=-1)
    used = int(entries.max()).bit_length()
    bits = next(fit for fit in (8, 12, 16) if used <= fit) if bits == 16 else max(bits, used, 1)
    return Table(first, entries if len(columns) > 1 else entries[:, 0], (1 << bits) - 1)


def _entries(column: bytes | int | Sequence[int], count: int, bits: int, little: bool, segmented: bool) -> np.ndarray:
    """The entries of one column as int64."""
    if isinstance(column, bytes):
        data = np.frombuffer(column + b"\0" * (len(column) % 2), "<u2" if little else ">u2").astype("<u2")
    else:
        data = np.atleast_1d(np.asarray(column, dtype=np.int64)).astype("<u2")
    packed = bits <= 8 if segmented else data.nbytes == count + count % 2 or (bits <= 8 and data.nbytes < 2 * count)
    unit = 1 if packed else 2
    numbers = data.view(f"<u{unit}").astype(np.int64)
    return np.array(expanded(numbers.tolist(), unit)) if segmented else numbers


def expanded(words: Sequence[int], unit: int) -> list[int]:
    """The entries that segments of `unit` bytes a word stand for: runs of values, straight lines between two values,
    and earlier segments once more (DICOM PS3.3, C.7.9.2). Raises ValueError on a segment that is none."""
    entries: list[int] = []

    def read(at: int, most: int | None) -> None:
        done = 0
        while at + 2 < len(words) and done != most:
            kind, count = words[at : at + 2]
            if kind == 0:
                entries.extend(words[at + 2 : at + 2 + count])
                at += 2 + count
            elif kind == 1 and entries:
                line = np.linspace(entries[-1], words[at + 2], count + 1)[1:]
                entries.extend(np.round(line).astype(int).tolist())
                at += 3
            elif kind == 2 and entries and most is None and at + 2 + 4 // unit <= len(words):
                place = sum(words[at + 2 + k] << 8 * unit * k for k in range(4 // unit))  # in bytes
                read(place // unit, count)
                at += 2 + 4 // unit
            else:
                raise ValueError("its palette has a segment that is no run, no line and no earlier segment")
            done += 1

    read(0, None)
    return entries
