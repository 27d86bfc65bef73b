"""Gradient estimates against autograd and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import load_model
from preparation.phantom_mri import draw_subject, mri_slice
from training import zeroth_order
from training.zeroth_order import ESTIMATORS, grey, guided, important, in_batches, low_frequencies, queries_of

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


loss_at = in_batches(lambda x, sample: smooth(x), batch=100)
linear = in_batches(lambda x, sample: x.flatten(1) @ torch.linspace(-1, 1, D), batch=1000)


@pytest.mark.parametrize("name", ["CGE", "CGE_forward", "RGE_orthogonal", "DCT"])
def test_all_directions_give_the_whole_gradient(name, z, generator):
    def loss(points, samples=None):
        return smooth(points.flatten(0, 1)).view(points.shape[:2])

    z = z.double()
    gradient, queries = ESTIMATORS[name](loss, z, 1e-3, D, generator, block=7)
    assert queries == queries_of(name, D)
    tolerance = 1e-4 if name == "CGE" else 3e-3  # one-sided differences have a bias of order mu
    torch.testing.assert_close(gradient, exact(smooth, z).float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("name", "at_16"),
    [("RGE", 48 / 16), ("RGE_antithetic", 48 / 16), ("RGE_orthogonal", 48 / 16 - 1), ("CGE", 48 / 16 - 1)],
)
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


@pytest.mark.parametrize("name", ESTIMATORS)
def test_grey_directions_give_the_gradient_of_a_common_change(name, generator):
    """Channels that change alike: the gradient's mean over them, exactly with all 16 directions (of 48), and in the
    mean with 8 of the estimators that draw theirs."""
    truth = torch.linspace(-1, 1, D).view(1, *SHAPE)
    part = truth.mean(dim=1, keepdim=True).expand_as(truth)
    z = torch.zeros(4000, *SHAPE)
    estimator = grey(ESTIMATORS[name])
    few, queries = estimator(linear, z, 0.1, 8, generator)
    assert queries == queries_of(name, 8)
    assert few.shape == z.shape
    torch.testing.assert_close(few, few[:, :1].expand_as(z), rtol=0, atol=0)
    if name != "DCT":
        assert (few.mean(0) - part[0]).norm() < 1.3 * part.norm() * (16 / 8) ** 0.5 / 4000**0.5
    if name not in ("RGE", "RGE_antithetic"):
        torch.testing.assert_close(
            estimator(linear, z[:2], 0.1, 16, generator)[0], part.expand(2, -1, -1, -1), atol=1e-4, rtol=1e-3
        )


def test_all_directions_of_few_samples_at_a_time(z, monkeypatch):
    """What is orthonormalised at once stays within `HELD`, and each sample keeps its own target and directions."""
    made = []
    targets = torch.arange(1.0, 6.0)
    loss = in_batches(lambda x, sample: targets[sample] * smooth(x), batch=7)
    once = zeroth_order._orthonormal
    monkeypatch.setattr(zeroth_order, "_orthonormal", lambda vectors: made.append(vectors.numel()) or once(vectors))
    for estimator in (ESTIMATORS["RGE_orthogonal"], guided(lambda z: exact(smooth, z))):
        found = []
        for held in (5, 2):
            monkeypatch.setattr(zeroth_order, "HELD", held * 9 * D)
            found.append(estimator(loss, z, 0.1, 9, torch.Generator().manual_seed(0), block=1))
            assert sum(made) == 5 * 9 * D
            assert max(made) == held * 9 * D
            made.clear()
        torch.testing.assert_close(*(gradient for gradient, _ in found), atol=1e-3, rtol=1e-3)
        assert found[0][1] == found[1][1] == 10


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


@pytest.mark.parametrize(("q", "d"), [(3, 100), (25, 100), (26, 100), (100, 100)])
def test_orthonormal_rows(q, d):
    """Each row is orthonormal to those before it and adds what they lack of the given one, whatever its length."""
    vectors = torch.randn(2, q, d, generator=torch.Generator().manual_seed(0))
    vectors[0, 0] *= 1e-6
    rows = zeroth_order._orthonormal(vectors)
    assert torch.allclose(rows @ rows.mT, torch.eye(q).expand(2, -1, -1), atol=2e-5)
    for i in (0, q // 2, q - 1):
        within = (vectors[:, i : i + 1] @ rows[:, : i + 1].mT) @ rows[:, : i + 1]
        assert torch.allclose(within[:, 0], vectors[:, i], rtol=1e-3, atol=1e-3 * vectors[:, i].norm(dim=1).min())


@pytest.mark.parametrize("count", [3, 60])
@pytest.mark.parametrize("second", ["zero", "same", "nearly the same"])
def test_dependent_rows_are_completed(count, second):
    """A surrogate's gradient may be zero, and directions may coincide: orthonormal all the same."""
    vectors = torch.randn(1, count, 100, generator=torch.Generator().manual_seed(0))
    vectors[0, 1] = {"zero": 0.0, "same": 1.0, "nearly the same": 1 + 1e-7}[second] * vectors[0, 0]
    vectors[0, 1, 0] += 1e-6 * (second == "nearly the same")
    rows = zeroth_order._orthonormal(vectors)
    assert torch.allclose(rows @ rows.mT, torch.eye(count), atol=2e-5)


