"""Gradient estimates against autograd and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models import build
from training.zeroth_order import ESTIMATORS, guided, in_batches, low_frequencies, queries_of

SHAPE = (3, 4, 4)
D = 48


def smooth(points):
    """A curved function of `[N, *SHAPE]` with all kinds of derivatives: log-sum-exp of random features."""
    features = torch.randn(D, 6, generator=torch.Generator().manual_seed(1)) / D**0.5
    features = features.to(points.dtype)
    return (2 * points.flatten(1) @ features).logsumexp(dim=1) + 0.1 * points.flatten(1).square().sum(dim=1).sin()


def exact(function, z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(function(z).sum(), z)[0]


def error(estimate, truth):
    return ((estimate - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).square().mean().item()


@pytest.fixture
def z():
    return torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(2)


def loss_at(points):
    return in_batches(lambda x, sample: smooth(x), batch=100)(points)


def linear(points):
    return in_batches(lambda x, sample: x.flatten(1) @ torch.linspace(-1, 1, D), batch=1000)(points)


@pytest.mark.parametrize("name", ["CGE", "CGE_forward", "RGE_orthogonal", "DCT"])
def test_all_directions_give_the_whole_gradient(name, z, generator):
    def loss(points):
        return smooth(points.flatten(0, 1)).view(points.shape[:2])

    z = z.double()
    gradient, queries = ESTIMATORS[name](loss, z, 1e-3, D, generator, block=7)
    assert queries == queries_of(name, D)
    tolerance = 1e-4 if name == "CGE" else 3e-3  # one-sided differences have a bias of order mu
    torch.testing.assert_close(gradient, exact(smooth, z).float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("name", "at_16"), [("RGE", 48 / 16), ("RGE_antithetic", 48 / 16),
                                             ("RGE_orthogonal", 48 / 16 - 1), ("CGE", 48 / 16 - 1)])  # fmt: skip
def test_unbiased_and_the_error_falls_with_q(name, at_16, generator):
    """On a linear function, where nothing but the choice of directions errs: the relative squared error is
    (d - 1)/q + … ≈ d/q for independent directions and d/q - 1 for orthonormal ones, and the mean over the images of a
    batch, each with directions of its own, is the gradient."""
    z = torch.zeros(2000, *SHAPE)
    truth = torch.linspace(-1, 1, D).view(1, *SHAPE).expand_as(z)
    estimates = {q: ESTIMATORS[name](linear, z, 0.1, q, generator)[0] for q in (8, 16)}
    spread = truth[0].norm() * (D / 8) ** 0.5 / 2000**0.5
    assert (estimates[8].mean(0) - truth[0]).norm() < 1.2 * spread
    assert error(estimates[16], truth) == pytest.approx(at_16, rel=0.1)
    expected = (48 / 8 - (at_16 < 3)) / at_16
    assert error(estimates[8], truth) / error(estimates[16], truth) == pytest.approx(expected, rel=0.1)


def test_orthogonal_beats_independent_directions_at_equal_queries(z):
    errors = {}
    for name in ("RGE", "RGE_orthogonal"):
        generator = torch.Generator().manual_seed(0)
        found = [ESTIMATORS[name](loss_at, z, 1e-3, 24, generator)[0] for _ in range(20)]
        errors[name] = sum(error(each, exact(smooth, z)) for each in found) / 20
    assert errors["RGE_orthogonal"] < 0.7 * errors["RGE"]


def test_bias_from_both_sides_falls_with_the_square_of_mu():
    """ℓ(z) = exp(⟨a, z⟩): the same directions, ever smaller steps; what is left is the bias."""
    a = torch.linspace(-0.5, 0.5, D, dtype=torch.float64)
    z = torch.zeros(3, *SHAPE, dtype=torch.float64)

    def bias(name: str, mu: float) -> float:
        def loss(points):
            return (points.double().flatten(2) @ a).exp()

        at, limit = (
            ESTIMATORS[name](loss, z, step, 20, torch.Generator().manual_seed(0))[0].double() for step in (mu, 1e-3)
        )
        return (at - limit).norm().item()

    assert bias("RGE_antithetic", 0.8) / bias("RGE_antithetic", 0.4) == pytest.approx(4, rel=0.15)
    assert bias("RGE", 0.4) / bias("RGE", 0.2) == pytest.approx(2, rel=0.15)


def test_a_surrogate_guides(z, generator):
    """An exact surrogate is enough by itself; a useless one costs one direction; a rough one helps."""
    truth = exact(smooth, z)
    found, queries = guided(lambda z: exact(smooth, z))(loss_at, z, 1e-3, 1, generator)
    assert queries == 2
    assert error(found, truth) < 1e-3
    rough = truth + truth.std() * torch.randn(z.shape, generator=generator)
    cosine = {
        name: F.cosine_similarity(estimator(loss_at, z, 1e-3, 12, generator)[0].flatten(1), truth.flatten(1)).mean()
        for name, estimator in (("guided", guided(lambda z: rough)), ("plain", ESTIMATORS["RGE_orthogonal"]))
    }
    assert cosine["guided"] > cosine["plain"] + 0.1


def test_low_frequencies_are_orthonormal_and_ordered():
    basis = low_frequencies((3, 6, 8), 30)
    torch.testing.assert_close(basis @ basis.T, torch.eye(30), atol=1e-5, rtol=0)
    constant = basis[:3].view(3, 3, -1)
    assert torch.allclose(constant[1, 1], constant[1, 1, :1].expand(48))  # one flat plane per channel first
    assert constant[1, 0].abs().max() < 1e-6
    steepness = basis.view(30, 3, 6, 8).diff(dim=3).square().sum(dim=(1, 2, 3))
    assert steepness[:3].max() < steepness[3:].max()


def test_loss_of_a_real_classifier():
    """CGE on the cross-entropy of a ResNet-18 at 64 px, on an 8 px wide patch of the image: autograd's gradient."""
    torch.manual_seed(0)
    classifier = build("resnet18", num_classes=4, image_size=64, channels=1).eval().requires_grad_(False)
    image, labels = torch.rand(2, 1, 64, 64), torch.tensor([1, 3])

    def loss(patch, sample):
        x = image[sample].clone()
        x[:, :, 24:32, 24:32] = patch
        return F.cross_entropy(classifier(x), labels[sample], reduction="none")

    z = image[:, :, 24:32, 24:32].clone()
    truth = exact(lambda patch: loss(patch, torch.arange(2)), z)
    gradient, queries = ESTIMATORS["CGE"](in_batches(loss, 64), z, 3e-3, 64, torch.Generator())
    assert queries == 128
    similarity = F.cosine_similarity(gradient.flatten(1), truth.flatten(1))
    assert similarity.min() > 0.99


def test_seeds_and_batches(z):
    first, second = (ESTIMATORS["RGE"](loss_at, z, 1e-3, 20, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, second)
    seen = []
    at = in_batches(lambda x, sample: seen.append((len(x), sample.tolist())) or smooth(x), batch=4)
    torch.testing.assert_close(at(z.unsqueeze(1).expand(-1, 2, *SHAPE)), loss_at(z.unsqueeze(1).expand(-1, 2, *SHAPE)))
    assert seen == [(4, [0, 0, 1, 1]), (4, [2, 2, 3, 3]), (2, [4, 4])]


def test_too_many_directions(z, generator):
    for name in ("RGE_orthogonal", "CGE", "DCT"):
        with pytest.raises(ValueError, match="there are no 49"):
            ESTIMATORS[name](loss_at, z, 1e-3, 49, generator)
