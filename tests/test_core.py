"""Randomized smoothing against closed forms and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, chi2, norm

from core import Smooth, decide
from smoothing.bounds import lower_confidence_bound
from smoothing.engine import fastest_batch
from smoothing.noise import CHUNK, Noise, slack


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
    prediction, radius = Smooth(linear(weight, bias), 2, sigma, seed=0).certify(x, 100, 20_000, 0.001, 500)
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
    smoothed = Smooth(linear(weight, 0.0), 2, 0.25, seed=0)
    x = torch.zeros(1, 4, 4)
    assert smoothed.certify(x, 100, 1000, 0.001, 100) == (Smooth.ABSTAIN, 0.0)
    assert smoothed.predict(x, 1000, 0.001, 100) == Smooth.ABSTAIN


def test_false_certificates_are_rarer_than_alpha():
    """p_A = 1/2 exactly: any certificate is false. 400 images at alpha = .05: 20 expected at most, sd 4.4."""
    smoothed = Smooth(linear(torch.ones(1, 2, 2), 0.0), 2, 0.25, seed=0)
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


@pytest.mark.parametrize(("cost", "best"), [({8: 1, 16: 1, 32: 1}, 32), ({8: 1, 16: 1, 32: 8}, 16), ({8: 1, 16: 8}, 8)])
def test_the_fastest_batch_is_the_last_that_beat_the_one_before(cost, best, monkeypatch):
    """A network whose passes take `cost` seconds on a clock of its own."""
    now = 0.0

    def base_classifier(x: torch.Tensor) -> torch.Tensor:
        nonlocal now
        now += cost[len(x)]
        return torch.zeros(len(x), 2)

    monkeypatch.setattr("smoothing.engine.time.perf_counter", lambda: now)
    assert fastest_batch(base_classifier, (1, 2, 2), torch.device("cpu"), (8, 16, 32)) == best


ZEROS = torch.zeros(2, 5, 5)


@pytest.mark.parametrize("kind", ["float", "exact"])
def test_noise_depends_on_seed_sigma_image_and_draw_alone(kind):
    def noise(sigma=0.5, seed=7, index=3) -> Noise:
        return Noise(ZEROS, sigma, seed, index, kind)

    reference = noise().draws(0, 3 * CHUNK + 5)
    for batch in (1, 7, 64, 100):
        same = noise()
        parts = [same.draws(i, min(batch, len(reference) - i)) for i in range(0, len(reference), batch)]
        assert torch.equal(torch.cat(parts), reference)
    assert torch.equal(noise().draws(70, 100), reference[70:170])
    for other in (noise(seed=8), noise(index=4), noise(sigma=0.25)):
        assert not torch.isclose(other.draws(0, 10) / other.sigma, reference[:10] / 0.5, atol=0.05).all(dim=0).any()


def test_no_two_chunks_of_an_image_have_one_generator():
    """PyTorch's on the CPU looks at 32 bits of its seed. Of this image chunks 542 and 1292 had the same ones."""
    noise = Noise(ZEROS, 0.25, 0, 2136)
    first, second = noise.draws(1292 * CHUNK, CHUNK), noise.draws(542 * CHUNK, CHUNK)
    assert not torch.equal(first, second)
    assert torch.equal(first, Noise(ZEROS, 0.25, 0, 2136).draws(1292 * CHUNK, CHUNK))
    low = [noise.generator_seed(chunk) & 0xFFFFFFFF for chunk in range(20_000)]
    assert len(set(low)) == len(low)


def test_noise_is_gaussian_and_fresh():
    """Mean 0, standard deviation sigma, draws uncorrelated, selection and estimation draws disjoint."""
    draws = Noise(ZEROS, 0.5, seed=0, index=3).draws(0, 4000).flatten(1)  # [4000, 50]
    assert draws.mean().item() == pytest.approx(0, abs=5 * 0.5 / math.sqrt(draws.numel()))
    assert draws.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(2 * draws.numel()))
    assert len(torch.unique(draws[:, 0])) > 3990
    seen = []

    def f(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return torch.eye(2)[torch.zeros(len(x), dtype=torch.long)]

    Smooth(f, 2, 0.5, seed=0).certify(torch.zeros(1, 3, 3), 100, 100, 0.01, 50)
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert len(first) == len(second) == 100
    assert not torch.isclose(first[:, None], second[None]).flatten(2).all(dim=2).any()


def test_certificate_does_not_depend_on_the_batch():
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))
    smoothed = Smooth(linear(weight, 0.6), 2, 0.25, seed=0)
    x = torch.full((1, 4, 4), 0.1)
    assert len({smoothed.certify(x, 100, 1000, 0.001, batch, 5) for batch in (7, 64, 1100)}) == 1


