"""The stopping rule that group-sequential boundaries replaced (rule version 1), kept to be compared with.

Each event has an anytime bound: the largest p0 of a grid such that a truncated-Beta e-process against every grid value
up to it has reached 1/alpha. The class rests on p_A at alpha or, where the pilot favours it, on p_A and p_B at alpha/2
each. Where a radius is tight for n draws, three quarters of alpha are kept for one Clopper–Pearson bound on all n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import betaincc, betaln, ndtr, ndtri, xlog1py, xlogy

from smoothing.bounds import lower_confidence_bound, upper_confidence_bound
from smoothing.rules import ABSTAIN, Certificate, Question, choose, reaches, top_radius

FUTILE, LOOK, LAST_LOOK = 1e-3, 64, 0.75


def log_e_value(successes: int, failures: int, p0: np.ndarray | float) -> np.ndarray:
    """log of `E = ∫_{p0}^1 (q/p0)^S ((1-q)/(1-p0))^F dπ(q)`, π = Beta(1/2, 1/2) restricted to (p0, 1): E is a
    supermartingale wherever p <= p0, so that P(E ever reaches 1/alpha) <= alpha (Ville)."""
    p0 = np.asarray(p0, dtype=float)
    a, b = successes + 0.5, failures + 0.5
    tail = betaincc(a, b, p0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_tail = np.log(np.where(tail > 1e-300, tail, 0.0))
        evidence = betaln(a, b) - betaln(0.5, 0.5) + log_tail - np.log(betaincc(0.5, 0.5, p0))
        evidence = evidence - xlogy(successes, p0) - xlog1py(failures, -p0)
    return np.where(p0 < 1, evidence, -np.inf)


class EProcessDraws:
    """As `smoothing.rules.SequentialDraws` was in version 1."""

    def __init__(self, question: Question, n: int, targets: Sequence[float]) -> None:
        self.question, self.n, self.targets = question, n, tuple(targets)
        self.needed = {r: float(ndtr(r / question.sigma)) + question.slack for r in targets}
        self.tight = [r for r in targets if 1 <= n * math.log(self.needed[r]) / math.log(question.alpha) < 5]
        wanted = [min(p * (1 + 1e-12), 1 - 1e-16) for p in self.needed.values()]
        self.grid = np.unique(np.concatenate([ndtr(np.arange(-4.5, 4.505, 0.01)), wanted]))

    def begin(self, n0: int, coins: object = None) -> _EProcess:
        return _EProcess(self, n0)


class _EProcess:
    def __init__(self, rule: EProcessDraws, n0: int) -> None:
        self.rule, self.n0, self.wants = rule, n0, n0
        self.counts: np.ndarray | None = None

    def look(self, votes: np.ndarray) -> Certificate | None:
        if self.counts is None:
            self._begin(votes)
            return None
        self.counts = self.counts + votes
        n, rule = int(self.counts.sum()), self.rule
        found = self._events(self.counts)
        for event, k in found.items():
            self._claim(event, k, n - k)
        bounds = {event: float(rule.grid[i - 1]) if i else 0.0 for event, i in self.claimed.items()}
        if n == rule.n:
            bounds = {e: max(bounds[e], lower_confidence_bound(found[e], n, self.last[e])) for e in bounds}
        proved, hoped = self._radii(bounds), self._hoped(found, n)
        if n == rule.n or all(self._settled(claim, found, n, proved[claim], hoped[claim]) for claim in proved):
            radius, group_radius = proved["top"], proved.get("group", 0.0)
            return Certificate(
                self.top if radius > 0 else ABSTAIN,
                radius,
                self.group if self.group is not None and group_radius > 0 else ABSTAIN,
                group_radius,
                self.n0 + n,
                "runner_up" if self.runner_up else "top",
            )
        self.wants = min(rule.n - n, LOOK * max(1, n // (10 * LOOK)))
        return None

    def _begin(self, pilot: np.ndarray) -> None:
        rule, alpha = self.rule, self.rule.question.alpha
        self.top, self.group = int(pilot.argmax()), choose(pilot, rule.question).group
        self.runner_up = False
        if len(pilot) > 2:
            doubtful = pilot.astype(float)
            doubtful[int(np.argsort(pilot, kind="stable")[-2])] += 0.5
            expected = np.rint(doubtful / doubtful.sum() * rule.n).astype(int)
            expected[self.top] += rule.n - expected.sum()
            plain = self._fixed(expected, alpha)
            self.runner_up = True
            self.runner_up = self._fixed(expected, alpha) > plain
        events = self._events(pilot)
        levels = {event: alpha / 2 if self.runner_up and event != "group" else alpha for event in events}
        hoped = self._hoped(events, self.n0)
        self.last, self.thresholds, self.claimed = {}, {}, dict.fromkeys(events, 0)
        for event, level in levels.items():
            hope = hoped["group" if event == "group" else "top"]
            self.last[event] = LAST_LOOK * level if any(reaches(hope, r) for r in rule.tight) else 0.0
            self.thresholds[event] = -math.log(level - self.last[event])
        self.counts, self.wants = np.zeros_like(pilot), min(LOOK, rule.n)

    def _events(self, counts: np.ndarray) -> dict[str, int]:
        found = {"top": int(counts[self.top])}
        if self.runner_up:
            found["not_b"] = int(counts.sum() - np.delete(counts, self.top).max())
        if self.group is not None:
            found["group"] = int(counts[list(self.rule.question.groups[self.group])].sum())
        return found

    def _radii(self, bounds: dict[str, float]) -> dict[str, float]:
        sigma, p = self.rule.question.sigma, {k: max(0.0, v - self.rule.question.slack) for k, v in bounds.items()}
        if "not_b" not in p:
            radius = top_radius(sigma, p["top"])
        else:
            radius = (
                max(0.0, sigma / 2 * float(ndtri(p["top"]) + ndtri(max(p["not_b"], p["top"])))) if p["top"] else 0.0
            )
        return {"top": radius} | ({"group": top_radius(sigma, p["group"])} if "group" in p else {})

    def _fixed(self, counts: np.ndarray, alpha: float) -> float:
        n, level = int(counts.sum()), alpha / 2 if self.runner_up else alpha
        events = {event: k for event, k in self._events(counts).items() if event != "group"}
        return self._radii({event: lower_confidence_bound(k, n, level) for event, k in events.items()})["top"]

    def _hoped(self, found: dict[str, int], n: int) -> dict[str, float]:
        return self._radii({event: upper_confidence_bound(k, n, FUTILE) for event, k in found.items()})

    def _claim(self, event: str, successes: int, failures: int) -> None:
        grid = self.rule.grid
        while self.claimed[event] < len(grid):
            block = grid[self.claimed[event] : self.claimed[event] + 32]
            reached = log_e_value(successes, failures, block) >= self.thresholds[event]
            claimed = len(block) if reached.all() else int(reached.argmin())
            self.claimed[event] += claimed
            if claimed < len(block):
                return

    def _settled(self, claim: str, found: dict[str, int], n: int, proved: float, hoped: float) -> bool:
        open_targets = [r for r in self.rule.targets if not reaches(proved, r)]
        if not open_targets or not reaches(hoped, open_targets[0]):
            return True
        if claim == "top" and self.runner_up:
            return False
        p0, best = self.rule.needed[open_targets[0]], found[claim] + self.rule.n - n
        anytime = log_e_value(best, n - found[claim], p0) >= self.thresholds[claim]
        last = lower_confidence_bound(best, self.rule.n, self.last[claim]) if self.last[claim] else 0.0
        return not anytime and last < p0
