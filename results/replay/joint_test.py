"""The margin bound of our rule against a joint test of (p_A, p_B) by e-values: how soon a radius is proved.

    python results/replay/joint_test.py > results/replay/joint_test.md

For each rival B the e-process multiplies likelihood ratios of the probabilities estimated so far against their reverse
information projection (RIPr) onto the null hypothesis, `Φ⁻¹(p_A) - Φ⁻¹(p_B) <= 2 r/σ`, which is convex; the radius is
proved once the e-process against each rival has reached 1/alpha. 60 images for each line, alpha = 0.001, seed 0.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from smoothing.boundaries import boundaries, looks
from smoothing.rules import margin_successes

ALPHA, IMAGES, PILOT = 0.001, 60, 100
WORLDS = ((0.9, 0.04, 0.03, 0.03), (0.7, 0.1, 0.1, 0.1), (0.6, 0.3, 0.08, 0.02), (0.99, 0.005, 0.003, 0.002))
EDGE = np.linspace(-6, 0, 1501)  # Φ⁻¹(p_B) along the edge of the null hypothesis


def projected(q: np.ndarray, rho: float) -> np.ndarray:
    """The RIPr of q = (A, B, rest) onto the null hypothesis of the radius rho · σ: the point of its edge with the
    smallest Kullback-Leibler divergence from q."""
    p_b, p_a = ndtr(EDGE), ndtr(EDGE + 2 * rho)
    rest = 1 - p_a - p_b
    fit = q[0] * np.log(p_a) + q[1] * np.log(p_b) + q[2] * np.log(np.maximum(rest, 1e-300))
    best = np.where(rest >= 0, fit, -np.inf).argmax()
    return np.array([p_a[best], p_b[best], max(rest[best], 1e-300)])


def draws_by_e_values(p: np.ndarray, rho: float, n: int, rng: np.random.Generator) -> int | None:
    """After how many draws class 0 is proved at the radius rho · σ; None if not within `n`."""
    seen, before = rng.multinomial(PILOT, p).astype(float), 0
    evidence = dict.fromkeys(range(1, len(p)), 0.0)
    for drawn in looks(n).tolist():
        votes, before = rng.multinomial(drawn - before, p), drawn
        for rival in evidence:
            q = np.array([seen[0], seen[rival], seen.sum() - seen[0] - seen[rival]]) + 0.5
            q /= q.sum()
            if ndtri(q[0]) - ndtri(q[1]) > 2 * rho:
                found = np.array([votes[0], votes[rival], votes.sum() - votes[0] - votes[rival]])
                evidence[rival] += float(found @ np.log(q / projected(q, rho)))
        seen += votes
        if min(evidence.values()) >= -math.log(ALPHA):
            return drawn
    return None


def draws_by_margin(p: np.ndarray, rho: float, n: int, rng: np.random.Generator) -> int | None:
    """The same by the margin bound and its group-sequential boundary."""
    (boundary,) = boundaries((float(ndtr(rho)) * (1 + 1e-12),), n, ALPHA)
    votes = heads = np.zeros(len(p), dtype=int)
    before = 0
    for look, drawn in enumerate(looks(n).tolist()):
        more, before = rng.multinomial(drawn - before, p), drawn
        votes, heads = votes + more, heads + rng.binomial(more, 0.5)
        if margin_successes(votes, heads, 0, range(1, len(p))) >= boundary.claim[look]:
            return drawn
    return None


def main() -> None:
    rng, lines = np.random.default_rng(0), []
    for n in (2000, 10_000):
        for world in WORLDS:
            p = np.array(world)
            true = (ndtri(p[0]) - ndtri(p[1])) / 2
            for part in (0.5, 0.8, 0.9):
                line = [n, " ".join(map(str, world)), f"{part * true:.2f} of {true:.2f}"]
                for proved in (draws_by_e_values, draws_by_margin):
                    found = [proved(p, part * true, n, rng) for _ in range(IMAGES)]
                    share = np.mean([draws is not None for draws in found])
                    line.append(f"{np.mean([draws or n for draws in found]):.0f} ({share:.0%})")
                lines.append(line)
    header = ["N", "probabilities", "r/σ of the largest", "e-values: draws (proved)", "margin bound: draws (proved)"]
    print(tabulate(lines, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
