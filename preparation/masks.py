"""Masks among the images: outlines of what another image shows, which are images of no class."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from common.lines import shown
from preparation.folder_names import MASKS, NEUTRAL, words_of

Words = tuple[str, ...]
Masks = dict[PurePosixPath, PurePosixPath]  # mask → an image that it belongs to
_WORD = re.compile(rf"[\W_]*(?<![a-zA-Z])({'|'.join(sorted(MASKS, key=len, reverse=True))})(?![a-zA-Z])", re.IGNORECASE)


def must_hold_no_masks(images: Sequence[PurePosixPath], source: Path) -> None:
    """Raises ValueError, which names the flags that decide, if some images look like masks of others."""
    masks = masks_among(images)
    if masks:
        mask, image = next(iter(masks.items()))
        raise ValueError(
            f"{source}: {len(masks)} of {len(images)} images are called like masks of others ({shown(str(mask))} "
            f"beside {shown(str(image))} for one); say which: leave them out with --leave_out {pattern_of(masks)}, or "
            "read them as images of their class: --keep_masks"
        )


def masks_among(images: Sequence[PurePosixPath]) -> Masks:
    """The images that their names call masks of others (`X_mask.png` beside `X.png`), or their folders (`masks/X.png`
    beside `images/X.png`; in a folder `masks` beside others also whatever they are called, or far from them)."""
    found = _by_name(images) | _by_folder(images)
    return {image: found[image] for image in images if image in found}


def _by_name(images: Sequence[PurePosixPath]) -> Masks:
    named = [image for image in images if _WORD.search(_stem(image))]
    marked = set(named)
    return _partners(named, [image for image in images if image not in marked], PurePosixPath) if named else {}


def _by_folder(images: Sequence[PurePosixPath]) -> Masks:
    inside = [image for image in images if any(map(_masks_in, image.parts[:-1]))]
    if not inside:
        return {}
    marked = set(inside)
    others = [image for image in images if image not in marked and not _WORD.search(_stem(image))]
    alone = [image for image in inside if any(map(_only_masks_in, image.parts[:-1]))]
    beside = {_without_masks(*image.parts[:-1]): image for image in reversed(others)}
    near = ((image, beside.get(_without_masks(*image.parts[:-1]))) for image in alone)
    found = _partners(alone, others, lambda *_: PurePosixPath())
    return found | {mask: image for mask, image in near if image} | _partners(inside, others, _without_masks)


def _partners(
    masks: Iterable[PurePosixPath], images: Iterable[PurePosixPath], where: Callable[..., PurePosixPath]
) -> Masks:
    """Those of `masks` that are called as one of `images` is, but for words of masks (`X_mask_1` for `X`, `X_seg` for
    `X_t1`); `where` says by their folders which belong together."""
    called: dict[tuple[PurePosixPath, Words], PurePosixPath] = {}
    for image in images:
        core = tuple(word for word in words_of(_stem(image)) if word not in NEUTRAL)
        for key in (core, core[:-1]):
            called.setdefault((where(*image.parts[:-1]), key), image)
    found: Masks = {}
    for mask in masks:
        words = [word for word in words_of(_stem(mask)) if word not in NEUTRAL]
        first = next((k for k, word in enumerate(words) if word in MASKS), len(words))
        for key in (tuple(word for word in words if word not in MASKS), tuple(words[:first])):
            partner = called.get((where(*mask.parts[:-1]), key))
            if key and partner is not None:
                found.setdefault(mask, partner)
    return found


def _stem(image: PurePosixPath) -> str:
    return image.name[: -len(".nii.gz")] if image.name.lower().endswith(".nii.gz") else image.stem


@functools.lru_cache(10_000)
def _masks_in(folder: str) -> bool:
    return bool(set(words_of(folder)) & MASKS)


def _only_masks_in(folder: str) -> bool:
    """Whether a folder is called by words of masks alone; `lesion` may be a class."""
    words = set(words_of(folder))
    return bool(words & (MASKS - {"lesion"})) and words <= MASKS | NEUTRAL


@functools.lru_cache(10_000)
def _without_masks(*folders: str) -> PurePosixPath:
    """The folders by their words, without those of masks and neutral ones."""
    kept = (" ".join(word for word in words_of(name) if word not in MASKS | NEUTRAL) for name in folders)
    return PurePosixPath(*filter(None, kept))


def is_left_out(image: PurePosixPath, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns matches the path of an image, its name, or the name of a folder that leads to
    it."""
    return any(fnmatchcase(part, pattern) for pattern in patterns for part in (str(image), *image.parts))


def pattern_of(masks: Masks) -> str:
    """The patterns for --leave_out that leave out all these masks and none of the images that they belong to; the word
    PATTERN if they are not that simple."""
    patterns: dict[str, None] = {}
    for mask in masks:
        word = _WORD.search(_stem(mask))
        folder = next((name for name in mask.parts[:-1] if _masks_in(name)), "")
        patterns[f"*{word[0]}*" if word else re.sub(r"([*?[])", r"[\1]", folder)] = None
    fits = not any(is_left_out(image, patterns) for image in masks.values())
    return shlex.join(patterns) if fits and all(is_left_out(mask, patterns) for mask in masks) else "PATTERN"
