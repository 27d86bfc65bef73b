"""Exact noise on the grid against the distribution that it is drawn from, and the fast way against the plain one."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import chi2, chi2_contingency, norm

from smoothing import discrete
from smoothing.discrete import OPEN, distance, drawn_by_table, inverted, table, thresholds
from smoothing.noise import CHUNK, NOISE_VERSION, Noise, slack

SIGMAS = [1e-5, 0.02, 0.25, 1.0, 3.0]  # without any threshold …, with some in every twelfth cell, many in a few


class Given:
    """A bit generator that gives the words that it was made with."""

    def __init__(self, *words: int) -> None:
        self.words = np.array(words, dtype=np.uint64)

    def random_raw(self, num: int) -> np.ndarray:
        given, self.words = self.words[:num], self.words[num:]
        return given


def probabilities(sigma: float, edges: np.ndarray) -> np.ndarray:
    """P(round(255 n) < edge) for whole `edges`, then their differences, tails included."""
    z = (edges - 0.5) / (255 * sigma)
    tails = np.where(z < 0, ndtr(z), 1 - ndtr(-z))
    return np.diff(np.concatenate([[0.0], tails, [1.0]]))


def pooled_edges(sigma: float, num: int) -> np.ndarray:
    """Edges of bins of at least 50 expected draws among `num`."""
    edges, chosen = np.arange(-int(2000 * sigma), int(2000 * sigma) + 1), []
    below = ndtr((edges - 0.5) / (255 * sigma)) * num
    for edge, count in zip(edges, below, strict=True):
        if count - (chosen[-1][1] if chosen else 0) >= 50 and num - count >= 50:
            chosen.append((edge, count))
    return np.array([edge for edge, _ in chosen])


def p_of_chi_square(draws: np.ndarray, sigma: float) -> float:
    """How likely counts as far from the expected ones are."""
    edges = pooled_edges(sigma, len(draws))
    expected = probabilities(sigma, edges) * len(draws)
    observed = np.bincount(np.searchsorted(edges, draws, side="right"), minlength=len(expected))
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_thresholds_are_the_normal_distribution(sigma):
    """In double precision in the middle, and relative to the tail at the end."""
    below = thresholds(sigma)
    upper = below[len(below) // 2 :].astype(object) + 1
    z = (np.arange(len(upper)) + 0.5) / (255 * sigma)
    tail = ndtr(-z) * 2.0**64
    ours = np.array([2**63 - t for t in upper], dtype=float)
    assert (np.abs(ours - tail) <= 1 + 1e-13 * (1 + z**2) * tail).all()
    assert ndtr(-(len(upper) + 0.5) / (255 * sigma)) * 2.0**64 <= 0.5 + 1e-9  # what is left out rounds to the end
    assert (np.diff(below) >= 0).all()  # the last ones, 2^-64 apart and less, coincide
    assert (below[::-1] == -below - 2).all()  # T is odd, and below is T - 1


@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.05])
def test_the_distance_bounds_the_total_variation(sigma):
    """Added up over all draws, with Φ by another series (alternating, so in many more digits)."""

    def central(z: Decimal) -> Decimal:
        total, power, n = Decimal(0), z, 0
        while abs(power) > Decimal("1e-60"):
            total += power / (2 * n + 1)
            n += 1
            power *= -z * z / (2 * n)
        return total / (2 * discrete._PI).sqrt()

    with decimal.localcontext(prec=120):
        edges = [int(t) + 1 for t in thresholds(sigma)]
        count = len(edges) // 2
        ours = [Decimal(t) / 2**64 for t in edges]
        ideal = [central((Decimal(j) + Decimal("0.5")) / (255 * Decimal(sigma))) for j in range(-count, count)]
        ours, ideal = ([Decimal("-0.5"), *each, Decimal("0.5")] for each in (ours, ideal))
        difference = sum(abs(a - b - c + d) for a, b, c, d in zip(ours[1:], ours, ideal[1:], ideal, strict=False))
        beyond = 2 * (Decimal("0.5") - central((count + Decimal("0.5")) / (255 * Decimal(sigma))))
        assert (difference / 2 + beyond) <= Decimal(distance(sigma))
    assert slack("exact", sigma, 100) == 200 * distance(sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_table_draws_what_the_definition_draws(sigma):
    """The same bits: where the first 16 decide, whatever the other 48 are."""
    num = 400_000
    draws, again = drawn_by_table(np.random.SFC64(1), num, sigma), np.random.SFC64(1)
    cells = again.random_raw(num // 4).view(np.uint16).astype(np.uint64)
    is_open = table(sigma)[1][cells.astype(int)] == OPEN
    rest = np.random.default_rng(0).integers(0, 2**48, num, dtype=np.uint64)
    rest[is_open] = again.random_raw(is_open.sum()) >> 16
    for other in (rest, np.where(is_open, rest, 0), np.where(is_open, rest, 2**48 - 1)):
        uniform = (cells << 48 | other.astype(np.uint64)).view(np.int64)
        assert (inverted(torch.from_numpy(uniform), sigma).numpy() == draws).all()
    assert (is_open.mean() > 0.06) == (sigma == 3)
    assert draws.any() == (sigma > 1e-5)


@pytest.mark.parametrize("sigma", [0.02, 0.25, 3.0])
def test_a_threshold_is_where_the_draw_changes(sigma):
    """U just below each threshold and at it, through the table's open cells."""
    below = np.unique(thresholds(sigma))
    for j in np.linspace(0, len(below) - 1, 40).astype(int):
        for step in (0, 1):
            uniform = int(below[j] + step) % 2**64
            cell = uniform >> 48
            words = sum(cell << 16 * position for position in range(4))
            draws = drawn_by_table(Given(words, *[(uniform & 2**48 - 1) << 16] * 4), 4, sigma)
            edges = thresholds(sigma)
            assert draws.tolist() == [(edges < below[j] + step).sum() - len(edges) // 2] * 4


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_table_is_symmetric(sigma):
    least, decided = table(sigma)
    decided = decided.astype(int)[np.arange(2**16) ^ 2**15]  # in ascending order of U
    opposite = np.where(decided == OPEN, OPEN, -decided)[::-1]
    # The draw at U is minus the one at -1 - U, but where U is a threshold: that counts upwards on both sides.
    assert (decided != opposite).sum() <= 2
    assert (np.diff(least[np.arange(2**16) ^ 2**15].astype(int)) >= 0).all()


@pytest.mark.parametrize("sigma", [0.02, 0.25, 1.0, 3.0])
def test_draws_have_the_probabilities_of_rounded_gaussian_noise(sigma):
    """2 million draws by the table, 400,000 by the definition and PyTorch's generator, as on a GPU."""
    assert p_of_chi_square(drawn_by_table(np.random.SFC64(2), 2_000_000, sigma), sigma) > 1e-3
    generator = torch.Generator().manual_seed(3)
    uniform = torch.empty(400_000, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    assert p_of_chi_square(inverted(uniform, sigma).numpy(), sigma) > 1e-3
    if sigma == 0.02:  # the test itself: of noise 1% wider it says no
        assert p_of_chi_square(drawn_by_table(np.random.SFC64(2), 2_000_000, 1.01 * sigma), sigma) < 1e-6


def test_neighbours_channels_and_draws_are_independent():
    """Chi-square of pairs of quartiles: pixels side by side, one above the other, channels, draws, chunks, images."""
    noise = Noise(torch.zeros(3, 16, 16), 0.25, 0, 0, "exact").draws(0, 4 * CHUNK)
    other = Noise(torch.zeros(3, 16, 16), 0.25, 0, 1, "exact").draws(0, 4 * CHUNK)
    quartile = [torch.bucketize(each.contiguous(), torch.tensor([-43, 0, 43])) for each in (noise, other)]
    q, another = quartile
    pairs = {
        "columns": (q[..., :-1], q[..., 1:]),
        "rows": (q[..., :-1, :], q[..., 1:, :]),
        "channels": (q[:, :-1], q[:, 1:]),
        "four on": (q.permute(0, 2, 3, 1).flatten()[:-4], q.permute(0, 2, 3, 1).flatten()[4:]),  # words of 64 bits
        "draws": (q[:-1], q[1:]),
        "chunks": (q[:-CHUNK], q[CHUNK:]),
        "images": (q, another),
    }
    for name, (a, b) in pairs.items():
        counts = np.bincount((4 * a + b).flatten().numpy(), minlength=16).reshape(4, 4)
        assert chi2_contingency(counts).pvalue > 1e-3, name


def test_the_noise_of_today_is_the_noise_of_tomorrow():
    """Whoever changes a draw raises NOISE_VERSION; tables of two versions do not go on with one another."""
    draws = Noise(torch.zeros(1, 2, 2), 0.25, 7, 3, "exact").draws(63, 2)
    assert NOISE_VERSION == 2
    assert draws.flatten().tolist() == [190, 137, 13, 35, 42, 14, -9, -61]


@pytest.mark.parametrize("kind", ["float", "exact"])
def test_noisy_inputs_fill_what_they_are_given(kind):
    noise = Noise(torch.full((3, 5, 7), 51 / 255), 0.5, 0, 0, kind)
    out = torch.full((80, 3, 5, 7), math.nan).contiguous(memory_format=torch.channels_last)
    assert noise.noisy(50, 70, out=out[3:73]).data_ptr() == out[3].data_ptr()
    expected = noise.draws(50, 70)
    expected = noise.x + expected if kind == "float" else (51 + expected.float()).clamp(-3 * 255, 4 * 255) / 255
    assert torch.equal(out[3:73], expected)
    assert out[:3].isnan().all()
    assert out[73:].isnan().all()


def test_a_sigma_beyond_sixteen_bits_is_refused():
    with pytest.raises(ValueError, match="up to 13"):
        Noise(torch.zeros(1, 2, 2), 13.5, 0, 0, "exact").draws(0, 1)
    assert norm.isf(2.0**-65) * 255 * discrete.LARGEST_SIGMA + 255 + 1 < 2**15
