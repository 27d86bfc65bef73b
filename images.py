"""Reading one image file of any kind as 8-bit pixels: photographs, DICOM (with pydicom), NIfTI (with nibabel)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
DICOM = {".dcm", ".dicom"}
NIFTI = {".nii", ".nii.gz"}
RESAMPLING = Image.Resampling.BILINEAR
FITS = ("resize", "letterbox")


def read_image(path: Path, window: tuple[float, float] | None = None) -> Image.Image:
    """The image as 8-bit RGB.

    16-bit pictures are stretched from their least to their greatest value. DICOM goes through its own rescaling and
    first window (else least to greatest), MONOCHROME1 is inverted; of several frames the middle one is taken. Of a
    NIfTI volume it is the middle slice of the third axis, or slice k of `volume.nii[k]`, stretched between the 1st and
    99th percentile of its values, anterior up where the header's orientation is right. `window` (low, high) in the
    units of the file takes the place of these stretches, for DICOM and NIfTI.

    Raises FileNotFoundError, or ValueError that names the file if it cannot be read, holds values that are not finite,
    or needs a library that is missing.
    """
    path, number = of_volume(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    suffix = suffix_of(path)
    if suffix in DICOM:
        return _read_dicom(path, window)
    if suffix in NIFTI:
        return _read_nifti(path, number, window)
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I") or image.mode == "F":
                return _stretched(path, np.asarray(image, dtype=float))
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).split()).replace(str(path), path.name)
        raise ValueError(f"{path}: cannot be read as an image ({reason})") from None


def of_volume(path: Path) -> tuple[Path, int | None]:
    """`scan.nii.gz[80]` → its file and 80; any other path and None."""
    numbered = re.fullmatch(r"(.+\.nii(?:\.gz)?)\[(\d+)\]", path.name, re.IGNORECASE)
    return (path.with_name(numbered[1]), int(numbered[2])) if numbered else (path, None)


def to_array(image: Image.Image, image_size: int, channels: int, fit: str = "resize") -> np.ndarray:
    """uint8 `[C, image_size, image_size]`: grey or RGB. This is the image that is certified.

    `fit`: resize stretches to a square; letterbox keeps the proportions and repeats the outermost pixels beside them.

    Resized bilinearly with antialiasing, as torchvision's `Resize` does and the published pipelines with it. The choice
    matters: bicubic images keep a third more gradient energy, and noise hides just that (one denoiser, brain MRI at
    64 px, noise 0.25: 27.3 dB on bilinear images, 26.4 dB on bicubic ones).
    """
    image = image.convert("RGB" if channels == 3 else "L")
    size, pad = (image_size, image_size), (0, 0)
    if fit == "letterbox":
        size = tuple(max(1, round(image_size * side / max(image.size))) for side in image.size)
        pad = tuple(image_size - side for side in size)
    pixels = np.asarray(image.resize(size, RESAMPLING)).reshape(size[1], size[0], channels)
    sides = [(gap // 2, gap - gap // 2) for gap in reversed(pad)]
    return np.pad(pixels, [*sides, (0, 0)], mode="edge").transpose(2, 0, 1)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files named and those in the folders named, at any depth, sorted within each folder. A slice of a NIfTI
    volume is named `scan.nii.gz[80]`.

    Raises FileNotFoundError if a path does not exist, ValueError if a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        file, _ = of_volume(path)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if suffix_of(p) in PICTURES | DICOM | NIFTI and p.is_file())
            if not inside:
                raise ValueError(f"{path}: no images in this folder")
            found += inside
        elif file.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")
    return found


def with_slice(path: Path) -> Path:
    """A NIfTI volume by the slice that `read_image` reads of it, `scan.nii.gz[80]`; any other path as it is. Raises
    ValueError as `read_image` does."""
    return path.with_name(f"{path.name}[{slices_of(path) // 2}]") if suffix_of(path) in NIFTI else path


def suffix_of(path: Path) -> str:
    """The lower-case suffix, `.nii.gz` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _read_dicom(path: Path, window: tuple[float, float] | None) -> Image.Image:
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise ValueError(f"{path}: DICOM needs pydicom >= 3 (pip install pydicom)") from None
    try:
        data = pydicom.dcmread(path)
        pixels = data.pixel_array
        photometric = str(data.PhotometricInterpretation)
        frames = int(data.get("NumberOfFrames", 1) or 1)
        pixels = pixels[frames // 2] if frames > 1 else pixels
        if photometric.startswith(("MONOCHROME", "PALETTE")):
            pixels = apply_modality_lut(pixels, data)
            pixels = pixels if window else apply_voi_lut(pixels, data, index=0)
    except Exception as error:  # pydicom raises all kinds on damaged files and missing decoders
        raise ValueError(f"{path}: cannot be read as DICOM ({' '.join(str(error).split())[:120]})") from None
    if pixels.ndim == 3:
        return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    low, high = window or (pixels.min(), pixels.max())
    if photometric == "MONOCHROME1":
        pixels, low, high = -pixels.astype(float), -high, -low
    return _stretched(path, pixels.astype(float), low, high)


def slices_of(path: Path) -> int:
    """How many slices the third axis of a NIfTI volume has; from its header. Raises ValueError as `read_image` does."""
    shape = _open_nifti(path).shape
    return shape[2] if len(shape) > 2 else 1


def _open_nifti(path: Path):
    try:
        import nibabel
    except ImportError:
        raise ValueError(f"{path}: NIfTI needs nibabel (pip install nibabel)") from None
    try:
        return nibabel.as_closest_canonical(nibabel.load(path))
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as NIfTI ({' '.join(str(error).split())[:120]})") from None


def _read_nifti(path: Path, number: int | None, window: tuple[float, float] | None) -> Image.Image:
    volume = _open_nifti(path)
    try:
        volume = np.asarray(volume.dataobj, dtype=float)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as NIfTI ({' '.join(str(error).split())[:120]})") from None
    while volume.ndim > 3:
        volume = volume[..., 0]
    if volume.ndim == 3:
        number = volume.shape[2] // 2 if number is None else number
        if number >= volume.shape[2]:
            raise ValueError(f"{path}: has no slice {number}, only {volume.shape[2]}")
        volume = volume[:, :, number]
    low, high = window or np.percentile(volume, (1, 99))
    return _stretched(path, np.rot90(volume), low, high)


def _stretched(path: Path, pixels: np.ndarray, low: float | None = None, high: float | None = None) -> Image.Image:
    if not np.isfinite(pixels).all():  # one NaN would turn the whole slice black
        raise ValueError(f"{path}: {(~np.isfinite(pixels)).sum()} of its values are not finite numbers")
    low, high = pixels.min() if low is None else low, pixels.max() if high is None else high
    scaled = np.clip((pixels - low) / (high - low if high > low else 1.0), 0, 1)
    return Image.fromarray((255 * scaled).round().astype(np.uint8)).convert("RGB")
