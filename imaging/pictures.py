"""Reading photographs and scans as a viewer shows them: all depths and colours that Pillow and tifffile know."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from imaging.colour import by_profile, deep_by_profile, to_rgb
from imaging.decoded import Decoded, library
from imaging.levels import eight_bits, scaled, white_of
from imaging.not_pictures import what_else
from imaging.tiff import TIFF, decode_tiff

PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".j2k"}
PICTURES |= {".pgm", ".ppm", ".pbm", ".pnm"}
FORMATS = {"PNG", "JPEG", "MPO", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM", "GIF", "AVIF", "TGA"}  # of Pillow
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = "turned as its header says"
SCREEN = 1 / 2.2  # the gamma of a PNG for today's screens
warnings.filterwarnings("ignore", module=r"PIL\.")  # what a reader must know is said by errors, and in `done`
Pixels = TypeVar("Pixels", Image.Image, np.ndarray)


def read_picture(path: Path, window: tuple[float, float] | None = None) -> Image.Image:
    """The picture as 8-bit RGB: upright, in sRGB, over black where it is transparent; of several pages the first.

    Of more than 8 bits, 0 becomes black and the full scale white, if the file or `levels.white_of` tells it, else the
    lowest value becomes black and the highest white. `window` (low, high) replaces both. In `info`, `done` says in
    words what was done; `mode`, `format` and `quantisation` (the mean of a JPEG's first table) are those of the file.

    Raises ValueError that names the file if it cannot be read, is transparent everywhere, or holds values that are not
    finite.
    """
    try:
        held = (decode_tiff(path) if _begins(path) in TIFF else None) or _decode(path)
        picture = _over_black(_in_srgb(path, held, window), held)
    except MemoryError:
        raise
    except Exception as error:  # Pillow and tifffile raise all kinds on damaged files
        raise _unreadable(path, error) from None
    if held.turn in TURNS:
        picture = picture.transpose(TURNS[held.turn])
        held.done.append(TURNED)
    if held.pages > 1:
        held.done.append(f"page 1 of {held.pages}")
    picture.info = {**held.header, "done": "; ".join(held.done)}
    return picture


def _begins(path: Path, count: int = 4) -> bytes:
    with path.open("rb") as stream:
        return stream.read(count)


def _unreadable(path: Path, error: Exception) -> ValueError:
    if str(error).startswith(f"{path}: "):
        return ValueError(str(error))
    if else_ := what_else(path):
        return ValueError(f"{path}: {else_}")
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "of no known kind" if unknown else " ".join(str(error).split()).replace(str(path), path.name)
    return ValueError(f"{path}: cannot be read as an image ({reason[:200]})")


# ---- what the file holds, by Pillow ----


def _decode(path: Path) -> Decoded:
    with path.open("rb") as stream, Image.open(stream) as image:  # by name, Pillow would map TIFFs before it turns them
        if image.format not in FORMATS:  # Pillow would run other programs for some
            raise ValueError(f"pictures of kind {image.format} are not read")
        tables = getattr(image, "quantization", None)
        quantisation = float(np.mean(tables[min(tables)])) if tables else 0.0
        pages, bits = getattr(image, "n_frames", 1), _depth(path, image.format)
        turned = image.format == "TIFF" and _turn(image) in TURNS
        image.load()  # which turns a TIFF
        if bits > 8 and image.mode in ("LA", "RGB", "RGBA"):  # of which Pillow keeps 8 bits
            found = _deep_colours(path, image.format, bits)
        elif image.mode.startswith("I") or image.mode == "F":
            found = _deep_grey(image)
        else:
            found = _shallow(image, bits)
        found.header = {"mode": image.mode, "format": image.format, "quantisation": quantisation}
        found.profile, found.gamma = image.info.get("icc_profile") or b"", _gamma(image)
        found.turn, found.pages, found.done = _turn(image), pages, [TURNED] * turned
    return found


def _depth(path: Path, kind: str) -> int:
    """The bits per value that a PNG or a JPEG 2000 file states; 8 for others."""
    if kind == "PNG":
        return _begins(path, 25)[24]
    if kind == "JPEG2000":
        sizes = path.read_bytes().partition(b"\xff\x4f\xff\x51")[2]  # after its marker
        return 1 + (sizes[38] & 127)
    return 8


def _deep_colours(path: Path, kind: str, bits: int) -> Decoded:
    """Several channels of more than 8 bits, alpha the last of two or four."""
    imagecodecs = library("imagecodecs", "colours of more than 8 bits")
    decode = imagecodecs.png_decode if kind == "PNG" else imagecodecs.jpeg2k_decode
    values = decode(path.read_bytes())
    alpha, scale = None, 2.0**bits - 1
    if values.shape[2] in (2, 4):
        alpha = eight_bits(scaled(path, values[:, :, -1], 0, scale))
        values = values[:, :, :-1]
    white = scale if kind == "JPEG2000" else None
    return Decoded(values if values.shape[2] == 3 else values[:, :, 0], white, alpha=alpha)


def _deep_grey(image: Image.Image) -> Decoded:
    """One channel of more than 8 bits. Pillow spreads those of PNM and JPEG 2000 over 16 bits."""
    values, key = np.asarray(image), image.info.get("transparency")
    alpha = None if key is None else Image.fromarray(255 * (values != key).astype(np.uint8))
    white = 65535.0 if image.format in ("PPM", "JPEG2000") and image.mode != "F" else None
    return Decoded(values, white, alpha=alpha)


def _shallow(image: Image.Image, bits: int) -> Decoded:
    """8 bits or fewer."""
    if not image.has_transparency_data:
        return Decoded(image)
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode in ("1", "L") and key < 2**bits < 256:
        image.info["transparency"] = key * 255 // (2**bits - 1)  # as Pillow spreads the levels, but not always this one
    *colours, alpha = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA").split()
    return Decoded(Image.merge("RGB" if len(colours) == 3 else "L", colours), alpha=alpha)


def _gamma(image: Image.Image) -> float:
    """The exponent that a PNG's own gamma makes necessary: about 1 for most."""
    gamma = image.info.get("gamma", 0) if image.format == "PNG" and "srgb" not in image.info else 0
    exponent = SCREEN / gamma if gamma > 0 and not image.info.get("icc_profile") else 1.0
    return exponent if abs(exponent - 1) > 0.05 else 1.0


def _turn(image: Image.Image) -> int:
    """The orientation in the header, 1 to 8. Damaged EXIF data says nothing."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises all kinds
        return 1


# ---- 8-bit sRGB ----


def _in_srgb(path: Path, held: Decoded, window: tuple[float, float] | None) -> Image.Image:
    """The colours as 8-bit RGB."""
    if isinstance(held.pixels, np.ndarray):
        levels = _levels(path, held.pixels, held, window)
        levels = _seen(deep_by_profile, 1 - levels if held.negative else levels, held)
        picture = eight_bits(levels**held.gamma).convert("RGB")
    else:
        held.done += ["8 bits, without the window"] * (window is not None)
        picture = ImageOps.invert(held.pixels) if held.negative else held.pixels
        picture = to_rgb(_seen(by_profile, picture, held))
        if held.gamma != 1:
            picture = picture.point([round(255 * (level / 255) ** held.gamma) for level in range(256)] * 3)
    held.done += ["inverted: white is zero"] * held.negative + ["by its gamma"] * (held.gamma != 1)
    return picture


def _levels(path: Path, values: np.ndarray, held: Decoded, window: tuple[float, float] | None) -> np.ndarray:
    """Values of more than 8 bits as levels in [0, 1]."""
    white = held.white or white_of(values)
    if window:
        held.done.append("window {:g} to {:g}".format(*window))
        return scaled(path, values, *window)
    if white:
        bits = "float" if values.dtype.kind == "f" else f"{8 * values.dtype.itemsize} bit"
        held.done.append(f"{bits}, white is {white:g}")
        return scaled(path, values, 0, white)
    held.done.append("lowest to highest value")
    return scaled(path, values)


def _seen(convert: Callable[[Pixels, bytes], Pixels | None], pixels: Pixels, held: Decoded) -> Pixels:
    """The pixels as `convert` makes them by the colour profile, if there is one that changes something."""
    try:
        seen = convert(pixels, held.profile) if held.profile else None
    except ValueError as error:
        held.done.append(f"without its colour profile: {error}")
        return pixels
    held.done += ["from its colour profile to sRGB"] * (seen is not None)
    return pixels if seen is None else seen


def _over_black(picture: Image.Image, held: Decoded) -> Image.Image:
    """The picture as it looks in front of black. Raises ValueError if nothing of it can be seen."""
    least, most = held.alpha.getextrema() if held.alpha else (255, 255)
    if held.alpha is None or least == 255:
        return picture
    if most == 0:
        raise ValueError("it is transparent everywhere")
    held.done.append("black where it is transparent")
    return picture if held.premultiplied else ImageChops.multiply(picture, Image.merge("RGB", [held.alpha] * 3))
