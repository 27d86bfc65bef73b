"""What a certificate claims about an image, and how many draws it takes.

A *pilot* of n0 draws chooses the hypothesis: the class A and the group G. The draws after it, and they alone, prove
radii. Every claim rests on one count of successes: each draw succeeds with some probability p, and p > Φ(r/σ) proves
the radius r. A rule decides how many draws there are:

- `FixedDraws`: n, as published (Cohen et al. 2019);
- `PlannedDraws`: as many as the pilot says are needed to lose little radius against n draws (two-stage sampling);
- `SequentialDraws`: until every radius of interest is proved or out of reach, never more than n.

Counts are int arrays `[K]` of votes per class.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri

from smoothing.boundaries import boundaries, claim_counts, looks, spent
from smoothing.bounds import lower_confidence_bound, upper_confidence_bound

RULE_VERSION = 2  # of what a TSV's draws and radii depend on; 1 had an e-process and the runner-up bound
ABSTAIN = -1
GROUP_RULES = ("vote", "class")
SURE = 20  # a pilot of so many draws that all agree is long enough for `SequentialDraws`
FINE = 0.02  # sigma: steps in which radii between and beyond those of interest are reported
ABOVE = 1 + 1e-12  # a threshold is moved up by more than its own rounding error


@dataclass(frozen=True)
class Certificate:
    """With probability at least 1 - alpha over the draws, the smoothed classifier answers `prediction` everywhere
    within the L2 `radius` of the image; likewise its answer stays in `group` within `group_radius` (`Question` says
    which answer). The two hold together with probability at least 1 - 2 alpha. ABSTAIN and radius 0 where nothing is
    proved. `bound` is `top` (p_A alone, as published) or `margin`; `votes` are those of the draws after the pilot."""

    prediction: int
    radius: float
    group: int
    group_radius: float
    draws: int  # pilot included
    bound: str
    votes: tuple[int, ...] = ()
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Question:
    """What is to be certified for every image: sigma, alpha, the `groups` of classes (a partition of them, or none),
    and the `slack` that is subtracted from every bound on a probability (`smoothing.noise.slack`).

    `group_rule` says how the group is decided. `vote`: by the sum of the votes of its classes; the class is certified
    only if it belongs to the group that won, so its radius is never above that of the group. `class`: by g(x), the
    class with most votes; within the group radius no class outside the group gets as many votes.
    """

    sigma: float
    alpha: float
    groups: tuple[tuple[int, ...], ...] = ()
    group_rule: str = "vote"
    slack: float = 0.0

    def threshold(self, radius: float) -> float:
        """The success probability above which `radius` is proved."""
        return float(ndtr(radius / self.sigma)) * ABOVE + self.slack

    def draws_needed(self, radius: float) -> int | None:
        """How many draws after the pilot prove `radius` if all of them succeed: the least n with p^n <= alpha at the
        threshold p. None if no number of draws does: p is too close to 1."""
        short = float(ndtr(-radius / self.sigma)) - (ABOVE - 1) - self.slack  # 1 - p, without its rounding
        return math.ceil(math.log(self.alpha) / math.log1p(-short)) if short > 0 else None

    def largest_radius(self, n: int) -> float:
        """The radius that `n` draws after the pilot prove if all of them succeed; 0 if they prove nothing."""
        return top_radius(self.sigma, self.alpha ** (1 / n) - self.slack)


@dataclass(frozen=True)
class Hypothesis:
    """What the pilot chose: class A, or None if it lies outside the group that won the vote; and the index of group G,
    or None if there are no groups."""

    top: int | None
    group: int | None


class Rule(Protocol):
    """How many draws an image gets. Like the noise, `coins` are random bits that nobody knows beforehand."""

    def begin(self, n0: int, coins: np.random.BitGenerator) -> Course: ...


# ---- from votes to successes, from probabilities to radii ------------------------------------------------------------


def top_radius(sigma: float, p: float) -> float:
    """`σ Φ⁻¹(p)`, 0 up to p = 1/2. For p = p_A the published radius (Cohen et al. 2019, with p_B <= 1 - p_A)."""
    return sigma * float(ndtri(p)) if p > 0.5 else 0.0


def margin_successes(counts: np.ndarray, heads: np.ndarray, top: int, rivals: Sequence[int]) -> int:
    """Successes for the margin bound of class A = `top` against all `rivals`.

    Theorem 1 of Cohen et al. 2019 proves the radius `σ m` with `m = (a + b)/2`, `a = Φ⁻¹(p_A)`, `b = Φ⁻¹(1 - p_B)`. For
    m >= 0 and `t = b - m = m - a`, `Φ(m) - Φ(m - t) >= Φ(m + t) - Φ(m)`, since φ(m - u) >= φ(m + u) for u >= 0; hence
    `Φ(m) >= (Φ(a) + Φ(b))/2 = p'`, and the radius is at least `σ Φ⁻¹(p')`, with

        p' = (1 + p_A - p_B) / 2 = p_A + (1 - p_A - p_B) / 2:

    the success probability of a draw that succeeds if it votes for A and, by a fair coin, if it votes for neither A nor
    B. So one binomial bound at full alpha does what p_A and p_B need two bounds at alpha/2 for; p' is never below p_A.
    Each rival has a test of its own and a claim needs them all. It is false only if that of the strongest rival is, a
    fixed though unknown class: with probability alpha at most. `heads` are the coins of the votes.
    """
    others = heads.sum() - heads[top]
    return int(counts[top] + others - heads[list(rivals)].max())


def successes(
    counts: np.ndarray, heads: np.ndarray, hypothesis: Hypothesis, question: Question, margin: bool = True
) -> dict[str, int]:
    """The successes for each claim that the hypothesis makes, `class` and `group`. Without `margin` those of the class
    are its votes alone, as published."""
    top, group = hypothesis.top, hypothesis.group
    found: dict[str, int] = {}
    classes = range(len(counts))
    if top is not None:
        rivals = [c for c in classes if c != top]
        found["class"] = margin_successes(counts, heads, top, rivals) if margin else int(counts[top])
    if group is not None:
        inside = list(question.groups[group])
        if question.group_rule == "vote":
            found["group"] = int(counts[inside].sum())
        else:
            assert top is not None  # by this rule the group is the one that A belongs to
            found["group"] = margin_successes(counts, heads, top, [c for c in classes if c not in inside])
    return found


def choose(pilot: np.ndarray, question: Question) -> Hypothesis:
    """The hypothesis that the pilot's votes favour."""
    top, groups = int(pilot.argmax()), question.groups
    if not groups:
        return Hypothesis(top, None)
    own = next(i for i, members in enumerate(groups) if top in members)
    if question.group_rule == "class":
        return Hypothesis(top, own)
    group = int(np.argmax([pilot[list(members)].sum() for members in groups]))
    return Hypothesis(top if group == own else None, group)