def test_scores_that_are_nan_stop_with_a_word():
    """The argmax of a row that holds a NaN is some class or other: never a vote."""

    def f(x: torch.Tensor) -> torch.Tensor:
        scores = torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)
        scores[-1] = math.nan
        return scores

    smoothed, x = Smooth(f, 2, 0.25), torch.zeros(1, 2, 2)
    for ask in (
        lambda: smoothed.certify(x, 100, 100, 0.01, 100),
        lambda: smoothed.predict(x, 100, 0.01, 100),
        lambda: list(smoothed.certify_images([(0, x)], 100, 100, 0.01, 100)),
    ):
        with pytest.raises(FloatingPointError, match="NaN"):
            ask()


# ---- exact noise -----------------------------------------------------------------------------------------------------


def eight_bit(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)) / 255


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_exact_inputs_for_two_images_are_translations_of_each_other(sigma):
    """Same draws on x and on x + δ: wherever neither is clipped, the inputs differ by exactly δ, as whole 1/255."""
    x, y = eight_bit(3, 16, 16, seed=1), eight_bit(3, 16, 16, seed=2)
    a, b = (Noise(image, sigma, 0, 0, "exact").noisy(0, 200) * 255 for image in (x, y))
    whole = [noisy.round() for noisy in (a, b)]
    for noisy, rounded in zip((a, b), whole, strict=True):
        assert (noisy - rounded).abs().max() < 1e-3  # i / 255 in float32, back again
    k = max(1, int(6 * sigma))
    inside = ((torch.stack(whole) > -255 * k) & (torch.stack(whole) < 255 * (k + 1))).all(dim=0)
    assert inside.float().mean() > 0.999
    delta = (x * 255).round() - (y * 255).round()
    assert torch.equal((whole[0] - whole[1])[inside], delta.expand_as(whole[0])[inside])


def test_exact_noise_has_the_distribution_of_rounded_gaussian_noise():
    """Chi-square of 250,000 values against P(round(255 n) = i), bins pooled to at least 50 expected."""
    sigma = 0.02
    values = Noise(torch.zeros(1, 50, 50), sigma, 0, 0, "exact").draws(0, 100).flatten()
    below = norm.cdf(torch.arange(-12.5, 13).numpy() / (255 * sigma))
    expected = torch.tensor(below[1:] - below[:-1]) * len(values)
    observed = torch.histc(values.float(), bins=25, min=-12.5, max=12.5)
    assert expected.min() > 50
    statistic = ((observed - expected) ** 2 / expected).sum().item()
    assert statistic < chi2.ppf(1 - 1e-4, 24)


def test_float_noise_leaks_and_exact_noise_does_not():
    """An adversarial network that reads low-order bits. Near 0, `0 + n` has all the bits of a small float32, but
    `1/255 + n` is the small difference of two larger numbers, a multiple of 2^-33. So f tells the black image from one
    with every pixel at 1/255, and with float noise "certifies" a radius that contains both. Q closes the leak."""
    black, grey = torch.zeros(1, 64, 64), torch.full((1, 64, 64), 1 / 255)
    distance, sigma = 64 / 255, 0.25

    def f(x: torch.Tensor) -> torch.Tensor:
        small = x.abs() < 2.0**-11
        fine = (x.double() * 2.0**33) % 1 != 0
        return torch.nn.functional.one_hot((~(small & fine).flatten(1).any(dim=1)).long(), 2).float()

    def certify(image, noise):
        return Smooth(f, 2, sigma, seed=0, noise=noise).certify(image, 100, 1000, 0.001, 100)

    (at_black, radius), (at_grey, _) = certify(black, "float"), certify(grey, "float")
    assert (at_black, at_grey) == (0, 1)
    assert radius > distance  # a false certificate
    assert certify(black, "exact")[0] == certify(grey, "exact")[0] == 1


