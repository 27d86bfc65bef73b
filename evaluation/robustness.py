"""Certificates against attacks: which are proved, which were broken, and how many may be broken by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from evaluation.certificates import ABSTAIN

KINDS = ("class", "group")  # of claims


@dataclass(frozen=True)
class Claim:
    """One kind of certificate (class or group) of several images, and the result of attacking it; arrays `[N]`.

    `correct`: the certified answer is the true one; `certified`: there is a certificate; `radius`: its radius, else 0;
    `broken_at`: L2 length of the shortest perturbation under which both judgements see another answer, infinite if none
    was found; `suspected_at`: the same for the first judgement alone, so never longer; `inside`: number of attacked
    images judged within the radius.
    """

    name: str
    correct: np.ndarray
    certified: np.ndarray
    radius: np.ndarray
    broken_at: np.ndarray
    suspected_at: np.ndarray
    inside: np.ndarray

    def violated(self) -> np.ndarray:
        """Where both judgements saw the answer change within its certified radius."""
        return self.certified & (self.broken_at <= self.radius)

    def suspected(self) -> np.ndarray:
        """Where the first judgement saw the answer change within its certified radius."""
        return self.certified & (self.suspected_at <= self.radius)


def certified_accuracy_at(claim: Claim, radii: Sequence[float]) -> np.ndarray:
    """Share of all images that are correct and proved to stay correct up to each radius: a lower bound on robust
    accuracy."""
    return np.array([np.mean(claim.correct & claim.certified & (claim.radius >= r)) for r in radii])


def accuracy_under_attack(claim: Claim, radii: Sequence[float]) -> np.ndarray:
    """Share of all images that are correct and that no perturbation found up to each radius has changed: an upper bound
    on robust accuracy (up to the error of the judge). An image without certificate is not correct."""
    return np.array([np.mean(claim.correct & claim.certified & (claim.broken_at > r)) for r in radii])


def allowed_violations(claim: Claim, alpha: float, judge_alpha: float, level: float = 0.01) -> int:
    """The largest number of violated certificates that chance explains: if all is sound, more are found with
    probability `level` at most.

    A certificate is false with probability `alpha` at most. If it is true, the judge calls it violated only if it errs
    twice on the same attacked image, with independent draws: with probability `judge_alpha`² at most for each image
    within its radius. So the number of violated certificates is stochastically below a binomial with the sum of these
    probabilities. With `judge_alpha` = `alpha` = 0.001 and six images within each radius, the sum is 0.001006, almost
    the level of the certificates alone (of 205, two may be violated). A single judgement would make it 0.007, and five
    false certificates among 205 would pass for errors of the judge.
    """
    count = int(claim.certified.sum())
    each = min(1.0, alpha + judge_alpha**2 * int(claim.inside.max(initial=0)))
    return int(binom.isf(level, count, each)) if count else 0


def summary(claim: Claim, alpha: float, judge_alpha: float) -> dict:
    """The numbers of certificates, of those that the first judgement calls violated (`suspected`), of those that both
    judgements call violated, and of those that chance allows."""
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


# ---- from the table of the attacks -----------------------------------------------------------------------------------


def claims_of(row: np.void, groups: Sequence[str]) -> list[tuple[str, int, float]]:
    """The claims of a line of a certification TSV, without abstentions: ("class" or "group", its index, radius)."""
    found = [("class", int(row["predict"]), float(row["radius"]))]
    if groups and row["group_predict"] in groups:
        found.append(("group", groups.index(row["group_predict"]), float(row["group_radius"])))
    return [(claim, goal, radius) for claim, goal, radius in found if goal != ABSTAIN and radius > 0]


def differ(answers: Sequence[int], certified: Sequence[int]) -> bool:
    """Whether an answer (class or group) differs from the certified one. ABSTAIN, on either side, never differs."""
    return any(ABSTAIN not in (a, own) and a != own for a, own in zip(answers, certified, strict=True))


def outcome(rows: np.ndarray, lines: Sequence[Mapping[str, str]], groups: Sequence[str]) -> list[Claim]:
    """The claims of `rows`, each with the length of the shortest perturbation that broke it. A perturbation counts for
    both claims of its image, no matter which of them it attacked. `lines` are those of attacks/check_certificates.py;
    tables of older versions have no second judgement, and the first counts as both."""
    found = []
    for name in KINDS if groups else KINDS[:1]:
        prefix = "group_" if name == "group" else ""
        certified = np.array([any(claim == name for claim, *_ in claims_of(row, groups)) for row in rows])
        right = rows["group_predict"] == rows["group_label"] if prefix else rows["correct"]
        broken, suspected = np.full(len(rows), np.inf), np.full(len(rows), np.inf)
        inside = np.zeros(len(rows), dtype=int)
        place = {int(row["idx"]): i for i, row in enumerate(rows)}
        for line in lines:
            i = place.get(int(line["idx"]))
            if i is None or not certified[i]:
                continue
            own = groups.index(rows[i]["group_predict"]) if prefix else int(rows[i]["predict"])
            length = float(line["l2"])
            inside[i] += length <= rows[i][f"{prefix}radius"]
            if differ([int(line[f"{prefix}answer"])], [own]):
                suspected[i] = min(suspected[i], length)
                again = line.get(f"{prefix}answer_again", line[f"{prefix}answer"])
                if differ([int(again)], [own]):
                    broken[i] = min(broken[i], length)
        found.append(Claim(name, np.asarray(right), certified, rows[f"{prefix}radius"], broken, suspected, inside))
    return found
