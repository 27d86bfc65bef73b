"""Reading photographs and scans in the formats that Pillow knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from imaging.levels import stretched

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def read_picture(path: Path) -> Image.Image:
    """The picture as 8-bit RGB. 16-bit pictures are stretched from their lowest to their highest value.

    Raises ValueError that names the file if it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I") or image.mode == "F":
                return stretched(path, np.asarray(image, dtype=float))
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).split()).replace(str(path), path.name)
        raise ValueError(f"{path}: cannot be read as an image ({reason})") from None