def test_exact_noise_wants_eight_bit_images_in_range():
    with pytest.raises(ValueError, match="8-bit"):
        Smooth(lambda x: x, 2, 0.25, noise="exact").certify(torch.full((1, 2, 2), 0.3), 10, 10, 0.1, 10)
    for kind in ("float", "exact"):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            Smooth(lambda x: x, 2, 0.25, noise=kind).certify(torch.full((1, 2, 2), 2.0), 10, 10, 0.1, 10)


def test_slack_is_small_and_taken_off():
    assert slack("float", 1.0, 10**6) == 0
    assert 0 < slack("exact", 1.0, 3 * 224 * 224) < 1e-10
    always = Smooth(lambda x: torch.eye(2)[torch.zeros(len(x), dtype=torch.long)], 2, 1.0, noise="exact")
    _, radius = always.certify(torch.zeros(3, 64, 64), 10, 1000, 0.001, 100)
    p_a_bar = lower_confidence_bound(1000, 1000, 0.001)
    assert radius == norm.ppf(p_a_bar - slack("exact", 1.0, 3 * 64 * 64)) < norm.ppf(p_a_bar)


# ---- many images -----------------------------------------------------------------------------------------------------


def images_and_plane(count: int, seed: int = 3):
    """Random 8-bit images on both sides of a plane, and the signed distance of each."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 6, 6, generator=generator)
    images = [eight_bit(1, 6, 6, seed=i) for i in range(count)]
    bias = -(weight * torch.stack(images).mean(dim=0)).sum().item()
    distances = [((weight * x).sum().item() + bias) / weight.norm().item() for x in images]
    return images, linear(weight, bias), distances


def test_many_images_with_fixed_draws_are_certified_as_one_by_one():
    images, f, _ = images_and_plane(7)
    smoothed = Smooth(f, 2, 0.25, seed=0)
    for batch in (1, 13, 64, 500):
        found = dict(smoothed.certify_images(enumerate(images), 20, 300, 0.01, batch))
        assert sorted(found) == list(range(7))
        for i, x in enumerate(images):
            assert (found[i].prediction, found[i].radius) == smoothed.certify(x, 20, 300, 0.01, 50, i)
            assert found[i].draws == 320


@pytest.mark.parametrize("options", [{"radii": (0, 0.1, 0.25)}, {"radius_tol": 0.2}], ids=["sequential", "planned"])
def test_certificates_depend_neither_on_the_batch_nor_on_company(options):
    images, f, _ = images_and_plane(9)
    smoothed = Smooth(f, 2, 0.25, seed=0, noise="exact")

    def certify(chosen, batch):
        return dict(smoothed.certify_images(((i, images[i]) for i in chosen), 30, 800, 0.01, batch, **options))

    reference = certify(range(9), 40)
    for batch in (7, 64, 1000):
        assert certify(range(9), batch) == reference
    shuffled = certify([4, 8, 0, 2, 6], 64) | certify([3, 1, 7, 5], 33)
    assert shuffled == reference


@pytest.mark.parametrize("options", [{}, {"radii": (0, 0.1, 0.25)}, {"radius_tol": 0.1}], ids=["n", "seq", "plan"])
@pytest.mark.parametrize("noise", ["float", "exact"])
def test_no_radius_exceeds_the_distance_to_the_plane(options, noise):
    images, f, distances = images_and_plane(60)
    found = dict(Smooth(f, 2, 0.25, 0, noise).certify_images(enumerate(images), 50, 2000, 0.001, 250, **options))
    certified = 0
    for i, distance in enumerate(distances):
        if found[i].prediction != Smooth.ABSTAIN:
            certified += 1
            assert found[i].prediction == int(distance > 0)
            assert found[i].radius <= abs(distance)
    assert certified > 20


def test_two_planes_the_margin_bound_stays_below_the_exact_radius():
    """Class 0 right of x_0 = .2; left of it class 1 above x_1 = .5 and class 2 below. The probabilities are products of
    normal distribution functions, so the exact radius is found by walking outwards until class 0 has lost."""

    def f(x: torch.Tensor) -> torch.Tensor:
        left, up = x[:, 0, 0, 0], x[:, 0, 0, 1] - 0.5
        return torch.stack([left - 0.2, torch.where(up > 0, 0.0, -9.0), torch.where(up > 0, -9.0, 0.0)], dim=1)

    sigma, x = 0.5, torch.tensor([[[0.2, 0.5]]])
    smoothed = Smooth(f, 3, sigma, seed=0)
    ((_, found),) = smoothed.certify_images([(0, x)], 100, 20_000, 0.001, 500, radii=(0, 0.05, 0.1))
    assert found.bound == "margin"  # p_0 = 1/2: by p_A alone nothing can be certified
    assert found.prediction == 0
    exact = min(
        r
        for r in (i / 1000 for i in range(1, 1000))
        if any(
            _sectors(0.2 - r * math.cos(a), 0.5 + r * math.sin(a), sigma)
            for a in (i * math.pi / 60 for i in range(-30, 31))
        )
    )
    assert 0.1 <= found.radius <= exact


def _sectors(left: float, up: float, sigma: float) -> bool:
    """Whether class 0 has lost to another at this point."""
    p_0 = norm.cdf((left - 0.2) / sigma)
    p_1 = (1 - p_0) * norm.cdf((up - 0.5) / sigma)
    return max(p_1, 1 - p_0 - p_1) >= p_0


def test_prototypes_attacked_within_the_certified_radius_never_flip():
    """Nearest of four prototypes in two dimensions: g's probabilities are computed by quadrature at 720 points of the
    circle with the certified radius; g must answer the certified class at every one, and the group too."""
    prototypes = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.3, 0.8], [0.7, 0.9]])

    def f(x: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(x.flatten(1), prototypes)

    sigma, groups = 0.3, ((0, 1), (2, 3))
    steps = torch.linspace(-5, 5, 201)
    weights = torch.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / 2).flatten()
    offsets = sigma * torch.cartesian_prod(steps, steps)

    def probabilities(point: torch.Tensor) -> torch.Tensor:
        votes = torch.cdist(point + offsets, prototypes).argmin(dim=1)
        return torch.zeros(4).index_add(0, votes, weights) / weights.sum()

    points = torch.tensor([[0.25, 0.25], [0.75, 0.35], [0.5, 0.5], [0.4, 0.7], [0.9, 0.9]])
    smoothed = Smooth(f, 4, sigma, seed=0)
    pairs = ((i, point.view(1, 1, 2)) for i, point in enumerate(points))
    found = dict(smoothed.certify_images(pairs, 100, 5000, 0.001, 500, radius_tol=0.02, groups=groups))
    angles = torch.linspace(0, 2 * math.pi, 72)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    proved = 0
    for i, point in enumerate(points):
        for answer, radius, whose in (
            (found[i].prediction, found[i].radius, None),
            (found[i].group, found[i].group_radius, groups),
        ):
            if answer == Smooth.ABSTAIN:
                continue
            proved += 1
            for attacked in point + 0.999 * radius * circle:
                p = probabilities(attacked)
                votes = p if whose is None else torch.stack([p[list(members)].sum() for members in whose])
                assert votes.argmax() == answer
    assert proved >= 5


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


def test_images_of_two_shapes_are_refused():
    images = [(0, torch.rand(3, 4, 4)), (1, torch.rand(1, 4, 4))]  # the second would be broadcast, and certified
    smoothed = Smooth(lambda x: x.flatten(1)[:, :2], 2, 0.25)
    with pytest.raises(ValueError, match=r"image 1: has shape \[1, 4, 4\], those before it \[3, 4, 4\]"):
        list(smoothed.certify_images(images, 10, 20, 0.1, 8))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="sigma"):
        Smooth(lambda x: x, 2, sigma)


def test_votes_can_be_decided_for_groups_of_classes():
    """Three classes that share one group's votes: no class leads, the group does."""
    x = torch.zeros(1, 2, 2)
    smoothed = Smooth(lambda images: images.flatten(1)[:, :3], 3, 0.25, seed=0)
    counts = smoothed.sample(x, 900, 100)
    assert counts.sum() == 900
    assert smoothed.predict(x, 900, 0.001, 100) == decide(counts, 0.001) == Smooth.ABSTAIN
    assert decide(np.array([counts[:2].sum(), counts[2]]), 0.001) == 0


