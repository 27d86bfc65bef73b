"""What is claimed of an image, and how many draws are taken for it.

A *pilot* of n0 draws chooses the hypothesis: the class A, the group G, and whether A is compared with the runner-up.
The draws after it, and they alone, prove radii. A rule decides how many there are:

- `FixedDraws`: n, as published (Cohen et al. 2019);
- `PlannedDraws`: as many as the pilot says are needed to lose little radius against N draws (two-stage sampling);
- `SequentialDraws`: until every radius of interest is proved or out of reach, never more than N.

Counts are int arrays `[K]` of votes per class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri

from smoothing.bounds import (
    AnytimeBound,
    log_e_value,
    lower_confidence_bound,
    probability_grid,
    upper_confidence_bound,
)

ABSTAIN = -1
FUTILE = 1e-3  # level at which a radius counts as out of reach; giving up costs power, never soundness
LOOK = 64  # draws between looks, at first
LAST_LOOK = 0.75  # of alpha, kept for all N draws where a radius is tight


@dataclass(frozen=True)
class Certificate:
    """With probability at least 1 - alpha over the draws, the smoothed classifier answers `prediction` everywhere
    within the L2 `radius` of the image; likewise its group vote `group` within `group_radius`. The two hold together
    with probability at least 1 - 2 alpha. ABSTAIN and radius 0 where nothing is proved."""

    prediction: int
    radius: float
    group: int
    group_radius: float
    draws: int  # pilot included
    runner_up: bool  # whether the runner-up bound was used
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Question:
    """What is asked of every image: sigma, alpha, the `groups` of classes (a partition of them, or none), whether the
    `runner_up` bound may be used, and the `slack` that every bound on a probability is lowered by (the distance between
    the noise that is drawn and exact Gaussian noise, `smoothing.noise.slack`)."""

    sigma: float
    alpha: float
    groups: tuple[tuple[int, ...], ...] = ()
    runner_up: bool = False
    slack: float = 0.0


@dataclass(frozen=True)
class Hypothesis:
    """What the pilot chose: class A, the index of group G (or None), and how A's radius is proved."""

    top: int
    group: int | None
    runner_up: bool


# ---- from bounds to radii --------------------------------------------------------------------------------------------


def top_radius(sigma: float, p_a: float) -> float:
    """`σ Φ⁻¹(p_A)`, 0 up to p_A = 1/2 (Cohen et al. 2019, with p_B <= 1 - p_A)."""
    return sigma * float(ndtri(p_a)) if p_a > 0.5 else 0.0


def pair_radius(sigma: float, p_a: float, p_not_b: float) -> float:
    """`σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B))` (Cohen et al. 2019, theorem 1) with `p_not_b = 1 - p_B`, at least p_A; 0 if negative.

    For K >= 3 classes it also proves radii where p_A < 1/2.
    """
    if p_a <= 0:
        return 0.0
    return max(0.0, sigma / 2 * float(ndtri(p_a) + ndtri(max(p_not_b, p_a))))


def events(counts: np.ndarray, hypothesis: Hypothesis, groups: Sequence[Sequence[int]]) -> dict[str, int]:
    """The counts that the claims rest on.

    top: votes for A. not_b: votes for anything but the most frequent other class. The strongest rival c* is a fixed
    though unknown class, and n_{c*} <= max_{c≠A} n_c: a lower bound from this count is one on 1 - p_B, without any
    correction for the number of classes. group: votes inside G.
    """
    found = {"top": int(counts[hypothesis.top])}
    if hypothesis.runner_up:
        found["not_b"] = int(counts.sum() - np.delete(counts, hypothesis.top).max())
    if hypothesis.group is not None:
        found["group"] = int(counts[list(groups[hypothesis.group])].sum())
    return found


def levels(hypothesis: Hypothesis, alpha: float) -> dict[str, float]:
    """The error probability of each event's bound: alpha for a claim, halved where a claim rests on two bounds."""
    share = {"top": alpha / 2, "not_b": alpha / 2} if hypothesis.runner_up else {"top": alpha}
    return share | ({"group": alpha} if hypothesis.group is not None else {})


def radii(bounds: dict[str, float], question: Question) -> tuple[float, float]:
    """(radius of the class, radius of the group) from lower bounds on the events' probabilities."""
    sigma, p = question.sigma, {name: max(0.0, bound - question.slack) for name, bound in bounds.items()}
    radius = pair_radius(sigma, p["top"], p["not_b"]) if "not_b" in p else top_radius(sigma, p["top"])
    return radius, top_radius(sigma, p.get("group", 0.0))


