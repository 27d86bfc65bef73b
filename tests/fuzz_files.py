"""Files for the fuzzing test: one scene in many forms, each with the image that the standard's formula gives for it,
and the damage that files take."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from PIL import Image

ROWS, COLUMNS = 20, 24


@dataclass(frozen=True)
class File:
    """What a file holds, how it is called, and the 8-bit RGB image `[H, W, 3]` that it must give (None: not known)."""

    content: bytes
    suffix: str
    wanted: np.ndarray | None
    told: str  # how it was made, for the report of a failure

    def __repr__(self) -> str:
        return f"{self.suffix}: {self.told}"


def scene(seed: int, flat: bool = False) -> np.ndarray:
    """uint8 `[20, 24]`: smooth, from 0 to 255; or of one value."""
    rng = np.random.default_rng(seed)
    if flat:
        return np.full((ROWS, COLUMNS), rng.integers(0, 256), np.uint8)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5), dtype=np.uint8))
    grey = np.asarray(coarse.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC), float)
    return np.round(255 * (grey - grey.min()) / max(1.0, np.ptp(grey))).astype(np.uint8)


def as_rgb(grey: np.ndarray) -> np.ndarray:
    """A grey image as three equal channels."""
    return np.repeat(grey[..., None], 3, axis=2)


# ---- pictures --------------------------------------------------------------------------------------------------------


@st.composite
def pictures(draw: st.DrawFn) -> File:
    """A picture as Pillow or tifffile writes it."""
    grey = scene(draw(st.integers(0, 10_000)), draw(st.integers(0, 9)) == 0)
    return draw(st.sampled_from((by_pillow, by_tifffile)))(draw, grey)


def by_pillow(draw: st.DrawFn, grey: np.ndarray) -> File:
    """Without loss, or (JPEG, WebP) as Pillow itself decodes it."""
    mode = draw(st.sampled_from(("L", "RGB", "RGBA", "P", "LA", "CMYK", "1", "I;16")))
    formats = {
        "L": ("png", "bmp", "tiff", "jpeg", "webp"),
        "RGB": ("png", "bmp", "tiff", "jpeg", "webp"),
        "RGBA": ("png", "tiff", "webp"),
        "P": ("png", "bmp", "tiff"),
        "LA": ("png",),
        "CMYK": ("tiff",),
        "1": ("png", "tiff"),
        "I;16": ("png", "tiff"),
    }[mode]
    kind = draw(st.sampled_from(formats))
    wanted = as_rgb(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "1":
        image = Image.fromarray(grey).point(lambda value: 255 * (value > 127), "1")
        wanted = as_rgb(255 * (grey > 127).astype(np.uint8))
    else:
        image = (
            Image.fromarray(wanted).convert(mode) if mode in {"RGBA", "CMYK"} else Image.fromarray(grey).convert(mode)
        )
    options = {"lossless": True} if kind == "webp" else {}
    if kind == "tiff" and mode != "1":
        options = {"compression": draw(st.sampled_from((None, "tiff_lzw", "tiff_adobe_deflate", "packbits")))}
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    if kind == "jpeg":
        wanted = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    return File(stream.getvalue(), f".{kind}", wanted, f"{kind} {mode} {options}")


def by_tifffile(draw: st.DrawFn, grey: np.ndarray) -> File:
    """TIFFs of 8 and 16 bits, little and big endian, in tiles, in planes, where white is zero."""
    import tifffile

    pixels = grey.astype(np.uint16) * 257 if draw(st.booleans()) else grey
    photometric = draw(st.sampled_from(("minisblack", "miniswhite", "rgb")))
    options: dict = {
        "photometric": photometric,
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
    }
    if photometric == "miniswhite":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if photometric == "rgb":
        options["planarconfig"] = draw(st.sampled_from(("contig", "separate")))
        pixels = as_rgb(pixels) if options["planarconfig"] == "contig" else np.stack([pixels] * 3)
    if draw(st.booleans()):
        options["tile"] = (16, 16)
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return File(stream.getvalue(), ".tif", as_rgb(grey), f"tifffile {pixels.dtype} {options}")


# ---- DICOM: PS3.3 C.11.1 (modality), C.11.2.1.2 (window) ------------------------------------------------------------


@st.composite
def dicoms(draw: st.DrawFn) -> File:
    """A monochrome file with any header that the standard allows for it."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage, generate_uid

    grey = scene(draw(st.integers(0, 10_000)), draw(st.integers(0, 9)) == 0).astype(float)
    signed, allocated = draw(st.booleans()), draw(st.sampled_from((8, 16)))
    stored = allocated if allocated == 8 else draw(st.integers(9, 16))
    least, most = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    low, high = sorted((draw(st.integers(least, most)), draw(st.integers(least, most))))
    values = np.round(low + grey / 255 * (high - low)).astype(int)
    slope, intercept = draw(st.sampled_from(((1, 0), (1, -1024), (0.5, 10), (2.25, -3), (None, None))))
    real = values * (slope or 1.0) + (intercept or 0.0)
    function = draw(st.sampled_from((None, "LINEAR", "LINEAR_EXACT", "SIGMOID")))
    windowed = draw(st.booleans())
    inverted = draw(st.booleans())
    enhanced = draw(st.booleans())

    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = draw(st.sampled_from((ExplicitVRLittleEndian, ImplicitVRLittleEndian)))
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["fuzz"])
    data.PatientID, data.Modality = "someone", "MR"
    data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
        allocated,
        stored,
        stored - 1,
        int(signed),
    )
    transform, window = pydicom.Dataset(), pydicom.Dataset()
    if slope is not None:
        transform.RescaleSlope, transform.RescaleIntercept = str(slope), str(intercept)
    if windowed:
        centre, width = round(draw(st.floats(real.min(), real.max() + 1)), 1), draw(st.integers(2, 2000))
        window.WindowCenter, window.WindowWidth = (str(centre), str(width))
        if function:
            window.VOILUTFunction = function
        shown = windowed_by(function, real, centre, width)
    else:
        span = np.ptp(real)
        shown = (real - real.min()) / (span or 1.0)
    frames = draw(st.integers(2, 3)) if enhanced else 1
    if enhanced:
        data.NumberOfFrames, shared = frames, pydicom.Dataset()
        if slope is not None:
            shared.PixelValueTransformationSequence = [transform]
        if windowed:
            shared.FrameVOILUTSequence = [window]
        data.SharedFunctionalGroupsSequence = [shared]
    else:
        data.update(transform)
        data.update(window)
    kept = (values & ((1 << allocated) - 1)).astype(np.uint16 if allocated == 16 else np.uint8)
    data.PixelData = np.stack([kept] * frames).tobytes()
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    wanted = np.round(255 * (1 - shown if inverted else shown)).astype(np.uint8)
    told = (
        f"{data.PhotometricInterpretation} {stored}/{allocated} bits signed {signed} slope {slope} {function} {window}"
    )
    return File(stream.getvalue(), draw(st.sampled_from((".dcm", ".DCM", ""))), as_rgb(wanted), told)


