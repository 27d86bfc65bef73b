"""Certificates against attacks: what was proved, what was broken, and how much of that chance alone allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom


@dataclass(frozen=True)
class Claim:
    """One kind of certificate (of the class, or of the group) of some images and what attacks did to it; arrays `[N]`.

    `correct`: the certified answer is the true one; `certified`: there is a certificate; `radius`: up to where (0
    without); `broken_at`: L2 length of the shortest perturbation found under which the smoothed classifier gives
    another answer, in both of two judgements, infinite where none was; `suspected_at`: the same of the first judgement
    alone, so never longer; `inside`: how many attacked images were judged within the radius.
    """

    name: str
    correct: np.ndarray
    certified: np.ndarray
    radius: np.ndarray
    broken_at: np.ndarray
    suspected_at: np.ndarray
    inside: np.ndarray

    def violated(self) -> np.ndarray:
        """Where an answer was changed within its certified radius, twice judged."""
        return self.certified & (self.broken_at <= self.radius)

    def suspected(self) -> np.ndarray:
        """Where the first judgement alone says so."""
        return self.certified & (self.suspected_at <= self.radius)


def certified_accuracy_at(claim: Claim, radii: Sequence[float]) -> np.ndarray:
    """Share of all images that are right and proved to stay so up to each radius: robust accuracy is at least this."""
    return np.array([np.mean(claim.correct & claim.certified & (claim.radius >= r)) for r in radii])


def accuracy_under_attack(claim: Claim, radii: Sequence[float]) -> np.ndarray:
    """Share of all images that are right and that no perturbation found up to each radius changed: robust accuracy is
    at most this (up to the error of the judge). An image that abstains without any attack is not right."""
    return np.array([np.mean(claim.correct & claim.certified & (claim.broken_at > r)) for r in radii])


def allowed_violations(claim: Claim, alpha: float, judge_alpha: float, level: float = 0.01) -> int:
    """The most violated certificates that chance explains: if all is sound, more are found with probability `level` at
    most.

    A certificate is false with probability `alpha` at most. Where it is true, the judge calls it violated only if it
    errs twice on the same attacked image, with draws that have nothing to do with each other: with probability
    `judge_alpha`² at most for each of the images within its radius. The number of violated certificates is therefore
    below a binomial of the sum. With `judge_alpha` = `alpha` = 0.001 and five images within each radius that sum is
    0.001005, the certificates' own level (of 205, two may be violated); one judgement alone would make it 0.006, and
    five false certificates among 205 would pass for errors of the judge.
    """
    count = int(claim.certified.sum())
    each = min(1.0, alpha + judge_alpha**2 * int(claim.inside.max(initial=0)))
    return int(binom.isf(level, count, each)) if count else 0


def summary(claim: Claim, alpha: float, judge_alpha: float) -> dict:
    """Certificates, how many the first judgement called violated (`suspected`), how many both did, and how many might
    have been by chance, as plain numbers."""
    certified = claim.certified
    violated = int(claim.violated().sum())
    allowed = allowed_violations(claim, alpha, judge_alpha)
    return {
        "claim": claim.name,
        "images": len(certified),
        "certified": int(certified.sum()),
        "judged inside": int(claim.inside.sum()),
        "suspected": int(claim.suspected().sum()),
        "violated": violated,
        "allowed": allowed,
        "sound": violated <= allowed,
        "broken beyond": int((certified & np.isfinite(claim.broken_at)).sum()) - violated,
    }
