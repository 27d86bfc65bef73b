"""Attacks never change a certified answer within its radius, and do beyond it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script
from scipy.stats import binom

from attacks.certified import CertificateAttack
from attacks.smoothed import grouped
from evaluation.figures import robustness_png
from evaluation.robustness import (
    Claim,
    accuracy_under_attack,
    allowed_violations,
    certified_accuracy_at,
    claims_of,
    summary,
)
from models import Pipeline


class Plane(torch.nn.Module):
    """Three classes on two sides of a plane: 0 below, 1 above, 2 nowhere. Under Gaussian noise the smoothed classifier
    keeps the plane, so that the radius of an image is its distance, exactly."""

    def __init__(self, size=8):
        super().__init__()
        weight = torch.randn(1, size, size, generator=torch.Generator().manual_seed(0))
        self.weight = weight / weight.norm()
        self.bias = -0.5 * self.weight.sum()

    def forward(self, x):
        side = (x * self.weight).sum(dim=(1, 2, 3)) + self.bias
        return 20 * torch.stack([-side, side, torch.full_like(side, -1.0)], dim=1)


@pytest.mark.parametrize("noise", ["exact", "float"])
@pytest.mark.parametrize("claim", ["class", "group"])
def test_on_a_plane_nothing_flips_inside_and_everything_beyond(noise, claim):
    plane = Plane()
    settings = {"sigma": 0.25, "amp": False, "noise": noise, "seed": 0}
    attack = CertificateAttack(
        Pipeline(plane, None, "Phantom_MRI", 8, 1, 3), settings, ((0, 2), (1,)), "cpu", steps=15, draws=16, n=2000
    )
    for index in range(3):
        x = 0.5 + 0.15 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(index)) * plane.weight.sign()
        x = (x * 255).round() / 255
        side = plane.forward(x[None])[0, 1].item() / 20
        goal, radius = int(side > 0), abs(side)
        found = attack(index, x, (goal, goal), claim, radius, [0.5, 0.9, 1.0, 1.3])
        assert [each.answer for each in found[:2]] == [goal, goal]
        assert found[2].answer in (goal, -1)  # on the boundary
        assert found[3].answer == 1 - goal
        assert [each.group_answer for each in found[:2]] == [goal, goal]
        assert found[3].group_answer == 1 - goal
        assert [each.again for each in found[:2]] == [None, None]  # nothing changed: judged once
        assert found[3].again == (1 - goal, 1 - goal)
        for each in found:
            assert each.l2 <= each.eps + 1e-6
            assert each.l2 > 0.97 * each.eps


def test_the_strongest_of_several_runs_is_taken(monkeypatch):
    settings = {"sigma": 0.25, "amp": False, "noise": "float", "seed": 0}
    attack = CertificateAttack(
        Pipeline(Plane(), None, "Phantom_MRI", 8, 1, 3), settings, (), "cpu", draws=4, n=11, restarts=4
    )
    x, labels = torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 0])
    ends = iter([x + 0.1 * k * Plane().weight for k in (1, 3, -1, 2)])
    monkeypatch.setattr("attacks.certified.pgd", lambda *_, **__: next(ends))
    best = attack._strongest(attack._models["class"], x, labels, torch.ones(2), ["a", "b"])
    torch.testing.assert_close(best, x + 0.3 * Plane().weight)


def claim(broken_at, radius=(0.5, 0.2, 0.3, 0.0), correct=(1, 1, 0, 0), inside=2, suspected_at=None):
    radius = np.array(radius)
    broken_at, suspected_at = np.array(broken_at), np.array(broken_at if suspected_at is None else suspected_at)
    inside = np.full(len(radius), inside)
    return Claim("class", np.array(correct, bool), radius > 0, radius, broken_at, suspected_at, inside)


def test_curves_by_hand():
    """Image 0 holds to 0.5 and falls at 0.8, image 1 holds to 0.2 and never falls, 2 is wrong, 3 abstains."""
    some = claim([0.8, np.inf, 0.4, np.inf])
    assert certified_accuracy_at(some, [0, 0.2, 0.3, 0.6]).tolist() == [0.5, 0.5, 0.25, 0]
    assert accuracy_under_attack(some, [0, 0.5, 0.8, 5]).tolist() == [0.5, 0.5, 0.25, 0.25]
    assert some.violated().tolist() == [False] * 4
    found = summary(some, 0.001, 0.001)
    assert (found["certified"], found["violated"], found["sound"], found["broken beyond"]) == (3, 0, True, 2)
    bad = summary(claim([0.5, np.inf, 0.4, np.inf]), 0.001, 0.001)
    assert (bad["suspected"], bad["violated"], bad["sound"]) == (1, 1, False)
    never = [np.inf] * 4
    cleared = summary(claim(never, suspected_at=[0.5, np.inf, 0.2, 0.1]), 0.001, 0.001)  # the last is not certified
    assert (cleared["suspected"], cleared["violated"], cleared["sound"], cleared["broken beyond"]) == (2, 0, True, 0)


def test_allowed_violations_are_those_of_the_certificates_alone():
    """At alpha = 0.001 and level 0.01, P(X > 2) for a binomial of 205 trials is 0.0012, P(X > 1) is 0.018: two may be
    violated. The judge's share, which must err twice, moves neither."""

    def allowed(count, alpha=0.001, judge_alpha=0.001, inside=5):
        return allowed_violations(
            claim(np.full(count, np.inf), np.ones(count), np.ones(count), inside=inside), alpha, judge_alpha
        )

    at_most_one = 0.999**205 + 205 * 0.001 * 0.999**204
    at_most_two = at_most_one + 205 * 204 / 2 * 0.001**2 * 0.999**203
    assert 1 - at_most_two < 0.01 < 1 - at_most_one
    assert binom.sf([1, 2], 205, 0.001) == pytest.approx([1 - at_most_one, 1 - at_most_two])
    assert allowed(205) == 2
    assert allowed(205, judge_alpha=1e-9) == 2  # so it would be with a judge that never errs
    assert [allowed(count) for count in (0, 1, 9, 10, 148, 149, 434, 435)] == [0, 0, 0, 1, 1, 2, 2, 3]
    for count in (9, 148, 434):  # with one certificate more, one more may be violated
        few = allowed(count)
        assert binom.sf(few, count, 0.001005) <= 0.01 < binom.sf(few, count + 1, 0.001005)
    assert allowed(205, judge_alpha=0.05, inside=10) > 2  # a coarse judge errs twice, too: 0.05² ten times is 0.025


