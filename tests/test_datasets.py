"""Manifest → tensors."""

from __future__ import annotations

import csv
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import run_script
from PIL import Image
from torch.utils.data import DataLoader, Subset

from common import files
from datasets import get_dataset, get_loader, read_manifest
from imaging.catalogue import DATASETS


def test_table_is_consistent():
    for name, info in DATASETS.items():
        assert set(info.disease) < set(info.classes), name
        assert set(info.aliases.values()) <= set(info.classes)
        assert info.citation
        assert info.licence


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_of_the_manifest(data_dir, channels):
    dataset = get_dataset("Phantom_MRI", "val", image_size=32, channels=channels, data_dir=data_dir)
    manifest = read_manifest("Phantom_MRI", data_dir)
    rows = [row for row in manifest.rows if row["split"] == "val"]
    assert len(dataset) == len(rows) > 0
    for i in (0, len(rows) - 1):
        image, label = dataset[i]
        assert image.shape == (channels, 32, 32)
        assert image.dtype == torch.float32
        assert label == int(rows[i]["label"]) == dataset.labels[i]
        with Image.open(f"{manifest.settings['source']}/{rows[i]['path']}") as file:
            expected = file.convert("L" if channels == 1 else "RGB").resize((32, 32), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(expected)).float().reshape(32, 32, channels).permute(2, 0, 1) / 255
        assert torch.equal(image, expected)


def test_cache_is_used_and_belongs_to_the_manifest(data_dir, monkeypatch):
    first = get_dataset("Phantom_MRI", "val", image_size=24, data_dir=data_dir)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("the cache was not used"))
    second = get_dataset("Phantom_MRI", "val", image_size=24, data_dir=data_dir)
    assert torch.equal(first[3][0], second[3][0])


def test_a_damaged_cache_is_named(data_dir, tmp_path):
    shutil.copytree(data_dir / "Phantom_MRI", tmp_path / "Phantom_MRI")
    get_dataset("Phantom_MRI", "val", 16, data_dir=tmp_path)
    for cache in (tmp_path / "Phantom_MRI" / "cache").glob("16px*.npy"):
        cache.write_bytes(cache.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"16px.*\.npy: damaged"):
        get_dataset("Phantom_MRI", "val", 16, data_dir=tmp_path)


def test_loaders(data_dir):
    dataset = get_dataset("Phantom_MRI", "train", image_size=16, data_dir=data_dir)
    images, labels = next(iter(get_loader(dataset, batch=8)))
    assert images.shape == (8, 3, 16, 16)
    assert torch.equal(labels, dataset.labels[:8])
    assert torch.equal(images[5], dataset[5][0])
    plain, _ = next(iter(DataLoader(dataset, batch_size=8)))  # a user's own loader works too
    assert torch.equal(plain, images)
    orders = []
    for seed, workers in ((0, 0), (0, 2), (1, 0)):
        torch.manual_seed(seed)
        loader = get_loader(dataset, 8, train=True, workers=workers)
        orders.append(torch.cat([y for _ in range(2) for _, y in loader]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_a_batch_is_fetched_at_once(data_dir, monkeypatch):
    """And holds what one by one would."""
    dataset = get_dataset("Phantom_MRI", "val", image_size=16, data_dir=data_dir)
    wanted = [5, 0, 17, 5, -1]
    one_by_one = [dataset[i] for i in wanted]
    for (image, label), (alone, its_label) in zip(dataset.__getitems__(wanted), one_by_one, strict=True):
        assert torch.equal(image, alone)
        assert label == its_label
        assert type(label) is int
    monkeypatch.setattr(type(dataset), "__getitem__", lambda *_: pytest.fail("one image was fetched alone"))
    (images, _), *_ = get_loader(dataset, batch=4)
    (subset, _), *_ = get_loader(Subset(dataset, range(2, 9)), batch=4)
    assert torch.equal(images[2:], subset[:2])


def test_pixels_are_not_copied_into_other_processes(data_dir):
    dataset = get_dataset("Phantom_MRI", "train", image_size=64, data_dir=data_dir)
    sent = pickle.dumps(dataset)
    assert len(sent) < 0.2 * len(dataset) * 3 * 64 * 64
    received = pickle.loads(sent)
    assert torch.equal(received[7][0], dataset[7][0])
    assert isinstance(received._pixels, np.memmap)


def test_training_never_sees_a_batch_of_one(data_dir):
    dataset = get_dataset("Phantom_MRI", "val", image_size=16, data_dir=data_dir)
    batch = len(dataset) - 1
    assert [len(y) for _, y in get_loader(dataset, batch, train=True)] == [batch]
    assert [len(y) for _, y in get_loader(dataset, batch)] == [batch, 1]


def test_bad_requests(data_dir, tmp_path):
    for arguments, word in (
        (("Phantom_MRI", "testing"), "--split testing"),
        (("Phantoms", "test"), "none of the known Brain_Tumor"),
        (("Phantom_MRI", "test", 4), "--image_size 4"),
        (("Phantom_MRI", "test", 32, "official"), "made with --protocol stratified"),
        (("Phantom_MRI", "test", 32, None, 2), "--channels 2"),
    ):
        with pytest.raises(ValueError, match=word):
            get_dataset(*arguments, data_dir=data_dir)
    with pytest.raises(FileNotFoundError, match=r"prepare_data.py --dataset Brain_Tumor"):
        get_dataset("Brain_Tumor", "test", data_dir=data_dir)
    shutil.copytree(data_dir / "Phantom_MRI", tmp_path / "odd" / "Phantom_MRI")
    manifest = tmp_path / "odd" / "Phantom_MRI" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",0,glioma_tumor,", ",9,glioma_tumor,", 1))
    with pytest.raises(ValueError, match=r"manifest\.csv: is not the table that manifest\.json .* changed by hand"):
        get_dataset("Phantom_MRI", "test", data_dir=tmp_path / "odd")
    settings = files.read_json(manifest.with_suffix(".json"))
    files.write_json(manifest.with_suffix(".json"), {**settings, "version": 99})
    with pytest.raises(ValueError, match=r"manifest\.json: written by a newer version"):
        get_dataset("Phantom_MRI", "test", data_dir=tmp_path / "odd")
    older = {name: value for name, value in settings.items() if name not in ("version", "sha256", "near", "slices")}
    files.write_json(manifest.with_suffix(".json"), older)
    with pytest.raises(ValueError, match=r"manifest\.csv: .* has label '9', none of 0 … 3"):
        get_dataset("Phantom_MRI", "test", data_dir=tmp_path / "odd")
    manifest.write_bytes((data_dir / "Phantom_MRI" / "manifest.csv").read_bytes())
    old, new = (get_dataset("Phantom_MRI", "test", 8, data_dir=root) for root in (tmp_path / "odd", data_dir))
    assert old.manifest.digest == new.manifest.digest
    (tmp_path / "Phantom_MRI").mkdir()
    with (tmp_path / "Phantom_MRI" / "manifest.csv").open("w") as stream:
        csv.writer(stream).writerow(["file", "label"])
    with pytest.raises(ValueError, match="columns"):
        get_dataset("Phantom_MRI", "test", data_dir=tmp_path)


