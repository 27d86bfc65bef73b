"""Certificates for changes of grey levels: the families are additive, and the radii are those of closed forms."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from scipy.stats import binom, norm

from core import Smooth
from smoothing.transforms import FAMILIES, Changed, Family, fields, must_be_additive

SHAPE = (3, 12, 10)


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 12, 10), (3, 64, 64)])
def test_families_are_additive(name, shape):
    """T_a(T_b(x)) = T_{a+b}(x) to 1e-6, and T_0(x) = x; a dark background stays what it is."""
    family = FAMILIES[name]
    must_be_additive(family, shape)
    black = family.apply(torch.zeros(shape), torch.randn(5, family.dimension(shape)))
    assert black.shape == (5, *shape)
    assert not black.any()


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (lambda x, c: x + c[:, :, None, None].clamp(-0.1, 0.1), "not additive"),
        (lambda x, c: (x * c.exp()[:, :, None, None]).clamp(0, 1), "not additive"),
        (lambda x, c: 0.5 * x * c.exp()[:, :, None, None], "not additive"),
        (lambda x, c: torch.full((len(c), *x.shape), 0.5, dtype=x.dtype), "zero"),
    ],
    ids=["clamped parameters", "clipped", "scaled", "constant"],
)
def test_a_family_that_is_not_additive_is_refused(apply, words):
    family = Family("mine", apply, lambda shape: 1, str)
    with pytest.raises(ValueError, match=words):
        Smooth(lambda x: x.mean((2, 3)), 3, 0.1, transform=family).certify(image(), 10, 10, 0.01, 10)


def test_fields_are_orthonormal_over_the_image():
    """The RMS of Σ c_k B_k over the image is ‖c‖₂, and its mean is 0."""
    found = fields(torch.zeros(3, 17, 23, dtype=torch.float64))
    assert found.shape == (9, 17, 23)
    gram = torch.einsum("khw,lhw->kl", found, found) / (17 * 23)
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found.mean((1, 2)).abs().max() < 1e-12
    with pytest.raises(ValueError, match="at least 4 px"):
        fields(torch.zeros(3, 3, 8))


def test_formulas():
    """Each family against its formula, at one pixel."""
    x, a = image(1), 0.3
    c = torch.tensor([[a]])
    torch.testing.assert_close(FAMILIES["gamma"].apply(x, c)[0], x ** torch.tensor(a).exp())
    torch.testing.assert_close(FAMILIES["gain"].apply(x, c)[0], x * torch.tensor(a).exp())
    c = torch.tensor([[0.1, -0.2, 0.3]])
    density = -x.log()
    for k in range(3):
        wanted = (-density[k] * c[0, k].exp()).exp()
        torch.testing.assert_close(FAMILIES["stain"].apply(x, c)[0, k], wanted)
        torch.testing.assert_close(FAMILIES["stain_offset"].apply(x, c)[0, k], (-density[k] - c[0, k]).exp())
    c = torch.randn(1, 9) * 0.1
    wanted = x * (c[0, :, None, None] * fields(x)).sum(0).exp()
    torch.testing.assert_close(FAMILIES["bias_field"].apply(x, c)[0], wanted)


def test_draws_are_clipped_and_depend_on_nothing_else():
    """Draws are functions of (family, seed, sigma, image, draw); what the network sees lies in [0, 1]."""
    x, family = image(2), FAMILIES["gain"]
    draws = Changed(x, family, 0.8, 0, 5)
    whole = draws.noisy(0, 200)
    assert whole.min() >= 0 and whole.max() == 1
    parts = [Changed(x, family, 0.8, 0, 5).noisy(first, 50) for first in (150, 0, 100, 50)]
    assert torch.equal(torch.cat([parts[1], parts[3], parts[2], parts[0]]), whole)
    assert torch.equal(whole, family.apply(x, draws.draws(0, 200)).clamp(0, 1))
    for other in (
        Changed(x, family, 0.8, 1, 5),
        Changed(x, family, 0.8, 0, 6),
        Changed(x, FAMILIES["gamma"], 0.8, 0, 5),
    ):
        assert not torch.equal(other.draws(0, 200), draws.draws(0, 200))
    spread = Changed(x, FAMILIES["stain"], 0.25, 0, 1).draws(0, 20_000)
    assert spread.shape == (20_000, 3)
    assert spread.std() == pytest.approx(0.25, rel=0.02)
    assert spread.mean() == pytest.approx(0, abs=0.005)


def log_threshold(t: float):
    """A classifier of the mean logarithm of an image: class 1 above t. Under `gain` that logarithm is moved by c."""

    def classify(x: torch.Tensor) -> torch.Tensor:
        level = x.clamp(min=1e-30).log().mean((1, 2, 3))
        return torch.stack([t - level, level - t], dim=1)

    return classify


def test_radius_is_the_distance_to_the_boundary():
    """Linear in log-intensity: g changes where the mean logarithm passes t, at distance |t - level| exactly. The radius
    never exceeds it (but with probability alpha), and comes close to it with many draws."""
    x = 0.01 * image(3) + 1e-4  # so dark that nothing is ever clipped
    level, sigma = float(x.log().mean()), 0.25
    for distance in (0.05, 0.2, 0.4):
        smoothed = Smooth(log_threshold(level - distance), 2, sigma, seed=0, transform=FAMILIES["gain"])
        prediction, radius = smoothed.certify(x, 100, 20_000, 0.001, 1000, index=0)
        assert prediction == 1
        assert 0.8 * distance < radius <= distance
        moved = FAMILIES["gain"].apply(x, torch.tensor([[-0.99 * radius]]))[0]
        votes = smoothed.sample(moved, 20_000, 1000)
        assert votes[1] > votes[0]  # g still answers 1 at the end of the radius


@pytest.mark.parametrize("radii", [None, (0.0, 0.1, 0.2)], ids=["all draws", "sequential"])
def test_coverage(radii):
    """10,000 certificates of images whose true radius is just below 0.2: at most alpha of them may claim 0.2."""
    alpha, sigma, n, runs, distance = 0.01, 0.25, 200, 10_000, 0.1999
    x = torch.full((1, 1, 1), 0.01)
    base = log_threshold(float(x.log().mean()) - distance)
    smoothed = Smooth(base, 2, sigma, seed=1, transform=FAMILIES["gain"])
    found = smoothed.certify_images(((i, x) for i in range(runs)), 20, n, alpha, 2000, radii)
    false = sum(certificate.radius >= 0.2 or certificate.prediction == 0 for _, certificate in found)
    assert false <= binom.ppf(1 - 1e-6, runs, alpha)
    assert float(norm.cdf(distance / sigma)) < float(norm.cdf(0.2 / sigma))


def test_wrong_arguments():
    family = FAMILIES["gamma"]
    with pytest.raises(ValueError, match="8-bit grid"):
        Smooth(log_threshold(0), 2, 0.1, noise="exact", transform=family)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Smooth(log_threshold(0), 2, 0.1, transform=family).certify(image() + 1, 10, 10, 0.01, 10)


@pytest.mark.parametrize(
    ("name", "radius", "words"),
    [
        ("gamma", 0.405465, "gamma between 1/1.5 and 1.5"),
        ("gain", 0.182322, "brightness between 1/1.2 and 1.2 times"),
        ("bias_field", 0.182322, "a bias field of up to 20% RMS"),
    ],
)
def test_radii_are_told_in_words(name, radius, words):
    assert FAMILIES[name].told(radius) == words
    assert dataclasses.asdict(FAMILIES[name])["name"] == name
