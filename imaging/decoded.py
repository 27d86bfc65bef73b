"""What the file of a picture holds, before it is made 8-bit RGB."""

from __future__ import annotations

import dataclasses
import importlib
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image


@dataclasses.dataclass
class Decoded:
    """`pixels`: 8-bit ones as a Pillow image of any mode, others as numbers, `[H, W]` or `[H, W, 3]`. `white`: the
    number that is white, if the file says so; `negative`: 0 is white. `alpha`: mode L, 255 is opaque; `premultiplied`:
    the pixels lie over black already. `turn`: the orientation, 1 to 8, as TIFF and EXIF number it. `profile`: the ICC
    profile of the colours. `gamma`: the exponent that takes levels in [0, 1] to those of a screen. `header`: what
    `read_picture` hands on, `mode`, `format` and `quantisation`. `done`: what was done so far, in words.
    """

    pixels: Image.Image | np.ndarray
    white: float | None = None
    negative: bool = False
    alpha: Image.Image | None = None
    premultiplied: bool = False
    turn: int = 1
    profile: bytes = b""
    gamma: float = 1.0
    pages: int = 1
    header: dict[str | tuple[int, int], Any] = dataclasses.field(default_factory=dict)
    done: list[str] = dataclasses.field(default_factory=list)


def library(name: str, what: str) -> ModuleType:
    """The module tifffile or imagecodecs. Raises ValueError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{what} need {name} (pip install {name})") from None