class Judges:
    """Stands for both judges: votes of four classes, in the order in which they are asked for."""

    def __init__(self, *votes):
        self.votes, self.asked = list(votes), 0

    def sample(self, image, n, batch, index):
        self.asked += 1
        return np.array(self.votes[self.asked - 1])


A, B, LEADS = [95, 3, 1, 1], [1, 95, 3, 1], [40, 15, 5, 40]  # the last: neither of two classes, but a group of three
OTHER = [60, 40, 40, 160]  # by plurality healthy (the last class), by votes neither


@pytest.mark.parametrize(
    ("rule", "votes", "answer", "again"),
    [
        ("vote", [A], (0, 0), None),
        ("vote", [B, A], (1, 0), (0, 0)),  # a false alarm, of the class alone
        ("vote", [B, B], (1, 0), (1, 0)),
        ("vote", [LEADS], (-1, -1), None),
        ("vote", [OTHER, A], (3, -1), (0, 0)),
        ("class", [B, B], (1, 0), (1, 0)),
        ("class", [OTHER, OTHER], (3, 1), (3, 1)),
        ("class", [LEADS], (-1, -1), None),
    ],
)
def test_what_changes_is_judged_once_more_and_as_the_group_rule_says(rule, votes, answer, again, monkeypatch):
    settings = {"sigma": 0.25, "amp": False, "noise": "float", "seed": 7, "group_rule": rule}
    pipeline = Pipeline(Plane(), None, "Phantom_MRI", 8, 1, 3)
    attack = CertificateAttack(pipeline, settings, ((0, 1, 2), (3,)), "cpu", steps=1, draws=2)
    assert [judge.seed for judge in attack._judges] == [8, 9]
    judges = Judges(*votes)
    attack._judges = [judges, judges]
    monkeypatch.setattr(attack, "_strongest", lambda model, inputs, *_: inputs)
    (found,) = attack(0, torch.full((1, 8, 8), 0.5), (0, 0), "group", 0.1, [1.0])
    assert ((found.answer, found.group_answer), found.again, judges.asked) == (answer, again, len(votes))


