"""Lower confidence bounds on the probability of an event, from counts of independent draws.

`lower_confidence_bound` (Clopper–Pearson) holds for a number of draws that was fixed beforehand. `AnytimeBound` holds
at every number of draws at once, so that one may look after each and stop when one has seen enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy.special import betainc, betaincc, betaincinv, betaln, ndtr, xlog1py, xlogy


def lower_confidence_bound(successes: int, trials: int, alpha: float) -> float:
    """One-sided Clopper–Pearson bound: P(bound > p) <= alpha for successes ~ Bin(trials, p).

    The quantile `Beta.ppf(alpha; k, n - k + 1)`, 0 for k = 0, moved down if need be until the binomial tail itself,
    `P(X >= k) = I_p(k, n - k + 1)`, is at most alpha, so that rounding inside SciPy cannot make it too large.
    """
    if successes == 0:
        return 0.0
    bound = float(betaincinv(successes, trials - successes + 1, alpha))
    while betainc(successes, trials - successes + 1, bound) > alpha:
        bound *= 1 - 1e-12
    return bound


def upper_confidence_bound(successes: int, trials: int, alpha: float) -> float:
    """The same from above: P(bound < p) <= alpha."""
    return 1 - lower_confidence_bound(trials - successes, trials, alpha)


def log_e_value(successes: int, failures: int, p0: np.ndarray | float) -> np.ndarray:
    """log E of the truncated-Beta e-process against H0: p <= p0, elementwise in `p0`.

    With `LR_q = (q/p0)^S ((1-q)/(1-p0))^F` the likelihood ratio of q against p0 after S successes and F failures,

        E = ∫_{p0}^1 LR_q dπ(q),   π = Beta(1/2, 1/2) restricted to (p0, 1).

    Every LR_q with q > p0 is a supermartingale whatever the true p <= p0, hence so is E, and by Ville's inequality
    P(E ever reaches 1/alpha) <= alpha: one may look after each draw. The truncation is essential: over all of (0, 1)
    the mixture grows when p is *below* p0. A tail mass that nearly underflows makes log E -inf, never large.
    """
    p0 = np.asarray(p0, dtype=float)
    a, b = successes + 0.5, failures + 0.5
    tail = betaincc(a, b, p0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_tail = np.log(np.where(tail > 1e-300, tail, 0.0))
        evidence = betaln(a, b) - betaln(0.5, 0.5) + log_tail - np.log(betaincc(0.5, 0.5, p0))
        evidence = evidence - xlogy(successes, p0) - xlog1py(failures, -p0)
    return np.where(p0 < 1, evidence, -np.inf)  # nothing speaks for p > 1


class AnytimeBound:
    """A lower bound on p that holds at all times at once: P(it ever exceeds p) <= alpha.

    The bound is one of `grid`'s values (or 0): the largest p0 such that the e-process against every grid value up to
    it has reached 1/alpha at some look. If the bound ever exceeds p, the e-process against the smallest grid value
    >= p has reached 1/alpha although H0 is true for it, which happens with probability alpha at most; that claims are
    made in ascending order is why many values cost no more than one.

    Looking seldom costs power, never soundness. The bound never falls. `update` may also be given a count that is
    *never larger* than the true number of successes, since E grows with the successes at any number of draws.
    """

    def __init__(self, grid: np.ndarray, alpha: float) -> None:
        self.grid, self.threshold, self.claimed = grid, -math.log(alpha), 0

    def update(self, successes: int, trials: int) -> float:
        """Look after `trials` draws in all; the bound."""
        while self.claimed < len(self.grid):
            block = self.grid[self.claimed : self.claimed + 32]
            reached = log_e_value(successes, trials - successes, block) >= self.threshold
            claimed = len(block) if reached.all() else int(reached.argmin())
            self.claimed += claimed
            if claimed < len(block):
                break
        return self.value

    @property
    def value(self) -> float:
        return float(self.grid[self.claimed - 1]) if self.claimed else 0.0


def probability_grid(targets: Iterable[float], step: float = 0.01, span: float = 4.5) -> np.ndarray:
    """Probabilities `Φ(z)` for z from -span to span in `step`s, and just above each of `targets`, ascending."""
    z = np.arange(-span, span + step / 2, step)
    wanted = [min(p * (1 + 1e-12), 1 - 1e-16) for p in targets]
    return np.unique(np.concatenate([ndtr(z), wanted]))
