"""Reading NIfTI volumes with nibabel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from imaging.levels import stretched, unreadable

NIFTI = {".nii", ".nii.gz"}


def depth_of(path: Path) -> int:
    """The number of slices along the third axis, from the header. Raises ValueError that names the file."""
    shape = _open_nifti(path).shape
    return shape[2] if len(shape) > 2 else 1


def read_nifti(path: Path, number: int | None, window: tuple[float, float] | None) -> Image.Image:
    """Slice `number` of the third axis (None: the middle one) as 8-bit RGB, as `images.read_image` describes."""
    volume = _open_nifti(path)
    try:
        volume = np.asarray(volume.dataobj, dtype=float)
    except Exception as error:
        raise unreadable(path, "NIfTI", error) from None
    while volume.ndim > 3:
        volume = volume[..., 0]
    if volume.ndim == 3:
        number = volume.shape[2] // 2 if number is None else number
        if number >= volume.shape[2]:
            raise ValueError(f"{path}: has no slice {number}, only {volume.shape[2]}")
        volume = volume[:, :, number]
    if not volume.size:
        raise ValueError(f"{path}: has no pixels")
    low, high = window or np.percentile(volume, (1, 99))
    return stretched(path, np.rot90(volume), low, high)


def _open_nifti(path: Path):
    try:
        import nibabel
    except ImportError:
        raise ValueError(f"{path}: NIfTI needs nibabel (pip install nibabel)") from None
    try:
        return nibabel.as_closest_canonical(nibabel.load(path))
    except Exception as error:
        raise unreadable(path, "NIfTI", error) from None
