"""Procedural Pap-smear cells of five kinds: the colour data set that needs no download.

Kinds differ as real ones do (Plissiti et al. 2018; the Bethesda system): by the ratio of nucleus to cytoplasm, by
shape, stain and texture, by the halo of a koilocyte. The cells of a cluster share stain, light, focus and background,
and each kind has outliers, so that no single trait tells them apart. Lengths are fractions of the crop's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

VERSION = 2  # of what is drawn: raise it with every change of a pixel, so that no stale image is used
FOLDERS = ("im_Dyskeratotic", "im_Koilocytotic", "im_Metaplastic", "im_Parabasal", "im_Superficial-Intermediate")
LARGEST_CLUSTER = 6

# What Papanicolaou's dyes give: orange keratin, blue-green and pink cytoplasm, violet, grey-brown.
ORANGE, GREEN, BLUE = np.array([(0.88, 0.42, 0.16), (0.22, 0.58, 0.58), (0.45, 0.62, 0.80)])
PINK, VIOLET, BROWN = np.array([(0.93, 0.58, 0.60), (0.55, 0.47, 0.66), (0.45, 0.36, 0.38)])
NUCLEUS = np.array((0.24, 0.16, 0.34))


@dataclass(frozen=True)
class Kind:
    """How a kind of cell looks; ranges are uniform."""

    cytoplasm: tuple[float, float]  # radius
    nucleus: tuple[float, float]  # radius as a fraction of the cytoplasm's
    angular: tuple[float, float]  # how far the outline is from a circle
    density: tuple[float, float]  # of the cytoplasm's stain
    chromatin: tuple[float, float]  # darkness of the nucleus
    halo: tuple[float, float]  # width of the clearing around the nucleus, in radii of the nucleus
    folds: float  # strength of the creases and the granules
    stains: tuple[np.ndarray, ...]
    odds: tuple[float, ...]  # of the stains


KINDS = (
    Kind(
        cytoplasm=(0.36, 0.50),
        nucleus=(0.30, 0.52),
        angular=(0.08, 0.22),
        density=(0.75, 1.00),
        chromatin=(0.70, 1.00),
        halo=(0.0, 0.25),
        folds=0.06,
        stains=(ORANGE, BROWN, PINK, GREEN),
        odds=(0.55, 0.22, 0.15, 0.08),
    ),
    Kind(
        cytoplasm=(0.38, 0.52),
        nucleus=(0.24, 0.42),
        angular=(0.10, 0.26),
        density=(0.35, 0.75),
        chromatin=(0.60, 0.95),
        halo=(0.35, 1.1),
        folds=0.10,
        stains=(BROWN, GREEN, BLUE, PINK, VIOLET),
        odds=(0.30, 0.15, 0.20, 0.20, 0.15),
    ),
    Kind(
        cytoplasm=(0.36, 0.46),
        nucleus=(0.32, 0.48),
        angular=(0.03, 0.14),
        density=(0.60, 0.95),
        chromatin=(0.45, 0.85),
        halo=(0.0, 0.3),
        folds=0.07,
        stains=(GREEN, BLUE, BROWN, VIOLET),
        odds=(0.50, 0.20, 0.20, 0.10),
    ),
    Kind(
        cytoplasm=(0.33, 0.48),
        nucleus=(0.34, 0.52),
        angular=(0.02, 0.08),
        density=(0.35, 0.75),
        chromatin=(0.35, 0.75),
        halo=(0.0, 0.2),
        folds=0.03,
        stains=(VIOLET, BLUE, ORANGE, GREEN),
        odds=(0.40, 0.35, 0.12, 0.13),
    ),
    Kind(
        cytoplasm=(0.44, 0.60),
        nucleus=(0.08, 0.17),
        angular=(0.14, 0.30),
        density=(0.30, 0.65),
        chromatin=(0.65, 1.00),
        halo=(0.0, 0.3),
        folds=0.09,
        stains=(PINK, BLUE, GREEN, VIOLET),
        odds=(0.42, 0.30, 0.18, 0.10),
    ),
)


@dataclass(frozen=True)
class Cluster:
    """What the cells of one photographed cluster share."""

    light: np.ndarray  # colour of the empty background
    tint: np.ndarray  # shift of every stain
    stain: np.ndarray
    focus: float  # blur, as a fraction of the crop's side
    debris: float
    noise: float


def write_phantom_cytology(root: Path, clusters: int = 200, size: int = 96, seed: int = 0) -> None:
    """Write `clusters` clusters of 3 to 6 cells of one kind each, as SIPaKMeD is laid out:
    `root/im_<Class>/im_<Class>/CROPPED/<cluster>_<cell>.bmp`. Crops are of unequal shape; `size` is their longer side.

    Every cell is a function of (seed, cluster, cell). Raises ValueError if `size` is less than 16.
    """
    if size < 16:
        raise ValueError(f"--phantom_size {size}: must be at least 16")
    for number in tqdm(range(clusters), desc="phantoms", disable=None, leave=False):
        label = number % len(KINDS)
        rng = np.random.default_rng([seed, number])
        cluster = _cluster(KINDS[label], rng)
        folder = root / FOLDERS[label] / FOLDERS[label] / "CROPPED"
        folder.mkdir(parents=True, exist_ok=True)
        for cell in range(int(rng.integers(3, LARGEST_CLUSTER + 1))):
            image = draw_cell(label, cluster, size, np.random.default_rng([seed, number, cell]))
            image.save(folder / f"{number // len(KINDS) + 1:03d}_{cell + 1:02d}.bmp")


def draw_cell(label: int, cluster: Cluster, size: int, rng: np.random.Generator) -> Image.Image:
    """One crop around a cell of kind `label`, RGB, its longer side `size` pixels."""
    kind = KINDS[label]
    shape = np.array([size, size])
    shape[rng.integers(2)] *= rng.uniform(0.72, 1.0)
    axes = [(np.arange(side) + 0.5 - side / 2) / size for side in shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    grain = _texture(shape, size * 0.03, rng)
    image = cluster.light * np.ones((*shape, 3)) * (1 + 0.05 * _texture(shape, size * 0.3, rng)[..., None])

    # Neighbours reach into the crop, and debris lies about.
    for _ in range(rng.poisson(1.3)):
        towards, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.75)
        inside = _outline(x - away * np.cos(towards), y - away * np.sin(towards), rng.uniform(0.2, 0.36), 0.15, rng)
        _stain(image, 0.7 * _step(inside, 0.02), np.clip(cluster.stain + rng.normal(0, 0.08, 3), 0, 1))
    for _ in range(rng.poisson(cluster.debris)):
        at = rng.uniform(-0.5, 0.5, 2)
        _stain(image, 0.8 * _step(rng.uniform(0.01, 0.04) - np.hypot(x - at[0], y - at[1]), 0.008), NUCLEUS * 1.3)

    # The cell.
    radius, angular = rng.uniform(*kind.cytoplasm), rng.uniform(*kind.angular)
    inside = _outline(x, y, radius, angular, rng)
    cytoplasm = _step(inside, 0.012)
    creases = np.abs(_texture(shape, size * 0.05, rng)) * kind.folds + grain * kind.folds
    stain = np.clip(cluster.stain + rng.normal(0, 0.03, 3), 0.03, 1)
    _stain(image, rng.uniform(*kind.density) * cytoplasm, np.clip(stain * (1 - creases[..., None]), 0, 1))
    _stain(image, 0.25 * cytoplasm * _step(0.03 - inside, 0.012), stain * 0.75)  # the edge is thicker

    # The nucleus, with the clearing around it.
    off = rng.normal(0, 0.12 * radius, 2)
    size_of = radius * rng.uniform(*kind.nucleus)
    stretch, turn = rng.uniform(1.0, 1.35), rng.uniform(0, np.pi)
    u = ((x - off[0]) * np.cos(turn) + (y - off[1]) * np.sin(turn)) * stretch
    v = -(x - off[0]) * np.sin(turn) + (y - off[1]) * np.cos(turn)
    ragged = 0.02 + 0.10 * (label in (0, 1)) * rng.uniform()
    core = _outline(u, v, size_of, ragged, rng)
    halo = rng.uniform(*kind.halo) * size_of
    cleared = cytoplasm * _step(core + halo, 0.25 * halo + 0.004) * min(1.0, halo / 0.05) ** 2
    _stain(image, 0.75 * cleared, 0.25 * stain + 0.75 * cluster.light)
    depth = rng.uniform(*kind.chromatin)
    clumps = 1 + (0.35 if label in (1, 2) else 0.2) * grain
    _stain(image, depth * np.clip(_step(core, 0.010) * clumps, 0, 1), NUCLEUS + 0.1 * cluster.tint)
    if label == 1 and rng.uniform() < 0.25:  # koilocytes often have two nuclei
        second = _outline(u + 1.9 * size_of, v, 0.9 * size_of, ragged, rng)
        _stain(image, depth * _step(second, 0.010), NUCLEUS + 0.1 * cluster.tint)

    blurred = gaussian_filter(image, (cluster.focus * size, cluster.focus * size, 0))
    noisy = blurred + rng.normal(0, cluster.noise, blurred.shape)
    return Image.fromarray((255 * np.clip(noisy, 0, 1)).round().astype(np.uint8))


def _cluster(kind: Kind, rng: np.random.Generator) -> Cluster:
    tint = rng.normal(0, 0.05, 3)
    stain = kind.stains[rng.choice(len(kind.stains), p=kind.odds)]
    darkness = rng.beta(1.5, 4)
    light = np.array((0.90, 0.91, 0.93)) * (1 - 0.6 * darkness) + 0.6 * darkness * stain + 0.5 * tint
    return Cluster(
        light=np.clip(light, 0.15, 1),
        tint=tint,
        stain=np.clip(stain + tint - 0.15 * darkness, 0.03, 1),
        focus=0.004 + 0.02 * rng.beta(1.2, 4),
        debris=rng.gamma(1.0, 1.5),
        noise=rng.uniform(0.008, 0.02),
    )


def _outline(x: np.ndarray, y: np.ndarray, radius: float, angular: float, rng: np.random.Generator) -> np.ndarray:
    """How far inside a rounded, irregular outline each point lies: positive within, 0 on it."""
    angle, bound = np.arctan2(y, x), np.full(x.shape, radius)
    for k in range(2, 7):
        bound += radius * angular * rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return bound - np.hypot(x, y)


def _texture(shape: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of mean 0 and variance 1."""
    field = gaussian_filter(rng.normal(size=shape), scale, mode="wrap")
    field -= field.mean()  # widely smoothed it is nearly constant: scaled with its mean it would swamp the image
    return field / max(field.std(), 1e-9)


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    """A soft step: 1 where `distance` is well above 0, 0 well below."""
    return 0.5 + 0.5 * np.tanh(0.5 * distance / max(width, 1e-6))


def _stain(image: np.ndarray, amount: np.ndarray, colour: np.ndarray) -> None:
    image += amount[..., None] * (colour - image)
