"""What the numbers in a DICOM file mean: grey levels and colours (DICOM PS3.4, N.2; PS3.3, C.7.6.3 and C.11)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from imaging.lookup import Table, table_of

# A data set of pydicom, which is imported only where a file is read.
DataSet = Any


def grey_levels(
    data: DataSet, number: int, stored: np.ndarray, left_out: np.ndarray, window: tuple[float, float] | None
) -> tuple[np.ndarray, str]:
    """(Levels in [0, 1] `[H, W]`, what was done to get them) of frame `number`.

    `stored`: the numbers in the file; those that are `left_out` (padding) become black and set no range. They are
    rescaled, then go through the table or the first window of the file, or `window` (low, high) in rescaled units; with
    neither, lowest becomes black and highest white. MONOCHROME1 is inverted.
    """
    groups = list(_groups(data, number))
    values, below_zero, rescaled = _rescaled(data, groups, stored)
    if window:
        levels, shown = _windowed(values, *window), f"window {window[0]:g} to {window[1]:g} as asked"
    else:
        levels, shown = _chosen(data, groups, values, ~left_out, below_zero)
    levels, presented = _presented(data, levels)
    levels[left_out] = 0
    return levels, "; ".join(text for text in (rescaled, shown, presented) if text)


def colours(pixels: np.ndarray, bits: int) -> tuple[np.ndarray, str]:
    """(Shares of full colour in [0, 1] `[H, W, 3]`, what was done) of RGB pixels of so many bits."""
    top = (1 << bits) - 1
    unsigned = np.ascontiguousarray(pixels).view(f"u{pixels.itemsize}") & top
    return unsigned / top, "colours of the file" + f", {bits} bits" * (bits != 8)


def palette(data: DataSet) -> Table:
    """The palette of a file. Raises ValueError if it has none, or a damaged one."""
    for segmented in (False, True):
        names = [f"{'Segmented' * segmented}{hue}PaletteColorLookupTableData" for hue in ("Red", "Green", "Blue")]
        if all(data.get(name) for name in names):
            descriptor = data.RedPaletteColorLookupTableDescriptor
            columns = [data[name].value for name in names]
            return table_of(descriptor, columns, _little_endian(data), bool(data.PixelRepresentation), segmented)
    raise ValueError("has no palette for its colours")


def supplement(data: DataSet, stored: np.ndarray) -> tuple[Table, np.ndarray] | None:
    """The palette of a grey image of which some values stand for colours (a map laid over it), and where these lie;
    None if there are none (C.7.6.19)."""
    if str(data.get("PixelPresentation") or "").strip() not in ("COLOR", "MIXED"):
        return None
    table = palette(data)
    return table, stored >= table.first


def padding_of(data: DataSet, raw: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Where the numbers are the padding value of the file, or lie in its padding range (C.7.5.1.1.2). `raw`: as they
    lie in the file, with bits that do not belong to the pixel."""
    for kind in ("", "Float", "DoubleFloat"):
        value = number_of(data.get(f"{kind}PixelPaddingValue"))
        if value is None:
            continue
        limit = number_of(data.get(f"{kind}PixelPaddingRangeLimit"))
        low, high = sorted(_as_stored(each, stored.dtype) for each in (value, value if limit is None else limit))
        return ((stored >= low) & (stored <= high)) | ((raw >= low) & (raw <= high))
    return np.zeros(stored.shape, dtype=bool)


def pixel_bits(data: DataSet, raw: np.ndarray) -> np.ndarray:
    """The numbers of the pixels out of `raw`, in which other bits may stand beside them (PS3.5, 8.1.1). Numbers that
    lie in the range of the bits stored are taken as they are."""
    bits, size = int(data.BitsStored), 8 * raw.itemsize
    signed = raw.dtype.kind == "i"
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if raw.min() >= low and raw.max() <= high:
        return raw
    top = number_of(data.get("HighBit"))
    top = bits - 1 if top is None or not bits - 1 <= top < size else int(top)
    return (raw << (size - 1 - top)) >> (size - bits)


def _as_stored(value: float, dtype: np.dtype) -> float:
    """A padding value as a number of this type: in many files it has lost its sign, or won one."""
    if dtype.kind == "f" or np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        return value
    return int(np.array(int(value)).astype(dtype))


def _groups(data: DataSet, number: int) -> Iterator[DataSet]:
    """Where the file tells how a frame is shown, the most special first: the functional groups of the frame, those that
    all frames share, and the file itself (C.7.6.16)."""
    for name, place in (("PerFrameFunctionalGroupsSequence", number), ("SharedFunctionalGroupsSequence", 0)):
        items = data.get(name) or ()
        if place < len(items):
            for group in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                yield from items[place].get(group) or ()
    yield data


