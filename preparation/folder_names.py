"""What the name of a folder says: a split, part of a set, a mask, a patient, or something that may be a class."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

SPLITS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "tests": "test",
    "testing": "test",
    "tst": "test",
    "holdout": "test",
    "eval": "eval",  # validation beside a folder for testing, else testing
    "evaluation": "eval",
}

BRIEF = {"tr": "train", "va": "val", "ts": "test", "te": "test"}  # after a neutral word: imagesTr


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that tell neither a class nor a split: what files are, or how they were made.
NEUTRAL = _words(
    "aug augmented augmentation bmp cropped crops crop data dataset datasets dcm dicom dir extra file files final "
    "folder folders frame frames full gray grey image images img imgs input inputs jpeg jpg more new nifti nii old "
    "orig original originals patch patches photo photos pic pics picture pictures png processed preprocessed raw "
    "resized rgb sample samples scan scans set sets slice slices split splits tif tiff tile tiles"
)
PARTS = _words("batch chunk cv fold folds part parts partition phase subset")
OWNERS = _words(
    "case cases id patient patients person scan series session slide study subj subject subjects vol volume"
)
MASKS = _words(
    "annot annotated annotation annotations contour contours gt groundtruth label labels lesion mask masks overlay "
    "overlays seg segmentation segmentations segs"
)
_SPLIT, _NEUTRAL = ("|".join(sorted(words, key=len, reverse=True)) for words in (SPLITS, NEUTRAL))
_GLUED = re.compile(f"({_SPLIT})({_NEUTRAL})")  # trainset


@functools.lru_cache(10_000)
def words_of(name: str) -> tuple[str, ...]:
    """`seg_train2`, `TrainingData`, `testset` → their words and numbers, in lower case."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", unicodedata.normalize("NFKC", name)).lower()
    found = re.findall(r"[^\W\d_]+|\d+", re.sub(r"ground[\W_]*truth", "groundtruth", apart))
    return tuple(part for word in found for part in _parted(word))


def _parted(word: str) -> tuple[str, ...]:
    glued = _GLUED.fullmatch(word)
    return glued.groups() if glued else (word,)


@functools.cache
def split_and_rest(name: str) -> tuple[str, tuple[str, ...]]:
    """(the split that a name mentions, or ""; its other words, without numbers and neutral ones)."""
    words = words_of(name)
    known = SPLITS | BRIEF if set(words) & (NEUTRAL | MASKS) else SPLITS
    said = {known[word] for word in words if word in known}
    said = {"train"} if said == {"train", "val"} else said
    rest = (word for word in words if not (word in known or word in NEUTRAL or word.isdecimal()))
    return (said.pop() if len(said) == 1 else ""), tuple(rest)


def split_of(name: str) -> str:
    """The split that a folder is, if its name says nothing else; else ""."""
    split, rest = split_and_rest(name)
    return "" if rest else split


@functools.cache
def may_be_class(name: str, inside: str = "") -> bool:
    """Whether a folder within the one called `inside` may be a class: it is no split, no patient or other number of two
    digits or more, not called by words that tell nothing, and not by the name of the outer one again."""
    digits = sum(letter.isdecimal() for letter in name)
    if split_of(name) or (digits > 1 and not re.fullmatch(r"\d\d", name)):
        return False
    left = set(words_of(name)) - NEUTRAL - PARTS - OWNERS - MASKS - set(words_of(inside))
    return name.isdecimal() or any(not word.isdecimal() for word in left)


def names_files(name: str) -> bool:
    """Whether a name holds nothing but words of files, parts and masks, and numbers."""
    words = {word for word in words_of(name) if not word.isdecimal()}
    return bool(words) and words <= NEUTRAL | PARTS | (MASKS - {"lesion"})


def are_numbered_parts(names: Sequence[str]) -> bool:
    """Whether several names are alike but for a number or letter after a word such as part, images or patient."""
    beginnings = set()
    for name in names:
        *beginning, last = words_of(name) or ("",)
        if not (last.isdecimal() or len(last) == 1) or not beginning or beginning[-1] not in PARTS | NEUTRAL | OWNERS:
            return False
        beginnings.add(tuple(beginning))
    return len(names) > 1 and len(beginnings) == 1


def alike(name: str) -> str:
    """What two spellings of one name share: case, blanks around it, and how its accents are composed do not matter."""
    return unicodedata.normalize("NFC", name).casefold().strip()
