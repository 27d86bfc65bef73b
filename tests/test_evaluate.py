"""Clinical metrics by hand-counted examples, and the report of the script."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import run_script
from scipy.stats import binomtest

from evaluation.metrics import summarize


def test_summary_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predictions = np.array([0, 0, 0, 1, 1, 0, 2, 2])
    report = summarize(labels, predictions, ("a", "b", "c"))
    assert report["accuracy"] == 6 / 8
    assert report["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert report["per_class"]["a"] == {"images": 4, "sensitivity": 3 / 4, "specificity": 3 / 4}
    assert report["per_class"]["b"]["specificity"] == pytest.approx(5 / 6)
    assert report["confusion"] == [[3, 1, 0], [1, 1, 0], [0, 0, 2]]
    interval = binomtest(6, 8).proportion_ci(0.95, method="exact")
    assert report["accuracy_interval"] == pytest.approx((interval.low, interval.high))


def test_absent_class_has_no_sensitivity():
    report = summarize(np.array([0, 0]), np.array([0, 1]), ("a", "b"))
    assert report["per_class"]["b"]["sensitivity"] is None
    assert report["per_class"]["a"]["specificity"] is None


def test_report_of_the_script(pipeline, data_dir, tmp_path, capsys):
    common = ("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir)
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        run_script("evaluate", *common, "--noise_sd", 0.3, "--seed", seed, "--outfile", tmp_path / f"{name}.json")
    reports = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("a", "again", "other")}
    assert reports["a"]["confusion"] == reports["again"]["confusion"]
    assert sum(map(sum, reports["a"]["confusion"])) == reports["a"]["images"]
    assert reports["a"]["settings"]["dataset"] == "Phantom_MRI"
    assert "no_tumor" in capsys.readouterr().out
