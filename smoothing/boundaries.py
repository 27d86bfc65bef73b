"""How many votes prove that p > p0 at which look: exact group-sequential boundaries.

A claim "p > p0" is tested while draws come in. One looks after so many draws (`looks`), and each look has a number of
successes from which the claim is proved. The numbers are such that, if p <= p0, the probability of ever reaching one of
them is alpha at most; it is computed exactly, by following the distribution of the number of successes from look to
look (`claim_counts`). How much of alpha may be used up by when is the *spending* (Lan and DeMets 1983): most of it is
kept for the last look, so that n draws prove next to all that they would prove if one had looked only once, and a
little goes to the early looks, which is enough where the image is a clear case.

Giving up never costs alpha. A claim is given up as soon as the chance that n draws will still prove it, predicted from
the draws so far, falls below `FUTILE` (`futile_counts`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import fftconvolve
from scipy.special import betainc, betaln, gammaln, ndtr
from scipy.stats import binom

FIRST_LOOK = 32  # draws until the first look, and between looks at first
GROWTH = 20  # later looks come after another twentieth of what was drawn
FUTILE = 0.01  # chance of a proof below which one gives up
TOLERANCE = 0.2  # standard deviations of the number of successes that early looks may cost at the last one
ROUNDING = 1e-12  # more than the error of the computed probabilities; taken off what may be spent
# Spendings, the most generous to early looks first: (share, power) lets `share · sqrt(t) + (1 - share) · t**power` of
# alpha be used up when a part t < 1 of n is drawn. An infinite power keeps the rest for the last look.
SPENDINGS = (
    *((share, 4.0) for share in (0.5, 0.3, 0.2, 0.1)),
    *((share, np.inf) for share in (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.0)),
)


@dataclass(frozen=True)
class Boundary:
    """Of one claim, at each look: from how many successes it is proved, and below how many it is given up."""

    claim: np.ndarray  # int [L], above the number of draws where nothing proves it
    futile: np.ndarray  # int [L]
    spending: tuple[float, float]


@functools.cache
def looks(n: int) -> np.ndarray:
    """After how many draws one looks, ascending, the last time after all `n`: int `[L]`."""
    found = [min(FIRST_LOOK, n)]
    while found[-1] < n:
        found.append(min(n, found[-1] + FIRST_LOOK * max(1, found[-1] // (GROWTH * FIRST_LOOK))))
    return np.array(found)


def spent(spending: tuple[float, float], n: int, alpha: float) -> np.ndarray:
    """How much of `alpha` may be used up by each look: `[L]`, ascending, all of it at the last."""
    share, power = spending
    t = looks(n) / n
    return alpha * (share * np.sqrt(t) + (1 - share) * t**power)


def claim_counts(p0: ArrayLike, n: int, allowed: np.ndarray) -> np.ndarray:
    """From how many successes each claim p > `p0` `[P]` is proved at each look: int `[P, L]`, the smallest numbers for
    which a path of Bernoulli(p0) draws has reached one by look k with probability `allowed[k]` at most; one more than
    there are draws where even all of them are too few.

    The probability is largest at p = p0 among all p <= p0, for more successes never undo a proof. Followed is the
    distribution of the number of successes on the paths that have proved nothing yet, in a window of 9 standard
    deviations around its mean, outside of which lies less than 1e-18.
    """
    p = np.atleast_1d(np.asarray(p0, dtype=float))[:, None]
    claims = np.empty((len(p), len(looks(n))), dtype=int)
    alive, start = np.ones((len(p), 1)), np.zeros((len(p), 1), dtype=int)  # alive[i, j]: P(start + j successes so far)
    used, before = np.zeros(len(p)), 0
    for look, drawn in enumerate(looks(n).tolist()):
        low, high = _window(p, drawn - before)
        more = binom.pmf(low + np.arange(np.max(high - low) + 1), drawn - before, p)
        alive, start, before = fftconvolve(alive, more, axes=1).clip(min=0), start + low, drawn
        alive, start = _cut(alive, start, *_window(p, drawn))
        reaching = alive[:, ::-1].cumsum(axis=1)[:, ::-1]  # P(at least start + j successes, nothing proved before)
        fits = reaching <= (allowed[look] - used - ROUNDING)[:, None]
        first = np.where(fits.any(axis=1), fits.argmax(axis=1), alive.shape[1])
        claims[:, look] = np.minimum(start[:, 0] + first, drawn + 1)
        proved = np.arange(alive.shape[1]) >= first[:, None]
        used += np.where(proved, alive, 0).sum(axis=1)
        alive = np.where(proved, 0, alive)
    return claims


def _window(p: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of successes among `n` draws that matter, (lowest, highest), for each p `[P, 1]`."""
    reach = 9 * np.sqrt(n * p * (1 - p)) + 12
    low, high = np.floor(n * p - reach), np.ceil(n * p + reach)
    return np.clip(low, 0, n).astype(int), np.clip(high, 0, n).astype(int)


