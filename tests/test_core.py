"""Randomized smoothing against closed forms and SciPy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom, binomtest, norm

from core import CHUNK, Smooth, lower_confidence_bound


def linear(weight: torch.Tensor, bias: float):
    """A two-class linear classifier: class 1 where <weight, x> + bias > 0."""

    def classify(x: torch.Tensor) -> torch.Tensor:
        score = (x * weight).sum(dim=(1, 2, 3)) + bias
        return torch.stack([-score, score], dim=1)

    return classify


@pytest.mark.parametrize("n", [10, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_bound_equals_scipy(n, alpha):
    for k in (1, n // 2, (9 * n) // 10, n - 1, n):
        reference = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
        assert lower_confidence_bound(k, n, alpha) == pytest.approx(reference, abs=1e-10)


def test_bound_closed_forms():
    assert lower_confidence_bound(0, 50, 0.01) == 0.0
    assert lower_confidence_bound(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(1, 1000), (501, 1000), (990, 1000), (9_999, 10_000), (99_999, 100_000)])
def test_bound_is_never_too_large(k, n):
    assert binom.sf(k - 1, n, lower_confidence_bound(k, n, 0.001)) <= 0.001


def test_bound_covers():
    """For p known, the bound exceeds p with probability at most alpha, summed exactly over the binomial."""
    n, p, alpha = 200, 0.8, 0.05
    wrong = sum(binom.pmf(k, n, p) for k in range(n + 1) if lower_confidence_bound(k, n, alpha) > p)
    assert wrong <= alpha


@pytest.mark.parametrize("sigma", [0.25, 0.5])
def test_linear_classifier_has_the_closed_form_radius(sigma):
    """For f(x) = sign(<w, x> + b), g's exact radius is the distance to the plane, |<w, x> + b| / |w|; the certified one
    is below it and, with many draws, close to it."""
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    exact = 1.2 * sigma
    bias = (exact * weight.norm() - (weight * x).sum()).item()
    prediction, radius = Smooth(linear(weight, bias), 2, sigma).certify(x, 100, 20_000, 0.001, 500)
    assert prediction == 1
    assert exact * 0.93 < radius <= exact


def test_radius_is_the_formula():
    """All votes agree: p is alpha^(1/n) and the radius sigma times its normal quantile."""
    always_two = Smooth(lambda x: torch.eye(4)[torch.full((len(x),), 2)], 4, sigma=0.5)
    prediction, radius = always_two.certify(torch.zeros(1, 4, 4), 10, 1000, 0.001, 100)
    assert prediction == 2
    assert radius == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)), abs=1e-9)


def test_abstains_on_a_coin():
    """On the decision boundary each class has probability 1/2: neither certify nor predict may answer."""
    weight = torch.ones(1, 4, 4)
    smoothed = Smooth(linear(weight, 0.0), 2, 0.25)
    x = torch.zeros(1, 4, 4)
    assert smoothed.certify(x, 100, 1000, 0.001, 100) == (Smooth.ABSTAIN, 0.0)
    assert smoothed.predict(x, 1000, 0.001, 100) == Smooth.ABSTAIN


def test_false_certificates_are_rarer_than_alpha():
    """p_A = 1/2 exactly: any certificate is false. 400 images at alpha = .05: 20 expected at most, sd 4.4."""
    smoothed = Smooth(linear(torch.ones(1, 2, 2), 0.0), 2, 0.25)
    x = torch.zeros(1, 2, 2)
    answers = [smoothed.certify(x, 10, 100, 0.05, 110, index)[0] for index in range(400)]
    assert sum(answer != Smooth.ABSTAIN for answer in answers) <= 20 + 4 * math.sqrt(400 * 0.05 * 0.95)


def test_predict_is_the_two_sided_test():
    """k votes for class 1 of n: the answer is 1 exactly when binomtest says p <= alpha."""
    for k in (50, 60, 66, 67, 80, 100):
        votes = torch.tensor([1] * k + [0] * (100 - k))
        smoothed = Smooth(lambda x, votes=votes: torch.eye(3)[votes[: len(x)]], 3, 0.25)
        expected = 1 if binomtest(k, 100, 0.5).pvalue <= 0.001 else Smooth.ABSTAIN
        assert smoothed.predict(torch.zeros(1, 2, 2), 100, 0.001, 100) == expected


def noise_of(smoothed: Smooth, first: int, num: int, batch: int, index: int = 3) -> torch.Tensor:
    return torch.cat(list(smoothed.noise(torch.zeros(2, 5, 5), first, num, batch, index)))


def test_noise_depends_on_seed_sigma_image_and_draw_alone():
    smoothed = Smooth(lambda x: x, 2, 0.5, seed=7)
    reference = noise_of(smoothed, 0, 3 * CHUNK + 5, 1000)
    for batch in (1, 7, 64, 100):
        assert torch.equal(noise_of(smoothed, 0, 3 * CHUNK + 5, batch), reference)
    assert torch.equal(noise_of(smoothed, 70, 100, 33), reference[70:170])
    for other in (Smooth(lambda x: x, 2, 0.5, seed=8), Smooth(lambda x: x, 2, 0.25, seed=7)):
        assert (noise_of(other, 0, 10, 10) / other.sigma - reference[:10] / 0.5).abs().min() > 0
    assert not torch.equal(noise_of(smoothed, 0, 10, 10, index=4), reference[:10])


def test_noise_is_gaussian_and_fresh():
    """Mean 0, standard deviation sigma, draws uncorrelated, selection and estimation draws disjoint."""
    draws = noise_of(Smooth(lambda x: x, 2, 0.5), 0, 4000, 500).flatten(1)  # [4000, 50]
    assert draws.mean().item() == pytest.approx(0, abs=5 * 0.5 / math.sqrt(draws.numel()))
    assert draws.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(2 * draws.numel()))
    assert len(torch.unique(draws[:, 0])) > 3990
    seen = []

    def f(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return torch.eye(2)[torch.zeros(len(x), dtype=torch.long)]

    Smooth(f, 2, 0.5).certify(torch.zeros(1, 3, 3), 100, 100, 0.01, 50)
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert len(first) == len(second) == 100
    assert not torch.isclose(first[:, None], second[None]).flatten(2).all(dim=2).any()


def test_certificate_does_not_depend_on_the_batch():
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))
    smoothed = Smooth(linear(weight, 0.6), 2, 0.25)
    x = torch.full((1, 4, 4), 0.1)
    assert len({smoothed.certify(x, 100, 1000, 0.001, batch, 5) for batch in (7, 64, 1100)}) == 1


def test_scores_that_are_nan_vote_for_nobody():
    """60% of the scores are NaN: the class left over has less than half of the votes, so there is no certificate."""

    def f(x: torch.Tensor) -> torch.Tensor:
        scores = torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)
        scores[: int(0.6 * len(x))] = math.nan
        return scores

    assert Smooth(f, 2, 0.25).certify(torch.zeros(1, 2, 2), 100, 100, 0.01, 100) == (Smooth.ABSTAIN, 0.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n": 0}, "n and batch_size"),
        ({"n0": 0}, "n0"),
        ({"batch_size": 0}, "batch_size"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"x": torch.zeros(2, 1, 3, 3)}, "one image"),
    ],
)
def test_bad_arguments(change, word):
    arguments = {"x": torch.zeros(1, 3, 3), "n0": 10, "n": 10, "alpha": 0.1, "batch_size": 10, **change}
    with pytest.raises(ValueError, match=word):
        Smooth(lambda x: torch.zeros(len(x), 2), 2, 0.25).certify(**arguments)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="sigma"):
        Smooth(lambda x: x, 2, sigma)
