"""Decoding TIFF files of any depth, layout and compression with tifffile."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imaging.decoded import Decoded, library
from imaging.levels import eight_bits, scaled, white_of

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such a file begins; + is BigTIFF
COLOURS = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3}  # samples of a pixel, without alpha
PILLOWS = {"SEPARATED": 16, "CIELAB": 8}  # CMYK and Lab: the bits that Pillow reads
FAX = ("CCITTRLE", "CCITT_T4", "CCITT_T6", "CCITTFAX3", "CCITTFAX4")  # which older imagecodecs do not know
ASSOCIATED, UNSPECIFIED = 1, 0  # extra samples: alpha by which the pixels are multiplied, and nobody knows what
SCALES = (1023, 4095, 16383, 65535)


def decode_tiff(path: Path) -> Decoded | None:
    """The first page; None if Pillow must decode it. Raises ValueError, or what tifffile raises, if it cannot be
    read."""
    tifffile = library("tifffile", "TIFF files")
    logging.getLogger("tifffile").disabled = True  # the error says it, once
    with tifffile.TiffFile(path) as file:
        if not file.pages:
            raise ValueError("has no pages")
        page = file.pages[0]
        kind = getattr(page.photometric, "name", str(page.photometric))
        compression = getattr(page.compression, "name", str(page.compression))
        if kind == "YCBCR" and compression == "JPEG":
            kind = "RGB"  # as which it is decoded
        by_pillow = page.bitspersample <= PILLOWS.get(kind, 0) or (kind == "YCBCR" and page.is_subsampled)
        if by_pillow or compression in FAX:
            return None
        if kind not in COLOURS:
            raise ValueError(f"colours of kind {kind} are not read")
        found = _decoded(path, page, kind)
        found.pages = max(len(file.pages), int((file.imagej_metadata or {}).get("images", 1)))
        found.turn, found.profile = int(page.tags.valueof(274, 1)), page.iccprofile or b""
    return found


def _decoded(path: Path, page: Any, kind: str) -> Decoded:
    """The pixels of a page, with its alpha."""
    colours, bits = COLOURS[kind], int(page.bitspersample)
    extra = tuple(map(int, page.extrasamples)) or (None,)
    if not colours <= page.samplesperpixel <= colours + 1:
        raise ValueError(f"has {page.samplesperpixel} channels; grey and RGB are read, with or without alpha")
    values = _samples(path, page)
    pixels = values[:, :, 0] if colours == 1 else values[:, :, :3]
    white = _white(page, values)
    found = Decoded(pixels, white, kind == "MINISWHITE")
    if page.samplesperpixel > colours and extra[0] != UNSPECIFIED:
        alpha = values[:, :, colours]
        found.alpha = eight_bits(scaled(path, alpha, 0, white or white_of(alpha)))
        found.premultiplied = extra[0] == ASSOCIATED
    mode = {"MINISBLACK": "L", "MINISWHITE": "L", "PALETTE": "P"}.get(kind, "RGB")
    depth = {1: "1"}.get(bits, mode) if bits <= 8 else f"{mode};{bits}"
    found.header = {"mode": depth + "A" * (found.alpha is not None), "format": "TIFF"}
    if kind == "PALETTE":
        found.pixels = np.moveaxis(page.colormap[:, pixels], 0, 2)
        found.white = 255.0 if page.colormap.max() < 256 else 65535.0  # some programs fill 8 of the 16 bits
    elif bits <= 8 and white is not None:
        found.pixels = _shallow(path, kind, pixels, white)
    return found


def _shallow(path: Path, kind: str, pixels: np.ndarray, white: float) -> Image.Image:
    """At most 8 bits as a picture."""
    if kind == "YCBCR":
        height, width, _ = pixels.shape
        return Image.frombytes("YCbCr", (width, height), pixels.astype(np.uint8).tobytes())
    return Image.fromarray(pixels) if white == 255 else eight_bits(scaled(path, pixels, 0, white))


def _samples(path: Path, page: Any) -> np.ndarray:
    """The numbers of a page, `[H, W, C]`. Raises ValueError if the file ends before they do, if they would fill the
    memory, or are no levels."""
    if page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"its axes are {page.axes}, which are not those of a picture")
    if page.imagewidth * page.imagelength > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):  # Pillow's limit
        raise ValueError(f"{page.imagewidth}×{page.imagelength} pixels are too many")
    ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if max(ends, default=0) > path.stat().st_size or len(ends) != math.prod(page.chunked):
        raise ValueError("the file is truncated: pixels are missing")
    values = page.asarray(maxworkers=1)
    if values.dtype.kind not in "buif":
        raise ValueError(f"numbers of type {values.dtype} are no levels")
    return np.moveaxis(values, 0, 2) if page.axes == "SYX" else values.reshape(*values.shape[:2], -1)


def _white(page: Any, values: np.ndarray) -> float | None:
    """The number that is white: by the bits per sample if they are fewer than 16, or by the largest sample value if
    that is the end of a scale. (Many programs state the largest value of the picture instead.)"""
    bits, told = int(page.bitspersample), float(np.max(page.tags.valueof(281, 0)))
    if values.dtype.kind in "bu" and bits < 16:
        return 2.0**bits - 1
    return told if told in SCALES and values.max() <= told else None
