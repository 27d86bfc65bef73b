"""Networks that reconstruct images from incomplete measurements, and what defends them."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import run_script

from evaluate_reconstruction import attack
from models import load_model, steady
from models.measurements import gaussian, load_reconstructor, measurement, sampled_lines, undersampled
from training import losses, tasks


def test_lines_of_k_space():
    lines = sampled_lines(64, 4, seed=0)
    assert lines.sum() == 16
    frequency = torch.fft.fftfreq(64).abs()
    assert lines[frequency <= 2 / 64].all()
    assert torch.equal(lines, sampled_lines(64, 4, seed=0))
    assert not torch.equal(lines, sampled_lines(64, 4, seed=1))


def test_undersampling_keeps_what_it_measures():
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(undersampled(images, torch.ones(16, dtype=torch.bool)), images, atol=1e-6)
    # What varies along the columns alone has only the zeroth line, which is always measured.
    columns = torch.rand(1, 1, 16, 1).expand(-1, -1, -1, 16)
    assert torch.allclose(undersampled(columns, sampled_lines(16, 8, seed=3)), columns, atol=1e-6)
    # A wave of the highest frequency is lost, unless its line is measured: only the mean stays.
    wave = 0.5 + 0.5 * torch.cos(torch.pi * torch.arange(16)).expand(1, 1, 16, 16)
    low = torch.fft.fftfreq(16).abs() < 0.4
    assert torch.allclose(undersampled(wave, low), torch.full_like(wave, 0.5), atol=1e-6)


def test_random_projections():
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(
        gaussian(images, torch.eye(64)),
        (images - images.amin((1, 2, 3), True)) / (images.amax((1, 2, 3), True) - images.amin((1, 2, 3), True)),
    )
    measured = measurement("gaussian", 1, 8, acceleration=2)(images)
    assert measured.shape == images.shape
    assert measured.flatten(1).min(dim=1).values.tolist() == [0, 0, 0]
    assert measured.flatten(1).max(dim=1).values.tolist() == [1, 1, 1]


def test_targets():
    own, true = (tasks.reconstruction(objective, torch.neg) for objective in ("stability", "classification"))
    assert (own.stability, true.stability) == (True, False)
    images = torch.rand(2, 1, 4, 4)
    assert true.truth(images, torch.zeros(2)) is images
    assert torch.equal(true.loss(images, images + 0.5), losses.reconstruction(images, images + 0.5))


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory, data_dir):
    outdir = tmp_path_factory.mktemp("runs") / "R"
    run_script(
        "ds_main",
        *("--model", "reconstructor", "--data_dir", data_dir, "--image_size", 32, "--acceleration", 2, "--epochs", 2),
        *("--batch", 16, "--outdir", outdir),
    )
    return outdir / "best.pth.tar"


def test_training_one(reconstructor):
    network, measure, made = load_reconstructor(reconstructor)
    assert made["measurement"] == {"kind": "undersampled", "acceleration": 2.0, "seed": 0}
    assert made["args"]["lr"] == 5e-4
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert network(measure(images)).shape == images.shape
    history = [json.loads(line) for line in (reconstructor.parent / "metrics.jsonl").read_text().splitlines()]
    assert history[1]["val_psnr"] > 10


def test_going_on_with_one(reconstructor, pipeline, data_dir, tmp_path, fails):
    """What is measured is what the file says; a network is not trained as another kind than it is."""
    common = (
        "ds_main",
        *("--data_dir", data_dir, "--epochs", 1, "--batch", 40, "--outdir", tmp_path / "more", "--pretrained_denoiser"),
    )
    for model in ("denoiser", "autoencoder"):
        fails(1, (f"--model {model}", reconstructor, "model reconstructor"), *common, reconstructor, "--model", model)
    fails(1, ("--model reconstructor", "model denoiser"), *common, pipeline["mse"], "--model", "reconstructor")
    fails(1, ("--acceleration 3", reconstructor), *common, reconstructor, "--acceleration", 3)
    run_script(*common, reconstructor, "--seed", 1)
    made = load_reconstructor(tmp_path / "more" / "best.pth.tar")[2]
    assert made["measurement"] == {"kind": "undersampled", "acceleration": 2.0, "seed": 0}
    assert made["args"]["noise_sd"] == [0.0]


@pytest.mark.parametrize("objective", ["stability", "classification"])
@pytest.mark.parametrize("method", [("FO", "--mse_weight", 1), ("ZO", "--zo_method", "RGE", "--q", 3)])
def test_defending_one(reconstructor, pipeline, data_dir, tmp_path, objective, method):
    run_script(
        "main_ds",
        *("--train_objective", "reconstruction", "--reconstructor", reconstructor, "--data_dir", data_dir),
        *("--pretrained_denoiser", pipeline["mse"], "--objective", objective, "--optimization_method", *method),
        *("--noise_sd", 0.1, "--epochs", 1, "--batch", 40, "--outdir", tmp_path / "run"),
    )
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert history[0]["val_psnr"] > 5
    assert ("queries" in history[0]) == (method[0] == "ZO")
    load_model(tmp_path / "run" / "best.pth.tar", "denoiser")


def test_one_that_may_only_be_queried(reconstructor, pipeline, data_dir, tmp_path, fails, monkeypatch, capsys):
    """As ONNX it knows its measurement and gets the same training as the checkpoint; a function must be told, and may
    have a measurement of its own; neither is attacked by gradients."""
    pytest.importorskip("onnxruntime")
    onnx = tmp_path / "R.onnx"
    run_script("export_model", "--model", reconstructor, "--outfile", onnx)
    (tmp_path / "scanner.py").write_text(
        "def measure(images):\n    return images / 2\n\n\ndef reconstruct(measured):\n    return 2 * measured\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = (
        "main_ds",
        *("--train_objective", "reconstruction", "--data_dir", data_dir, "--pretrained_denoiser", pipeline["mse"]),
        *("--noise_sd", 0.1, "--epochs", 1, "--batch", 40, "--no-amp"),
    )
    zo = ("--optimization_method", "ZO", "--zo_method", "RGE", "--q", 3)
    service = ("--reconstructor", "scanner:reconstruct", "--measurement", "scanner:measure")
    told = ("--dataset", "Phantom_MRI", "--image_size", 32, "--channels", 3)
    rows = {}
    for name, flags in (
        ("checkpoint", ("--reconstructor", reconstructor)),
        ("onnx", ("--reconstructor", onnx)),
        ("service", (*service, *told)),
    ):
        run_script(*task, *zo, *flags, "--outdir", tmp_path / name)
        rows[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text())
    assert rows["onnx"]["val_psnr"] == pytest.approx(rows["checkpoint"]["val_psnr"], abs=0.05)
    assert rows["onnx"]["queries"] == rows["service"]["queries"] == rows["checkpoint"]["queries"] + steady.QUERIES
    run_script(
        "evaluate_reconstruction",
        *service,
        *told,
        *("--data_dir", data_dir, "--draws", 2, "--skip", 6, "--outfile", tmp_path / "errors.json"),
    )
    table = json.loads((tmp_path / "errors.json").read_text())["table"]
    assert [row["measurements"] for row in table] == ["clean", "noisy"]
    assert table[0]["rmse"] < 1e-4  # what is halved and doubled
    no = ("--outdir", tmp_path / "no")
    fails(1, ("--reconstructor", "no gradients", "ZO"), *task, *service, *told, *no)
    fails(1, ("scanner:reconstruct", "dataset, image_size, channels, measurement"), *task, *zo, *service[:2], *no)
    fails(1, (onnx, "acceleration 2.0, not 3.0"), *task, *zo, "--reconstructor", onnx, "--acceleration", 3, *no)
    fails(
        1,
        (reconstructor, "it is no denoiser"),
        *task[:5],
        *("--pretrained_denoiser", reconstructor, *zo, "--reconstructor", onnx, *no),
    )
    fails(1, (reconstructor, "image_size 32, not 64"), *task, "--reconstructor", reconstructor, "--image_size", 64, *no)
    fails(1, ("--measurement radon", "gaussian"), *task, *zo, *service[:2], "--measurement", "radon", *told, *no)
    assert not (tmp_path / "no").exists()


def test_contradictions(reconstructor, pipeline, data_dir, tmp_path, fails):
    flags = ("main_ds", "--data_dir", data_dir, "--outdir", tmp_path / "run")
    fails(1, ("needs --classifier",), *flags)
    fails(1, ("--acceleration",), *flags, "--classifier", pipeline["classifier"], "--acceleration", 2)
    fails(1, ("needs --classifier",), *flags, "--reconstructor", reconstructor, "--classifier", pipeline["classifier"])
    reconstruct = (*flags, "--train_objective", "reconstruction")
    fails(1, ("needs --reconstructor",), *reconstruct, "--classifier", pipeline["classifier"])
    fails(1, (pipeline["mse"], "--model reconstructor"), *reconstruct, "--reconstructor", pipeline["mse"])
    fails(1, ("--scores",), *reconstruct, "--reconstructor", reconstructor, "--scores", "labels")
    fails(1, ("--surrogates",), *reconstruct, "--reconstructor", reconstructor, "--surrogates", pipeline["classifier"])


def test_the_table_of_errors(reconstructor, pipeline, data_dir, tmp_path, capsys):
    flags = (
        *("--reconstructor", reconstructor, "--pretrained_denoiser", pipeline["mse"], "--data_dir", data_dir),
        *("--steps", 3, "--draws", 2, "--eps", 2, "--skip", 6),
    )
    run_script("evaluate_reconstruction", *flags, "--outfile", tmp_path / "a.json")
    run_script("evaluate_reconstruction", *flags, "--outfile", tmp_path / "b.json", "--batch", 4)
    tables = [json.loads((tmp_path / name).read_text())["table"] for name in ("a.json", "b.json")]
    for a, b in zip(*tables, strict=True):  # what is drawn belongs to the image, not to the batch
        numbers = [key for key in a if key not in ("pipeline", "measurements")]
        assert [a[key] for key in numbers] == pytest.approx([b[key] for key in numbers], rel=1e-3)
    rmse = {(row["pipeline"], row["measurements"]): row["rmse"] for row in tables[0]}
    assert rmse["R", "attacked"] > 1.1 * rmse["R", "clean"]
    assert rmse["R", "noisy"] > rmse["R", "clean"]
    assert "D + R" in capsys.readouterr().out


def test_the_attack_stays_within_its_budget_and_finds_the_worst_direction():
    """Of a linear network `R(y) = 2y` and image 0, the error within ε of y is largest along y itself."""
    y = torch.full((1, 1, 2, 2), 0.3)
    found = attack(lambda x: 2 * x, y, torch.zeros_like(y), eps=0.5, steps=10)
    assert torch.allclose(found, y + 0.25, atol=1e-3)
    y = torch.stack([torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), 1.5), torch.full((1, 2, 2), -2.0)])
    y[1:, :, 0] = 0.2  # measurements may leave [0, 1]: that is no part of the budget
    found = attack(lambda x: 2 * x, y, torch.zeros_like(y), eps=0.5, steps=20)
    length = (found - y).flatten(1).norm(dim=1)
    assert ((length > 0.1) & (length < 0.5 + 1e-5)).all()
    assert torch.allclose(found[1:, :, 1], y[1:, :, 1])