def toss(votes: np.ndarray, coins: np.random.BitGenerator) -> np.ndarray:
    """How many of each class's votes get heads, int `[K]`: a fair coin for every vote."""
    total = int(votes.sum())
    bits = np.unpackbits(coins.random_raw(-(-total // 64)).view(np.uint8))[:total]
    return np.bincount(np.repeat(np.arange(len(votes)), votes), bits, len(votes)).astype(int)


# ---- rules -----------------------------------------------------------------------------------------------------------


class Course:
    """The certification of one image. `wants` is the number of draws whose votes `look` takes next; `look` returns the
    certificate, or None if it needs more draws."""

    bound = "margin"

    def __init__(self, question: Question, n0: int, coins: np.random.BitGenerator) -> None:
        self.question, self.n0, self.coins = question, n0, coins
        self.pilot: np.ndarray = np.zeros(1, dtype=int)
        self.counts = self.heads = self.pilot
        self.hypothesis: Hypothesis | None = None
        self.wants = n0

    def look(self, votes: np.ndarray) -> Certificate | None:
        if self.hypothesis is not None:
            self.counts, self.heads = self.counts + votes, self.heads + toss(votes, self.coins)
            return self.judge()
        self.pilot = self.pilot + votes
        self.wants = self.n0 - int(self.pilot.sum())
        if self.wants == 0 or self.is_settled(self.pilot):
            self.hypothesis = choose(self.pilot, self.question)
            self.counts = self.heads = np.zeros(len(votes), dtype=int)
            self.wants = self.plan()
        return None

    def is_settled(self, pilot: np.ndarray) -> bool:
        """Whether an incomplete pilot is enough."""
        return False

    def plan(self) -> int:
        """Draws until the first look after the pilot."""
        raise NotImplementedError

    def judge(self) -> Certificate | None:
        """The certificate that follows from `counts` and `heads`, or None if more draws are needed."""
        raise NotImplementedError

    @property
    def chosen(self) -> Hypothesis:
        """The hypothesis; there is one as soon as the pilot is over."""
        assert self.hypothesis is not None
        return self.hypothesis

    def certificate(self, radii: dict[str, float]) -> Certificate:
        """The certificate from the radius of each claim. By the rule `vote` the class is certified only where its group
        wins, so its radius is the smaller of the two. That costs no alpha: the smaller of two radii is too large only
        if the claim with the smaller true radius is false."""
        top, group = self.chosen.top, self.chosen.group
        radius, group_radius = radii.get("class", 0.0), radii.get("group", 0.0)
        if "group" in radii and self.question.group_rule == "vote":
            radius = min(radius, group_radius)
        return Certificate(
            prediction=top if top is not None and radius > 0 else ABSTAIN,
            radius=radius,
            group=group if group is not None and group_radius > 0 else ABSTAIN,
            group_radius=group_radius,
            draws=int(self.pilot.sum() + self.counts.sum()),
            bound=self.bound,
            votes=tuple(self.counts.tolist()),
        )


@dataclass(frozen=True)
class FixedDraws:
    """n draws for every image, as published."""

    question: Question
    n: int

    def begin(self, n0: int, coins: np.random.BitGenerator) -> Course:
        return _Fixed(self.question, n0, coins, self.n)


@dataclass(frozen=True)
class PlannedDraws:
    """As few draws as keep the radius within `tolerance · sigma` of the one that `n` draws would prove, at both ends of
    the pilot's 90% interval for each probability. The pilot is not used again, so that the plan costs no alpha
    (after Chen et al. 2022, "Input-Specific Robustness Certification", whose code does reuse it)."""

    question: Question
    n: int
    tolerance: float

    def begin(self, n0: int, coins: np.random.BitGenerator) -> Course:
        return _Planned(self.question, n0, coins, self.n, self.tolerance)


class _OneLook(Course):
    """One look, after a number of draws that does not depend on them: Clopper–Pearson."""

    def judge(self) -> Certificate:
        found = successes(self.counts, self.heads, self.chosen, self.question, self.bound == "margin")
        n, alpha = int(self.counts.sum()), self.question.alpha
        return self.certificate({claim: self.radius(lower_confidence_bound(k, n, alpha)) for claim, k in found.items()})

    def radius(self, bound: float) -> float:
        return top_radius(self.question.sigma, bound - self.question.slack)


class _Fixed(_OneLook):
    bound = "top"

    def __init__(self, question: Question, n0: int, coins: np.random.BitGenerator, n: int) -> None:
        super().__init__(question, n0, coins)
        self.n = n

    def plan(self) -> int:
        return self.n


class _Planned(_OneLook):
    def __init__(self, question: Question, n0: int, coins: np.random.BitGenerator, n: int, tolerance: float) -> None:
        super().__init__(question, n0, coins)
        self.n, self.tolerance = n, tolerance

    def plan(self) -> int:
        found = successes(self.pilot, self.pilot // 2, self.chosen, self.question).values()
        ends = [end(k, self.n0, 0.05) for k in found for end in (lower_confidence_bound, upper_confidence_bound)]
        sizes = np.unique(np.geomspace(min(64, self.n), self.n, 50).astype(int)).tolist()
        lost = self.tolerance * self.question.sigma
        return next(
            size for size in sizes if all(self._proved(p, self.n) - self._proved(p, size) <= lost for p in ends)
        )

    def _proved(self, p: float, n: int) -> float:
        """The radius that `n` draws prove if a part p of them succeeds."""
        return self.radius(lower_confidence_bound(int(p * n), n, self.question.alpha))


class SequentialDraws:
    """Draw until each radius of `targets` (ascending, on the pixel scale) is proved or given up, for the class and for
    the group, or until there are `n` draws.

    Each target has a boundary of its own (`smoothing.boundaries`), which errs with probability alpha at most. A target
    is claimed only after all smaller ones: if any claim is false, that of the smallest false target is, so that many
    targets cost no more than one. When the rule stops, radii between the largest target claimed and the next one are
    tried too, in steps of `FINE` sigma, against boundaries that are nowhere above the next target's: a claim of that
    target then implies theirs, and the same argument covers them.
    """

    def __init__(self, question: Question, n: int, targets: Sequence[float]) -> None:
        if list(targets) != sorted(set(targets)) or not targets or targets[0] < 0:
            raise ValueError(f"radii must be >= 0 and ascending, got {' '.join(map(str, targets))}")
        self.question, self.n, self.targets, self.looks = question, n, tuple(targets), looks(n)
        self.boundaries = boundaries(tuple(map(question.threshold, targets)), n, question.alpha)
        self.between = functools.cache(self._between)

    def begin(self, n0: int, coins: np.random.BitGenerator) -> Course:
        return _Sequential(self, n0, coins)

    def _between(self, claimed: int) -> tuple[np.ndarray, np.ndarray]:
        """Radii above the `claimed`-th target and below the next one `[R]`, ascending, and from how many successes each
        is proved `[R, L]`."""
        sigma, alpha = self.question.sigma, self.question.alpha
        low = self.targets[claimed - 1] if claimed else -1.0
        within = claimed < len(self.targets)
        high = self.targets[claimed] if within else top_radius(sigma, alpha ** (1 / self.n))
        radii = np.arange(math.floor(high / sigma / FINE) + 2) * FINE * sigma
        radii = radii[(radii > low) & (radii < high)]
        if not len(radii):
            return radii, np.zeros((0, len(self.looks)), dtype=int)
        upper = self.boundaries[min(claimed, len(self.targets) - 1)]
        allowed = spent(upper.spending, self.n, alpha)
        claims = claim_counts([min(1.0, self.question.threshold(r)) for r in radii], self.n, allowed)
        if within:
            claims[(claims > upper.claim).any(axis=1)] = upper.claim
        return radii, claims


class _Sequential(Course):
    def __init__(self, rule: SequentialDraws, n0: int, coins: np.random.BitGenerator) -> None:
        super().__init__(rule.question, n0, coins)
        self.rule, self.looked, self.claimed = rule, 0, {"class": 0, "group": 0}
        self.wants = min(SURE, n0)

    def is_settled(self, pilot: np.ndarray) -> bool:
        return int(pilot.max()) == int(pilot.sum())

    def plan(self) -> int:
        return int(self.rule.looks[0])

    def judge(self) -> Certificate | None:
        look, self.looked = self.looked, self.looked + 1
        found = successes(self.counts, self.heads, self.chosen, self.question)
        boundaries, settled = self.rule.boundaries, True
        for claim, count in found.items():
            while self.claimed[claim] < len(boundaries) and count >= boundaries[self.claimed[claim]].claim[look]:
                self.claimed[claim] += 1
            if self.claimed[claim] < len(boundaries):
                settled &= bool(count < boundaries[self.claimed[claim]].futile[look])
        if settled or self.looked == len(self.rule.looks):
            return self.certificate({claim: self._radius(claim, count, look) for claim, count in found.items()})
        self.wants = int(self.rule.looks[look + 1] - self.rule.looks[look])
        return None

    def _radius(self, claim: str, count: int, look: int) -> float:
        """The largest radius that is proved."""
        claimed, least = self.claimed[claim], top_radius(self.question.sigma, 0.5 * ABOVE)  # at 0: not to abstain
        radii, claims = self.rule.between(claimed)
        proved = int(np.append(count >= claims[:, look], False).argmin())
        if proved:
            return max(least, float(radii[proved - 1]))
        return max(least, self.rule.targets[claimed - 1]) if claimed else 0.0


def reaches(radius: float, target: float) -> bool:
    """Whether `radius` certifies at `target`. At 0 there must be a certificate: an abstention does not count."""
    return radius >= target if target > 0 else radius > 0


def round_down(radius: float) -> float:
    """Round down to six decimals, so that a printed radius is proved."""
    millionths = math.floor(radius * 1e6)
    return (millionths if millionths / 1e6 <= radius else millionths - 1) / 1e6  # the product may have been rounded up
