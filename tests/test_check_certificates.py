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

from attacks.certified import CertificateAttack, claims_of
from evaluation.figures import robustness_png
from evaluation.robustness import (
    Claim,
    accuracy_under_attack,
    allowed_violations,
    certified_accuracy_at,
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
        found = attack(index, x, claim, goal, radius, [0.5, 0.9, 1.0, 1.3])
        assert [each.answer for each in found[:2]] == [goal, goal]
        assert found[2].answer in (goal, -1)  # on the boundary
        assert found[3].answer == 1 - goal
        assert [each.group_answer for each in found[:2]] == [goal, goal]
        assert found[3].group_answer == 1 - goal
        for each in found:
            assert each.l2 <= each.eps + 1e-6
            assert each.l2 > 0.97 * each.eps


def test_the_strongest_of_several_runs_is_taken(monkeypatch):
    settings = {"sigma": 0.25, "amp": False, "noise": "float", "seed": 0}
    attack = CertificateAttack(
        Pipeline(Plane(), None, "Phantom_MRI", 8, 1, 3), settings, (), "cpu", draws=4, n=10, restarts=4
    )
    x, labels = torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 0])
    ends = iter([x + 0.1 * k * Plane().weight for k in (1, 3, -1, 2)])
    monkeypatch.setattr("attacks.certified.pgd", lambda *_, **__: next(ends))
    best = attack._strongest(attack._models["class"], x, labels, torch.ones(2), ["a", "b"])
    torch.testing.assert_close(best, x + 0.3 * Plane().weight)


def claim(broken_at, radius=(0.5, 0.2, 0.3, 0.0), correct=(1, 1, 0, 0), inside=2):
    radius = np.array(radius)
    return Claim(
        "class", np.array(correct, bool), radius > 0, radius, np.array(broken_at), np.full(len(radius), inside)
    )


def test_curves_by_hand():
    """Image 0 holds to 0.5 and falls at 0.8, image 1 holds to 0.2 and never falls, 2 is wrong, 3 abstains."""
    some = claim([0.8, np.inf, 0.4, np.inf])
    assert certified_accuracy_at(some, [0, 0.2, 0.3, 0.6]).tolist() == [0.5, 0.5, 0.25, 0]
    assert accuracy_under_attack(some, [0, 0.5, 0.8, 5]).tolist() == [0.5, 0.5, 0.25, 0.25]
    assert some.violated().tolist() == [False] * 4
    found = summary(some, 0.001, 0.001)
    assert (found["certified"], found["violated"], found["sound"], found["broken beyond"]) == (3, 0, True, 2)
    bad = summary(claim([0.5, np.inf, 0.4, np.inf]), 0.001, 0.001)
    assert (bad["violated"], bad["sound"]) == (1, False)


def test_allowed_violations_is_a_quantile():
    many = claim(np.full(500, np.inf), np.ones(500), np.ones(500), inside=3)
    allowed = allowed_violations(many, 0.001, 0.001)
    assert binom.sf(allowed, 500, 0.004) <= 0.01 < binom.sf(allowed - 1, 500, 0.004)


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
    run_script("AE_DS_verify", *flags, "--sigma", 0.25, "--N0", 20, "--N", 100, "--max", 6, "--no-sequential",
               "--outfile", tmp_path / "c.tsv")  # fmt: skip
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
    fails(1, ("violated",), "attacks.check_certificates", *flags, "--certificates", tsv, "--steps", 1, "--draws", 4,
          "--N", 60, "--multiples", 0.5, "--outfile", tmp_path / "v.tsv")  # fmt: skip
    for found in json.loads((tmp_path / "v.tsv.summary.json").read_text())["claims"]:
        assert found["violated"] == found["certified"] > found["allowed"]


def test_bad_input(certificates, pipeline, data_dir, tmp_path, fails):
    _, tsv = certificates
    common = ("attacks.check_certificates", "--data_dir", data_dir, "--outfile", tmp_path / "x.tsv", "--classifier")
    fails(1, ("--pretrained_denoiser None", "is not the denoiser of", tsv), *common, pipeline["classifier"],
          "--certificates", tsv)  # fmt: skip
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
    claim = Claim("class", *np.ones((2, 3), dtype=bool), np.full(3, 0.6), np.full(3, np.inf), np.zeros(3, dtype=int))
    robustness_png([claim], 1.0, "", asked=0.5)
    radii, certified = drawn["certified (at least)"]
    assert np.isnan(certified[radii > 0.5]).all()
    assert (certified[radii <= 0.5] == 100).all()
    assert not np.isnan(drawn["under attack (at most)"][1]).any()
