"""What N draws can prove at all, said before any is taken."""

from __future__ import annotations

from collections.abc import Sequence

from smoothing.boundaries import ROUNDING
from smoothing.noise import slack
from smoothing.rules import Question

FEASIBLE = 10**9  # draws per image


def check_draws(settings: dict, sigma: float, asked: Sequence[float]) -> str | None:
    """A warning if the largest of the radii `asked` cannot be proved by N draws even if all of them agree, or None.

    Raises ValueError if N draws prove nothing at all, at no radius.
    """
    alpha, n = settings["alpha"], settings["N"]
    pixels = settings["channels"] * settings["image_size"] ** 2
    # Of alpha, looking more than once keeps the error of its own computation.
    spent = alpha - ROUNDING if settings["method"] == "sequential" else alpha
    least = None
    if spent > 0:
        question = Question(sigma, spent, slack=slack(settings["noise"], sigma, pixels))
        least = question.draws_needed(0)
    if least is None:
        raise ValueError(f"--alpha {alpha:g}: no number of draws proves anything at this level; take a larger one")
    if n < least:
        raise ValueError(
            f"--N {n}: proves nothing at --alpha {alpha:g}, even if all draws agree; it takes at least --N {least}"
        )
    most, largest = question.largest_radius(n), max(asked, default=0.0)
    needed = question.draws_needed(largest)
    if needed is not None and needed <= n:
        return None
    cure = f"needs --N {needed}" if needed and needed <= FEASIBLE else "is out of reach at this sigma"
    return (
        f"sigma {sigma:g}: --N {n} proves no radius above {most:.3g}, even if all draws agree; "
        f"--radii {largest:g} {cure}"
    )