def test_important_images_stand_for_all():
    """Weighted, the chosen have in expectation the mean of all; if what is measured is where losses are large, it
    varies far less than images drawn evenly, and no image is without a chance."""
    losses = torch.zeros(100)
    losses[:5] = torch.tensor([3.0, 1.0, 2.0, 4.0, 2.0])
    gradients = 2 * losses + 0.1
    torch.manual_seed(0)
    chosen, weights = zip(*(important(losses, 10) for _ in range(4000)), strict=True)
    chosen, weights = torch.stack(chosen), torch.stack(weights)
    means = (weights * gradients[chosen]).mean(dim=1)
    even = gradients[torch.randint(100, chosen.shape)].mean(dim=1)
    assert means.mean().item() == pytest.approx(gradients.mean().item(), rel=0.02)
    assert means.var() < 0.3 * even.var()
    assert chosen.unique().numel() == 100


def test_low_frequencies_are_orthonormal_and_ordered():
    basis = low_frequencies((3, 6, 8), 30)
    torch.testing.assert_close(basis @ basis.T, torch.eye(30), atol=1e-5, rtol=0)
    constant = basis[:3].view(3, 3, -1)
    assert torch.allclose(constant[1, 1], constant[1, 1, :1].expand(48))  # one flat plane per channel first
    assert constant[1, 0].abs().max() < 1e-6
    steepness = basis.view(30, 3, 6, 8).diff(dim=3).square().sum(dim=(1, 2, 3))
    assert steepness[:3].max() < steepness[3:].max()


def test_loss_of_a_trained_classifier():
    """The cross-entropy of a trained ResNet-18 at 64 px, on an 8 px wide patch of phantoms: all coordinates and all
    orthogonal directions find autograd's gradient, and fewer as much of it as they span."""
    path = Path(__file__).resolve().parents[1] / "checkpoints" / "Brain_Tumor_64" / "classifier.pth.tar"
    classifier, made = load_model(path, "classifier")
    classifier.requires_grad_(False)
    assert (made["arch"], made["image_size"]) == ("resnet18", 64)
    phantoms = [mri_slice(label, draw_subject(np.random.default_rng(label)), 0.5, 64) for label in (0, 2)]
    image = torch.from_numpy(np.stack(phantoms)).float().div(255).unsqueeze(1).repeat(1, 3, 1, 1)
    labels = classifier(image).sort(dim=1).indices[:, -2]  # the runner-up: a loss that is not next to 0

    def loss(patch, sample):
        x = image[sample].clone()
        x[:, :, 24:32, 24:32] = patch.expand(-1, 3, -1, -1)
        return F.cross_entropy(classifier(x), labels[sample], reduction="none")

    z = image[:, :1, 24:32, 24:32].clone()
    truth = exact(lambda patch: loss(patch, torch.arange(2)), z).flatten(1)
    for name, q, least in (("CGE", 64, 0.99), ("RGE_orthogonal", 64, 0.98), ("RGE_orthogonal", 16, 0.2)):
        generator = torch.Generator().manual_seed(0)
        found, _ = ESTIMATORS[name](in_batches(loss, 64), z, 3e-3, q, generator)
        assert F.cosine_similarity(found.flatten(1), truth).min() > least, name
        if q == 64:
            assert error(found.flatten(1), truth) < 0.05


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