def test_without_a_seed_the_noise_is_secret_and_recorded():
    f, x = linear(torch.ones(1, 2, 2), 0.0), torch.full((1, 2, 2), 0.5)
    first, second = Smooth(f, 2, 0.25), Smooth(f, 2, 0.25)
    assert first.seed != second.seed
    again = Smooth(f, 2, 0.25, seed=first.seed)
    assert (first.sample(x, 200, 50) == again.sample(x, 200, 50)).all()
    assert Smooth(f, 2, 0.25, seed=0).seed == 0


def test_images_without_a_number_have_noise_of_their_own():
    """Not that of image 0 for all of them, nor of any image that has a number."""
    inputs = []

    def f(batch: torch.Tensor) -> torch.Tensor:
        inputs.append(batch.clone())
        return torch.eye(2)[torch.zeros(len(batch), dtype=torch.long)]

    smoothed, x = Smooth(f, 2, 0.5, seed=0), torch.full((1, 4, 4), 0.5)
    smoothed.certify(x, 8, 8, 0.1, 8)
    smoothed.certify(x, 8, 8, 0.1, 8)
    smoothed.predict(x, 8, 0.1, 8)
    for index in (0, 1, 0):
        smoothed.certify(x, 8, 8, 0.1, 8, index=index)
    selections = [each for each in inputs if len(each) == 8]
    pilots = [selections[0], selections[2], selections[4], selections[5], selections[7]]
    assert not any(torch.equal(a, b) for i, a in enumerate(pilots) for b in pilots[:i])
    assert torch.equal(selections[5], selections[9])  # the same index: the same draws


