"""Confidence bounds on the probability of an event, from a count among a number of draws that was fixed beforehand
(Clopper and Pearson 1934). What one may conclude when one looks more than once: `smoothing.boundaries`."""

from __future__ import annotations

from scipy.special import betainc, betaincinv


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