def test_groups_by_votes_and_by_their_likeliest_class():
    scores = torch.tensor([[0.3, 0.2, 0.1, 0.4]]).log()
    by_vote, by_class = (grouped(lambda x: x, ((0, 1, 2), (3,)), rule)(scores).exp() for rule in ("vote", "class"))
    torch.testing.assert_close(by_vote, torch.tensor([[0.6, 0.4]]))
    torch.testing.assert_close(by_class, torch.tensor([[0.3, 0.4]]))


def test_claims_leave_abstentions_out():
    kinds = [("predict", int), ("radius", float), ("group_predict", "U8"), ("group_radius", float)]
    rows = np.array([(1, 0.2, "healthy", 0.3), (-1, 0.0, "disease", 0.1), (-1, 0.0, "-1", 0.0)], dtype=kinds)
    groups = ["disease", "healthy"]
    assert [claims_of(row, groups) for row in rows] == [
        [("class", 1, 0.2), ("group", 1, 0.3)],
        [("group", 0, 0.1)],
        [],
    ]
    assert claims_of(rows[0], []) == [("class", 1, 0.2)]


@pytest.fixture
def certificates(pipeline, data_dir, tmp_path):
    flags = ("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir, "--no-amp")
    draws = ("--sigma", 0.25, "--N0", 20, "--N", 100, "--max", 6, "--no-sequential")
    run_script("AE_DS_verify", *flags, *draws, "--outfile", tmp_path / "c.tsv")
    return flags[:-1], tmp_path / "c.tsv"


def lines_of(path):
    with path.open(newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream, delimiter="\t")]


def test_the_script_resumes_and_sums_up(certificates, tmp_path, monkeypatch, capsys):
    flags, tsv = certificates
    common = ("attacks.check_certificates", *flags, "--certificates", tsv, "--steps", 2, "--draws", 4, "--N", 40)
    run_script(*common, "--multiples", 0.5, 1.0, 4.0, "--outfile", tmp_path / "a.tsv")
    lines = lines_of(tmp_path / "a.tsv")
    with tsv.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    claims = sum(row["predict"] != "-1" for row in rows) + sum(row["group_predict"] != "-1" for row in rows)
    assert len(lines) == 3 * claims > 0
    for line in lines:
        assert float(line["l2"]) <= float(line["eps"]) + 1e-6
        assert (line["answer_again"] == "") == (line["group_answer_again"] == "")
    report = json.loads((tmp_path / "a.tsv.summary.json").read_text())
    assert [each["claim"] for each in report["claims"]] == ["class", "group"]
    assert all(each["sound"] and each["images"] == 6 for each in report["claims"])
    assert (tmp_path / "a.tsv.png").stat().st_size > 5000
    assert "violated" in capsys.readouterr().out

    # Interrupted, continued with other batches, multiples added later: the same lines.
    called, original = [], CertificateAttack.__call__

    def stop_at_third(self, *values):
        called.append(values)
        if len(called) == 3:
            raise KeyboardInterrupt
        return original(self, *values)

    monkeypatch.setattr(CertificateAttack, "__call__", stop_at_third)
    with pytest.raises(SystemExit):
        run_script(*common, "--multiples", 0.5, 1.0, "--outfile", tmp_path / "b.tsv")
    monkeypatch.undo()
    run_script(*common, "--multiples", 0.5, 1.0, "--batch", 16, "--outfile", tmp_path / "b.tsv")
    run_script(*common, "--multiples", 0.5, 1.0, 4.0, "--outfile", tmp_path / "b.tsv")
    assert lines_of(tmp_path / "b.tsv") == lines


