"""Certification around its rule: what N draws can prove, batches that do not fit, what was done to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_image
from PIL import Image
from scipy.stats import binom, norm

from certification.answers import answers_table, done_text
from certification.draws import check_draws
from certification.run import certify, certify_files, what_was_done
from core import decide, draws_to_decide
from imaging.catalogue import DatasetInfo
from models import Pipeline
from smoothing.boundaries import ROUNDING
from smoothing.rules import Question, SequentialDraws, reaches

SETTINGS = {
    "sigma": 0.25,
    "N0": 20,
    "N": 200,
    "alpha": 0.001,
    "method": "sequential",
    "radii": [0.0, 0.2],
    "group_rule": "vote",
    "noise": "exact",
    "seed": 0,
    "amp": False,
    "compile": False,
    "device": "cpu",
    "batch": 64,
    "channels": 3,
    "image_size": 8,
}
CPU = torch.device("cpu")


class Brightness(torch.nn.Module):
    """Class 1 where an image is bright. Passes of more than `most` images do not fit into memory: `error`."""

    def __init__(self, most: int = 10**9, error: type[RuntimeError] = RuntimeError) -> None:
        super().__init__()
        self.most, self.error, self.sizes = most, error, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error("can't allocate memory")
        bright = x.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-bright, bright], dim=1)


def pipeline(*limit) -> Pipeline:
    return Pipeline(Brightness(*limit), None, "Mine", 8, 3, 2)


# ---- how many draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 2.5])
def test_the_draws_that_a_radius_needs_are_the_fewest_that_prove_it(radius):
    """All n draws succeed with probability Φ(r/σ)^n where the radius is false; and the rule itself agrees."""
    question = Question(1.0, 0.001)
    needed = question.draws_needed(radius)
    assert binom.pmf(needed, needed, norm.cdf(radius)) <= 0.001 < binom.pmf(needed - 1, needed - 1, norm.cdf(radius))
    for n, proved in ((needed - 1, False), (needed, True)):
        last = SequentialDraws(question, n, sorted({0.0, radius})).boundaries[-1].claim[-1]
        assert (last <= n) == proved
        assert reaches(question.largest_radius(n), radius) == proved
    assert Question(1.0, 0.001, slack=1e-9).draws_needed(7) is None


def test_votes_that_decide_are_the_fewest_for_which_predict_answers():
    for alpha in (0.05, 0.001, 2**-10, 1e-9):
        n = draws_to_decide(alpha)
        assert decide(np.array([0, n, 0]), alpha) == 1
        assert decide(np.array([0, n - 1, 0]), alpha) == -1
    assert draws_to_decide(0.001) == 11


def test_radii_out_of_reach_are_said_with_the_draws_they_need():
    needed = Question(0.06, 0.001).draws_needed(0.15)
    said = check_draws(SETTINGS, 0.06, [0, 0.05, 0.15])
    assert said is not None
    assert said.startswith("sigma 0.06: --N 200 proves no radius above 0.11")
    assert said.endswith(f"--radii 0.15 needs --N {needed}")
    for n, method in ((needed, "sequential"), (needed, "fixed"), (needed - 1, "fixed")):
        assert (check_draws({**SETTINGS, "N": n, "method": method}, 0.06, [0.15]) is None) == (n == needed)
    assert check_draws(SETTINGS, 0.25, [0.2]) is None
    assert check_draws(SETTINGS, 0.06, []) is None
    assert str(check_draws(SETTINGS, 0.06, [2.0])).endswith("--radii 2 is out of reach at this sigma")


def test_draws_that_prove_nothing_are_refused():
    with pytest.raises(ValueError, match=r"--N 9: proves nothing at --alpha 0\.001, .* at least --N 10"):
        check_draws({**SETTINGS, "N": 9}, 0.25, [])
    assert check_draws({**SETTINGS, "N": 10}, 0.25, [0.0]) is None
    with pytest.raises(ValueError, match="--alpha 1e-13: no number of draws"):
        check_draws({**SETTINGS, "alpha": ROUNDING / 10}, 0.25, [])
    assert check_draws({**SETTINGS, "alpha": ROUNDING / 10, "method": "fixed"}, 0.25, [0.0]) is None


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError], ids=["CPU", "GPU"])
def test_a_batch_that_does_not_fit_is_halved_and_changes_nothing(error, recwarn):
    info = DatasetInfo("Mine", ("dark", "bright"))
    images = [(i, torch.full((3, 8, 8), level / 255)) for i, level in enumerate((100, 127, 140, 250))]
    expected = dict(certify(pipeline(), info, SETTINGS, images, 4))
    assert not recwarn.list
    small = pipeline(10, error)
    assert dict(certify(small, info, SETTINGS, iter(images), 4)) == expected
    assert small.classifier.sizes[:4] == [64, 32, 16, 8]
    assert set(small.classifier.sizes[3:]) == {8}
    assert [str(each.message) for each in recwarn.list] == [
        "--batch 64: needs more memory than there is; goes on with 8, which changes no result"
    ]
    with pytest.raises(RuntimeError, match="allocate"):
        list(certify(pipeline(0), info, SETTINGS, images, 4))


def test_no_pass_is_larger_than_all_draws_together():
    used = pipeline()
    images = [(0, torch.full((3, 8, 8), 250 / 255))]
    list(certify(used, DatasetInfo("Mine", ("dark", "bright")), {**SETTINGS, "batch": 2**31 - 1}, images, 1))
    assert max(used.classifier.sizes) == 20 + 200


# ---- files -----------------------------------------------------------------------------------------------------------


def test_what_was_done_to_a_file_is_said():
    grey, colour = Image.new("RGB", (8, 8), (9, 9, 9)), Image.new("RGB", (8, 8), (9, 0, 0))
    assert what_was_done(colour, 8, 3, "resize") == "nothing"
    assert what_was_done(grey, 8, 1, "resize") == "nothing"
    assert what_was_done(colour, 8, 1, "resize") == "colours to grey"
    assert what_was_done(colour, 4, 3, "resize") == "8×8 → 4×4"
    wide = Image.new("RGB", (640, 512))
    wide.info["done"] = "window 40/400 of the file"
    assert what_was_done(wide, 64, 3, "resize") == "window 40/400 of the file; 640×512 → 64×64, stretched"
    assert what_was_done(wide, 64, 3, "letterbox").endswith("; 640×512 → 64×64, edges repeated to a square")


@pytest.mark.parametrize("disease", [(), ("bright",)])
def test_groups_are_answered_where_there_are_groups(disease, tmp_path):
    for i in range(4):
        write_image(tmp_path / f"{i}.png", i, size=(8, 8) if i == 3 else (16, 16))
    info = DatasetInfo("Mine", ("dark", "bright"), disease)
    answers = certify_files(pipeline(), info, SETTINGS, [tmp_path], CPU)
    groups = {name for answer in answers for name in answer if name.startswith("group")}
    assert groups == ({"group", "group_radius", "group_radius_grey"} if disease else set())
    assert ("group" in answers_table(answers).splitlines()[0].split()) == bool(disease)
    assert done_text(answers).splitlines()[1:] == [
        f"  {tmp_path / '0.png'}, {tmp_path / '1.png'} and 1 more: 16×16 → 8×8",
        f"  {tmp_path / '3.png'}: nothing",
    ]
    assert Path(answers[3]["file"]).name == "3.png"
