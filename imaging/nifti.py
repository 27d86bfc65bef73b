"""Reading NIfTI and Analyze volumes with nibabel."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imaging.levels import stretched, unreadable

NIFTI = {".nii", ".nii.gz"}
_MOST_PACKED = 1032  # bytes that one byte of a gzip file can stand for (RFC 1951)


class Axes(NamedTuple):
    """How a volume lies in its file. `turns`: nibabel's orientation `[3, 2]`, from the axes of the file to right, front
    and up. `sizes`: of these three; `across`: the one of them that counts slices. `more`: how many entries the axes
    beyond the third have, without those of one: volumes. `told`: whether the header tells the orientation."""

    turns: np.ndarray
    sizes: tuple[int, ...]
    across: int
    more: tuple[int, ...]
    told: bool

    @property
    def depth(self) -> int:
        """The number of slices."""
        return self.sizes[self.across]


def depth_of(path: Path) -> int:
    """The number of slices, from the header. Raises ValueError that names the file."""
    return _axes(_open_nifti(path)).depth


def volumes_of(path: Path) -> tuple[int, ...]:
    """How many volumes a file holds, from the header: the sizes of its axes beyond the third, without those of one
    entry; () if it is one volume. Raises ValueError that names the file."""
    return _axes(_open_nifti(path)).more


def begins_as_analyze(path: Path) -> bool:
    """Whether the file begins as the header of a pair .hdr and .img does."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError:
        return False
    return any(int.from_bytes(start, order) in (348, 540) for order in ("little", "big"))


def read_nifti(path: Path, numbers: Sequence[int], window: tuple[float, float] | None) -> Image.Image:
    """A slice as 8-bit RGB, as `images.read_image` describes. `numbers`: of the slice (without: the middle one), then
    of the volume, one number for each axis beyond the third (without: the first volume). `info["done"]` says what was
    done to its grey levels. Raises ValueError that names the file."""
    image = _open_nifti(path)
    axes = _axes(image)
    number, chosen = _chosen(path, axes, numbers)
    try:
        plane = _plane(image, axes, number, chosen)
    except Exception as error:  # nibabel raises all kinds on damaged files
        raise unreadable(path, "NIfTI", error) from None
    if axes.more and len(numbers) < 2 and (plane == plane.flat[0]).all():
        named = ",".join(map(str, (number, *(count - 1 for count in axes.more))))
        raise ValueError(
            f"{path}: slice {number} of its first volume is blank; name one of its {_times(axes.more)} volumes, as in "
            f"{path.name}[{named}] (with prepare_data.py: --volume)"
        )
    picture, shown = _shown(path, plane, window)
    picture.info["done"] = "; ".join(text for text in (_told(axes, number, chosen), shown) if text)
    return picture


def _told(axes: Axes, number: int, chosen: Sequence[int]) -> str:
    """Which part of the file a slice is."""
    parts = [f"slice {number} of 0 to {axes.depth - 1}"] * (axes.depth > 1)
    parts += [f"volume {one} of 0 to {count - 1}" for one, count in zip(chosen, axes.more, strict=True)]
    return "; ".join(parts + ["no orientation in the header"] * (not axes.told))


def _shown(path: Path, plane: np.ndarray, window: tuple[float, float] | None) -> tuple[Image.Image, str]:
    """(A slice as 8-bit RGB, what was done to its grey levels)."""
    if plane.dtype.names:
        hues = [plane[name] for name in plane.dtype.names[:3]]
        return Image.fromarray(np.stack(hues, axis=-1)), "colours of the file"
    magnitude = "magnitude of complex numbers; " if np.iscomplexobj(plane) else ""
    values = np.abs(plane).astype(float) if magnitude else plane.astype(float)
    empty = np.isnan(values)
    if empty.all() or np.isinf(values).any():
        lost = (~np.isfinite(values)).sum()
        raise ValueError(f"{path}: {lost} of its {values.size} values are not finite numbers")
    values[empty] = values[~empty].min()  # the background of registered and of functional volumes
    low, high = window or np.percentile(values, (1, 99))
    told = f"window {low:g} to {high:g} as asked" if window else "1st to 99th percentile"
    if not low < high:
        low, high = values.min(), values.max()
        told = "lowest to highest value"
    background = "; NaN as the lowest value" if empty.any() else ""
    return stretched(path, values, low, high), magnitude + told + background


def _plane(image: Any, axes: Axes, number: int, chosen: Sequence[int]) -> np.ndarray:
    """One slice `[H, W]`: to the right is right (or front), to the top front (or up). Raises ValueError if the file is
    cut off."""
    import nibabel

    place = list(axes.turns[:, 0]).index(axes.across)
    at = axes.depth - 1 - number if axes.turns[place, 1] < 0 else number
    where: list[Any] = [slice(at, at + 1) if axis == place else slice(None) for axis in range(3)]
    volume = iter(chosen)
    where = where[: image.ndim] + [next(volume) if count > 1 else 0 for count in image.shape[3:]]
    found = _stored(image, tuple(where))
    slab = nibabel.apply_orientation(found.reshape((*found.shape, 1, 1)[:3]), axes.turns)
    return np.rot90(np.take(slab, 0, axis=axes.across))


