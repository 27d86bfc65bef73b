"""Clinical metrics by hand-counted examples, and the report of the script."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from conftest import run_script
from scipy.stats import binomtest

from attacks.folder import get_attacked
from core import Smooth
from datasets import get_dataset
from evaluate import answers
from evaluation.certificates import caveats, load, read_rows
from evaluation.metrics import calibration, confidence, metric_records, summarize
from models import load_pipeline


def interval(hits, count):
    found = binomtest(hits, count).proportion_ci(0.95, method="exact")
    return pytest.approx((found.low, found.high))


def test_summary_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predictions = np.array([0, 0, 0, 1, 1, 0, 2, 2])
    report = summarize(labels, predictions, ("a", "b", "c"), groups={"ill": (0, 1), "well": (2,)})
    assert report["accuracy"] == 6 / 8
    assert report["accuracy_interval"] == interval(6, 8)
    assert report["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    # Gorodkin 2004: (s c - Σ p t) / sqrt((s² - Σ p²)(s² - Σ t²)), p = t = (4, 2, 2).
    assert report["mcc"] == pytest.approx((8 * 6 - 24) / (64 - 24))
    assert report["abstained"] == 0
    a, b = (report["per_class"][name] for name in "ab")
    counted = {"sensitivity": (3, 4), "specificity": (3, 4), "ppv": (3, 4), "npv": (3, 4)}
    assert a["images"] == 4
    for name, (hits, count) in counted.items():
        assert a[name] == hits / count
        assert a[f"{name}_interval"] == interval(hits, count)
    assert (b["specificity"], b["ppv"], b["npv"]) == pytest.approx((5 / 6, 1 / 2, 5 / 6))
    assert report["groups"]["ill"]["sensitivity"] == report["groups"]["well"]["sensitivity"] == 1
    assert report["confusion"] == [[3, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert "macro_auc" not in report


def test_abstentions_are_right_nowhere_and_state_nothing():
    labels, predictions = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, -1, 1, 0, -1])
    report = summarize(labels, predictions, ("ill", "well"))
    assert report["accuracy"] == report["balanced_accuracy"] == pytest.approx(3 / 6)
    assert report["abstained"] == 2 / 6
    ill = report["per_class"]["ill"]
    assert (ill["sensitivity"], ill["specificity"]) == pytest.approx((2 / 3, 1 / 3))
    assert (ill["ppv"], ill["npv"]) == pytest.approx((2 / 3, 1))
    assert report["confusion"] == [[2, 0, 1], [1, 1, 1]]


def test_absent_class_has_no_sensitivity():
    report = summarize(np.array([0, 0]), np.array([0, 1]), ("a", "b"), np.array([[0.9, 0.1], [0.4, 0.6]]))
    assert report["per_class"]["b"]["sensitivity"] is None
    assert report["per_class"]["b"]["sensitivity_interval"] is None
    assert report["per_class"]["a"]["specificity"] is None
    assert report["balanced_accuracy"] == 0.5
    assert report["macro_auc"] is None


def test_auc_counts_pairs_in_the_right_order():
    labels = np.array([0, 0, 1, 1, 2])
    scores = np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    # Class 0: 5 of 6 pairs; class 1: (0.3, 0.8) against (0.1, 0.4, 0.2): 5 of 6; class 2: 4 of 4.
    assert confidence(labels, scores)["macro_auc"] == pytest.approx((5 / 6 + 5 / 6 + 1) / 3)


def test_calibration_error():
    """Ten answers at confidence 0.75, six right; ten at 0.95, all right: ECE = (0.15 + 0.05) / 2."""
    sure = np.repeat([0.75, 0.95], 10)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 10)
    found = confidence(labels, probabilities)
    assert found["ece"] == pytest.approx(0.1)
    assert [row["images"] for row in found["reliability"]] == [10, 10]
    assert [row["accuracy"] for row in calibration(sure, labels == 0)] == [0.6, 1.0]
    assert calibration(np.array([0.0, 1.0]), np.array([True, True]), 5)[-1]["high"] == 1


def test_records_hold_every_number_with_its_interval():
    report = summarize(np.array([0, 1]), np.array([0, 1]), ("a", "b"), np.eye(2), {"g": (0,), "h": (1,)})
    records = metric_records(report)
    assert (records[0]["of"], records[0]["metric"], records[0]["value"]) == ("all", "accuracy", 1)
    assert (records[0]["low"], records[0]["high"]) == interval(2, 2)
    assert {record["of"] for record in records} == {"all", "a", "b", "g", "h"}
    assert len({(record["of"], record["metric"]) for record in records}) == len(records) == 7 + 4 * 5 + 2 * 2
    answered = {(record["of"], record["metric"]): record["value"] for record in records[-4:]}
    assert answered == {("a", "answered a"): 1, ("a", "answered b"): 0, ("b", "answered a"): 0, ("b", "answered b"): 1}


def test_report_of_the_script(pipeline, data_dir, tmp_path, capsys):
    common = ("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir)
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        run_script("evaluate", *common, "--noise_sd", 0.3, "--seed", seed, "--outfile", tmp_path / f"{name}.json")
    reports = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("a", "again", "other")}
    assert reports["a"]["confusion"] == reports["again"]["confusion"]
    assert sum(map(sum, reports["a"]["confusion"])) == reports["a"]["images"]
    assert reports["a"]["settings"]["dataset"] == "Phantom_MRI"
    assert set(reports["a"]["groups"]) == {"disease", "healthy"}
    out = capsys.readouterr().out
    assert "no_tumor" in out
    assert "disease or health: by the predicted class (single pass)" in out
    assert reports["a"]["settings"]["group_rule"] is None
    with (tmp_path / "a.csv").open(newline="") as stream:
        rows = {(row["of"], row["metric"]): row for row in csv.DictReader(stream)}
    assert float(rows["all", "accuracy"]["value"]) == reports["a"]["accuracy"]
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_smoothed_pipeline_answers_as_predict_does(pipeline, data_dir, tmp_path, capsys):
    parts = ("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir, "--no-amp")
    common = (*parts, "--noise_sd", 0.25, "--N", 40, "--skip", 6)
    by_class = (*common, "--group_rule", "class")
    run_script("evaluate", *by_class, "--outfile", tmp_path / "a.json", "--predictions", tmp_path / "a.tsv")
    run_script("evaluate", *by_class, "--batch", 7, "--outfile", tmp_path / "b.json")
    report = json.loads((tmp_path / "a.json").read_text())
    assert json.loads((tmp_path / "b.json").read_text())["confusion"] == report["confusion"]
    loaded = load_pipeline(pipeline["classifier"], pipeline["mse"])
    images = get_dataset("Phantom_MRI", "test", 32, data_dir=data_dir)
    smoothed = Smooth(loaded.at(0.25), 4, 0.25, seed=0, noise="exact")
    found = [smoothed.predict(images[i][0], 40, 0.001, 40, i) for i in range(0, len(images), 6)]
    assert report["abstained"] == pytest.approx(np.mean(np.array(found) == -1))
    assert report["accuracy"] == pytest.approx(np.mean(np.array(found) == images.labels.numpy()[::6]))
    header, *lines = [line.split("\t") for line in (tmp_path / "a.tsv").read_text().splitlines()]
    assert header == ["idx", "label", "predict", "correct"]
    expected = zip(range(0, len(images), 6), images.labels.tolist()[::6], found, strict=True)
    assert [[int(value) for value in line] for line in lines] == [[i, y, c, int(y == c)] for i, y, c in expected]
    assert report["settings"]["group_rule"] == "class"

    # By default the groups are decided by their votes, and a class outside the group that won abstains.
    capsys.readouterr()
    run_script("evaluate", *common, "--outfile", tmp_path / "vote.json")
    assert "disease or health: by the summed votes of each group" in capsys.readouterr().out
    vote = json.loads((tmp_path / "vote.json").read_text())
    votes = np.stack([smoothed.sample(images[i][0], 40, 40, i) for i in range(0, len(images), 6)])
    classes, groups = answers(votes, list(images.info.groups.values()), "vote", 0.001)
    labels = images.labels.numpy()[::6]
    assert vote["abstained"] == pytest.approx(np.mean(classes == -1))
    assert vote["abstained"] >= report["abstained"]
    ill = np.isin(labels, images.info.groups["disease"])
    assert vote["groups"]["disease"]["sensitivity"] == pytest.approx(np.mean(groups[ill] == 0))
    assert vote["groups"]["disease"]["specificity"] == pytest.approx(np.mean(groups[~ill] == 1))
    assert vote["settings"]["group_rule"] == "vote"


GROUPS = ((0, 1, 2), (3,))


@pytest.mark.parametrize(
    ("votes", "by_vote", "by_class"),
    [
        ([260, 170, 170, 400], (-1, 0), (3, 1)),  # most votes for the healthy class, more for the diseased together
        ([900, 40, 30, 30], (0, 0), (0, 0)),
        ([20, 20, 20, 940], (3, 1), (3, 1)),
        ([450, 450, 50, 50], (-1, 0), (-1, -1)),  # diseased, but of which kind?
        ([300, 100, 100, 500], (-1, -1), (3, 1)),  # no group won, so that no class is in one that did
    ],
)
def test_plurality_and_votes_of_groups(votes, by_vote, by_class):
    for rule, expected in (("vote", by_vote), ("class", by_class)):
        classes, groups = answers(np.array([votes]), GROUPS, rule, 0.001)
        assert (classes.tolist(), groups.tolist()) == ([expected[0]], [expected[1]])
    classes, groups = answers(np.array([votes]), (), "vote", 0.001)
    assert (classes.tolist(), groups) == ([by_class[0]], None)


def test_rates_of_groups_come_from_what_was_answered_for_them():
    labels, predictions = np.array([0, 1, 2, 3, 3]), np.array([0, -1, -1, 3, -1])
    names, groups = ("a", "b", "c", "well"), {"ill": (0, 1, 2), "well": (3,)}
    of_classes = summarize(labels, predictions, names, groups=groups)["groups"]
    of_votes = summarize(labels, predictions, names, groups=groups, group_predictions=np.array([0, 0, -1, 1, 0]))
    assert of_classes["ill"]["sensitivity"] == pytest.approx(1 / 3)
    assert of_votes["groups"]["ill"]["sensitivity"] == pytest.approx(2 / 3)
    assert of_votes["groups"]["ill"]["specificity"] == pytest.approx(1 / 2)
    assert of_votes["groups"]["ill"]["ppv"] == pytest.approx(2 / 3)
    assert of_votes["groups"]["well"]["npv"] == pytest.approx(2 / 3)
    assert of_votes["accuracy"] == 2 / 5


def test_attacked_images_transfer_to_another_pipeline_and_are_certified(pipeline, data_dir, tmp_path, fails):
    flags = ("--classifier", pipeline["classifier"], "--data_dir", data_dir)
    run_script("attacks.generate", *flags, "--eps", 0.1, "--suffix", "_evaluate", "--no-amp", "--skip", 2)
    run_script("evaluate", *flags, "--no-amp", "--split", "FGSM_evaluate", "--outfile", tmp_path / "base.json")
    report = json.loads((tmp_path / "base.json").read_text())
    folder = data_dir / "Phantom_MRI" / "AT_FGSM_evaluate"
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert report["accuracy"] == pytest.approx(np.mean([row["predict_saved"] == row["label"] for row in rows]))
    defended = (*flags, "--denoiser", pipeline["mse"])
    run_script(
        "evaluate", *defended, "--denoiser_sd", 0.25, "--split", "FGSM_evaluate", "--outfile", tmp_path / "d.json"
    )
    assert json.loads((tmp_path / "d.json").read_text())["images"] == len(rows)
    draws = ("--sigma", 0.25, "--N0", 10, "--N", 20, "--max", 3)
    run_script("AE_DS_verify", *defended, *draws, "--split", "FGSM_evaluate", "--outfile", tmp_path / "c.tsv")
    settings = json.loads((tmp_path / "c.tsv.json").read_text())
    assert {"hardware", "torch", "amp"} <= settings.keys()
    attacked = get_attacked("Phantom_MRI", "FGSM_evaluate", 32, 3, None, data_dir)
    assert (settings["split"], settings["manifest"]) == ("FGSM_evaluate", attacked.manifest.digest)
    found, _ = read_rows(tmp_path / "c.tsv")
    assert found["idx"].tolist() == [0, 2, 4]  # as the images that they were made of, so that tables can be paired
    assert found["label"].tolist() == attacked.labels[:3].tolist()
    (line,) = caveats([load("attacked", tmp_path / "c.tsv")], [0.0, 0.1, 0.25])
    assert "at 0.1 is a lower bound, because --radii asked only for 0, 0.25, 0.5" in line
    stale = json.loads((folder / "manifest.csv.json").read_text())
    (folder / "manifest.csv.json").write_text(json.dumps(stale | {"dataset_manifest": "another"}))
    fails(1, (folder, "of another split"), "evaluate", *flags, "--split", "FGSM_evaluate")
    fails(1, ("--split GONE", "FGSM_evaluate"), "evaluate", *flags, "--split", "GONE")
    fails(1, ("--split FGSM_evaluate:tests", "train, val, test"), "evaluate", *flags, "--split", "FGSM_evaluate:tests")
    fails(1, ("--N", "--noise_sd"), "evaluate", *flags, "--N", 10)
    fails(1, ("--group_rule", "single pass", "--N"), "evaluate", *flags, "--group_rule", "class")
    fails(1, ("--denoiser_sd", "--pretrained_denoiser"), "evaluate", *flags, "--denoiser_sd", 0.25)