def windowed_by(function: str | None, x: np.ndarray, c: float, w: float) -> np.ndarray:
    """What PS3.3 C.11.2.1.2 (default) and C.11.2.1.3 (the VOI LUT functions) make of x, on [0, 1]."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if function == "LINEAR_EXACT":
        return np.clip((x - c) / w + 0.5, 0, 1)
    return np.clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1)


# ---- NIfTI -----------------------------------------------------------------------------------------------------------


@st.composite
def volumes(draw: st.DrawFn) -> File:
    """A volume of any numbers, along any axes; its middle slice is the scene. Written byte by byte (nifti1.h)."""
    grey = scene(draw(st.integers(0, 10_000)), draw(st.integers(0, 9)) == 0).astype(float)
    code, dtype = draw(
        st.sampled_from(((2, "u1"), (4, "i2"), (8, "i4"), (16, "f4"), (64, "f8"), (256, "i1"), (512, "u2")))
    )
    order = draw(st.sampled_from("<>"))
    slope, inter = draw(st.sampled_from(((0.0, 0.0), (1.0, 0.0), (2.5, -7.0), (-1.0, 3.0))))
    values = np.floor(grey / 2) if dtype == "i1" else grey
    depth = draw(st.integers(1, 3))
    # `picture` is what must be seen: rows from anterior to posterior, columns from left to right of the array in RAS.
    ras = np.stack([np.rot90(values, -1)] * depth, axis=2)
    flips = [draw(st.booleans()) for _ in range(3)]
    stored = ras[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    affine = np.diag([-1.0 if flip else 1.0 for flip in flips])
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, 3, *stored.shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}hh", header, 70, code, np.dtype(dtype).itemsize * 8)
    struct.pack_into(f"{order}8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into(f"{order}3f", header, 108, 352, slope, inter)
    struct.pack_into(f"{order}hh", header, 252, 0, 1)
    for row in range(3):
        struct.pack_into(f"{order}4f", header, 280 + 16 * row, *affine[row], 0)
    header[344:348] = b"n+1\0"
    content = bytes(header) + stored.astype(order + dtype).tobytes(order="F")
    zipped = draw(st.booleans())
    real = values * (slope or 1.0) + (inter if slope else 0.0)
    low, high = np.percentile(real, (1, 99))
    wanted = np.round(255 * np.clip((real - low) / (high - low if high > low else 1.0), 0, 1)).astype(np.uint8)
    told = f"NIfTI {order}{dtype} {stored.shape} slope {slope} inter {inter} flips {flips} zipped {zipped}"
    return File(
        gzip.compress(content, mtime=0) if zipped else content, ".nii.gz" if zipped else ".nii", as_rgb(wanted), told
    )


# ---- damage ----------------------------------------------------------------------------------------------------------


@st.composite
def files(draw: st.DrawFn) -> File:
    """A file of any kind, every second one damaged."""
    made = draw(st.one_of(pictures(), dicoms(), volumes()))
    return damaged(draw, made) if draw(st.booleans()) else made


def damaged(draw: st.DrawFn, made: File) -> File:
    """Cut off, with bits turned, with bytes overwritten, inserted or lost, or under a wrong name. What it must give is
    not known any more."""
    content, suffix = bytearray(made.content), made.suffix
    how = draw(st.sampled_from(("cut", "bits", "header", "overwritten", "inserted", "lost", "renamed", "empty")))
    place = draw(st.integers(0, len(content) - 1))
    if how == "cut":
        del content[place:]
    elif how == "bits":
        for _ in range(draw(st.integers(1, 8))):
            content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif how == "header":  # where the sizes are
        content[draw(st.integers(0, min(400, len(content) - 1)))] = draw(st.integers(0, 255))
    elif how == "overwritten":
        filler = draw(st.sampled_from((b"\xff", b"\0", b"\x7f")))
        content[place : place + 4] = filler * len(content[place : place + 4])
    elif how == "inserted":
        content[place:place] = draw(st.binary(min_size=1, max_size=8))
    elif how == "lost":
        del content[place : place + draw(st.integers(1, 16))]
    elif how == "renamed":
        suffix = draw(st.sampled_from((".png", ".jpg", ".tif", ".bmp", ".webp", ".dcm", ".nii", ".nii.gz", ".gif", "")))
    else:
        content.clear()
    return replace(made, content=bytes(content), suffix=suffix, wanted=None, told=f"{made.told}; {how} at {place}")