def _rescaled(data: DataSet, groups: list[DataSet], stored: np.ndarray) -> tuple[np.ndarray, bool, str]:
    """(The numbers in the units of the file, whether these go below zero, what was done) (Modality LUT, C.11.1)."""
    signed = stored.dtype.kind != "u"
    for group in groups:
        table = _first_table(group, "ModalityLUTSequence", data, signed)
        if table is not None:
            return table.of(stored).astype(float), False, "table of the modality"
        slope, intercept = (number_of(group.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
        if slope is not None or intercept is not None:
            told = "rescaling by 0 left out" if slope == 0 else ""
            slope, intercept = slope or 1.0, intercept or 0.0
            if (slope, intercept) != (1, 0) and not told:
                told = f"rescaled by {slope:g} and {intercept:g}"
            return stored * slope + intercept, signed or slope < 0 or intercept < 0, told
    return stored.astype(float), signed, ""


def _chosen(
    data: DataSet, groups: list[DataSet], values: np.ndarray, seen: np.ndarray, below_zero: bool
) -> tuple[np.ndarray, str]:
    """Levels in [0, 1] by the first table or window that the file has (VOI LUT, C.11.2), else from the lowest to the
    highest of those `values` that are `seen`."""
    no_window = "no window"
    for group in groups:
        table = _first_table(group, "VOILUTSequence", data, below_zero)
        if table is not None:
            return table.brightness(values), "table of the file (VOI LUT)"
        centres, widths = (_numbers(group.get(name)) for name in ("WindowCenter", "WindowWidth"))
        for centre, width in zip(centres, widths, strict=False):
            if centre is not None and width is not None and width > 0:
                return _through(values, centre, width, str(group.get("VOILUTFunction") or "LINEAR").strip().upper())
            no_window = no_window if width is None else "no usable window"
    inside = values[seen]
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    return _windowed(values, low, high), f"{no_window}: lowest to highest value"


def _through(values: np.ndarray, centre: float, width: float, function: str) -> tuple[np.ndarray, str]:
    """Levels in [0, 1] through a window of the file. Raises ValueError on a function that is not known."""
    told = f"window {centre:g}/{width:g} of the file"
    if function == "SIGMOID":
        steps = np.clip(-4 * (values - centre) / width, -700, 700)
        return 1 / (1 + np.exp(steps)), f"{told} (sigmoid)"
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise ValueError(f"has a window of the unknown function {function}; prepare_data.py --window LOW HIGH sets one")
    # Linear windows count whole numbers: of n of them the first is black and the last white (C.11.2.1.2.1).
    less = 1 if function == "LINEAR" and width >= 1 else 0
    return _windowed(values, centre - width / 2, centre + width / 2 - less), told


def _windowed(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Levels in [0, 1] from `low` to `high`; where they are equal, values above them are white."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else (values > low).astype(float)


def _presented(data: DataSet, levels: np.ndarray) -> tuple[np.ndarray, str]:
    """Levels as they are shown: through the file's last table, and inverted if its least value is white (C.11.4 and
    C.7.6.3.1.2)."""
    table = _first_table(data, "PresentationLUTSequence", data, False)
    if table is not None:
        return table.brightness(np.round(levels * (len(table.entries) - 1))), "table of the presentation"
    photometric = str(data.get("PhotometricInterpretation") or "").strip()
    if photometric == "MONOCHROME1":
        return 1 - levels, "inverted (MONOCHROME1)"
    if str(data.get("PresentationLUTShape") or "").strip().upper() == "INVERSE":
        return 1 - levels, "inverted (presentation LUT shape)"
    return levels, ""


def _first_table(group: DataSet, name: str, data: DataSet, below_zero: bool) -> Table | None:
    """The first table of a sequence; None if there is none with data."""
    for item in group.get(name) or ():
        if item.get("LUTDescriptor") is not None and item.get("LUTData") is not None:
            return table_of(item.LUTDescriptor, [item.LUTData], _little_endian(data), below_zero)
    return None


def _little_endian(data: DataSet) -> bool:
    return data.original_encoding[1] is not False


def _numbers(value: Any) -> list[float | None]:
    """The numbers of a tag that may hold several, or none."""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [number_of(each) for each in several]


def number_of(value: Any) -> float | None:
    """A finite number; None for an empty tag, or for what is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
