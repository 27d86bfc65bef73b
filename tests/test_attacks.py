"""Attacks against closed forms and against adv-lib; budgets, rounding, independence of the batch."""

from __future__ import annotations

import math

import pytest
import scipy.fft
import torch
from torch.nn import functional as F

from attacks import ATTACKS, How, run_attack, settle
from attacks.budget import to_8bit
from attacks.ddn import ddn
from attacks.fgsm import fgsm
from attacks.hopskipjump import _directions, hopskipjump
from attacks.library import LIBRARY, library_attack
from attacks.pgd import pgd
from attacks.randomness import image_generator
from attacks.smoothed import SmoothedModel, grouped

LABELS = torch.tensor([1, 0, 1, 0, 1, 0])


def linear(weight, bias=0.0):
    """Two classes, the sides of `<w, x> + b = 0`: |<w, x> + b| / ‖w‖ is the L2 distance to the boundary."""

    def classify(x):
        score = (x * weight).sum(dim=(1, 2, 3)) + bias
        return torch.stack([-score, score], dim=1)

    return classify


def plane(shape=(3, 5, 5)):
    """A linear model, its weight, 8-bit images far from the borders of [0, 1], their classes, their L2 distances."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = 0.3 + 0.4 * torch.rand(6, *shape, generator=torch.Generator().manual_seed(1))
    x = (x * 255).round() / 255
    bias = -(x * weight).sum(dim=(1, 2, 3)).mean()
    score = (x * weight).sum(dim=(1, 2, 3)) + bias
    return linear(weight, bias), weight, x, (score > 0).long(), score.abs() / weight.norm()


class Rows(torch.nn.Linear):
    """A linear layer that sums each row by itself: a matrix product rounds differently in batches of other sizes, and
    what some attacks make of the last digit is not the last digit."""

    def forward(self, x):
        return (x[:, None] * self.weight).sum(dim=2) + self.bias


def curved(seed=0, classes=3, channels=3):
    torch.manual_seed(seed)
    first, last = Rows(channels * 16, 16), Rows(16, classes)
    model = torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.Tanh(), last).requires_grad_(False)
    first.weight *= 3
    first.bias[:] = -0.5 * first.weight.sum(dim=1)  # boundaries run through the middle of [0, 1]
    last.bias.zero_()
    return model


def curved_batch(count=7, channels=3):
    x = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(2))
    x = (x * 255).round() / 255
    return x, curved(channels=channels)(x).argmax(dim=1)


def generators(count, seed=0):
    return [image_generator(seed, i) for i in range(count)]


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_fgsm_on_a_linear_model_is_optimal():
    """The L∞ step that lowers <w, x> most is -eps · sign(w); away from the borders of [0, 1] FGSM must take it."""
    weight = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0))
    x = 0.25 + 0.5 * torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    attacked = fgsm(linear(weight), x, LABELS, eps=0.1)
    sign = torch.where(LABELS == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(attacked, x + 0.1 * sign * weight.sign())
    torch.testing.assert_close(fgsm(linear(weight), x, LABELS, eps=0.1, targeted=True), x - 0.1 * sign * weight.sign())


def test_fgsm_stays_in_the_box_and_keeps_gradients_out():
    x = torch.tensor([0.0, 1.0, 0.05, 0.95]).view(1, 1, 2, 2)
    weight = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 2, 2)
    attacked = fgsm(linear(weight), x, torch.tensor([1]), eps=0.1)
    torch.testing.assert_close(attacked, torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2))
    assert not attacked.requires_grad


@pytest.mark.parametrize("randomly", [False, True])
def test_pgd_on_a_linear_model_is_optimal(randomly):
    """The optimum in the ball is eps times the sign (L∞) or the unit vector (L2) of ∓w, from wherever it starts."""
    model, weight, x, labels, _ = plane()
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)

    def start():
        return {"generators": generators(6)} if randomly else {}

    attacked = pgd(model, x, labels, 0.1, "Linf", 20, **start())
    torch.testing.assert_close(attacked, x + 0.1 * sign * weight.sign())
    attacked = pgd(model, x, labels, 0.1, "L2", 100, **start())
    # Steps of 2.5 eps in all shrink the tangent of half the angle to the gradient by exp(-2.5): from 90° to 9.4°.
    gain = (((attacked - x) * sign * weight).sum(dim=(1, 2, 3)) / (0.1 * weight.norm())).min()
    assert (0.97 if randomly else 0.99999) < gain <= 1.00001
    targeted = pgd(model, x, 1 - labels, 0.1, "L2", 100, targeted=True, **start())
    torch.testing.assert_close(targeted, attacked, atol=1e-6, rtol=0)


def test_pgd_takes_a_budget_per_image():
    model, _, x, labels, distance = plane()
    share = torch.tensor([0.9, 1.1] * 3)
    attacked = pgd(model, x, labels, share * distance, "L2", 50)
    torch.testing.assert_close((attacked - x).flatten(1).norm(dim=1), share * distance, atol=1e-5, rtol=1e-4)
    assert (model(attacked).argmax(dim=1) != labels).tolist() == [False, True] * 3


def test_pgd_starts_all_over_the_ball():
    x = torch.full((400, 1, 4, 4), 0.5)
    flat = linear(torch.zeros(1, 4, 4))
    for norm, length in (("Linf", lambda d: d.abs().amax(1)), ("L2", lambda d: d.norm(dim=1))):
        started = pgd(flat, x, torch.zeros(400, dtype=torch.long), 0.2, norm, 1, 0.0, generators(400))
        share = length((started - x).flatten(1)) / 0.2
        # Uniform in a ball of dimension 16: the share of the radius has the distribution function s^16.
        assert share.max() <= 1 + 1e-5
        assert (share**16).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("levels", [None, 256])
def test_ddn_finds_the_distance_to_a_plane(levels):
    model, _, x, labels, distance = plane()
    attacked = ddn(model, x, labels, 300, levels=levels)
    assert (model(attacked).argmax(dim=1) != labels).all()
    found = (attacked - x).flatten(1).norm(dim=1)
    assert (found >= distance - 1e-5).all()
    rounding = math.sqrt(x[0].numel()) * 0.5 / 255 if levels else 0  # half a level per pixel
    assert (found <= 1.03 * distance + rounding).all()
    if levels:
        assert (attacked * 255 - (attacked * 255).round()).abs().max() < 1e-3


def test_ddn_hands_back_the_attempt_that_failed():
    model, _, x, labels, _ = plane()
    attacked = ddn(model, x, labels, steps=1, init_norm=1e-3, levels=None)
    assert (model(attacked).argmax(dim=1) == labels).all()
    assert ((attacked - x).flatten(1).norm(dim=1) > 1e-4).all()


def test_hopskipjump_finds_the_distance_to_a_plane_from_labels_alone():
    model, _, x, labels, distance = plane((1, 4, 4))
    asked = []

    def black_box(images):
        asked.append(len(images))
        assert not torch.is_grad_enabled()
        return torch.nn.functional.one_hot(model(images).argmax(dim=1), 2).float()

    attacked = hopskipjump(black_box, x, labels, 20, generators(6), starts=x)
    assert (model(attacked).argmax(dim=1) != labels).all()
    found = (attacked - x).flatten(1).norm(dim=1)
    assert (found >= distance - 1e-5).all()
    assert (found <= 1.1 * distance + math.sqrt(16) * 0.5 / 255).all()  # rounding: half a level per pixel
    expected = sum(int(100 * math.sqrt(t)) for t in range(1, 21))
    assert expected < sum(asked) / 6 < 1.5 * expected
    already = 1 - labels
    assert torch.equal(hopskipjump(black_box, x, already, 2, generators(6)), x)


def test_hopskipjump_without_a_start_begins_at_noise_or_says_that_nothing_was_found():
    x = torch.zeros(1, 1, 4, 4)
    grey = lambda images: torch.stack([0.3 - images.mean((1, 2, 3)), images.mean((1, 2, 3)) - 0.3], dim=1)  # noqa: E731
    attacked = hopskipjump(grey, x, torch.tensor([0]), 10, generators(1))
    assert attacked.mean() > 0.3
    never = hopskipjump(lambda images: torch.eye(2)[torch.zeros(len(images)).long()], x, torch.tensor([0]), 1)
    assert never.shape == x.shape


def test_qeba_asks_in_low_frequencies_and_finds_a_smooth_boundary_sooner():
    x = torch.full((1, 2, 16, 16), 128 / 255)
    u = _directions(50, x[0], 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(u.flatten(1).norm(dim=1), torch.ones(50))
    spectrum = torch.from_numpy(scipy.fft.dctn(u.numpy(), axes=(2, 3), norm="ortho"))
    assert spectrum[..., 4:, :].abs().max() < 1e-5 and spectrum[..., 4:].abs().max() < 1e-5
    assert spectrum[..., :4, :4].std(dim=0).min() > 0.05  # none of them is left out

    slope = torch.linspace(-1, 1, 16).expand(2, 16, 16)
    normal = slope / slope.norm()
    model = linear(normal, bias=-(normal * x[0]).sum() - 0.5)  # the plane is at distance 0.5
    found = {}
    for name in ("HSJ", "QEBA"):
        how = How("L2", None, 6, generators(1))
        found[name] = (run_attack(name, model, x, torch.tensor([0]), how) - x).norm().item()
    assert 0.5 <= found["QEBA"] < 0.6 < found["HSJ"], found


# ---- adv-lib as oracle, and behind our call --------------------------------------------------------------------------


def test_ddn_is_adv_libs_where_that_succeeds():
    from adv_lib.attacks import ddn as oracle

    model = curved()
    x, labels = curved_batch()
    torch.testing.assert_close(ddn(model, x, labels, 60), oracle(model, x, labels, steps=60), atol=1e-6, rtol=0)


def test_pgd_fools_where_adv_libs_does():
    from adv_lib.attacks import pgd_linf as oracle

    model = curved()
    x, labels = curved_batch(40)
    ours, theirs = pgd(model, x, labels, 0.1, steps=40), oracle(model, x, labels, 0.1, steps=40)
    fooled, found = (model(each).argmax(dim=1) != labels for each in (ours, theirs))
    assert 5 < found.sum() < 40
    assert torch.equal(fooled, found)


STILL = {"SUPERDEEPFOOL", "PERC_AL"}  # give up before they have tried another image


@pytest.mark.parametrize("name", list(LIBRARY))
def test_attacks_of_adv_lib(name):
    """In [0, 1], within the budget, the same in any batch, and most images are fooled."""
    entry, model = LIBRARY[name], curved(classes=4)
    x, _ = curved_batch()
    labels = model(x).argmax(dim=1)
    steps = {"SIGMA_ZERO": 100, "STR": 50, "CW": 20, "PERC_AL": 50, "ALMA": 100, "PDGD": 100, "PDPGD": 100}.get(name)
    for norm in entry.functions:
        eps = None if entry.eps is None else {"Linf": 0.2, "L2": 1.0}[norm]
        before = x.clone()
        attacked = library_attack(name, model, x, labels, norm, eps, steps, generators(7))
        assert torch.equal(x, before)
        assert 0 <= attacked.min() <= attacked.max() <= 1
        if eps is not None:
            delta = (attacked - x).flatten(1)
            assert (delta.abs().amax(1) if norm == "Linf" else delta.norm(dim=1)).max() <= eps + 1e-5
        # FMN comes to the boundary of a nearly flat model from inside and may stop just before it.
        least = 0.2 if name == "FMN" else 0.8
        assert (model(attacked).argmax(dim=1) != labels).float().mean() > least, norm
        # A failed attempt is saved, not the clean image.
        hopeless = library_attack(
            name,
            lambda images: model(images) + 1e4 * F.one_hot(labels[: len(images)], 4),
            x[:1],
            labels[:1],
            norm,
            eps,
            3,
            generators(1),
        )
        assert name in STILL or not torch.equal(hopeless, x[:1]), norm
        split = [
            library_attack(name, model, x[i:j], labels[i:j], norm, eps, steps, generators(7)[i:j])
            for i, j in ((0, 3), (3, 7))
        ]
        torch.testing.assert_close(torch.cat(split), attacked, atol=1e-4, rtol=0)


def test_what_adv_lib_would_answer_silently_is_refused():
    model = curved()
    x, labels = curved_batch()
    for arguments, word in (
        (("DEEPFOOL", model, x, labels, None, None, 5, None, True), "cannot be targeted"),
        (("ALMA", curved(classes=2), x, labels.clamp(max=1)), "needs 3 classes, the model has 2"),
        (("APGD", model, x, labels, "L1", 0.1), "knows the norm Linf and L2, not L1"),
        (("APGD", model, x, labels), "needs eps"),
        (("FMN", model, x, labels, "L2", 0.1), "takes no eps"),
        (("FAB", model, x + 1, labels), r"\[0, 1\]"),
        (("PERC_AL", curved(channels=1), x[:, :1], labels), "RGB"),
    ):
        with pytest.raises(ValueError, match=word):
            library_attack(*arguments)


# ---- the smoothed model ----------------------------------------------------------------------------------------------


def test_smoothed_loss_is_that_of_salman_and_its_gradient_too():
    model, sigma = curved(), 0.3
    x, labels = curved_batch(4)
    smoothed = SmoothedModel(model, sigma, 6, x.shape[1:], seed=3, batch=1000)
    noise = sigma * torch.randn(6, *x.shape[1:], generator=torch.Generator().manual_seed(3))
    mean = torch.stack([model(x + n).softmax(dim=1) for n in noise]).mean(dim=0)
    loss = torch.nn.functional.cross_entropy(smoothed(x), labels, reduction="none")
    torch.testing.assert_close(loss, -mean.gather(1, labels[:, None])[:, 0].log())

    def gradient(batch):
        at = x.clone().requires_grad_(True)
        each = SmoothedModel(model, sigma, 6, x.shape[1:], seed=3, batch=batch)
        return torch.autograd.grad(torch.nn.functional.cross_entropy(each(at), labels, reduction="sum"), at)[0]

    torch.testing.assert_close(gradient(5), gradient(1000))  # in passes of 5 images, with recomputation
    assert torch.equal(smoothed(x), smoothed(x))
    torch.testing.assert_close(torch.cat([smoothed(x[:1]), smoothed(x[1:])]), smoothed(x))


def test_fresh_noise_changes_from_step_to_step_and_with_nothing_but_the_seed():
    model = curved()
    x, _ = curved_batch(2)
    first, second = (SmoothedModel(model, 0.3, 4, x.shape[1:], seed=3, fresh=True) for _ in range(2))
    answers = [first(x), first(x)]
    assert not torch.equal(*answers)
    assert torch.equal(torch.stack(answers), torch.stack([second(x), second(x)]))
    second.restart()
    assert torch.equal(second(x), answers[0])


def test_every_attack_works_on_the_smoothed_model_of_a_plane():
    """Smoothing a plane leaves its boundary where it is, so that the distances stay the same."""
    model, _, x, labels, distance = plane()
    smoothed = SmoothedModel(model, 0.25, 32, x.shape[1:])
    for name, slack in (("DDN", 1.1), ("DEEPFOOL", 1.1), ("HSJ", 1.5)):
        how = How("L2", None, 15 if name == "HSJ" else 100, generators(6), x)
        attacked = run_attack(name, smoothed, x, labels, how)
        assert (smoothed(attacked).argmax(dim=1) != labels).all()
        assert ((attacked - x).flatten(1).norm(dim=1) < slack * distance + 0.05).all(), name


def test_groups_sum_the_probabilities_of_their_members():
    x, _ = curved_batch()
    model = curved(classes=4)
    probabilities, groups = model(x).softmax(dim=1), grouped(model, ((0, 1, 3), (2,)))(x).softmax(dim=1)
    torch.testing.assert_close(groups[:, 1], probabilities[:, 2])
    torch.testing.assert_close(groups[:, 0], 1 - probabilities[:, 2])


# ---- budgets and eight bits ------------------------------------------------------------------------------------------


def perturbed(eps, norm, shape=(5, 3, 16, 16)):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, shape, generator=generator).float() / 255
    delta = torch.randn(shape, generator=generator)
    size = delta.flatten(1).norm(dim=1) if norm == "L2" else delta.abs().flatten(1).amax(1)
    return clean, (clean + eps * delta / size.view(-1, 1, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("eps", [0.003, 0.01, 8 / 255, 0.25, 1.0, 3.0])
def test_the_saved_image_keeps_the_budget(norm, eps):
    clean, attacked = perturbed(eps, norm)
    delta = (to_8bit(attacked, clean, norm, eps).double() / 255 - clean).flatten(1)
    before = (attacked.double() - clean).flatten(1)
    length, own = ((d.norm(dim=1) if norm == "L2" else d.abs().amax(1)) for d in (delta, before))
    assert (length <= eps * (1 + 1e-6)).all()
    # Little of it is lost: less than a level of the largest pixel (L∞), or of one more pixel (L2).
    assert (length >= (0.98 * own if norm == "L2" else own) - 1 / 255).all()


def test_rounding_keeps_the_direction_of_a_perturbation_below_one_level():
    """An L2 perturbation of a tenth of a level per pixel survives, most of it along itself."""
    clean, attacked = perturbed(0.011, "L2")
    delta = (attacked - clean).flatten(1)
    saved = (to_8bit(attacked, clean, "L2", 0.011).float() / 255 - clean).flatten(1)
    assert (torch.nn.functional.cosine_similarity(delta, saved) > 0.2).all()
    assert to_8bit(attacked, clean).float().div(255).sub(clean).abs().max() < 1e-6  # rounded to the nearest: erased


def test_what_is_longer_than_the_budget_is_cut_to_it():
    clean, attacked = perturbed(2.0, "L2")
    saved = to_8bit(attacked, clean, "L2", 1.0).double() / 255 - clean
    assert (saved.flatten(1).norm(dim=1) <= 1 + 1e-6).all()


def test_rounding_leaves_8bit_images_alone():
    clean, _ = perturbed(0.1, "L2")
    other = (clean * 255 + torch.randint(-3, 4, clean.shape)).clamp(0, 255).round() / 255
    for norm, eps in ((None, None), ("Linf", 3 / 255), ("L2", 100.0)):
        assert torch.equal(to_8bit(other, clean, norm, eps).float() / 255, other)


@pytest.mark.parametrize(
    "name",
    [name for name, attack in ATTACKS.items() if attack.gradients is False or name in ("FGSM", "PGD", "DDN", "APGD")],
)
def test_attacks_do_not_depend_on_the_batch_and_keep_their_limit(name):
    model = curved()
    x, labels = curved_batch()
    how = settle(name, None, 0.05, 5, 0.3)

    def run(part):
        own = How(how.norm, how.eps, how.steps, generators(7)[part], x)
        return run_attack(name, model, x[part], labels[part], own)

    together = run(slice(0, 7))
    delta = (together - x).flatten(1)
    assert (delta.norm(dim=1) if how.norm == "L2" else delta.abs().amax(1)).max() <= how.eps + 1e-6
    torch.testing.assert_close(torch.cat([run(slice(i, i + 1)) for i in range(7)]), together, atol=1e-6, rtol=0)


def test_attacked_images_never_leave_the_box():
    """Not by a rounding error either: the smoothed classifier refuses such images."""
    model = curved()
    x = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    labels = model(x).argmax(dim=1)
    for name in ("FGSM", "PGD", "DDN"):
        attacked = run_attack(name, model, x, labels, settle(name, None, None, 5, None))
        assert 0 <= attacked.min() <= attacked.max() <= 1
    assert pgd(model, x, labels, 2.0, "L2", 5).max() <= 1
    assert ddn(model, x, labels, 5, levels=None).max() <= 1


@pytest.mark.parametrize("name", ["PGD", "DDN"])
def test_gradients_that_are_nan_are_no_attack(name):
    model = curved()
    x, labels = curved_batch()
    with pytest.raises(FloatingPointError, match=f"{name}.*NaN"):
        run_attack(
            name,
            lambda images: model(images) + (images - x).square().sum().sqrt(),
            x,
            labels,
            settle(name, "L2", None, 3, None),
        )


def test_bad_requests():
    x, y = torch.full((1, 1, 2, 2), 1.5), torch.tensor([0])
    model = linear(torch.ones(1, 2, 2))
    for attack in (
        lambda x: fgsm(model, x, y, 0.1),
        lambda x: pgd(model, x, y, 0.1),
        lambda x: ddn(model, x, y),
        lambda x: hopskipjump(model, x, y),
    ):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            attack(x)
    for eps in (0, -0.1):
        with pytest.raises(ValueError, match="eps"):
            fgsm(model, x - 1, y, eps=eps)
        with pytest.raises(ValueError, match="eps"):
            pgd(model, x - 1, y, eps=torch.tensor([eps]))
    with pytest.raises(ValueError, match="Linf and L2, not L1"):
        pgd(model, x - 1, y, 0.1, "L1")
    with pytest.raises(ValueError, match="needs an eps"):
        run_attack("FGSM", model, x - 1, y, How("Linf", None, 1))
    for arguments, word in (
        (("PGM", None, None, None, None), "--attack PGM: unknown; known are FGSM, PGD, DDN, HSJ, QEBA"),
        (("FGSM", "L2", None, None, None), "--norm L2: FGSM knows Linf"),
        (("SIGMA_ZERO", None, None, None, 1.0), "--max_norm: there is no budget in L0"),
    ):
        with pytest.raises(ValueError, match=word):
            settle(*arguments)
