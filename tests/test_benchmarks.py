"""The benchmarks run, and compare with what was published. What they measure is not tested: it belongs in results/."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script, write_image
from scipy.stats import norm

from benchmarks.certification import replayed_accuracies
from benchmarks.denoisers import CANDIDATES
from benchmarks.memory import CLEAR
from benchmarks.published import certify_as_published
from benchmarks.zeroth_order import rge_as_published
from models import build
from smoothing.rules import Question


def test_published_loop_on_a_plane():
    """x is one sigma away from the boundary: p_A = Φ(1), and the radius is a little less than sigma."""
    torch.manual_seed(0)

    def plane(x):
        side = x.flatten(1).sum(1) - 3.5
        return torch.stack([-side, side], dim=1)

    x = torch.full((1, 2, 2), 1.0)  # distance to the plane: (4 - 3.5) / 2
    found, radius = certify_as_published(plane, 2, x, 0.25, 100, 20_000, 0.001, 1000)
    assert found == 1
    assert 0.23 < radius <= 0.25


def test_replayed_rules_agree_where_nothing_is_close():
    frequencies = np.array([[1.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.1, 0.0, 0.9]])
    labels = np.array([0, 1, 0])
    question = Question(0.25, 0.001)
    found, draws = replayed_accuracies(frequencies, labels, question, 100, 10_000, [0.0, 0.25 * norm.ppf(0.9), 0.75], 3)
    assert found["published"] == found["ours"] == pytest.approx([200 / 3, 100 / 3, 100 / 3])
    assert 100 < draws <= 10_100


def test_gradient_estimates(pipeline, data_dir, tmp_path):
    """All coordinates and all orthogonal directions point along the true gradient; fewer do less."""
    run_script(
        "ds_main",
        *("--model", "autoencoder", "--data_dir", data_dir, "--image_size", 32, "--latent", 64, "--epochs", 1),
        *("--outdir", tmp_path / "ae"),
    )
    torch.manual_seed(0)
    described = {"arch": "cifar_resnet", "arch_kwargs": {"channels": 3, "depth": 8, "num_classes": 4}}
    net = build(described["arch"], **described["arch_kwargs"])
    described |= {"dataset": "Phantom_MRI", "image_size": 32, "state_dict": net.state_dict()}
    torch.save(described, tmp_path / "f.pth.tar")
    run_script(
        "benchmarks.gradient_estimates",
        *("--classifier", tmp_path / "f.pth.tar", "--denoiser", pipeline["mse"]),
        *("--pretrained_encoder", tmp_path / "ae" / "best.pth.tar", "--data_dir", data_dir, "--images", 2),
        *("--surrogates", tmp_path / "f.pth.tar", "--q", 8, 32, "--outdir", tmp_path),
    )
    rows = list(csv.DictReader((tmp_path / "cosine.csv").open()))
    found = {(row["space"], row["estimator"], int(row["q"])): float(row["cosine"]) for row in rows}
    assert {row["dimension"] for row in rows} == {"3072", "64"}
    # An untrained network's losses differ little: differences to one side are as large as their rounding.
    for name, least in (("CGE", 0.97), ("RGE_orthogonal", 0.9)):
        assert found["AE_DS", name, 64] > least
        assert found["AE_DS", name, 8] < found["AE_DS", name, 32] < found["AE_DS", name, 64]
    assert found["DS", f"guided by {tmp_path.name}", 8] > 0.95 > found["DS", "RGE_orthogonal", 8]  # by f itself
    assert 0 < found["DS", "RGE_orthogonal grey", 32] < found["DS", f"guided by {tmp_path.name}", 32]
    assert (tmp_path / "cosine.png").stat().st_size > 1000


@pytest.mark.parametrize("name", CANDIDATES)
def test_tried_denoisers_are_denoisers(name):
    """Like the default they keep the shape, and start as the identity."""
    x = torch.rand(1, 3, 37, 50)
    with torch.no_grad():
        torch.testing.assert_close(CANDIDATES[name]().eval()(x, 0.25), x)


def test_times_of_denoisers(pipeline, tmp_path):
    networks = ("--candidates", "nafnet", "nafnet4", "--classifier", pipeline["classifier"])
    little = ("--image_size", 32, "--batch", 2, "--rounds", 1, "--seconds", 0.001)
    run_script("benchmarks.denoisers", *networks, *little, "--outfile", tmp_path / "time.json")
    today, new = json.loads((tmp_path / "time.json").read_text())["rows"]
    assert today["float32, times as fast"] == 1
    assert new["MFLOP"] < today["MFLOP"]
    assert new["bfloat16, pipeline (ms)"] > 0


PEAKS = """
import numpy as np, torch
from benchmarks.memory import peak, reset_peak
cpu = torch.device("cpu")
for size in (200, 1, 100):
    reset_peak(cpu)
    start = peak(cpu)
    np.ones(size * 2**20, dtype=np.uint8)
    print(peak(cpu) - start)