def test_who_knows_the_seed_finds_a_false_certificate():
    """Why a service must not let its seed be known. f ignores all but one pixel; changing the others changes nothing
    about g, but (here: by another index, as the pixels of a file give it one) the draws. Of 6,000 such images at p just
    below 1/2 some are certified all the same: for each image alone that has probability alpha at most, for the best of
    many it is all but certain in the end. With a seed that is not known it cannot be aimed at."""
    sigma, alpha, p = 0.25, 0.05, 0.499
    edge = 0.5 - sigma * float(norm.ppf(p))  # P(x_0 + n > edge) = p at x_0 = 1/2
    smoothed = Smooth(lambda x: torch.stack([edge - x[:, 0, 0, 0], x[:, 0, 0, 0] - edge], dim=1), 2, sigma, seed=0)
    x = torch.full((1, 1, 1), 0.5)
    found = smoothed.certify_images(((i, x) for i in range(600)), 20, 100, alpha, 1000, radii=(0.0,))
    false = sum(certificate.prediction == 1 for _, certificate in found)
    assert 0 < false <= binom.isf(1e-4, 600, alpha)


@pytest.mark.parametrize("groups", [((0, 1),), ((0, 1), (1, 2)), ((0,), (1, 2, 3)), ((0,), (1, 1), (2,))])
def test_groups_must_be_a_partition_of_the_classes(groups):
    smoothed = Smooth(lambda x: x.flatten(1)[:, :3], 3, 0.25)
    with pytest.raises(ValueError, match="each of the classes 0 to 2 once"):
        list(smoothed.certify_images([(0, torch.zeros(1, 2, 2))], 10, 100, 0.01, 10, groups=groups))


def test_group_rule_is_one_of_two():
    smoothed = Smooth(lambda x: x.flatten(1)[:, :2], 2, 0.25)
    with pytest.raises(ValueError, match="vote, class"):
        list(smoothed.certify_images([(0, torch.zeros(1, 2, 2))], 10, 100, 0.01, 10, group_rule="sum"))
