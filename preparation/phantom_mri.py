"""Procedural axial T1-contrast head MRI with and without tumours: the data set that needs no download.

A head is a stack of soft ellipsoids, as in the Shepp-Logan phantom. Head coordinates: x to the side, y forward, z up,
in units of half the head's length, z = 0 at the sella. An image is one level z of it, so a subject's slices agree.

Left out of what the real set holds: sagittal and coronal slices, T1 without contrast and T2, lettering, borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

VERSION = 2  # of what is drawn: raise it with every change of a pixel, so that no stale image is used
CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = range(len(CLASSES))

LOWEST, HIGHEST = -0.06, 0.84  # levels z of the lowest and highest slice: through the orbits, near the vertex
FIELD_OF_VIEW = 1.1  # half the width of an image, in head units
SCALP, SKULL, DURA = 0.055, 0.115, 0.135  # depth below the skin at which each of these layers ends

# Grey levels on [0, 1]; those of the brain vary by subject.
BONE, AIR, FLUID, MUSCLE = 0.05, 0.02, 0.1, 0.3
WHITE = 0.88  # what is shown as white

# Paired and midline structures, painted in this order: centre (|x|, y, z), radii, in-plane angle (degrees), tissue.
ANATOMY = (
    ((0.20, -0.02, 0.38), (0.12, 0.20, 0.14), 0, "grey"),  # thalamus
    ((0.29, 0.12, 0.40), (0.06, 0.17, 0.12), 10, "grey"),  # putamen
    ((0.52, 0.13, 0.28), (0.17, 0.025, 0.13), 20, "fluid"),  # Sylvian fissure
    ((0.09, 0.27, 0.46), (0.045, 0.17, 0.12), -20, "ventricle"),  # frontal horn
    ((0.10, 0.00, 0.57), (0.050, 0.34, 0.07), 8, "ventricle"),  # body of the lateral ventricle
    ((0.26, -0.30, 0.43), (0.065, 0.19, 0.13), 18, "ventricle"),  # atrium and occipital horn
    ((0.38, -0.05, 0.19), (0.025, 0.10, 0.05), 10, "ventricle"),  # temporal horn
    ((0.00, 0.03, 0.33), (0.022, 0.15, 0.12), 0, "ventricle"),  # third ventricle
    ((0.25, -0.27, 0.43), (0.035, 0.06, 0.07), 18, "vessel"),  # choroid plexus
    ((0.00, -0.15, 0.13), (0.19, 0.20, 0.12), 0, "fluid"),  # cisterns around the midbrain
    ((0.00, 0.19, 0.12), (0.16, 0.12, 0.08), 0, "fluid"),  # suprasellar cistern
    ((0.00, -0.12, 0.10), (0.16, 0.15, 0.26), 0, "white"),  # midbrain and pons
    ((0.00, -0.33, -0.02), (0.06, 0.05, 0.10), 0, "fluid"),  # fourth ventricle
    ((0.00, 0.02, 0.06), (0.022, 0.022, 0.15), 0, "vessel"),  # basilar artery
    ((0.25, 0.20, 0.15), (0.14, 0.013, 0.025), 15, "vessel"),  # middle cerebral artery
    ((0.00, -0.40, 0.34), (0.018, 0.13, 0.06), 0, "vessel"),  # vein of Galen and straight sinus
    ((0.40, -0.05, -0.10), (0.22, 0.06, 0.11), 25, "bone"),  # petrous bone
    ((0.38, 0.40, -0.03), (0.24, 0.045, 0.11), -20, "bone"),  # sphenoid wing
    ((0.00, 0.08, -0.06), (0.12, 0.05, 0.08), 0, "muscle"),  # clivus
    ((0.00, 0.44, -0.07), (0.10, 0.12, 0.08), 0, "air"),  # sphenoid sinus
    ((0.00, 0.25, 0.00), (0.065, 0.045, 0.06), 0, "vessel"),  # pituitary gland: it enhances when healthy too
    ((0.13, 0.22, 0.00), (0.04, 0.09, 0.05), 5, "vessel"),  # cavernous sinus
    ((0.12, 0.26, 0.04), (0.022, 0.022, 0.06), 0, "air"),  # carotid artery: a flow void
    ((0.33, 0.66, -0.05), (0.18, 0.28, 0.12), 20, "fat"),  # orbit
    ((0.24, 0.56, -0.05), (0.028, 0.20, 0.05), -28, "muscle"),  # optic nerve
    ((0.36, 0.78, -0.05), (0.135, 0.135, 0.11), 0, "muscle"),  # wall of the eye
    ((0.36, 0.78, -0.05), (0.105, 0.105, 0.09), 0, "fluid"),  # vitreous
    ((0.00, 0.74, -0.08), (0.12, 0.20, 0.13), 0, "air"),  # ethmoid cells
)


@dataclass(frozen=True)
class Subject:
    """What the slices of one head have in common, with any tumour or with none."""

    seed: int  # of the folds, the jitter of the anatomy and the tumour
    width: float  # of the head, as a fraction of its length
    angle: float  # in-plane rotation, radians
    shift: tuple[float, float]  # of the head in the image, head units
    scale: float  # of the head in the image
    ventricles: float  # their size, 1 is average
    sulci: float  # width of the sulci, 1 is average
    white: float  # grey level of white matter
    contrast: float  # white minus grey matter
    fat: float  # grey level of scalp and orbital fat
    vessel: float  # grey level of enhancing vessels
    bias: tuple[float, float, float]  # slopes of the bias field along x and y, and its dip in the middle
    noise: float  # standard deviation of the receiver noise
    black: float  # what is shown as black, in standard deviations of the noise: air is not quite dark otherwise


@dataclass(frozen=True)
class Lesion:
    """One focal change of the tissue: a ball whose boundary, inside and surroundings depart from the ideal."""

    centre: tuple[float, float, float]
    radius: float
    level: float  # grey level minus that of white matter
    height: float = 1.0  # vertical over horizontal radius
    ragged: float = 0.05  # how irregular the boundary is
    texture: float = 0.04  # standard deviation of the grey level inside
    core: float = 0.0  # radius of the dark core over the radius
    oedema: float = 0.0  # radius of the dark surroundings over the radius
    push: float = 0.3  # how far it displaces the brain


def draw_subject(rng: np.random.Generator) -> Subject:
    """Draw a head, its place in the image and its scanner; whether there is a tumour comes later."""
    return Subject(
        seed=int(rng.integers(2**32)),
        width=rng.uniform(0.74, 0.84),
        angle=rng.normal(0, 0.06),
        shift=tuple(rng.normal(0, 0.02, 2)),
        scale=rng.uniform(0.93, 1.05),
        ventricles=rng.uniform(0.75, 1.35),
        sulci=rng.uniform(0.6, 1.4),
        white=rng.uniform(0.34, 0.42),
        contrast=rng.uniform(0.04, 0.1),
        fat=rng.uniform(0.6, 0.85),
        vessel=rng.uniform(0.5, 0.8),
        bias=tuple(rng.normal((0, 0, 0.12), (0.08, 0.08, 0.08))),
        noise=rng.uniform(0.01, 0.03),
        black=rng.uniform(1.0, 3.5),
    )


def draw_lesion(label: int, subject: Subject) -> Lesion | None:
    """Draw the lesion that makes `subject` a case of class `label`; for no_tumor a mimic, or None for most subjects."""
    rng = np.random.default_rng([subject.seed, label])
    side = rng.choice((-1, 1))
    if label == GLIOMA:  # within the brain, ragged, heterogeneous: mostly a ring around necrosis with oedema about it
        z = rng.uniform(0.04, 0.66)
        x, y = _in_plane(subject, z, depth=rng.uniform(0.36, 0.7), towards=rng.uniform(0.15, 0.95) * np.pi)
        radius = rng.uniform(0.22, 0.36)
        low_grade = rng.random() < 0.03  # a dark area that hardly enhances
        return Lesion(
            (side * x, min(y, 0.3 + 3 * z), z),
            radius,
            level=rng.uniform(-0.2, -0.05) if low_grade else rng.uniform(0.2, 0.36),
            height=rng.uniform(0.8, 1.1),
            ragged=rng.uniform(0.1, 0.3),
            texture=rng.uniform(0.04, 0.1),
            core=rng.uniform(0.45, 0.75),
            oedema=rng.uniform(1.3, 1.8),
            push=rng.uniform(0.1, 0.45),
        )
    if label == MENINGIOMA:  # on the dura of skull, falx or skull base, round, bright all over
        radius = rng.uniform(0.18, 0.32)
        site = rng.random()
        if site < 0.8:  # the convexity
            z = rng.uniform(0.04, 0.72)
            towards = rng.uniform(0.05 if z > 0.25 else 0.4, 0.97) * np.pi
            x, y = _in_plane(subject, z, depth=DURA + rng.uniform(0.3, 0.7) * radius, towards=towards)
        elif site < 0.95:  # the falx
            x, y, z = rng.uniform(0.4, 0.9) * radius, rng.uniform(-0.6, 0.6), rng.uniform(0.5, 0.75)
        else:  # beside or in front of the sella, where it mimics a pituitary tumour, or behind the petrous bone
            x, y, z = ((0.29, 0.22, 0.06), (0.06, 0.44, 0.12), (0.32, -0.16, 0.0))[rng.integers(3)]
            x, y, z = x + rng.normal(0, 0.03), y + rng.normal(0, 0.03), z + rng.normal(0, 0.02)
        return Lesion(
            (side * x, y, z),
            radius,
            level=rng.uniform(0.3, 0.48),
            height=rng.uniform(0.8, 1.1),
            ragged=rng.uniform(0.02, 0.06),
            texture=rng.uniform(0.01, 0.04),
            core=rng.uniform(0.2, 0.5) if rng.random() < 0.05 else 0.0,
            oedema=rng.uniform(1.2, 1.5) if rng.random() < 0.1 else 0.0,
            push=rng.uniform(0.2, 0.5),
        )
    if label == PITUITARY:  # in the sella and up from it, bright, some with a cyst
        radius = rng.uniform(0.11, 0.21)
        return Lesion(
            (rng.normal(0, 0.03), rng.normal(0.25, 0.02), 0.02 + 0.5 * (radius - 0.1)),
            radius,
            level=rng.uniform(0.2, 0.42),
            height=rng.uniform(1.0, 1.5),
            ragged=rng.uniform(0.03, 0.1),
            core=rng.uniform(0.3, 0.7) if rng.random() < 0.2 else 0.0,
            push=rng.uniform(0.2, 0.4),
        )
    mimic = rng.random()
    if mimic > 0.3:
        return None
    z = rng.uniform(0.0, 0.7)
    x, y = _in_plane(subject, z, depth=rng.uniform(0.18, 0.6), towards=rng.uniform(0.3, 0.95) * np.pi)
    if mimic < 0.12:  # an old infarct or cyst: dark like a low-grade glioma, but sharp and without mass effect
        return Lesion((side * x, y, z), rng.uniform(0.08, 0.2), -0.22, ragged=rng.uniform(0.05, 0.15), push=0.0)
    return Lesion((side * x, y, z), rng.uniform(0.04, 0.07), rng.uniform(0.1, 0.35), ragged=0.1, push=0.0)  # a vessel


def mri_slice(label: int, subject: Subject, position: float, size: int = 96) -> np.ndarray:
    """Render one axial slice as uint8 [size, size].

    `position` in [0, 1] runs from bottom to top: of the tumour, or of the whole head where there is none.
    """
    if label not in range(len(CLASSES)):
        raise ValueError(f"label must be 0 to {len(CLASSES) - 1}, got {label}")
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    if not 0 <= position <= 1:
        raise ValueError(f"position must lie in [0, 1], got {position}")
    lesion = draw_lesion(label, subject)
    z = LOWEST + position * (HIGHEST - LOWEST)
    if lesion is not None and label != NO_TUMOR:
        reach = 0.75 * lesion.radius * lesion.height  # the caps beyond are too small to call
        z = min(max(lesion.centre[2] + (2 * position - 1) * reach, LOWEST), HIGHEST)
    image = _render(subject, lesion, z, size)
    rng = np.random.default_rng([subject.seed, label, round(position * 1e6)])
    real, imaginary = rng.normal(0, subject.noise, (2, size, size))
    black = subject.black * subject.noise
    shown = (np.hypot(image + real, imaginary) - black) / (WHITE - black)
    return np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def write_phantom_mri(
    root: Path, subjects: int = 200, slices_per_subject: int = 3, size: int = 96, seed: int = 0
) -> None:
    """Write the layout of the real set: `root/{Training,Testing}/<class>/s<subject>_<slice>.png`, 8-bit grey.

    Subject i depends on `seed` and i alone. Every fifth subject of each class, with all its slices, is for testing.
    """
    if subjects < 2 * len(CLASSES):
        raise ValueError(f"subjects must be at least {2 * len(CLASSES)}, one per class and split, got {subjects}")
    if slices_per_subject < 1:
        raise ValueError(f"slices_per_subject must be at least 1, got {slices_per_subject}")
    for index in tqdm(range(subjects), desc="phantom MRI", unit="subject", disable=None):
        rng = np.random.default_rng([seed, index])
        subject = draw_subject(rng)
        rank, label = divmod(index, len(CLASSES))
        folder = Path(root) / ("Testing" if rank % 5 == 1 else "Training") / CLASSES[label]
        for i in range(slices_per_subject):
            pixels = mri_slice(label, subject, position=(i + rng.random()) / slices_per_subject, size=size)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"s{index:04d}_{i + 1:02d}.png"
            unfinished = path.with_suffix(".tmp")
            Image.fromarray(pixels).save(unfinished, format="PNG")
            unfinished.replace(path)  # so that an interrupted run leaves no half-written image


def _render(subject: Subject, lesion: Lesion | None, z: float, size: int) -> np.ndarray:
    """The noise-free image [size, size] on [0, 1] of level z."""
    edge = 0.8 * FIELD_OF_VIEW / size  # the partial-volume width of every boundary: 0.4 pixels
    x, y = _head_coordinates(subject, size)
    low = _step(0.1 - z, 0.03)  # 1 where the slice runs through the face, 0 above
    width = subject.width * (1 - 0.2 * low * np.clip(y, 0, 1))  # a face is narrower than the back of a head
    depth = _half_length(z) - np.hypot(x / width, y) + 0.008 * _field(subject.seed, 0, x, y, z, 0.8)  # below the skin
    levels = {"white": subject.white, "grey": subject.white - subject.contrast, "fat": subject.fat}
    levels |= {"vessel": subject.vessel, "fluid": FLUID, "ventricle": FLUID, "bone": BONE, "air": AIR, "muscle": MUSCLE}

    bx, by = x, y  # brain coordinates: where the tissue would be had the lesion not pushed it aside
    if lesion is not None:
        ratio = _ratio(subject, lesion, x, y, z)
        kept = 1 - lesion.push * np.exp(-0.5 * (ratio / 1.2) ** 2)
        bx, by = (c + (p - c) * kept for p, c in zip((x, y), lesion.centre[:2], strict=True))
    bx = bx + 0.012 * _field(subject.seed, 7, x, y, z, 0.45)  # no head is symmetric
    by = by + 0.018 * _field(subject.seed, 8, x, y, z, 0.45)

    # Brain: white matter, and near its surface folds of grey matter along sulci, the zero lines of a random field.
    folds = _field(subject.seed, 1, bx, by, z, 0.24)
    cortex = _step(0.3 - depth, 0.02)
    image = np.full((size, size), subject.white) + 0.012 * _field(subject.seed, 2, bx, by, z, 0.12)
    _paint(image, cortex * np.exp(-((folds / 0.9) ** 2)), levels["grey"])
    _paint(image, 0.8 * cortex * np.exp(-((folds / (0.27 * subject.sulci)) ** 2)), FLUID)
    fissure = _step(z - 0.25, 0.04) * _step(np.abs(by) - 0.4 * _step(0.62 - z, 0.04), 0.05)
    _paint(image, fissure * _step(0.02 * subject.sulci - np.abs(bx), edge), FLUID)
    _paint(image, 0.5 * fissure * _step(0.006 - np.abs(bx), edge), subject.vessel)  # the falx
    face = _step(y - 0.42 - 3 * max(z - 0.02, 0), 0.03) * low
    _paint(image, face, MUSCLE + 0.1 * _field(subject.seed, 3, x, y, z, 0.15))

    # Layers around the brain, from inside outwards.
    _paint(image, (1 - face) * _step(DURA + 0.015 * subject.sulci - depth, edge), FLUID)
    sinus = _step(0.03 - np.hypot(x, depth - DURA - 0.01), edge)
    _paint(image, sinus * (y < 0), subject.vessel)
    _paint(image, 0.4 * _step(DURA - depth, edge), subject.vessel)
    _paint(image, _step(SKULL - depth, edge) * (1 - 0.7 * face), BONE)

    rng = np.random.default_rng([subject.seed, 4])
    for centre, radii, degrees, tissue in ANATOMY:
        cx, cy, cz = centre + rng.normal(0, 0.01, 3)
        grown = np.array(radii) * np.exp(rng.normal(0, 0.08, 3)) * (subject.ventricles if tissue == "ventricle" else 1)
        if abs(z - cz) > grown[2]:  # the structure does not reach this level
            continue
        turned = np.exp(1j * np.deg2rad(degrees)) * (np.abs(bx) - cx * (centre[0] > 0) + 1j * (by - cy))
        distance = np.sqrt((turned.real / grown[0]) ** 2 + (turned.imag / grown[1]) ** 2 + ((z - cz) / grown[2]) ** 2)
        _paint(image, _step((1 - distance) * min(grown[:2]), edge) * _step(depth - 0.03, edge), levels[tissue])

    if lesion is not None:
        # Oedema, body and core: three ratios, each with a boundary of its own.
        within, blur = _step(depth - SKULL, edge), edge / lesion.radius
        patches = _field(subject.seed, 5, x, y, z, 0.14)
        swollen = _step(lesion.oedema * (1 + 0.15 * patches) - ratio, 2 * blur) * (lesion.oedema > 0)
        necrotic = _step(lesion.core * (1 + 0.2 * patches) - ratio, blur) * (lesion.core > 0)
        level = subject.white + lesion.level
        _paint(image, 0.8 * within * swollen, subject.white - 0.12)
        _paint(image, within * _step(1 - ratio, blur), np.clip(level + lesion.texture * patches, FLUID, 1))
        _paint(image, within * necrotic, max(min(level, subject.white) - 0.18, FLUID))

    skin = 0.5 + 0.5 * _step(depth - 0.02, edge)
    _paint(image, _step(SCALP - depth, edge), subject.fat * skin)
    image *= _step(depth, edge)
    slope_x, slope_y, dip = subject.bias
    return gaussian_filter(image, 0.35) * np.exp(slope_x * x + slope_y * y + dip * (x**2 + y**2 - 0.4))


def _ratio(subject: Subject, lesion: Lesion, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    """Distance from the lesion's centre over the distance of its boundary in that direction, [size, size]."""
    cx, cy, cz = lesion.centre
    distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + ((z - cz) / lesion.height) ** 2)
    return distance / lesion.radius * np.exp(-lesion.ragged * _field(subject.seed, 6, x, y, z, 1.2 * lesion.radius))


