"""Reading DICOM files with pydicom: which file is an image, and its pixels; what they mean says `dicom_levels`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imaging import dicom_levels, jpeg
from imaging.levels import stretched, unreadable

DICOM = {".dcm", ".dicom"}
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 26)  # of a frame; Pillow's own limit for pictures
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PYDICOM = re.compile(r"pydicom\.")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def frames_of(path: Path) -> int | None:
    """The number of frames, from the header; None if there is one. Raises ValueError that names the file."""
    data = open_dicom(path, header=True)
    try:
        frames = frame_count(data)
    except ValueError as error:
        raise unreadable(path, "DICOM", error) from None
    return frames if frames > 1 else None


def begins_as_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path, numbers: Sequence[int], window: tuple[float, float] | None) -> Image.Image:
    """The frame of this number (without: the middle one) as 8-bit RGB, as `images.read_image` describes; `info["done"]`
    says what was done to its grey levels. Raises ValueError that names the file if it holds no image or cannot be
    read."""
    data = open_dicom(path)
    _must_be_an_image(path, data)
    try:
        frames = frame_count(data)
        number, *rest = numbers or (frames // 2,)
        if rest or number >= frames:
            raise ValueError(f"has no frame {','.join(map(str, (number, *rest)))}, only {frames}")
        levels, done = _levels(data, number, window)
    except Exception as error:  # pydicom raises all kinds on damaged files
        raise unreadable(path, "DICOM", error) from None
    image = stretched(path, levels, 0, 1) if levels.ndim == 2 else Image.fromarray(np.uint8(np.round(255 * levels)))
    frame = f"frame {number} of 0 to {frames - 1}; " if frames > 1 else ""
    image.info["done"] = frame + done
    return image


def open_dicom(path: Path, header: bool = False) -> Any:
    """The data set of a file; `header`: without its pixels. A file that lacks the beginning of DICOM files is taken as
    one if its tags say what it is. Raises ValueError that names the file if it is none."""
    pydicom = _pydicom(path)
    try:
        data = pydicom.dcmread(path, stop_before_pixels=header, force=True)
        told = begins_as_dicom(path) or "SOPClassUID" in data or ("Rows" in data and "Columns" in data)
    except Exception as error:  # pydicom raises all kinds on damaged files
        raise unreadable(path, "DICOM", error) from None
    if not told:
        raise ValueError(f"{path}: is not DICOM: neither its beginning nor its tags are")
    return data


def _levels(data: Any, number: int, window: tuple[float, float] | None) -> tuple[np.ndarray, str]:
    """(Levels in [0, 1], grey `[H, W]` or RGB `[H, W, 3]`; what was done to get them)."""
    raw, photometric = _decoded(data, number)
    if raw.ndim == 3:
        if photometric != "RGB":
            raise ValueError(f"has colours of the kind {photometric}, which is not read")
        return dicom_levels.colours(raw, int(data.BitsStored))
    told = raw.dtype.kind == "f" or data.file_meta.TransferSyntaxUID in jpeg.JPEG_2000  # the stream tells bits and sign
    stored = raw if told else dicom_levels.pixel_bits(data, raw)
    if photometric == "PALETTE COLOR":
        return dicom_levels.palette(data).brightness(stored), "colours of its palette"
    if not photometric.startswith("MONOCHROME"):
        raise ValueError(f"has one value a pixel, but colours of the kind {photometric}")
    padding = dicom_levels.padding_of(data, raw, stored) | np.isnan(stored)
    if not np.isfinite(stored[~padding]).all():
        raise ValueError("holds values that are not finite")
    stored = np.where(padding, stored[~padding].min(), stored) if not padding.all() else np.zeros_like(stored)
    laid_over = dicom_levels.supplement(data, stored)
    left_out = padding if laid_over is None else padding | laid_over[1]
    levels, done = dicom_levels.grey_levels(data, number, stored, left_out, window)
    done += "; padding values left out, black" if padding.any() else ""
    if laid_over is None:
        return levels, done
    table, coloured = laid_over
    return np.where(coloured[..., None], table.brightness(stored), levels[..., None]), f"{done}; colours laid over it"


def _decoded(data: Any, number: int) -> tuple[np.ndarray, str]:
    """(The numbers of a frame as they lie in the file, `[H, W]` or `[H, W, 3]`; their photometric interpretation).

    Of several decoders the same one is taken everywhere: they differ by a level or two. Raises ValueError if none is
    installed, and what pydicom raises."""
    from pydicom.pixels import get_decoder

    _complete(data)
    if int(data.Rows) * int(data.Columns) > MOST_PIXELS:
        raise ValueError(f"a frame of {data.Rows} x {data.Columns} pixels is more than the {MOST_PIXELS} that are read")
    syntax = data.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(f"its pixels are compressed as {syntax.name}, which is not read") from None
    jpeg.register(decoder)
    ours = [name for name in ("pydicom", "pillow", jpeg.PLUGIN) if name in decoder.available_plugins]
    failed: Exception | None = None
    as_it_lies: Any = {"correct_unused_bits": False}
    for plugin in (ours or decoder.available_plugins) if syntax.is_encapsulated else ("",):
        try:
            pixels, told = decoder.as_array(data, index=number, decoding_plugin=plugin, **as_it_lies)
            return pixels, str(told["photometric_interpretation"])
        except Exception as error:  # each raises what it likes, and the next may know better
            failed = failed or error
    if failed is None or jpeg.is_missing(syntax):
        raise ValueError(f"its pixels are compressed as {syntax.name}: pip install {jpeg.PLUGIN}")
    raise failed


def _complete(data: Any) -> None:
    """Fill in what an image leaves out but the rest of it tells. Raises ValueError that names what must be there."""
    from pydicom import uid

    needed = ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"]
    needed += ["PixelRepresentation"] if "PixelData" in data else []
    lacking = [name for name in needed if data.get(name) in (None, "")]
    if lacking:
        raise ValueError(f"lacks {', '.join(lacking)}")
    if not data.file_meta.get("TransferSyntaxUID"):
        implicit, little = data.original_encoding
        if data["PixelData"].is_undefined_length:
            raise ValueError("does not tell how its pixels are compressed")
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    data.PhotometricInterpretation = str(data.PhotometricInterpretation).strip().upper()
    data.NumberOfFrames = frame_count(data)
    likely = {
        "SamplesPerPixel": 3 if data.PhotometricInterpretation in _COLOURS else 1,
        "PlanarConfiguration": 0,
        "BitsStored": data.get("BitsAllocated"),
    }
    for name, value in likely.items():
        if data.get(name) is None:
            setattr(data, name, value)


def frame_count(data: Any) -> int:
    """The number of frames that a data set tells, 1 without. Raises ValueError if it is no number."""
    try:
        return max(1, int(data.get("NumberOfFrames") or 1))
    except Exception:  # pydicom raises all kinds on damaged tags
        raise ValueError("its NumberOfFrames is no number") from None


def tag(data: Any, name: str) -> Any:
    """The value of a tag; None where it is missing or damaged, on which pydicom raises all kinds."""
    try:
        return data.get(name)
    except Exception:
        return None


def _must_be_an_image(path: Path, data: Any) -> None:
    """Raises ValueError that says what the file is instead."""
    if "DirectoryRecordSequence" in data:
        raise ValueError(f"{path}: is a DICOMDIR, a list of other files; name these")
    kind = tag(data, "SOPClassUID")
    name = re.sub(r"[^\w .:/()-]+", " ", str(getattr(kind, "name", "")))[:80] or "DICOM of no class"
    if kind in _SEGMENTATIONS:
        raise ValueError(f"{path}: holds no image, but labels ({name})")
    if not any(tag(data, kind) for kind in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError(f"{path}: holds no image ({name})")


def _pydicom(path: Path) -> Any:
    try:
        import pydicom.pixels
    except ImportError:
        raise ValueError(f"{path}: DICOM needs pydicom >= 3 (pip install pydicom)") from None
    # It warns of every slip of a header; whoever wants to know of them has better tools.
    if ("ignore", None, Warning, _PYDICOM, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PYDICOM.pattern)
    return pydicom