def test_models_of_other_classes_are_refused(pipeline, data_dir, tmp_path, fails):
    """As many of them, but in another order: each answer would be called by another's name."""
    root = tmp_path / "S"
    for name, other in (("glioma_tumor", "a"), ("meningioma_tumor", "b"), ("no_tumor", "c"), ("pituitary_tumor", "d")):
        for split in ("Training", "Testing"):
            shutil.copytree(next(data_dir.glob("Phantom_MRI/phantoms_*")) / split / name, root / split / other)
    run_script("prepare_data", "--dataset", "Mine", "--source", root, "--data_dir", tmp_path)
    flags = ("--classifier", pipeline["classifier"], "--dataset", "Mine", "--data_dir", tmp_path)
    words = (pipeline["classifier"], "glioma_tumor, meningioma_tumor", "a, b, c, d")
    fails(1, words, "evaluate", *flags)
    fails(1, words, "main_ds", *flags, "--outdir", tmp_path / "run")
    fails(1, words, "AE_DS_verify", *flags, "--sigma", 0.25, "--predict", root / "Testing" / "a")
    fails(1, words, "AE_DS_verify", *flags, "--sigma", 0.25, "--outfile", tmp_path / "c.tsv")


def test_models_of_another_split_are_refused(pipeline, data_dir, tmp_path, fails):
    """They may have been trained on what is a test image now."""
    shutil.copytree(data_dir, tmp_path / "D", ignore=shutil.ignore_patterns("cache", "AT_*"))
    prepare = ("prepare_data", "--dataset", "Phantom_MRI", "--subjects", 60, "--phantom_size", 48)
    run_script(*prepare, "--data_dir", tmp_path / "D", "--seed", 0)
    evaluate = ("evaluate", "--classifier", pipeline["classifier"], "--data_dir", tmp_path / "D")
    run_script(*evaluate)
    run_script(*prepare, "--data_dir", tmp_path / "D", "--fold", "1/5")
    fails(1, (pipeline["classifier"], "another split of Phantom_MRI"), *evaluate)
    run_script("ds_main", "--mode", "test", "--data_dir", data_dir, "--pretrained_denoiser", pipeline["mse"])
    for mode in ("test", "train"):
        fails(
            1,
            (pipeline["mse"], "another split"),
            "ds_main",
            *("--mode", mode, "--data_dir", tmp_path / "D", "--pretrained_denoiser", pipeline["mse"]),
            *("--outdir", tmp_path / "more"),
        )
    checkpoint = torch.load(pipeline["mse"], weights_only=True)
    torch.save(checkpoint | {"manifest": "of another split"}, tmp_path / "mse.pth.tar")
    fails(
        1,
        (tmp_path / "mse.pth.tar", "another split of Phantom_MRI", pipeline["classifier"]),
        "AE_DS_verify",
        *("--classifier", pipeline["classifier"], "--denoiser", tmp_path / "mse.pth.tar", "--sigma", 0.25),
        *("--predict", next(data_dir.rglob("*.png"))),
    )
    certify = ("AE_DS_verify", "--sigma", 0.25, "--outfile", tmp_path / "c.tsv", "--data_dir", tmp_path / "D")
    fails(1, ("another split",), *certify, "--classifier", pipeline["classifier"])
    assert not (tmp_path / "c.tsv").exists()