def _stored(image: Any, where: tuple[Any, ...]) -> np.ndarray:
    """This part of the numbers of an image, rescaled as its header says. Raises ValueError if the file is cut off."""
    from nibabel.volumeutils import apply_read_scaling

    stored, name = image.dataobj, image.file_map["image"].filename
    size = stored.offset + math.prod(image.shape) * stored.dtype.itemsize
    if name is not None and _is_packed(Path(name)):
        whole = np.ndarray(image.shape, stored.dtype, _unpacked(Path(name), size), stored.offset, order=stored.order)
        return apply_read_scaling(whole[where], stored.slope, stored.inter)
    if name is not None and Path(name).stat().st_size < size:
        raise ValueError(f"is cut off: {Path(name).stat().st_size} of {size} bytes")
    return np.asarray(stored[where])


def _unpacked(path: Path, size: int) -> bytes:
    """The first bytes of a packed file, and its checksum is right. Raises ValueError if there are fewer, OSError and
    what gzip raises."""
    if size > path.stat().st_size * _MOST_PACKED:
        raise ValueError(f"is cut off, or its header is wrong: it promises {size} bytes")
    with gzip.open(path) as stream:
        found = stream.read(size)
        while stream.read(1 << 20):
            pass
    if len(found) < size:
        raise ValueError(f"is cut off: {len(found)} of {size} bytes")
    return found


def _chosen(path: Path, axes: Axes, numbers: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The numbers of the slice and, on each axis of volumes, of the volume. Raises ValueError if there is none such."""
    number, *rest = numbers or (axes.depth // 2,)
    if number >= axes.depth:
        raise ValueError(f"{path}: has no slice {number}, only {axes.depth}")
    if rest and len(rest) != len(axes.more):
        held = f"{_times(axes.more)} volumes, named by {len(axes.more)} number(s)" if axes.more else "one volume"
        raise ValueError(f"{path}: holds {held}, not {len(rest)}")
    chosen = tuple(rest) or (0,) * len(axes.more)
    for one, count in zip(chosen, axes.more, strict=True):
        if one >= count:
            raise ValueError(f"{path}: has no volume {one}, only {count}")
    return number, chosen


def _times(counts: Sequence[int]) -> str:
    return " x ".join(map(str, counts))


def _axes(image: Any) -> Axes:
    """How the axes of an image lie in its file, by `nibabel.as_closest_canonical`. Slices are counted upwards, unless
    the volume has one entry along another axis: then it is one slice across that."""
    import nibabel

    known = np.isfinite(image.affine).all()
    turns = nibabel.io_orientation(image.affine) if known else np.full((3, 2), np.nan)
    known = np.isfinite(turns).all()
    if not known:
        turns = np.array([(0, 1), (1, 1), (2, 1)])
    shape = (*image.shape, 1)[: max(3, image.ndim)]
    sizes = tuple(shape[list(turns[:, 0]).index(axis)] for axis in range(3))
    across = next((axis for axis in (2, 0, 1) if sizes[axis] == 1), 2)
    codes = ("sform_code", "qform_code") if isinstance(image, nibabel.Nifti1Pair) else ()
    told = bool(known) and any(int(image.header[code]) > 0 for code in codes)
    return Axes(turns, sizes, across, tuple(count for count in shape[3:] if count > 1), told)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _open_nifti(path: Path) -> Any:
    """The image, its pixels still in the file. A file that is packed, or not, against its name is read all the same.
    Raises ValueError that names the file."""
    try:
        import nibabel
    except ImportError:
        raise ValueError(f"{path}: NIfTI needs nibabel (pip install nibabel)") from None
    nibabel.imageglobals.logger.setLevel(logging.CRITICAL + 1)  # it prints every slip of a header
    try:
        if _is_packed(path) == path.name.lower().endswith(".gz"):
            image: Any = nibabel.load(path)
        else:
            held = path.read_bytes()
            held = gzip.decompress(held) if _is_packed(path) else held
            second = any(int.from_bytes(held[:4], order) == 540 for order in ("little", "big"))
            image = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(held)
    except Exception as error:  # nibabel raises all kinds on damaged files
        raise unreadable(path, "NIfTI", error) from None
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        raise ValueError(f"{path}: holds no image, but what nibabel calls {type(image).__name__}")
    if len(image.shape) < 2 or not math.prod(image.shape):
        raise ValueError(f"{path}: has no pixels: its size is {_times(image.shape)}")
    return image
