"""Disease or health: what the votes of groups and the class answer say where they differ, and what is certified."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from core import Smooth
from evaluate import answers

SIGMA, GROUPS = 0.25, ((0, 1, 2), (3,))
# An image of one pixel in [0, 1], its classes in turn from dark to bright: class 0, two more diseases, health. At 0.5
# health is 0.1925 away, and class 0 reaches 0.0475 up.
BORDERS = 0.5 + torch.tensor([0.0475, 0.12, 0.1925])
HALF = torch.full((1, 1, 1), 0.5)


def toy(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.bucketize(x.flatten(), BORDERS), 4).float()


def test_by_plurality_the_toy_is_healthy_where_by_votes_it_is_diseased():
    """0.15 brighter health has 43% of the votes, class 0 has 34%, and all diseases 57%."""
    counts = Smooth(toy, 4, SIGMA, seed=0).sample(HALF + 0.15, 4000, 500, 0)[None]
    assert counts[0] / 4000 == pytest.approx(np.diff(norm.cdf((BORDERS - 0.65) / SIGMA), prepend=0, append=1), abs=0.03)
    assert counts.argmax() == 3
    by_vote, by_class = (answers(counts, GROUPS, rule, 0.001) for rule in ("vote", "class"))
    assert [each.tolist() for each in by_vote] == [[-1], [0]]  # diseased, and the class outside that group is not named
    assert [each.tolist() for each in by_class] == [[3], [1]]


@pytest.mark.parametrize("seed", range(3))
def test_the_group_radius_is_that_of_the_answer_that_is_given(seed):
    """From 0.5 on, the groups' vote turns 0.1925 away, the class answer 0.12 away, where class 0 and health draw level:
    a group radius beyond that says nothing of the class."""

    def certified(x, rule):
        smoothed = Smooth(toy, 4, SIGMA, seed=seed)
        pairs = [(0, x)]
        ((_, found),) = smoothed.certify_images(
            pairs, 200, 40_000, 0.001, 1000, [0.0, 0.05, 0.1, 0.15], None, GROUPS, rule
        )
        return found

    vote, by_class = certified(HALF, "vote"), certified(HALF, "class")
    assert (vote.prediction, vote.group, by_class.prediction, by_class.group) == (0, 0, 0, 0)
    assert 0.12 < vote.group_radius <= 0.1925
    assert 0.05 < by_class.group_radius <= 0.12
    # Where the two answers differ, a line never holds both.
    vote, by_class = certified(HALF + 0.15, "vote"), certified(HALF + 0.15, "class")
    assert (vote.prediction, vote.radius, vote.group) == (-1, 0, 0)
    assert (by_class.prediction, by_class.group) == (3, 1)
