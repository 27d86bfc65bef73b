"""Colours of any space → sRGB, by the ICC profile of the picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageChops, ImageCms

from imaging.decoded import library

SAME = 2  # levels of 8 bits: a profile that changes no more is sRGB by another name
INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION  # both as browsers do
EXACT = ImageCms.Flags.NOOPTIMIZE  # its tables are 10 levels off in the dark


def to_rgb(picture: Image.Image) -> Image.Image:
    """An 8-bit picture of any mode but its alpha as RGB."""
    if picture.mode != "LAB":
        return picture.convert("RGB")
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.applyTransform(picture, ImageCms.buildTransform(lab, srgb, "LAB", "RGB", INTENT)) or picture


def by_profile(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """An 8-bit picture in sRGB, as its ICC profile says that it looks; None if that changes nothing. Raises ValueError
    on a profile that is damaged, or for another kind of colours."""
    space = _space(profile)
    if space == "Lab" and picture.mode == "LAB":
        return None
    if space == "RGB" and picture.mode not in ("CMYK", "LAB"):
        picture = picture.convert("RGB")
    elif {"GRAY": "L", "CMYK": "CMYK"}.get(space) != picture.mode:
        raise ValueError(f"it is for {space}")
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    try:
        seen = ImageCms.profileToProfile(picture, source, target, INTENT, "RGB", flags=FLAGS) or picture
    except ImageCms.PyCMSError as error:
        raise ValueError(error) from None
    change = np.asarray(ImageChops.difference(seen, to_rgb(picture)))
    return seen if change.max() > SAME else None


def deep_by_profile(levels: np.ndarray, profile: bytes) -> np.ndarray | None:
    """The same for levels in [0, 1], `[H, W]` or `[H, W, 3]`, calculated with 16 bits: `[H, W, 3]` or None."""
    space = _space(profile)
    if space == "RGB" and levels.ndim == 2:
        levels = np.stack([levels] * 3, axis=2)
    if space != ("GRAY" if levels.ndim == 2 else "RGB"):
        raise ValueError(f"it is for {space}")
    imagecodecs = library("imagecodecs", "pictures of 16 bits with a colour profile")
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    told = (65535 * levels).round().astype(np.uint16)
    how = {"colorspace": space.lower(), "outcolorspace": "rgb", "intent": int(INTENT), "flags": int(FLAGS | EXACT)}
    try:
        seen = imagecodecs.cms_transform(told, profile, target, **how) / 65535
    except imagecodecs.CmsError as error:
        raise ValueError(error) from None
    change = np.abs(seen - (levels if levels.ndim == 3 else levels[:, :, None])).max()
    return seen if 255 * change > SAME else None


def _space(profile: bytes) -> str:
    """The kind of colours that a profile is for, `RGB`, `GRAY` or `CMYK`."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except OSError:
        raise ValueError("it is damaged") from None
