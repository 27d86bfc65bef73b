"""SYNTHETIC stands on every figure made from phantoms, and on no other; those of tables: test_make_tables.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import run_script
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.gradient_estimates import draw
from models import build
from training.run_directory import RunDirectory


@pytest.fixture
def titles(monkeypatch):
    """The titles of the figures that are drawn."""
    found, save = [], Figure.savefig

    def look(figure, *args, **kwargs):
        found.append(figure.get_suptitle())
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", look)
    return found


def write_network(path, arch, **kwargs):
    torch.manual_seed(0)
    described = {"arch": arch, "arch_kwargs": kwargs, "dataset": "Phantom_MRI", "image_size": 32}
    torch.save({**described, "state_dict": build(arch, **kwargs).state_dict()}, path)
    return path


@pytest.fixture
def real(data_dir, tmp_path):
    """A folder in which the same images pass for real ones."""
    folder = tmp_path / "real" / "Phantom_MRI"
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_bytes((data_dir / "Phantom_MRI" / "manifest.csv").read_bytes())
    settings = json.loads((data_dir / "Phantom_MRI" / "manifest.json").read_text())
    settings["info"]["synthetic"] = False
    (folder / "manifest.json").write_text(json.dumps(settings))
    return tmp_path / "real"


def test_evaluation(data_dir, real, tmp_path, titles):
    classifier = write_network(tmp_path / "f.pth.tar", "cifar_resnet", channels=3, depth=8, num_classes=4)
    for root in (data_dir, real):
        run_script(
            "evaluate", "--classifier", classifier, "--data_dir", root, "--skip", 20, "--outfile", tmp_path / "e.json"
        )
    assert [title.partition(" (")[0] for title in titles] == ["SYNTHETIC: Phantom_MRI test", "Phantom_MRI test"]


def test_pictures_of_noise(data_dir, real, tmp_path):
    denoiser = write_network(tmp_path / "d.pth.tar", "dncnn", channels=3)
    pictures = []
    for root in (data_dir, real):
        run_script(
            "ds_main",
            *("--mode", "inference", "--pretrained_denoiser", denoiser, "--data_dir", root, "--noise_sd", 0.25),
            *("--images", 3, "--outdir", tmp_path / "grids"),
        )
        pictures.append(np.asarray(Image.open(tmp_path / "grids" / "noise_0.25.png")))
    marked, plain = pictures
    assert plain.shape == (3 * 32, 3 * 32, 3)
    above = len(marked) - len(plain)
    assert (marked[above:] == plain).all()
    assert (marked[:above] < 100).any()  # letters
    assert (marked[:above] == 255).mean() > 0.5


def test_progress_of_training(tmp_path, titles):
    for synthetic in (True, False):
        run = RunDirectory(tmp_path / str(synthetic), {}, resume=False)
        run.record({"epoch": 1, "train_loss": 1.0}, {"epoch": 1, "info": {"synthetic": synthetic}}, best=False)
    assert titles == ["SYNTHETIC phantom data", ""]


def test_cosines(tmp_path, titles):
    for synthetic in (True, False):
        draw([("DS", 3, "RGE", 8, 16, "0.5")], tmp_path / "cosine.png", synthetic)
    assert titles == ["SYNTHETIC phantom data", ""]
