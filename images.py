"""Reading one image file of any kind as 8-bit pixels: photographs, DICOM (with pydicom), NIfTI (with nibabel)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
DICOM = {".dcm", ".dicom"}
NIFTI = {".nii", ".nii.gz"}
RESAMPLING = Image.Resampling.BILINEAR


def read_image(path: Path) -> Image.Image:
    """The image as 8-bit RGB.

    16-bit pictures are stretched from their least to their greatest value. DICOM goes through its own rescaling and
    first window (else least to greatest), MONOCHROME1 is inverted; of several frames the middle one is taken. Of a
    NIfTI volume it is the middle slice of the third axis, stretched between the 1st and 99th percentile, anterior up
    where the header's orientation is right.

    Raises FileNotFoundError, or ValueError that names the file if it cannot be read or needs a library that is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    suffix = _suffix(path)
    if suffix in DICOM:
        return _read_dicom(path)
    if suffix in NIFTI:
        return _read_nifti(path)
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I") or image.mode == "F":
                return _stretched(np.asarray(image, dtype=float))
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name)
        raise ValueError(f"{path}: cannot be read as an image ({reason})") from None


def to_array(image: Image.Image, image_size: int, channels: int) -> np.ndarray:
    """uint8 `[C, image_size, image_size]`: grey or RGB. This is the image that is certified.

    Resized bilinearly with antialiasing, as torchvision's `Resize` does and the published pipelines with it. The choice
    matters: bicubic images keep a third more gradient energy, and noise hides just that (one denoiser, brain MRI at
    64 px, noise 0.25: 27.3 dB on bilinear images, 26.4 dB on bicubic ones).
    """
    resized = image.convert("RGB" if channels == 3 else "L").resize((image_size,) * 2, RESAMPLING)
    return np.asarray(resized).reshape(image_size, image_size, channels).transpose(2, 0, 1)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files named and those in the folders named, at any depth, sorted within each folder.

    Raises FileNotFoundError if a path does not exist, ValueError if a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _suffix(p) in PICTURES | DICOM | NIFTI and p.is_file())
            if not inside:
                raise ValueError(f"{path}: no images in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")
    return found


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _read_dicom(path: Path) -> Image.Image:
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
            pixels = apply_voi_lut(apply_modality_lut(pixels, data), data, index=0)
    except Exception as error:  # pydicom raises all kinds on damaged files and missing decoders
        raise ValueError(f"{path}: cannot be read as DICOM ({' '.join(str(error).split())[:120]})") from None
    if pixels.ndim == 3:
        return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    return _stretched(-pixels.astype(float) if photometric == "MONOCHROME1" else pixels.astype(float))


def _read_nifti(path: Path) -> Image.Image:
    try:
        import nibabel
    except ImportError:
        raise ValueError(f"{path}: NIfTI needs nibabel (pip install nibabel)") from None
    try:
        volume = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj, dtype=float)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as NIfTI ({' '.join(str(error).split())[:120]})") from None
    while volume.ndim > 3:
        volume = volume[..., 0]
    plane = volume if volume.ndim == 2 else volume[:, :, volume.shape[2] // 2]
    return _stretched(np.rot90(plane), (1, 99))


def _stretched(pixels: np.ndarray, percentiles: tuple[float, float] = (0, 100)) -> Image.Image:
    low, high = np.percentile(pixels, percentiles)
    scaled = np.clip((pixels - low) / (high - low if high > low else 1.0), 0, 1)
    return Image.fromarray((255 * scaled).round().astype(np.uint8)).convert("RGB")