def choose(pilot: np.ndarray, question: Question, n: int) -> Hypothesis:
    """The hypothesis that the pilot's votes favour when about `n` draws follow."""
    top = int(pilot.argmax())
    group = None
    if question.groups:
        group = int(np.argmax([pilot[list(members)].sum() for members in question.groups]))
    plain, pair = Hypothesis(top, group, False), Hypothesis(top, group, True)
    if not (question.runner_up and len(pilot) > 2):
        return plain
    # Half a vote of doubt goes to the runner-up: of a pilot that agrees we do not know how the rest would split.
    doubtful = pilot.astype(float)
    doubtful[int(np.argsort(pilot, kind="stable")[-2])] += 0.5
    expected = np.rint(doubtful / doubtful.sum() * n).astype(int)
    expected[top] += n - expected.sum()
    wins = _fixed_radii(expected, pair, question)[0] > _fixed_radii(expected, plain, question)[0]
    return pair if wins else plain


def _fixed_radii(counts: np.ndarray, hypothesis: Hypothesis, question: Question) -> tuple[float, float]:
    """Radii by Clopper–Pearson from counts whose sum was fixed beforehand."""
    n, alphas = int(counts.sum()), levels(hypothesis, question.alpha)
    found = events(counts, hypothesis, question.groups)
    return radii({name: lower_confidence_bound(k, n, alphas[name]) for name, k in found.items()}, question)


def _certificate(hypothesis: Hypothesis, found: tuple[float, float], draws: int) -> Certificate:
    radius, group_radius = found
    prediction = hypothesis.top if radius > 0 else ABSTAIN
    group = hypothesis.group if group_radius > 0 else ABSTAIN
    return Certificate(prediction, radius, group, group_radius, draws, hypothesis.runner_up)


# ---- rules -----------------------------------------------------------------------------------------------------------


class Course:
    """One image under way: `next_look` says after how many draws (without the pilot) `look` is to be called with the
    counts so far; it returns the certificate, or None if more draws are wanted."""

    next_look: int

    def look(self, counts: np.ndarray) -> Certificate | None:
        raise NotImplementedError


@dataclass(frozen=True)
class FixedDraws:
    """n draws for every image, as published."""

    question: Question
    n: int

    def begin(self, pilot: np.ndarray) -> Course:
        return _OneLook(choose(pilot, self.question, self.n), self.question, self.n, int(pilot.sum()))


@dataclass(frozen=True)
class PlannedDraws:
    """As few draws as keep the radius within `tolerance · sigma` of the one that `n` draws would prove, at both ends of
    the pilot's 90% interval for each probability. The pilot is not used again, so that the plan costs no alpha
    (after Chen et al. 2022, "Input-Specific Robustness Certification", whose code does reuse it)."""

    question: Question
    n: int
    tolerance: float

    def begin(self, pilot: np.ndarray) -> Course:
        hypothesis = choose(pilot, self.question, self.n)
        return _OneLook(hypothesis, self.question, self._plan(pilot, hypothesis), int(pilot.sum()))

    def _plan(self, pilot: np.ndarray, hypothesis: Hypothesis) -> int:
        n0, alphas = int(pilot.sum()), levels(hypothesis, self.question.alpha)
        found = events(pilot, hypothesis, self.question.groups)
        sizes = np.unique(np.geomspace(min(LOOK, self.n), self.n, 50).astype(int)).tolist()
        for size in sizes:
            if all(
                wanted - got <= self.tolerance * self.question.sigma
                for end in (lower_confidence_bound, upper_confidence_bound)
                for wanted, got in zip(
                    self._expected(found, n0, end, self.n, alphas),
                    self._expected(found, n0, end, size, alphas),
                    strict=True,
                )
            ):
                return size
        return self.n

    def _expected(self, found: dict[str, int], n0: int, end: Callable, n: int, alphas: dict) -> tuple[float, float]:
        bounds = {k: lower_confidence_bound(int(end(v, n0, 0.05) * n), n, alphas[k]) for k, v in found.items()}
        return radii(bounds, self.question)


class _OneLook(Course):
    def __init__(self, hypothesis: Hypothesis, question: Question, n: int, n0: int) -> None:
        self.hypothesis, self.question, self.next_look, self.n0 = hypothesis, question, n, n0

    def look(self, counts: np.ndarray) -> Certificate:
        found = _fixed_radii(counts, self.hypothesis, self.question)
        return _certificate(self.hypothesis, found, self.n0 + int(counts.sum()))


def is_tight(p0: float, n: int, alpha: float) -> bool:
    """Whether `n` draws can prove p > p0, but not a fifth of them: even if all agree it takes ln(alpha) / ln(p0). There
    a few failures decide, and the anytime bound allows markedly fewer of them than Clopper–Pearson."""
    return 1 <= n * math.log(p0) / math.log(alpha) < 5