def _cut(alive: np.ndarray, start: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns of `alive` that stand for `low` … `high` successes."""
    low = np.maximum(low, start)
    columns = low - start + np.arange(max(1, np.max(high - low) + 1))
    inside = columns < alive.shape[1]
    return np.where(inside, np.take_along_axis(alive, np.where(inside, columns, 0), axis=1), 0), low


def fixed_count(p0: float, n: int, alpha: float) -> int:
    """From how many successes among `n` draws p > p0 is proved if one looks only once (Clopper–Pearson); n + 1 if none
    suffices."""
    low, high = 1, n + 1  # too few, enough
    while low < high:
        middle = (low + high) // 2
        enough = betainc(middle, n - middle + 1, min(p0, 1.0)) <= alpha  # P(at least so many successes)
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def futile_counts(claim: np.ndarray, n: int) -> np.ndarray:
    """Below how many successes a claim is given up at each look: int `[L]`.

    The chance that the last look will prove it is that of a beta-binomial number of failures among the draws that are
    left, with the posterior of p under Jeffreys' prior. At the last look all is lost that is not proved.
    """
    found = np.zeros(len(claim), dtype=int)
    for look, drawn in enumerate(looks(n)[:-1].tolist()):
        low, high = 0, drawn + 1  # too few, enough
        while low < high:
            middle = (low + high) // 2
            enough = _chance(middle, drawn, n, int(claim[-1])) >= FUTILE
            low, high = (low, middle) if enough else (middle + 1, high)
        found[look] = low
    found[-1] = claim[-1]
    return found


def _chance(successes: int, drawn: int, n: int, needed: int) -> float:
    """P(at least `needed` successes among `n`), given those among the first `drawn`."""
    left, failures = n - drawn, drawn - successes
    spare = n - needed - failures  # failures that the rest may still bring
    if spare < 0:
        return 0.0
    a, b = failures + 0.5, successes + 0.5
    if spare < 300:  # else a normal approximation is as good, and quick
        j = np.arange(min(spare, left) + 1)
        choices = gammaln(left + 1) - gammaln(j + 1) - gammaln(left - j + 1)
        return float(np.exp(choices + betaln(j + a, left - j + b) - betaln(a, b)).sum())
    mean = left * a / (a + b)
    deviation = np.sqrt(mean * b / (a + b) * (a + b + left) / (a + b + 1))
    return float(ndtr((spare + 0.5 - mean) / deviation))


@functools.cache
def boundaries(p0: tuple[float, ...], n: int, alpha: float) -> tuple[Boundary, ...]:
    """The boundary of each claim p > p0. Its spending is the one most generous to early looks that demands at the last
    look at most `TOLERANCE` standard deviations more than a single look would: where a few failures decide, none."""
    p = np.array(p0)
    fixed = np.array([fixed_count(each, n, alpha) for each in p0])
    most = fixed + np.floor(TOLERANCE * np.sqrt(n * np.clip(p * (1 - p), 0, None)))
    found: dict[int, Boundary] = {}
    for spending in SPENDINGS:
        missing = [i for i in range(len(p0)) if i not in found]
        if not missing:
            break
        claims = claim_counts(np.minimum(p[missing], 1.0), n, spent(spending, n, alpha))
        for i, claim in zip(missing, claims, strict=True):
            if claim[-1] <= most[i] or spending == SPENDINGS[-1]:
                found[i] = Boundary(claim, futile_counts(claim, n), spending)
    return tuple(found[i] for i in range(len(p0)))
