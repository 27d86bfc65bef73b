"""Bounds, radii and stopping rules against closed forms, exact sums and simulation with known probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom, norm

from smoothing import rules
from smoothing.bounds import (
    AnytimeBound,
    log_e_value,
    lower_confidence_bound,
    probability_grid,
    upper_confidence_bound,
)
from smoothing.rules import ABSTAIN, FixedDraws, Hypothesis, PlannedDraws, Question, SequentialDraws

# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "failures", "p0"), [(0, 0, 0.5), (40, 3, 0.5), (90, 20, 0.84), (5, 30, 0.1)])
def test_e_value_is_the_integral(successes, failures, p0):
    mass = beta(0.5, 0.5).sf(p0)

    def integrand(angle):  # q = sin² turns the Beta(1/2, 1/2) density into a constant, 2/π
        q = math.sin(angle) ** 2
        return (q / p0) ** successes * ((1 - q) / (1 - p0)) ** failures * 2 / math.pi / mass

    value, _ = quad(integrand, math.asin(math.sqrt(p0)), math.pi / 2, limit=200)
    assert float(log_e_value(successes, failures, p0)) == pytest.approx(math.log(value), abs=1e-6)


def test_e_value_underflows_downwards():
    """Next to no successes against p0 near 1: the tail mass is below what a float holds, and E must be 0, not large."""
    assert log_e_value(0, 100_000, 0.999) == -math.inf
    grid = probability_grid([])
    assert (log_e_value(100, 100_000, grid[grid > 0.01]) < 0).all()
    assert log_e_value(100, 0, 1.0) == -math.inf  # nothing is evidence for p > 1


@pytest.mark.parametrize("p0", [0.5, 0.84, 0.977, 0.9987])
def test_e_process_crosses_with_probability_alpha_at_most(p0):
    """Exact, no simulation: the distribution of the number of successes among the paths that have not crossed yet,
    looked at after every draw. Clopper–Pearson in its place (peeking) crosses far more often than alpha."""
    alpha, n = 0.05, 1500

    def ever(crosses) -> float:
        alive, crossed = np.array([1.0]), 0.0  # alive[s]: not crossed, s successes so far
        for trials in range(1, n + 1):
            alive = np.concatenate([alive * (1 - p0), [0.0]]) + np.concatenate([[0.0], alive * p0])
            hit = crosses(np.arange(trials + 1), trials)
            crossed += alive[hit].sum()
            alive[hit] = 0
        return crossed

    assert ever(lambda s, t: _e_values(s, t, p0) >= math.log(1 / alpha)) <= alpha
    if p0 < 0.99:  # nearer to 1 it takes more draws until anything can be claimed
        assert ever(lambda s, t: binom.sf(s - 1, t, p0) <= alpha) > 1.5 * alpha


def _e_values(successes: np.ndarray, trials: int, p0: float) -> np.ndarray:
    """`log_e_value` for many counts at once: only those near the boundary can cross."""
    values = np.full(len(successes), -math.inf)
    near = successes >= trials * p0
    values[near] = log_e_value(successes[near], trials - successes[near], p0)
    return values


def test_anytime_bound_is_below_clopper_pearson_rises_only_and_is_on_the_grid():
    grid = probability_grid([0.5, 0.8])
    bound, before = AnytimeBound(grid, 0.001), 0.0
    for trials, successes in ((64, 60), (128, 121), (1000, 930), (2000, 1500)):
        now = bound.update(successes, trials)
        assert now >= before
        assert now in {0.0, *grid}
        before = now
    assert AnytimeBound(grid, 0.001).update(930, 1000) < lower_confidence_bound(930, 1000, 0.001)
    assert AnytimeBound(grid, 0.001).update(0, 1000) == 0.0


def test_grid_holds_the_targets():
    grid = probability_grid([0.5, 0.81234567])
    assert (np.diff(grid) > 0).all()
    assert 0 <= grid[np.searchsorted(grid, 0.81234567)] - 0.81234567 < 1e-11


def test_upper_bound_mirrors_the_lower_one():
    assert upper_confidence_bound(30, 100, 0.01) == pytest.approx(1 - lower_confidence_bound(70, 100, 0.01))
    assert upper_confidence_bound(100, 100, 0.01) == 1.0


# ---- radii -----------------------------------------------------------------------------------------------------------


def test_radii_are_the_formulas():
    assert rules.top_radius(0.5, norm.cdf(1.3)) == pytest.approx(0.65)
    assert rules.top_radius(0.5, 0.5) == 0.0
    # p_A = .45 < 1/2, p_B = .2: no certificate by p_A alone, one by both
    assert rules.pair_radius(1.0, 0.45, 0.8) == pytest.approx((norm.ppf(0.45) - norm.ppf(0.2)) / 2)
    # the runner-up cannot have more than the rest: 1 - p_B is at least p_A, which gives back the plain radius
    assert rules.pair_radius(1.0, 0.9, 0.3) == pytest.approx(rules.top_radius(1.0, 0.9))
    assert rules.pair_radius(1.0, 0.0, 0.9) == 0.0
    assert rules.pair_radius(1.0, 0.2, 0.7) == 0.0


def test_events_and_levels():
    counts, groups = np.array([50, 30, 15, 5]), ((0, 3), (1, 2))
    pair = Hypothesis(top=0, group=1, runner_up=True)
    assert rules.events(counts, pair, groups) == {"top": 50, "not_b": 70, "group": 45}
    assert rules.levels(pair, 0.01) == {"top": 0.005, "not_b": 0.005, "group": 0.01}
    assert rules.events(counts, Hypothesis(0, None, False), ()) == {"top": 50}


def test_pilot_chooses_class_group_and_bound():
    question = Question(1.0, 0.001, groups=((0, 1, 3), (2,)), runner_up=True)
    split = rules.choose(np.array([30, 25, 40, 5]), question, 10_000)
    assert (split.top, split.group, split.runner_up) == (2, 0, True)
    sure = rules.choose(np.array([0, 0, 100, 0]), question, 10_000)
    assert (sure.top, sure.group, sure.runner_up) == (2, 1, False)
    assert not rules.choose(np.array([45, 55]), Question(1.0, 0.001, runner_up=True), 10_000).runner_up


def test_slack_lowers_every_bound():
    sure = {"top": 0.9, "group": 0.95}
    radius, group_radius = rules.radii(sure, Question(1.0, 0.001, groups=((0,), (1,)), slack=0.05))
    assert radius == pytest.approx(norm.ppf(0.85))
    assert group_radius == pytest.approx(norm.ppf(0.9))


@pytest.mark.parametrize(("radius", "shown"), [(0.25, 0.25), (0.2499999, 0.249999), (1.0000009, 1.0), (0.0, 0.0)])
def test_radius_is_rounded_down(radius, shown):
    assert rules.round_down(radius) == shown


def test_rounding_down_never_rounds_up():
    below = np.nextafter(np.arange(1, 20_000) * 1e-6, 0)  # their products with 1e6 are rounded up to whole numbers
    assert all(rules.round_down(radius) <= radius < rules.round_down(radius) + 1.001e-6 for radius in below.tolist())


# ---- rules -----------------------------------------------------------------------------------------------------------


def certify(rule, p, rng, n0=100) -> rules.Certificate:
    """Run a rule on an image whose probabilities are known."""
    course = rule.begin(rng.multinomial(n0, p))
    counts = np.zeros(len(p), dtype=int)
    while True:
        counts = counts + rng.multinomial(course.next_look - counts.sum(), p)
        certificate = course.look(counts)
        if certificate is not None:
            assert certificate.draws == n0 + counts.sum()
            return certificate


def true_radius(p: np.ndarray, top: int) -> float:
    """How far a certificate for `top` may reach: `σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B))` at sigma 1 is tight (Cohen et al. 2019,
    theorem 2); for a group, p_B is the rest."""
    others = np.delete(p, top)
    return (norm.ppf(p[top]) - norm.ppf(others.max())) / 2


GROUPS = {2: ((0,), (1,)), 3: ((0,), (1, 2)), 4: ((0, 1), (2, 3)), 5: ((0, 4), (1, 2, 3))}
WORLDS = [  # probabilities: near 1/2, near the grid's thresholds (at sigma 1: Φ(.5) = .691, Φ(1) = .841), near 1
    (0.5, 0.5),
    (0.6915, 0.3085),
    (0.40, 0.40, 0.20),
    (0.8413, 0.1587, 0.0),
    (0.5, 0.2, 0.2, 0.1),
    (0.45, 0.35, 0.1, 0.1),
    (0.99379, 0.0062, 0.00001),  # Φ(2.5): tight for 1500 draws at .05
    (0.998, 0.001, 0.001, 0.0),
    (0.3, 0.3, 0.2, 0.1, 0.1),
]


def errors(kind: str, p: tuple[float, ...], images: int = 400, alpha: float = 0.05) -> tuple[int, int, float]:
    """How many of so many images get a radius that exceeds the true one, for the class and for the group, and how many
    may: alpha of them, and 5 standard deviations of that count."""
    question = Question(1.0, alpha, GROUPS[len(p)], runner_up=kind != "fixed")
    rule = {
        "sequential": SequentialDraws(question, 1500, (0.0, 0.5, 1.0, 1.5, 2.5)),
        "planned": PlannedDraws(question, 1500, 0.1),
        "fixed": FixedDraws(question, 1500),
    }[kind]
    p, rng = np.array(p), np.random.default_rng(7)
    wrong = wrong_group = 0
    for _ in range(images):
        found = certify(rule, p, rng)
        if found.prediction != ABSTAIN:
            limit = true_radius(p, found.prediction)
            if not found.runner_up:  # this claim rests on p_A alone
                limit = norm.ppf(p[found.prediction])
            wrong += found.radius > limit + 1e-9
        if found.group != ABSTAIN:
            inside = p[list(question.groups[found.group])].sum()
            wrong_group += found.group_radius > norm.ppf(inside) + 1e-9
    return wrong, wrong_group, alpha * images + 5 * math.sqrt(images * alpha * (1 - alpha))


@pytest.mark.slow
@pytest.mark.parametrize("p", WORLDS, ids=lambda p: "-".join(map(str, p)))
@pytest.mark.parametrize("kind", ["sequential", "planned", "fixed"])
def test_error_rate(kind, p):
    wrong, wrong_group, allowed = errors(kind, p)
    assert max(wrong, wrong_group) <= allowed


def test_naive_peeking_fails_that_test(monkeypatch):
    """The same rule with Clopper–Pearson at every look in place of the anytime bound errs far more often than alpha,
    for the class and for the group."""

    class Peeking(AnytimeBound):
        def update(self, successes: int, trials: int) -> float:
            return lower_confidence_bound(successes, trials, math.exp(-self.threshold))

    monkeypatch.setattr(rules, "AnytimeBound", Peeking)
    wrong, wrong_group, allowed = errors("sequential", (0.5, 0.5))
    assert min(wrong, wrong_group) > allowed


def test_sequential_claims_targets_exactly_and_saves_draws():
    question = Question(0.25, 0.001, ((0, 1), (2,)), runner_up=True, slack=1e-8)
    targets = (0.0, 0.25, 0.5)
    rule = SequentialDraws(question, 100_000, targets)
    sure = certify(rule, np.array([0.999, 0.001, 0.0]), np.random.default_rng(0))
    assert sure.prediction == 0
    assert rules.round_down(sure.radius) >= 0.5
    assert sure.group == 0
    assert sure.draws < 2000
    middle = certify(rule, np.array([0.90, 0.10, 0.0]), np.random.default_rng(0))  # true radius .32
    assert 0.25 <= rules.round_down(middle.radius) <= 0.25 * norm.ppf(0.9)
    assert middle.draws < 3000
    coin = certify(rule, np.array([0.5, 0.0, 0.5]), np.random.default_rng(0))
    assert (coin.prediction, coin.radius) == (ABSTAIN, 0.0)


def test_tight_is_where_a_few_failures_decide():
    p0, fewest = norm.cdf(3), math.log(0.001) / math.log(norm.cdf(3))
    assert 5113 < fewest < 5115
    assert [rules.is_tight(p0, n, 0.001) for n in (5113, 5115, 25_000, 26_000)] == [False, True, True, False]
    assert not rules.is_tight(1.0, 10_000, 0.001)
    assert not rules.is_tight(1.00001, 10_000, 0.001)  # a slack on top of 1


def test_the_last_look_proves_what_a_fixed_number_of_draws_proves(monkeypatch):
    """3 sigma and N = 10,000: Clopper–Pearson allows three failures, the anytime bound one. On the same votes the last
    look finds what the published rule finds; without it a third is lost."""
    question, p, n = Question(1.0, 0.001), np.array([0.9999, 0.0001]), 10_000
    votes = [np.random.default_rng(seed).choice(2, n, p=p) for seed in range(200)]
    pilot = np.array([100, 0])

    def proved(rule) -> np.ndarray:
        found = []
        for each in votes:
            course, certificate = rule.begin(pilot), None
            while certificate is None:
                certificate = course.look(np.bincount(each[: course.next_look], minlength=2))
            found.append(rules.reaches(certificate.radius, 3.0))
        return np.array(found)

    published, ours = proved(FixedDraws(question, n)), proved(SequentialDraws(question, n, (0.0, 1.0, 3.0)))
    assert (published == ours).all()
    monkeypatch.setattr(rules, "LAST_LOOK", 0.0)
    without = proved(SequentialDraws(question, n, (0.0, 1.0, 3.0)))
    assert without.sum() < 0.85 * published.sum()
    assert not (without & ~published).any()


def test_a_pilot_without_hope_keeps_nothing_for_the_last_look():
    rule = SequentialDraws(Question(1.0, 0.001, ((0,), (1,))), 10_000, (0.0, 3.0))
    assert rule.begin(np.array([100, 0])).last == {"top": 0.00075, "group": 0.00075}
    assert rule.begin(np.array([90, 10])).last == {"top": 0.0, "group": 0.0}


def test_sequential_never_takes_more_than_n():
    for n in (50, 64, 1000):
        rule = SequentialDraws(Question(1.0, 0.001), n, (0.0, 0.5))
        found = certify(rule, np.array([0.695, 0.305]), np.random.default_rng(1))
        assert found.draws <= 100 + n


def test_certifies_below_one_half_by_the_runner_up():
    rule = SequentialDraws(Question(1.0, 0.001, runner_up=True), 20_000, (0.0, 0.1, 0.25))
    found = certify(rule, np.array([0.45, 0.2, 0.2, 0.15]), np.random.default_rng(3))
    assert found.runner_up
    assert found.prediction == 0
    assert 0.25 <= found.radius <= true_radius(np.array([0.45, 0.2, 0.2, 0.15]), 0)


def test_planned_draws_keep_the_radius_and_save_draws():
    """At p = .9 a tolerance of .1 sigma needs far fewer than 100,000 draws, and costs at most about that."""
    question, p = Question(1.0, 0.001), np.array([0.9, 0.1])
    planned = [certify(PlannedDraws(question, 100_000, 0.1), p, np.random.default_rng(i)) for i in range(20)]
    full = certify(FixedDraws(question, 100_000), p, np.random.default_rng(0))
    assert max(each.draws for each in planned) < 10_000
    assert np.mean([full.radius - each.radius for each in planned]) < 0.1
    hopeless = certify(PlannedDraws(question, 100_000, 0.1), np.array([0.2] * 5), np.random.default_rng(0))
    assert hopeless.draws < 1000


@pytest.mark.parametrize("targets", [(), (0.5, 0.25), (-0.1, 0.5), (0.5, 0.5)])
def test_bad_targets(targets):
    with pytest.raises(ValueError, match="ascending"):
        SequentialDraws(Question(1.0, 0.001), 1000, targets)
