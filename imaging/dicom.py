"""Reading DICOM files with pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from imaging.levels import stretched, unreadable

DICOM = {".dcm", ".dicom"}


def frames_of(path: Path) -> int | None:
    """The number of frames, from the header; None if there is one. Raises ValueError that names the file."""
    pydicom = _pydicom(path)
    try:
        frames = pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames")
        return int(frames) if frames and int(frames) > 1 else None
    except Exception as error:
        raise unreadable(path, "DICOM", error) from None


def begins_as_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path, number: int | None, window: tuple[float, float] | None) -> Image.Image:
    """Frame `number` (None: the middle one) as 8-bit RGB, as `images.read_image` describes."""
    pydicom = _pydicom(path)
    try:
        data = pydicom.dcmread(path)
        frames = int(data.get("NumberOfFrames") or 1)
        number = frames // 2 if number is None else number
        if number >= frames:
            raise ValueError(f"has no frame {number}, only {frames}")
        pixels = pydicom.pixels.pixel_array(data, index=number)
        photometric = str(data.PhotometricInterpretation)
        bits = data.BitsStored
        if photometric == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, data)
            bits = data.RedPaletteColorLookupTableDescriptor[2]
        elif photometric.startswith("MONOCHROME"):
            pixels = pydicom.pixels.apply_modality_lut(pixels, data)
            if window is None and data.get("VOILUTSequence"):
                pixels = pydicom.pixels.apply_voi_lut(pixels, data, index=0)
            elif window is None and data.get("WindowWidth"):
                centre, width = (float(np.ravel(data[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
                window = (centre - width / 2, centre + width / 2)
    except Exception as error:  # pydicom raises all kinds on damaged files and missing decoders
        raise unreadable(path, "DICOM", error) from None
    if pixels.ndim == 3:
        return Image.fromarray((pixels >> max(0, bits - 8)).astype(np.uint8)).convert("RGB")
    low, high = window or (pixels.min(), pixels.max())
    if photometric == "MONOCHROME1":
        pixels, low, high = -pixels.astype(float), -high, -low
    return stretched(path, pixels.astype(float), low, high)


def _pydicom(path: Path):
    try:
        import pydicom.pixels
    except ImportError:
        raise ValueError(f"{path}: DICOM needs pydicom >= 3 (pip install pydicom)") from None
    return pydicom