class SequentialDraws:
    """Draw until each radius of `targets` (ascending, on the pixel scale) is proved or out of reach, for the class and
    for the group, or until there are `n` draws.

    Every bound is an `AnytimeBound`, so the radius reported when the rule stops is proved at that moment: at least the
    largest target claimed, and more where the counts happen to show more. If the pilot leaves hope for a target that is
    tight for n draws (`is_tight`), `LAST_LOOK` of alpha is kept for one Clopper–Pearson bound on all n, and the anytime
    bound has the rest. The pilot proves nothing, so it may choose that.
    """

    def __init__(self, question: Question, n: int, targets: Sequence[float]) -> None:
        if list(targets) != sorted(set(targets)) or not targets or targets[0] < 0:
            raise ValueError(f"radii must be >= 0 and ascending, got {' '.join(map(str, targets))}")
        self.question, self.n, self.targets = question, n, tuple(targets)
        self.needed = {r: float(ndtr(r / question.sigma)) + question.slack for r in targets}
        self.tight = [r for r in targets if is_tight(self.needed[r], n, question.alpha)]
        self.grid = probability_grid(self.needed.values())

    def begin(self, pilot: np.ndarray) -> Course:
        return _Sequential(self, choose(pilot, self.question, self.n), pilot)


class _Sequential(Course):
    def __init__(self, rule: SequentialDraws, hypothesis: Hypothesis, pilot: np.ndarray) -> None:
        self.rule, self.hypothesis, self.n0 = rule, hypothesis, int(pilot.sum())
        self.bounds, self.last = {}, {}  # of each event: the anytime bound, and the alpha of the last look
        hoped, hoped_group = self._hoped(events(pilot, hypothesis, rule.question.groups), self.n0)
        for event, alpha in levels(hypothesis, rule.question.alpha).items():
            hope = hoped_group if event == "group" else hoped
            self.last[event] = LAST_LOOK * alpha if any(reaches(hope, r) for r in rule.tight) else 0.0
            self.bounds[event] = AnytimeBound(rule.grid, alpha - self.last[event])
        self.next_look = min(LOOK, rule.n)

    def look(self, counts: np.ndarray) -> Certificate | None:
        rule, n = self.rule, int(counts.sum())
        found = events(counts, self.hypothesis, rule.question.groups)
        bounds = {event: bound.update(found[event], n) for event, bound in self.bounds.items()}
        if n == rule.n:
            bounds = {e: max(bounds[e], lower_confidence_bound(found[e], n, self.last[e])) for e in bounds}
        proved, hoped = radii(bounds, rule.question), self._hoped(found, n)
        claims = ["top", "group"] if "group" in found else ["top"]
        if n == rule.n or all(
            self._settled(claim, found, n, r, h) for claim, r, h in zip(claims, proved, hoped, strict=False)
        ):
            return _certificate(self.hypothesis, proved, self.n0 + n)
        # In steps of LOOK at first, then of a tenth of what was drawn: looking is cheap, but not free.
        self.next_look = min(rule.n, n + LOOK * max(1, n // (10 * LOOK)))
        return None

    def _hoped(self, found: dict[str, int], n: int) -> tuple[float, float]:
        """The radii (class, group) that counts among `n` draws do not rule out."""
        return radii({event: upper_confidence_bound(k, n, FUTILE) for event, k in found.items()}, self.rule.question)

    def _settled(self, claim: str, found: dict[str, int], n: int, proved: float, hoped: float) -> bool:
        """Whether the next radius to be claimed, if any, is out of reach: implausible, or not to be proved even if all
        draws that are left voted for it."""
        open_targets = [r for r in self.rule.targets if not reaches(proved, r)]
        if not open_targets:
            return True
        target = open_targets[0]
        if not reaches(hoped, target):
            return True
        if claim == "top" and self.hypothesis.runner_up:
            return False
        p0, best = self.rule.needed[target], found[claim] + self.rule.n - n
        anytime = log_e_value(best, n - found[claim], p0) >= self.bounds[claim].threshold
        return not anytime and lower_confidence_bound(best, self.rule.n, self.last[claim]) < p0


def reaches(radius: float, target: float) -> bool:
    """Whether `radius` certifies at `target`; at 0 a certificate must exist at all, that is, not abstain."""
    return radius >= target if target > 0 else radius > 0


def round_down(radius: float) -> float:
    """To six decimals, never up: what is printed is proved."""
    millionths = math.floor(radius * 1e6)
    return (millionths if millionths / 1e6 <= radius else millionths - 1) / 1e6  # the product may have been rounded up
