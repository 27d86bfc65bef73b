"""Procedural cells: how many to a cluster, what those of a cluster share, what tells the kinds apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from preparation.phantom_cytology import FOLDERS, Cluster, draw_cell, write_phantom_cytology

NEUTRAL = Cluster(np.full(3, 0.9), np.zeros(3), np.array((0.5, 0.6, 0.7)), focus=0.003, debris=0, noise=0)
_, KOILOCYTOTIC, METAPLASTIC, _, SUPERFICIAL = range(5)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """{(folder, cluster): its images, float `[H, W, 3]` in [0, 1]}"""
    root = tmp_path_factory.mktemp("cells")
    write_phantom_cytology(root, clusters=40, size=40, seed=0)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for path in sorted(root.rglob("*.bmp")):
        key = (path.parents[1].name, path.stem.split("_")[0])
        found.setdefault(key, []).append(np.asarray(Image.open(path), dtype=float) / 255)
    return found


def grey_cells(label: int, count: int = 40) -> list[np.ndarray]:
    """Cells of one kind in a cluster of no peculiarity."""
    return [
        np.asarray(draw_cell(label, NEUTRAL, 64, np.random.default_rng(i)).convert("L")) / 255 for i in range(count)
    ]


def variance_ratio(values: list[list[float]]) -> float:
    """Of the means of groups to that within groups, per degree of freedom: about 1 where groups share nothing (F)."""
    means, sizes = np.array([np.mean(group) for group in values]), np.array([len(group) for group in values])
    within = sum(((np.array(group) - mean) ** 2).sum() for group, mean in zip(values, means, strict=True))
    between = (sizes * (means - np.average(means, weights=sizes)) ** 2).sum() / (len(values) - 1)
    return between / (within / (sizes.sum() - len(values)))


def test_three_to_six_cells_of_one_kind_to_a_cluster(clusters):
    assert Counter(folder for folder, _ in clusters) == dict.fromkeys(FOLDERS, 8)
    assert {len(cells) for cells in clusters.values()} == {3, 4, 5, 6}


def test_cells_of_a_cluster_share_stain_and_focus(clusters):
    """Among clusters of one kind, so that the kind explains nothing."""
    for folder in FOLDERS:
        own = [cells for (kind, _), cells in clusters.items() if kind == folder]
        redness = [[cell[..., 0].mean() - cell[..., 2].mean() for cell in cells] for cells in own]
        assert variance_ratio(redness) > 3
    sharp = [[np.log(np.diff(cell.mean(axis=2), n=2).std()) for cell in cells] for cells in clusters.values()]
    assert variance_ratio(sharp) > 3


def test_focus_blurs():
    sharp, blurred = (
        draw_cell(METAPLASTIC, Cluster(**{**vars(NEUTRAL), "focus": focus}), 64, np.random.default_rng(0))
        for focus in (0.003, 0.03)
    )
    edges = [np.abs(np.diff(np.asarray(image.convert("L"), dtype=float))).max() for image in (sharp, blurred)]
    assert edges[1] < 0.5 * edges[0]


def test_nuclei_have_the_size_of_their_kind():
    """The dark share of the crop's middle is by far the least in superficial cells."""
    dark = [np.mean([(cell[12:-12, 12:-12] < 0.45).mean() for cell in grey_cells(label)]) for label in range(5)]
    assert dark[SUPERFICIAL] < 0.5 * min(dark[:SUPERFICIAL])


def test_koilocytes_have_a_halo():
    """A clearing between nucleus and cytoplasm: more of the cell is nearly as bright as the empty background."""
    bright = {
        label: np.mean([(cell[16:-16, 16:-16] > 0.75).mean() for cell in grey_cells(label)])
        for label in (KOILOCYTOTIC, METAPLASTIC)
    }
    assert bright[KOILOCYTOTIC] > 2 * bright[METAPLASTIC]


def test_a_cell_is_a_function_of_its_numbers():
    first, second = (np.asarray(draw_cell(0, NEUTRAL, 32, np.random.default_rng([0, 1, 2]))) for _ in range(2))
    assert np.array_equal(first, second)
