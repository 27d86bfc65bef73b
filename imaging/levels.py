"""Grey levels: any numbers → 8 bits."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image


def stretched(path: Path, pixels: np.ndarray, low: float | None = None, high: float | None = None) -> Image.Image:
    """Grey `pixels` `[H, W]` as 8-bit RGB: `low` becomes black, `high` white (default: the lowest and highest value).
    Raises ValueError that names the file if a value is not finite."""
    if not np.isfinite(pixels).all():  # one NaN would turn the whole slice black
        raise ValueError(f"{path}: {(~np.isfinite(pixels)).sum()} of its values are not finite numbers")
    low, high = pixels.min() if low is None else low, pixels.max() if high is None else high
    scaled = np.clip((pixels - low) / (high - low if high > low else 1.0), 0, 1)
    return Image.fromarray((255 * scaled).round().astype(np.uint8)).convert("RGB")


def unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    """The error of a file that a library cannot read, in one line."""
    told = textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" …")
    return ValueError(f"{path}: cannot be read as {kind} ({told})")