def test_a_false_certificate_is_found_out(certificates, tmp_path, fails, monkeypatch):
    """Where the judge finds another answer within the radius everywhere, the script says so and fails."""
    flags, tsv = certificates
    monkeypatch.setattr("attacks.certified.decide", lambda counts, _: (int(counts.argmax()) + 1) % len(counts))
    check = ("attacks.check_certificates", *flags, "--certificates", tsv, "--outfile", tmp_path / "v.tsv")
    fails(1, ("violated",), *check, "--steps", 1, "--draws", 4, "--N", 60, "--multiples", 0.5)
    for found in json.loads((tmp_path / "v.tsv.summary.json").read_text())["claims"]:
        assert found["suspected"] == found["violated"] == found["certified"] > found["allowed"]
    assert all(line["answer_again"] == line["answer"] for line in lines_of(tmp_path / "v.tsv"))


def test_a_false_alarm_of_the_judge_is_recorded_and_harmless(certificates, tmp_path, monkeypatch, capsys):
    """The first judge sees changes everywhere, the second none."""
    flags, tsv = certificates
    answers = CertificateAttack._answers

    def alarmed(self, judge, *values):
        found = answers(self, judge, *values)
        return ((found[0] + 1) % 4, 1 - found[1]) if judge is self._judges[0] else (-1, -1)

    monkeypatch.setattr(CertificateAttack, "_answers", alarmed)
    small = ("--steps", 1, "--draws", 4, "--N", 60, "--multiples", 0.5)
    run_script("attacks.check_certificates", *flags, "--certificates", tsv, *small, "--outfile", tmp_path / "v.tsv")
    claims = json.loads((tmp_path / "v.tsv.summary.json").read_text())["claims"]
    assert all(found["violated"] == 0 and found["sound"] for found in claims)
    assert sum(found["suspected"] for found in claims) > 0
    assert {line["answer_again"] for line in lines_of(tmp_path / "v.tsv")} <= {"-1", ""}
    assert "suspected" in capsys.readouterr().out


def test_bad_input(certificates, pipeline, data_dir, tmp_path, fails):
    _, tsv = certificates
    common = ("attacks.check_certificates", "--data_dir", data_dir, "--outfile", tmp_path / "x.tsv", "--classifier")
    alone = (*common, pipeline["classifier"], "--certificates", tsv)
    fails(1, ("--pretrained_denoiser None", "is not the denoiser of", tsv), *alone)
    fails(1, (tmp_path / "gone.tsv",), *common, pipeline["classifier"], "--certificates", tmp_path / "gone.tsv")
    bare = tmp_path / "sigma_0.25.tsv"
    bare.write_bytes(tsv.read_bytes())
    fails(1, (bare, "settings"), *common, pipeline["classifier"], "--certificates", bare)
    Path(f"{bare}.json").write_text('{"sigma": 0.25}')
    fails(1, (f"{bare.name}.json", "do not tell", "dataset"), *common, pipeline["classifier"], "--certificates", bare)
    mine = (*common, pipeline["classifier"], "--denoiser", pipeline["mse"], "--certificates", tsv)
    fails(1, ("--dataset", "Phantom_MRI"), *mine, "--dataset", "Brain_Tumor")
    fails(1, ("--protocol", "stratified"), *mine, "--protocol", "official")
    fails(1, ("x.csv", "name it .tsv"), *mine, "--outfile", tmp_path / "x.csv")
    assert not list(tmp_path.glob("x.*"))


def test_the_figure_shows_no_certificates_where_none_was_asked_for(monkeypatch):
    import matplotlib.axes

    drawn = {}
    monkeypatch.setattr(matplotlib.axes.Axes, "plot", lambda self, x, y, label, **_: drawn.update({label: (x, y)}))
    monkeypatch.setattr("matplotlib.figure.Figure.legend", lambda *_, **__: None)
    never = np.full(3, np.inf)
    claim = Claim("class", *np.ones((2, 3), dtype=bool), np.full(3, 0.6), never, never, np.zeros(3, dtype=int))
    robustness_png([claim], 1.0, "", asked=0.5)
    radii, certified = drawn["certified (at least)"]
    assert np.isnan(certified[radii > 0.5]).all()
    assert (certified[radii <= 0.5] == 100).all()
    assert not np.isnan(drawn["under attack (at most)"][1]).any()
