"""Attacks against closed forms; the saved images are what the manifest says."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from conftest import run_script
from PIL import Image

from attacks.fgsm import fgsm
from datasets import get_dataset
from models import load_pipeline


def linear(weight):
    def classify(x):
        score = (x * weight).sum(dim=(1, 2, 3))
        return torch.stack([-score, score], dim=1)

    return classify


def test_fgsm_on_a_linear_model_is_optimal():
    """The L∞ step that lowers <w, x> most is -eps · sign(w); away from the borders of [0, 1] FGSM must take it."""
    weight = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0))
    x = 0.25 + 0.5 * torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([1, 0, 1, 0, 1, 0])
    attacked = fgsm(linear(weight), x, labels, eps=0.1)
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(attacked, x + 0.1 * sign * weight.sign())
    torch.testing.assert_close(fgsm(linear(weight), x, labels, eps=0.1, targeted=True), x - 0.1 * sign * weight.sign())


def test_fgsm_stays_in_the_box_and_keeps_gradients_out():
    x = torch.tensor([0.0, 1.0, 0.05, 0.95]).view(1, 1, 2, 2)
    weight = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 2, 2)
    attacked = fgsm(linear(weight), x, torch.tensor([1]), eps=0.1)
    torch.testing.assert_close(attacked, torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 2, 2))
    assert not attacked.requires_grad


def test_fgsm_does_not_depend_on_the_batch():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x, labels = torch.rand(7, 3, 2, 2), torch.randint(3, (7,))
    together = fgsm(net, x, labels, eps=0.03)
    alone = torch.cat([fgsm(net, x[i : i + 1], labels[i : i + 1], eps=0.03) for i in range(7)])
    torch.testing.assert_close(together, alone)


def test_fgsm_refuses_bad_input():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        fgsm(linear(torch.ones(1, 2, 2)), torch.full((1, 1, 2, 2), 1.5), torch.tensor([0]), eps=0.1)
    with pytest.raises(ValueError, match="eps"):
        fgsm(linear(torch.ones(1, 2, 2)), torch.zeros(1, 1, 2, 2), torch.tensor([0]), eps=0)


@pytest.mark.parametrize("defended", [False, True])
def test_generated_images_are_what_the_manifest_says(pipeline, data_dir, defended):
    eps = 8 / 255
    more = ("--pretrained_denoiser", pipeline["mse"]) if defended else ()
    run_script("attacks.generate", "--classifier", pipeline["classifier"], "--data_dir", data_dir, "--eps", eps,
               "--no-amp", *more)  # fmt: skip
    folder = data_dir / "Phantom_MRI" / "AT_FGSM"
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    dataset = get_dataset("Phantom_MRI", "test", 32, data_dir=data_dir)
    assert [row["source"] for row in rows] == [row["path"] for row in dataset.rows]
    model = load_pipeline(pipeline["classifier"], pipeline["mse"] if defended else None).at(0.25)
    for i in range(0, len(rows), 9):
        row = rows[i]
        clean, label = dataset[i]
        with Image.open(folder / row["path"]) as image:
            saved = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        delta = saved - clean
        assert float(row["l2"]) == pytest.approx(delta.norm().item(), abs=1e-5)
        assert float(row["linf"]) == pytest.approx(delta.abs().max().item(), abs=1e-6)
        assert delta.abs().max() <= eps + 1e-6  # 8/255 is on the grid, so rounding cannot exceed it
        with torch.no_grad():
            before, after = (model(x[None]).argmax().item() for x in (clean, saved))
        assert (int(row["label"]), int(row["predict_clean"]), int(row["predict_saved"])) == (label, before, after)
        assert row["path"].startswith(f"{label}/")
        assert int(row["success_saved"]) == int(before == label != after)