def _head_coordinates(subject: Subject, size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y in the head of each pixel's centre, [size, size] each; the image has the forehead at its top."""
    axis = FIELD_OF_VIEW * (2 * (np.arange(size) + 0.5) / size - 1)
    image_x, image_y = np.meshgrid(axis - subject.shift[0], -axis - subject.shift[1])
    turned = np.exp(1j * subject.angle) * (image_x + 1j * image_y) / subject.scale
    return turned.real, turned.imag


def _half_length(z: float) -> float:
    """Half the length of the head at level z."""
    return float(np.sqrt(1 - ((z - 0.15) / 0.98) ** 2))


def _in_plane(subject: Subject, z: float, depth: float, towards: float) -> tuple[float, float]:
    """The point of level z at `depth` below the skin, seen from the axis at angle `towards` (0 front, pi back)."""
    reach = max(_half_length(z) - depth, 0.0)
    return subject.width * reach * np.sin(towards), reach * np.cos(towards)


def _field(seed: int, key: int, x: np.ndarray, y: np.ndarray, z: float, wavelength: float) -> np.ndarray:
    """A smooth random field of unit variance over the head: plane waves in random directions."""
    rng = np.random.default_rng([seed, key, 16])
    directions = rng.normal(size=(16, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    waves = 2 * np.pi / wavelength * directions * rng.uniform(0.7, 1.3, (16, 1))
    offsets = waves[:, 2] * z + rng.uniform(0, 2 * np.pi, 16)
    x, y = x.astype(np.float32), y.astype(np.float32)  # single precision: these cosines are most of the work
    terms = np.column_stack((waves[:, :2], offsets)).astype(np.float32)
    return sum(np.cos(a * x + b * y + c) for a, b, c in terms) / np.sqrt(8)


def _step(distance: np.ndarray | float, width: float) -> np.ndarray:
    """A soft step: 1 where `distance` is well above 0, 0 well below."""
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(distance) / width)


def _paint(image: np.ndarray, mask: np.ndarray, level: np.ndarray | float) -> None:
    image += mask * (level - image)
