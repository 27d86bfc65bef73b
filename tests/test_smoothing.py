"""Bounds, boundaries, radii and stopping rules against closed forms, exact sums and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import betabinom, binom, binomtest, norm

from smoothing import rules
from smoothing.boundaries import (
    FUTILE,
    SPENDINGS,
    Boundary,
    boundaries,
    claim_counts,
    fixed_count,
    looks,
    spent,
)
from smoothing.bounds import lower_confidence_bound, upper_confidence_bound
from smoothing.rules import (
    ABSTAIN,
    FixedDraws,
    Hypothesis,
    PlannedDraws,
    Question,
    SequentialDraws,
    margin_successes,
    successes,
)

SIGMAS = (0.0, 0.5, 1.0, 2.0, 2.5, 3.0)  # radii at sigma 1: p0 = .5 to .99865


def coins(seed: int = 0) -> np.random.BitGenerator:
    return np.random.PCG64(seed)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_upper_bound_mirrors_the_lower_one():
    assert upper_confidence_bound(30, 100, 0.01) == pytest.approx(1 - lower_confidence_bound(70, 100, 0.01))
    assert upper_confidence_bound(100, 100, 0.01) == 1.0


# ---- boundaries ------------------------------------------------------------------------------------------------------


def ever_reached(claim: np.ndarray, n: int, p: float) -> np.ndarray:
    """P(some look up to the k-th finds at least `claim` successes), for each k: exact and plain, draw by draw."""
    alive, reached, found = np.array([1.0]), 0.0, []
    at = dict(zip(looks(n).tolist(), claim.tolist(), strict=True))
    for drawn in range(1, n + 1):
        alive = np.concatenate([alive * (1 - p), [0.0]]) + np.concatenate([[0.0], alive * p])
        if drawn in at:
            reached += alive[at[drawn] :].sum()
            alive[at[drawn] :] = 0
            found.append(reached)
    return np.array(found)


@pytest.mark.parametrize("n", [1, 20, 100, 1000, 3000])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_a_boundary_errs_with_probability_alpha_at_most(n, alpha):
    """At the threshold itself and a little below, by exact sums; and where n draws can prove anything alpha is used,
    to the half at least: counts are whole numbers."""
    thresholds = norm.cdf(SIGMAS)
    for p0, boundary in zip(thresholds, boundaries(tuple(thresholds), n, alpha), strict=True):
        error = ever_reached(boundary.claim, n, p0)
        allowed = spent(boundary.spending, n, alpha)
        assert (error <= allowed).all()
        assert ever_reached(boundary.claim, n, p0 - 0.01)[-1] <= error[-1]
        if fixed_count(p0, n, alpha) <= n and n >= 1000:
            assert error[-1] > 0.5 * alpha


def test_one_count_less_would_err_too_often():
    """The counts are the smallest: at every look one success less would use more than is allowed by then."""
    n, alpha, p0 = 400, 0.01, norm.cdf(0.5)
    allowed = spent(SPENDINGS[0], n, alpha)
    (claim,) = claim_counts([p0], n, allowed)
    for look in range(len(claim)):
        smaller = claim.copy()
        smaller[look] -= 1
        assert ever_reached(smaller, n, p0)[look] > allowed[look]


def test_looking_at_every_look_as_if_it_were_the_only_one_errs_far_too_often():
    n, alpha, p0 = 1000, 0.01, 0.5
    naive = np.array([fixed_count(p0, drawn, alpha) for drawn in looks(n).tolist()])
    assert ever_reached(naive, n, p0)[-1] > 5 * alpha


@pytest.mark.parametrize("p0", [0.5, 0.84, 0.977, 0.9987])
@pytest.mark.parametrize(("n", "alpha"), [(100, 0.001), (2000, 0.05)])
def test_one_look_is_clopper_pearson(p0, n, alpha):
    count = fixed_count(p0, n, alpha)
    assert binom.sf(count - 1, n, p0) <= alpha
    assert binom.sf(count - 2, n, p0) > alpha
    if count <= n:
        assert lower_confidence_bound(count, n, alpha) >= p0 > lower_confidence_bound(count - 1, n, alpha)


def test_the_last_look_costs_next_to_nothing():
    """At N = 10,000 and 3 sigma three failures are allowed, as if one looked only once; elsewhere the count is higher
    by a fifth of its standard deviation at most."""
    for n in (1000, 2000, 10_000):
        thresholds = norm.cdf(SIGMAS)
        for p0, boundary in zip(thresholds, boundaries(tuple(thresholds), n, 0.001), strict=True):
            excess = boundary.claim[-1] - fixed_count(p0, n, 0.001)
            assert 0 <= excess <= 0.2 * math.sqrt(n * p0 * (1 - p0)) or boundary.spending == SPENDINGS[-1]
    assert boundaries((norm.cdf(3),), 10_000, 0.001)[0].claim[-1] == 9997


@pytest.mark.parametrize(("sigmas", "n", "draws"), [(2, 1000, 416), (2.5, 2000, 1248), (3, 10_000, 6112)])
def test_what_the_surest_image_takes(sigmas, n, draws):
    """As docs/stopping_rule.md says, where all draws agree."""
    (boundary,) = boundaries((float(norm.cdf(sigmas)),), n, 0.001)
    assert looks(n)[(boundary.claim <= looks(n)).argmax()] == draws


def test_looks_grow_and_end_at_n():
    assert looks(10).tolist() == [10]
    found = looks(10_000)
    assert found[0] == 32
    assert found[-1] == 10_000
    steps = np.diff(found)
    assert (steps[:-1] >= 32).all()
    assert (steps <= np.maximum(32, found[:-1] / 20)).all()


@pytest.mark.parametrize("p0", [0.5, 0.9, 0.9987])
def test_futility_is_the_predicted_chance(p0):
    """Against SciPy's beta-binomial: at the count where one goes on the chance is 1% at least, one less below it. Where
    many failures are left a normal approximation stands for it, a little off."""
    n = 2000
    (boundary,) = boundaries((p0,), n, 0.001)
    for look, drawn in enumerate(looks(n)[:-1].tolist()):

        def chance(count: int, drawn: int = drawn) -> float:
            failures = n - boundary.claim[-1] - (drawn - count)
            return float(betabinom.cdf(failures, n - drawn, drawn - count + 0.5, count + 0.5)) if failures >= 0 else 0.0

        count = int(boundary.futile[look])
        if count <= drawn:
            assert chance(count) >= 0.7 * FUTILE
        if count > 0:
            assert chance(count - 1) <= 1.4 * FUTILE


def test_what_n_draws_cannot_prove_is_given_up_at_once():
    (boundary,) = boundaries((norm.cdf(3),), 2000, 0.001)  # it takes 5,114 draws
    assert (boundary.claim > looks(2000)).all()
    assert (boundary.futile > looks(2000)).all()
    (impossible,) = boundaries((1.0,), 2000, 0.001)
    assert (impossible.claim > looks(2000)).all()


# ---- radii -----------------------------------------------------------------------------------------------------------


def test_top_radius_is_the_formula():
    assert rules.top_radius(0.5, norm.cdf(1.3)) == pytest.approx(0.65)
    assert rules.top_radius(0.5, 0.5) == 0.0


def test_the_margin_bound_is_never_above_theorem_1():
    """σ Φ⁻¹((1 + p_A - p_B)/2) <= σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B)) wherever either is positive, with equality where p_A and
    p_B are all there is; and it is never below the published radius."""
    p_a, p_b = np.meshgrid(np.linspace(0.001, 0.999, 250), np.linspace(0.001, 0.999, 250))
    possible = (p_a + p_b <= 1) & (p_a > p_b)
    p_a, p_b = p_a[possible], p_b[possible]
    margin, exact = norm.ppf((1 + p_a - p_b) / 2), (norm.ppf(p_a) - norm.ppf(p_b)) / 2
    assert (margin <= exact + 1e-12).all()
    assert (margin >= norm.ppf(p_a) - 1e-12).all()
    assert norm.ppf((1 + 0.9 - 0.1) / 2) == pytest.approx((norm.ppf(0.9) - norm.ppf(0.1)) / 2)


def test_successes_by_hand():
    counts, heads = np.array([50, 30, 15, 5]), np.array([20, 10, 8, 3])
    # against 1: 8 + 3 heads; against 2: 10 + 3; against 3: 10 + 8
    assert margin_successes(counts, heads, 0, (1, 2, 3)) == 50 + 11
    assert margin_successes(counts, heads, 0, (2, 3)) == 50 + 13
    assert margin_successes(np.array([70, 30]), np.array([30, 10]), 0, (1,)) == 70  # two classes: the plain count
    question = Question(1.0, 0.01, groups=((0, 3), (1, 2)))
    assert successes(counts, heads, Hypothesis(0, 1), question) == {"class": 61, "group": 45}
    assert successes(counts, heads, Hypothesis(0, 1), question, margin=False) == {"class": 50, "group": 45}
    assert successes(counts, heads, Hypothesis(None, 1), question) == {"group": 45}
    by_class = Question(1.0, 0.01, question.groups, "class")
    assert successes(counts, heads, Hypothesis(0, 0), by_class) == {"class": 61, "group": 61}
    three = Question(1.0, 0.01, ((0, 1), (2, 3)), "class")
    assert successes(counts, heads, Hypothesis(0, 0), three)["group"] == 50 + 13


def test_coins_are_fair_and_each_vote_has_its_own():
    bits, votes = coins(), np.array([300, 0, 2, 64])
    heads = np.array([rules.toss(votes, bits) for _ in range(500)])
    assert (heads <= votes).all()
    assert binomtest(int(heads.sum()), 500 * int(votes.sum())).pvalue > 0.001
    assert heads[:, 0].var() == pytest.approx(75, rel=0.2)
    assert abs(np.corrcoef(heads[:, 0], heads[:, 3])[0, 1]) < 0.15
    assert (rules.toss(votes, coins(5)) == rules.toss(votes, coins(5))).all()


def test_pilot_chooses_class_and_group():
    pilot, groups = np.array([30, 25, 40, 5]), ((0, 1, 3), (2,))
    assert rules.choose(pilot, Question(1.0, 0.001)) == Hypothesis(2, None)
    # 60 votes for the first group, though its classes have fewer than 2 has: by votes the class is not named
    assert rules.choose(pilot, Question(1.0, 0.001, groups)) == Hypothesis(None, 0)
    assert rules.choose(pilot, Question(1.0, 0.001, groups, "class")) == Hypothesis(2, 1)
    assert rules.choose(np.array([0, 0, 100, 0]), Question(1.0, 0.001, groups)) == Hypothesis(2, 1)


@pytest.mark.parametrize(("radius", "shown"), [(0.25, 0.25), (0.2499999, 0.249999), (1.0000009, 1.0), (0.0, 0.0)])
def test_radius_is_rounded_down(radius, shown):
    assert rules.round_down(radius) == shown


def test_rounding_down_never_rounds_up():
    below = np.nextafter(np.arange(1, 20_000) * 1e-6, 0)  # their products with 1e6 are rounded up to whole numbers
    assert all(rules.round_down(radius) <= radius < rules.round_down(radius) + 1.001e-6 for radius in below.tolist())


# ---- rules -----------------------------------------------------------------------------------------------------------


def certify(rule, p, rng, n0=100) -> rules.Certificate:
    """Run a rule on an image whose probabilities are known."""
    course, certificate, draws = rule.begin(n0, coins(int(rng.integers(2**63)))), None, 0
    while certificate is None:
        draws += course.wants
        certificate = course.look(rng.multinomial(course.wants, p))
    assert certificate.draws == draws
    return certificate


def on_votes(rule, votes: np.ndarray, classes: int, n0: int = 100) -> rules.Certificate:
    """Run a rule on the votes of draws, in their order."""
    course, certificate, taken = rule.begin(n0, coins()), None, 0
    while certificate is None:
        taken, part = taken + course.wants, votes[taken : taken + course.wants]
        certificate = course.look(np.bincount(part, minlength=classes))
    return certificate


def true_radius(p: np.ndarray, top: int) -> float:
    """How far a certificate for `top` may reach: `σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B))` at sigma 1 is tight (Cohen et al. 2019,
    theorem 2)."""
    others = np.delete(p, top)
    return (norm.ppf(p[top]) - norm.ppf(others.max())) / 2


GROUPS = {
    2: ((0,), (1,)),
    3: ((0,), (1, 2)),
    4: ((0, 1), (2, 3)),
    5: ((0, 4), (1, 2, 3)),
    10: ((0,), tuple(range(1, 10))),
}
WORLDS = [  # probabilities: near 1/2, near the thresholds (at sigma 1: Φ(.5) = .691, Φ(1) = .841), near 1
    (0.5, 0.5),
    (0.6915, 0.3085),
    (0.40, 0.40, 0.20),
    (0.8413, 0.1587, 0.0),
    (0.5, 0.2, 0.2, 0.1),
    (0.45, 0.35, 0.1, 0.1),
    (0.99379, 0.0062, 0.00001),  # Φ(2.5): tight for 1500 draws at .05
    (0.998, 0.001, 0.001, 0.0),
    (0.3, 0.3, 0.2, 0.1, 0.1),
    (0.46, 0.06, *8 * (0.06,)),  # margin .4: p' = .7
    (0.2, 0.2, *8 * (0.075,)),
]


def errors(
    kind: str, p: tuple[float, ...], group_rule: str = "vote", n0: int = 100, images: int = 400, alpha: float = 0.05
) -> tuple[int, int, float]:
    """How many of so many images get a radius that exceeds what its bound could ever prove, for the class and for the
    group, and how many may: alpha of them, and 5 standard deviations of that count."""
    question = Question(1.0, alpha, GROUPS[len(p)], group_rule)
    rule = {
        "sequential": SequentialDraws(question, 1500, (0.0, 0.5, 1.0, 1.5, 2.5)),
        "planned": PlannedDraws(question, 1500, 0.1),
        "fixed": FixedDraws(question, 1500),
    }[kind]
    p, rng = np.array(p), np.random.default_rng(7)
    wrong = wrong_group = 0
    for _ in range(images):
        found = certify(rule, p, rng, n0)
        if found.prediction != ABSTAIN:
            rival = np.delete(p, found.prediction).max()
            limit = p[found.prediction] if kind == "fixed" else (1 + p[found.prediction] - rival) / 2
            wrong += norm.cdf(found.radius) > limit + 1e-13
        if found.group != ABSTAIN:
            inside = list(question.groups[found.group])
            limit = p[inside].sum()
            if group_rule == "class":  # whichever of its classes was chosen, it is no better than the best
                limit = (1 + p[inside].max() - np.delete(p, inside).max()) / 2
            wrong_group += norm.cdf(found.group_radius) > limit + 1e-13
    return wrong, wrong_group, alpha * images + 5 * math.sqrt(images * alpha * (1 - alpha))


@pytest.mark.slow
@pytest.mark.parametrize("p", WORLDS, ids=lambda p: "-".join(map(str, p[:5])))
@pytest.mark.parametrize(
    ("kind", "group_rule", "n0"),
    [("sequential", "vote", 100), ("sequential", "class", 1), ("planned", "vote", 100), ("fixed", "class", 100)],
)
def test_error_rate(kind, group_rule, n0, p):
    wrong, wrong_group, allowed = errors(kind, p, group_rule, n0)
    assert max(wrong, wrong_group) <= allowed


def test_naive_peeking_fails_that_test(monkeypatch):
    """The same rule with Clopper–Pearson at every look in place of the boundary errs far more often than alpha, for the
    class and for the group."""

    def peeking(p0, n, alpha):
        counts = [np.array([fixed_count(p, drawn, alpha) for drawn in looks(n).tolist()]) for p in p0]
        return tuple(Boundary(count, np.zeros_like(count), SPENDINGS[0]) for count in counts)

    monkeypatch.setattr(rules, "boundaries", peeking)
    wrong, wrong_group, allowed = errors("sequential", (0.5, 0.5))
    assert min(wrong, wrong_group) > allowed


@pytest.mark.slow
@pytest.mark.parametrize("p", [(0.499, 0.501), (0.69, 0.1, 0.21), (0.3, 0.3, *8 * (0.05,))])
def test_false_claims_of_targets_are_rarer_than_alpha_at_near_ties(p):
    """10,000 images on which the smallest target that is false is nearly true, at alpha = .02: the number of images
    with a false claim is no more than a binomial of alpha, at the level of one in 10,000."""
    alpha, images, targets = 0.02, 10_000, (0.0, 0.3, 0.5, 1.0)
    p, rng = np.array(p), np.random.default_rng(11)
    rule = SequentialDraws(Question(1.0, alpha, GROUPS[len(p)]), 300, targets)
    false = 0
    for _ in range(images):
        found = certify(rule, p, rng, n0=5)
        false += (
            found.prediction != ABSTAIN and norm.cdf(found.radius) > norm.cdf(true_radius(p, found.prediction)) + 1e-13
        )
    assert false <= binom.isf(1e-4, images, alpha)


def test_sequential_claims_targets_exactly_and_saves_draws():
    question = Question(0.25, 0.001, ((0, 1), (2,)), slack=1e-8)
    targets = (0.0, 0.25, 0.5)
    rule = SequentialDraws(question, 100_000, targets)
    sure = certify(rule, np.array([0.999, 0.001, 0.0]), np.random.default_rng(0))
    assert sure.prediction == 0
    assert rules.round_down(sure.radius) >= 0.5
    assert sure.group == 0
    assert sure.draws < 1500
    middle = certify(rule, np.array([0.90, 0.10, 0.0]), np.random.default_rng(0))  # true radius .32
    assert 0.25 <= rules.round_down(middle.radius) <= 0.25 * norm.ppf(0.9)
    assert middle.draws < 1500
    coin = certify(rule, np.array([0.5, 0.0, 0.5]), np.random.default_rng(0))
    assert (coin.prediction, coin.radius) == (ABSTAIN, 0.0)
    assert sum(middle.votes) == middle.draws - 20 or sum(middle.votes) == middle.draws - 100


def test_a_radius_of_interest_is_reported_exactly_and_those_between_in_small_steps():
    rule = SequentialDraws(Question(1.0, 0.001), 10_000, (0.0, 1.0, 2.0))
    found = on_votes(rule, np.zeros(20_000, dtype=int), 2)
    assert found.radius >= 2.0
    radii, claims = rule.between(3)
    assert radii[0] == pytest.approx(2.02)
    assert (np.diff(claims[:, -1]) >= 0).all()
    between, claims = rule.between(2)
    assert between[0] == pytest.approx(1.02)
    assert between[-1] < 2.0
    assert (claims <= rule.boundaries[2].claim).all()  # so that a claim of 2 implies theirs


def test_the_last_look_proves_what_a_fixed_number_of_draws_proves():
    """3 sigma and N = 10,000: Clopper–Pearson allows three failures. On the same votes ours finds what the published
    rule finds."""
    question, p, n = Question(1.0, 0.001), np.array([0.9999, 0.0001]), 10_000
    votes = [np.random.default_rng(seed).choice(2, n + 100, p=p) for seed in range(200)]
    sequential = SequentialDraws(question, n, (0.0, 1.0, 3.0))
    proved = {
        name: np.array([rules.reaches(on_votes(rule, each, 2).radius, 3.0) for each in votes])
        for name, rule in (("published", FixedDraws(question, n)), ("ours", sequential))
    }
    assert proved["published"].mean() > 0.9
    assert (proved["published"] != proved["ours"]).mean() <= 0.02  # a shorter pilot leaves other draws to count


def test_a_pilot_is_short_where_it_agrees_and_whole_where_it_does_not():
    rule = SequentialDraws(Question(1.0, 0.001), 1000, (0.0, 0.5))
    course = rule.begin(100, coins())
    assert course.wants == 20
    assert course.look(np.array([20, 0])) is None
    assert course.wants == looks(1000)[0]
    course = rule.begin(100, coins())
    course.look(np.array([19, 1]))
    assert course.wants == 80
    course.look(np.array([60, 20]))
    assert course.hypothesis == Hypothesis(0, None)
    assert rule.begin(7, coins()).wants == 7
    assert FixedDraws(Question(1.0, 0.001), 1000).begin(100, coins()).wants == 100


def test_sequential_never_takes_more_than_n():
    for n in (1, 50, 64, 1000):
        rule = SequentialDraws(Question(1.0, 0.001), n, (0.0, 0.5))
        found = certify(rule, np.array([0.695, 0.305]), np.random.default_rng(1))
        assert found.draws <= 100 + n


def test_it_gives_up_where_the_radius_has_become_improbable():
    rule = SequentialDraws(Question(1.0, 0.001), 10_000, (0.0, 1.0))
    draws = [certify(rule, np.array([0.8, 0.2]), np.random.default_rng(seed)).draws for seed in range(50)]  # Φ(1) = .84
    assert np.mean(draws) < 3000
    hopeless = certify(rule, np.array([0.35, 0.33, 0.32]), np.random.default_rng(0))
    assert hopeless.draws < 10_100


def test_certifies_below_one_half_by_the_margin():
    rule = SequentialDraws(Question(1.0, 0.001), 20_000, (0.0, 0.1, 0.25))
    found = certify(rule, np.array([0.45, 0.2, 0.2, 0.15]), np.random.default_rng(3))
    assert found.bound == "margin"
    assert found.prediction == 0
    assert 0.25 <= found.radius <= norm.ppf((1 + 0.45 - 0.2) / 2)


DISEASE_BY_VOTE = np.array([0.25, 0.20, 0.13, 0.42])  # the healthy class 3 has most votes, the three diseases more


def test_a_row_never_contradicts_itself():
    """The example of an image whose most frequent class is healthy while most of its votes are for some disease. By the
    vote of groups it is diseased, and no class is named; by the class it is healthy, and stays so only as long as no
    single disease overtakes it."""
    groups, rng = ((0, 1, 2), (3,)), np.random.default_rng(2)
    vote = certify(SequentialDraws(Question(1.0, 0.001, groups), 20_000, (0.0, 0.1)), DISEASE_BY_VOTE, rng)
    assert (vote.prediction, vote.group) == (ABSTAIN, 0)
    assert vote.group_radius <= norm.ppf(0.58)
    by_class = SequentialDraws(Question(1.0, 0.001, groups, "class"), 20_000, (0.0, 0.1))
    found = certify(by_class, DISEASE_BY_VOTE, rng)
    assert (found.prediction, found.group) == (3, 1)
    assert 0.1 <= found.group_radius <= true_radius(DISEASE_BY_VOTE, 3)


def test_a_class_is_proved_no_further_than_its_group_won():
    """Healthy is the class 0 alone: no single disease comes near its votes, but together they do. By votes the class is
    named only as far as healthy wins; by class it is proved to the margin."""
    p, groups = np.array([0.62, 0.13, 0.13, 0.12]), ((1, 2, 3), (0,))
    found = {
        rule: certify(
            SequentialDraws(Question(1.0, 0.001, groups, rule), 20_000, (0.0, 0.1, 0.5)), p, np.random.default_rng(4)
        )
        for rule in ("vote", "class")
    }
    assert found["vote"].prediction == found["class"].prediction == 0
    assert 0.1 <= found["vote"].radius == found["vote"].group_radius <= norm.ppf(0.62)
    assert 0.5 <= found["class"].radius <= norm.ppf((1 + 0.62 - 0.13) / 2)


def test_by_class_the_group_reaches_as_far_as_the_class_at_least():
    """Votes for another class of the same group do not hurt: A must only stay ahead of the other group."""
    rule = SequentialDraws(Question(1.0, 0.001, ((0, 1), (2,)), "class"), 20_000, (0.0, 0.1, 0.3, 0.5))
    found = certify(rule, np.array([0.56, 0.34, 0.10]), np.random.default_rng(0))
    assert (found.prediction, found.group) == (0, 0)
    assert 0.1 <= found.radius < 0.3
    assert 0.5 <= found.group_radius <= norm.ppf((1 + 0.56 - 0.10) / 2)


def test_slack_lowers_every_bound():
    questions = (Question(1.0, 0.001, ((0,), (1,)), slack=slack) for slack in (0.0, 0.05))
    p = np.array([0.9, 0.1])
    plain, lowered = (certify(FixedDraws(each, 1000), p, np.random.default_rng(0)) for each in questions)
    assert norm.cdf(plain.radius) - norm.cdf(lowered.radius) == pytest.approx(0.05)
    assert norm.cdf(plain.group_radius) - norm.cdf(lowered.group_radius) == pytest.approx(0.05)
    rule = SequentialDraws(Question(1.0, 0.001, slack=0.05), 1000, (0.0, 1.0))
    assert rule.question.threshold(1.0) == pytest.approx(norm.cdf(1.0) + 0.05)


def test_planned_draws_keep_the_radius_and_save_draws():
    """At p = .9 a tolerance of .1 sigma needs far fewer than 100,000 draws, and costs at most about that."""
    question, p = Question(1.0, 0.001), np.array([0.9, 0.1])
    planned = [certify(PlannedDraws(question, 100_000, 0.1), p, np.random.default_rng(i)) for i in range(20)]
    full = certify(FixedDraws(question, 100_000), p, np.random.default_rng(0))
    assert max(each.draws for each in planned) < 10_000
    assert np.mean([full.radius - each.radius for each in planned]) < 0.1
    hopeless = certify(PlannedDraws(question, 100_000, 0.1), np.array([0.2] * 5), np.random.default_rng(0))
    assert hopeless.draws < 3000


@pytest.mark.parametrize("targets", [(), (0.5, 0.25), (-0.1, 0.5), (0.5, 0.5)])
def test_bad_targets(targets):
    with pytest.raises(ValueError, match="ascending"):
        SequentialDraws(Question(1.0, 0.001), 1000, targets)
