"""Grey levels: any numbers → 8 bits, and images that show nothing."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16)  # bits per value of cameras and scanners
NOTHING = 0.98  # of the pixels alike: an image shows nothing (of real slices and cells at most 0.83 are)
ALIKE = 16  # grey levels


def white_of(values: np.ndarray) -> float | None:
    """The value that is white in a picture whose file does not say it; black is 0. None: no scale fits, as where a
    value is negative.

    Integers: the largest that their type holds, if they are 8-bit values spread over it (in 16 bits: multiples of 257);
    else the largest that the smallest fitting of `DEPTHS` holds, 4095 for 12 bits stored in 16. Floats: 1, else the
    same. A scale of floats, or of more than 16 bits, of which not even a quarter is used does not fit.
    """
    low, high = float(values.min()), float(values.max())
    scales = [2.0**bits - 1 for bits in DEPTHS]
    if values.dtype.kind == "f":
        scales, sure = [1.0, *scales], 0.0
    else:
        full = int(np.iinfo(values.dtype).max)
        if values.dtype.kind == "u" and not (values % (full // 255)).any():
            return float(full)
        scales, sure = [*(scale for scale in scales if scale < full), float(full)], scales[-1]
    white = next((scale for scale in scales if 0 <= low <= high <= scale), None)
    return None if white is None or (white > sure and 4 * high < white) else white


def scaled(path: Path, values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """`values` as levels in [0, 1]: `low` and below become 0, `high` and above 1 (default: the lowest and highest
    value). Raises ValueError that names the file if a value is not finite."""
    if not np.isfinite(values).all():  # one NaN would turn the whole slice black
        raise ValueError(f"{path}: {(~np.isfinite(values)).sum()} of its values are not finite numbers")
    low, high = float(values.min() if low is None else low), float(values.max() if high is None else high)
    return np.clip((values.astype(float) - low) / (high - low if high > low else 1.0), 0, 1)


def stretched(path: Path, pixels: np.ndarray, low: float | None = None, high: float | None = None) -> Image.Image:
    """Grey `pixels` `[H, W]`, or colours `[H, W, 3]`, as 8-bit RGB: `low` becomes black, `high` white (default: the
    lowest and highest value). Raises ValueError that names the file if a value is not finite."""
    return eight_bits(scaled(path, pixels, low, high)).convert("RGB")


def eight_bits(levels: np.ndarray) -> Image.Image:
    """Levels in [0, 1], `[H, W]` or `[H, W, 3]`, rounded to 8 bits."""
    return Image.fromarray((255 * levels).round().astype(np.uint8))


def flat(image: Image.Image) -> str:
    """What is wrong with an image that shows nothing, or next to nothing: `constant`; `almost constant` if `NOTHING` of
    its pixels lie within `ALIKE` grey levels in every channel; `saturated` if so many are 0 or 255. "" otherwise."""
    few = image.resize((64, 64), Image.Resampling.NEAREST)  # enough to clear most images, in a tenth of the time
    if max(_shares(few)) < NOTHING - 0.1:
        return ""
    constant, alike, extreme = _shares(image)
    if constant == 1:
        return "constant"
    return "almost constant" if alike >= NOTHING else "saturated" if extreme >= NOTHING else ""


def _shares(image: Image.Image) -> tuple[float, float, float]:
    """How many of the pixels have the same grey level, levels within `ALIKE`, and 0 or 255: as a share of all, in the
    channel in which they are fewest."""
    counts = np.array(image.histogram()).reshape(-1, 256) / (image.width * image.height)  # [channels, grey level]
    up_to = np.zeros((len(counts), 257))
    np.cumsum(counts, axis=1, out=up_to[:, 1:])
    alike = (up_to[:, ALIKE:] - up_to[:, :-ALIKE]).max(axis=1)
    return float(counts.max(axis=1).min()), float(alike.min()), float((counts[:, 0] + counts[:, 255]).min())


def unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    """The error of a file that a library cannot read, in one line."""
    told = textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" …")
    return ValueError(f"{path}: cannot be read as {kind} ({told})")
