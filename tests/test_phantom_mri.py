"""Phantom MRI: deterministic, one subject at a time, laid out like the real set, and what tells the classes apart."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preparation.phantom_mri import (
    CLASSES,
    FIELD_OF_VIEW,
    GLIOMA,
    HIGHEST,
    LOWEST,
    MENINGIOMA,
    NO_TUMOR,
    PITUITARY,
    Subject,
    draw_lesion,
    draw_subject,
    mri_slice,
    write_phantom_mri,
)

SIZE = 64
SELLA = (0.0, 0.25)


def draw_aligned_subject(index: int) -> Subject:
    """A subject in the middle of the image and upright, so that head coordinates are image coordinates."""
    return replace(draw_subject(np.random.default_rng([7, index])), angle=0.0, shift=(0.0, 0.0), scale=1.0)


def at_level(z: float) -> float:
    """The `position` of level z in a head without tumour."""
    return min(max((z - LOWEST) / (HIGHEST - LOWEST), 0.0), 1.0)


def grey(image: np.ndarray, x: float, y: float, outer: float, inner: float = 0.0) -> float:
    """Mean grey level at distances `inner` to `outer` (head units) from (x, y)."""
    axis = FIELD_OF_VIEW * (2 * (np.arange(len(image)) + 0.5) / len(image) - 1)
    distance = np.hypot(axis[None, :] - x, -axis[:, None] - y)
    return float(image[(distance <= outer) & (distance >= inner)].mean())


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_seed_same_files_and_other_seed_other_images(tmp_path):
    for name, seed in (("a", 3), ("again", 3), ("other", 4)):
        write_phantom_mri(tmp_path / name, subjects=8, slices_per_subject=1, size=32, seed=seed)
    files, again, other = (contents(tmp_path / name) for name in ("a", "again", "other"))
    assert files == again
    assert files.keys() == other.keys()
    assert all(files[name] != other[name] for name in files)
    assert len(set(files.values())) == 8  # no two subjects alike


def test_a_subject_does_not_depend_on_how_many_are_asked_for(tmp_path):
    write_phantom_mri(tmp_path / "few", subjects=8, slices_per_subject=1, size=32)
    write_phantom_mri(tmp_path / "more", subjects=13, slices_per_subject=1, size=32)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert len(few) == 8
    assert len(more) == 13
    assert few.items() <= more.items()


def test_layout_counts_and_split_by_subject(tmp_path):
    write_phantom_mri(tmp_path, subjects=40, slices_per_subject=2, size=32)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    counts = Counter((path.parent.parent.name, path.parent.name) for path in paths)
    assert counts == {("Training", c): 16 for c in CLASSES} | {("Testing", c): 4 for c in CLASSES}

    where = {}
    for path in paths:
        subject, part = path.stem.split("_")
        assert (len(subject), part in ("01", "02"), path.suffix) == (5, True, ".png")
        where.setdefault(subject, set()).add(path.parent)
        with Image.open(path) as image:
            assert (image.mode, image.size, image.format) == ("L", (32, 32), "PNG")
    assert set(where) == {f"s{i:04d}" for i in range(40)}
    assert all(len(folders) == 1 for folders in where.values())


def test_an_interrupted_write_leaves_no_image(tmp_path, monkeypatch):
    def save_half(self, path, **kwargs):
        Path(path).write_bytes(b"\x89PNG half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        write_phantom_mri(tmp_path, subjects=8, size=32)
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("label", range(len(CLASSES)))
@pytest.mark.parametrize("size", [32, 96])
def test_a_slice_is_a_bright_head_on_black(label, size):
    subject = draw_aligned_subject(label)
    for position in (0.0, 0.5, 1.0):
        image = mri_slice(label, subject, position, size)
        assert (image.shape, image.dtype) == ((size, size), np.uint8)
        corner, brain = image[: size // 8, : size // 8], grey(image, 0, 0, outer=0.5)
        assert corner.mean() < 20 < 60 < brain < 180
        assert image.max() > 110  # scalp
        assert image.std() > 25


def test_slices_of_a_subject_share_the_head_but_not_the_level():
    def distance(a, b):
        return np.abs(a.astype(float) - b).mean()

    subject, other = (draw_subject(np.random.default_rng(i)) for i in (1, 2))
    here, near, far = (mri_slice(NO_TUMOR, subject, position, SIZE) for position in (0.5, 0.51, 0.9))
    assert 0 < distance(here, near) < 0.5 * distance(here, far)
    assert distance(here, near) < 0.5 * distance(here, mri_slice(NO_TUMOR, other, 0.5, SIZE))


def test_pituitary_tumours_are_bright_at_the_sella_beyond_the_healthy_gland():
    differences = []
    for subject in map(draw_aligned_subject, range(30)):
        level = at_level(draw_lesion(PITUITARY, subject).centre[2])
        tumour, healthy = mri_slice(PITUITARY, subject, 0.5, SIZE), mri_slice(NO_TUMOR, subject, level, SIZE)
        differences.append(grey(tumour, *SELLA, outer=0.1) - grey(healthy, *SELLA, outer=0.1))
    assert np.mean(differences) > 40
    assert np.mean(np.array(differences) > 10) > 0.8


def test_gliomas_have_a_dark_core_and_meningiomas_enhance_throughout():
    core_minus_white = {GLIOMA: [], MENINGIOMA: []}
    for label, differences in core_minus_white.items():
        for subject in map(draw_aligned_subject, range(30)):
            lesion = draw_lesion(label, subject)
            core = grey(mri_slice(label, subject, 0.5, SIZE), *lesion.centre[:2], outer=0.4 * lesion.radius)
            differences.append(core - 255 * subject.white)
    assert np.median(core_minus_white[GLIOMA]) < -15
    assert np.median(core_minus_white[MENINGIOMA]) > 40


def test_meningiomas_touch_the_dura_and_gliomas_lie_in_the_brain():
    def lies_deep(label: int, subject: Subject) -> bool:
        x, y, z = draw_lesion(label, subject).centre
        on_falx_or_base = abs(x) < 0.33 and (z > 0.45 or z < 0.2)
        return math.hypot(x / subject.width, y) < 0.6 and not on_falx_or_base

    subjects = [draw_aligned_subject(i) for i in range(200)]
    deep = {label: np.mean([lies_deep(label, s) for s in subjects]) for label in (GLIOMA, MENINGIOMA)}
    assert deep[MENINGIOMA] < 0.15
    assert deep[GLIOMA] > deep[MENINGIOMA] + 0.25


def test_some_healthy_heads_have_a_mimic_but_most_have_nothing():
    lesions = [draw_lesion(NO_TUMOR, draw_aligned_subject(i)) for i in range(200)]
    mimics = [lesion for lesion in lesions if lesion is not None]
    assert 0.15 < len(mimics) / len(lesions) < 0.5
    assert {lesion.level > 0 for lesion in mimics} == {True, False}  # bright and dark ones
    assert all(lesion.push == 0 for lesion in mimics)  # none has the mass effect of a tumour


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda root: write_phantom_mri(root, subjects=7), "subjects must be at least 8"),
        (lambda root: write_phantom_mri(root, slices_per_subject=0), "slices_per_subject must be at least 1"),
        (lambda root: write_phantom_mri(root, size=31), "size must be at least 32"),
        (lambda root: mri_slice(4, draw_aligned_subject(0), 0.5), "label must be 0 to 3, got 4"),
        (lambda root: mri_slice(-1, draw_aligned_subject(0), 0.5), "label must be 0 to 3, got -1"),
        (lambda root: mri_slice(0, draw_aligned_subject(0), 0.5, size=16), "size must be at least 32"),
        (lambda root: mri_slice(0, draw_aligned_subject(0), 1.5), r"position must lie in \[0, 1\]"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(tmp_path, call, words):
    with pytest.raises(ValueError, match=words) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_every_class_is_in_both_parts_from_the_smallest_number_on(tmp_path):
    write_phantom_mri(tmp_path, subjects=8, slices_per_subject=1, size=32)
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert folders == {f"{part}/{c}" for part in ("Training", "Testing") for c in CLASSES}