"""


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="only Linux tells")
def test_peak_memory_is_that_of_what_was_measured():
    """200 MiB that were taken and given back before count no more; what is taken afterwards does. In a process of its
    own: this one may keep what it frees."""
    found = [float(line) for line in subprocess.check_output([sys.executable, "-c", PEAKS]).split()]
    assert found[0] > 150
    assert found[1] < 20
    assert 50 < found[2] < 150


def test_zeroth_order_benchmark_runs(pipeline, data_dir, tmp_path):
    run_script(
        "benchmarks.zeroth_order",
        *("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir, "--batch", 4),
        *("--q", 3, "--repeats", 1, "--outfile", tmp_path / "b.json"),
    )
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert (row["numbers"], row["queries"]) == (3072, 16)
    assert row["ratio"] == pytest.approx(row["plain ms/query"] / row["ours ms/query"])


def test_small_maps_benchmark_runs(tmp_path):
    run_script(
        "benchmarks.small_maps",
        *("--sides", 2, 9, "--channels", 4, "--images", 3, "--seconds", 0.001, "--device", "cpu"),
        *("--outfile", tmp_path / "b.json"),
    )
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [(row["side"], row["stride"], row["used"]) for row in rows] == [
        (2, 1, True),
        (9, 1, False),
        (2, 2, True),
        (9, 2, False),
    ]


def test_the_plain_loop_estimates_the_gradient():
    torch.manual_seed(0)
    slope = torch.linspace(-1, 1, 12)
    found = rge_as_published(lambda z: z.flatten(1) @ slope, torch.zeros(4, 3, 2, 2), 0.1, 20_000)
    torch.testing.assert_close(found.flatten(1), slope.expand(4, -1), atol=0.1, rtol=0)


def test_certification_benchmark_runs(pipeline, data_dir, tmp_path):
    out = tmp_path / "benchmark.json"
    run_script(
        "benchmarks.certification",
        *("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir, "--N0", 10),
        *("--N", 40, 80, 120, "--images", 3, "--batch", 10, "--published_batch", 10, "--published_draws", 10),
        *("--fixed_n", 20, "--replays", 2, "--seconds", 0.01, "--published_denoiser", pipeline["mse"]),
        *("--timed_up_to", 40, "--outfile", out),
    )
    result = json.loads(out.read_text())
    for row in result["images per hour"]:
        assert row["ratio"] == pytest.approx(row["images/h"] / row["published images/h"])
        assert row["draws/image"] <= 10 + row["N"]
    timed, *others = result["images per hour"]
    assert 0 < timed["model share"] < 1
    assert all(result["noise, ns/value"][kind] > 0 for kind in ("float", "exact"))
    for scaled in others:  # by the time per draw of the last N that was timed
        assert scaled["scaled"]
        assert scaled["images/h"] == pytest.approx(3.6e6 / (timed["ms/draw"] * scaled["draws/image"]))
    assert np.sum(result["votes"]["counts"], axis=1).tolist() == [20, 20, 20]
    assert result["levers, ms/draw"][0]["lever"] == "published"
    assert [row["N"] for row in result["replayed"]] == [40, 80, 120]


def test_engine_benchmark_runs(pipeline, data_dir, tmp_path):
    networks = ("--classifier", pipeline["classifier"], "--denoiser", pipeline["mse"], "--data_dir", data_dir)
    little = ("--images", 2, "--draws", 5, "--seconds", 0.001)
    run_script("benchmarks.engine", *networks, *little, "--outfile", tmp_path / "b.json")
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["engine, us/draw"] > 0
    for rows in result["votes"].values():
        assert [row["of"] for row in rows] == [10] * 16
        assert (rows[0]["batch"], rows[0]["company"], rows[0]["threads"], rows[0]["other votes"]) == (64, "own", 1, 0)


def test_attacks(pipeline, data_dir, tmp_path, capsys):
    run_script(
        "benchmarks.attacks",
        *("--classifier", pipeline["classifier"], "--data_dir", data_dir, "--images", 3, "--steps", 2, "--repeats", 1),
        *("--outfile", tmp_path / "attacks.json"),
    )
    rows = json.loads((tmp_path / "attacks.json").read_text())["rows"]
    libraries = (
        {"ours", "adv-lib"} if "foolbox is not installed" in capsys.readouterr().out else {"ours", "adv-lib", "foolbox"}
    )
    assert {(row["attack"], row["library"]) for row in rows} == {
        (attack, library) for attack in ("FGSM", "PGD", "DDN") for library in libraries
    }
    assert all(row["images/s"] > 0 and 0 <= row["fooled"] <= 1 for row in rows)
    assert all(row["ratio to ours"] == 1 for row in rows if row["library"] == "ours")


def test_data(data_dir, tmp_path):
    run_script(
        "benchmarks.data",
        *("--dataset", "Phantom_MRI", "--data_dir", data_dir, "--images", 20, "--epochs", 1, "--image_size", 16),
        *("--outfile", tmp_path / "data.json"),
    )
    found = json.loads((tmp_path / "data.json").read_text())["found"]
    assert all(value > 0 for value in found.values())
    assert found["ratio"] == found["cached (images/s)"] / found["ImageFolder (images/s)"]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc, where a process' memory is told")
def test_many_images(tmp_path, fails, monkeypatch):
    flags = ("benchmarks.many_images", "--images", 60, "--side", 16, "--folder", tmp_path)
    run_script(*flags, "--outfile", tmp_path / "many.json")
    report = json.loads((tmp_path / "many.json").read_text())
    assert report["images_mib"] == 60 * 3 * 16**2 / 2**20
    assert all(10 < found["mib"] < 10_000 for found in report["found"].values())
    assert [path.name for path in tmp_path.iterdir()] == ["many.json"]  # the images are gone
    monkeypatch.setattr("benchmarks.many_images.EPOCH", "raise OSError('no such disk')")
    fails(1, ("no such disk",), *flags)


def test_data_of_cells(tmp_path):
    """Under another spelling of its name; what lies beside the crops is not decoded by either."""
    flags = ("--dataset", "Phantom_Cytology", "--subjects", 50, "--phantom_size", 24, "--data_dir", tmp_path / "P")
    run_script("prepare_data", *flags)
    source = next((tmp_path / "P" / "Phantom_Cytology").glob("phantoms_*"))
    (source / "im_Parabasal" / "im_Parabasal" / "whole.bmp").write_bytes(b"too large to be decoded in vain")
    run_script("prepare_data", "--dataset", "sipakmed", "--source", source, "--data_dir", tmp_path / "D")
    run_script(
        "benchmarks.data",
        *("--dataset", "sipakmed", "--data_dir", tmp_path / "D", "--images", 1000, "--epochs", 2, "--image_size", 16),
    )


def test_data_from_a_table_is_refused_in_one_line(tmp_path, fails):
    source = tmp_path / "S"
    for i in range(30):
        write_image(source / "images" / f"{i}.png", i)
    rows = [f"images/{i}.png,{'ab'[i % 2]}\n" for i in range(30)]
    (source / "t.csv").write_text("".join(["path,label\n", *rows]))
    run_script("prepare_data", "--dataset", "T", "--source", source / "t.csv", "--data_dir", tmp_path / "D")
    flags = ("--dataset", "T", "--data_dir", tmp_path / "D", "--epochs", 1)
    fails(1, ("--dataset T", "cannot be prepared from", "1 class"), "benchmarks.data", *flags)
