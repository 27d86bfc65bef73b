"""The images that attacks/generate.py saves are what its manifest says, whatever interrupted it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script
from PIL import Image

import attacks.generate
from attacks.folder import AttackedFolder, get_attacked
from datasets import get_dataset
from models import load_pipeline


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def saved(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


@pytest.fixture
def generate(pipeline, data_dir):
    """`generate(suffix, *more)`: run the script with a few images per split; returns the folder of its last attack."""

    def run(suffix, *more):
        run_script(
            "attacks.generate",
            *("--classifier", pipeline["classifier"], "--data_dir", data_dir, "--suffix", suffix, "--skip", 6, *more),
        )
        return max(
            (data_dir / "Phantom_MRI").glob(f"AT_*{suffix}/manifest.csv"), key=lambda p: p.stat().st_mtime
        ).parent

    return run


def check(folder: Path, data_dir: Path, model, eps=None, norm="linf"):
    """Every line of the manifest against the images themselves."""
    for row in rows_of(folder):
        clean, label = get_dataset("Phantom_MRI", row["split"], 32, data_dir=data_dir)[int(row["idx"])]
        image = saved(folder / row["path"])
        delta = (image - clean).double()
        assert float(row["l2"]) == pytest.approx(delta.norm().item(), abs=1e-5)
        assert float(row["linf"]) == pytest.approx(delta.abs().max().item(), abs=1e-6)
        assert eps is None or float(row[norm]) <= eps + 1e-6
        with torch.no_grad():
            before, after = (model(x[None]).argmax().item() for x in (clean, image))
        assert (int(row["label"]), int(row["predict_clean"]), int(row["predict_saved"])) == (label, before, after)
        assert row["path"] == f"{label}/{row['split']}_{int(row['idx']):05d}.png"
        assert int(row["success_saved"]) == int(before == label != after)
        assert int(row["success"]) == int(before == label != int(row["predict_attacked"]))


def test_several_attacks_and_both_splits_in_one_command(generate, data_dir, pipeline, capsys):
    generate("_all", "--attack", "FGSM", "PGD", "DDN", "--split", "test", "val", "--steps", 8, "--eps", 0.02)
    out = capsys.readouterr().out
    model = load_pipeline(pipeline["classifier"], None).at(0.25)
    for name, queries, eps in (("FGSM", 1, 0.02), ("PGD", 8, 0.02), ("DDN", 8, None)):
        folder = data_dir / "Phantom_MRI" / f"AT_{name}_all"
        check(folder, data_dir, model, eps)
        rows = rows_of(folder)
        right = [row for row in rows if row["predict_clean"] == row["label"]]
        won = sum(int(row["success"]) for row in right)
        assert f"{name}{f', Linf at most {eps}' if eps else ''}, {queries} step(s), on test + val: fools" in out
        assert f"fools {won} of the {len(right)} images answered right ({len(rows)} in all)" in out
        assert rows == sorted(rows, key=lambda row: (row["split"] == "test", int(row["idx"])))
        for split in ("val", "test"):
            dataset = get_dataset("Phantom_MRI", split, 32, data_dir=data_dir)
            own = [row for row in rows if row["split"] == split]
            assert [row["source"] for row in own] == [row["path"] for row in dataset.rows[::6]]
        assert {int(row["queries"]) for row in rows} == {queries}
        settings = json.loads((folder / "manifest.csv.json").read_text())
        assert (settings["attack"], settings["eps"], settings["target"]) == (name, eps, "base")


def test_defended_images_are_those_of_the_whole_pipeline(generate, data_dir, pipeline):
    folder = generate(
        "_def", "--pretrained_denoiser", pipeline["mse"], "--attack", "PGD", "--norm", "L2", "--eps", 1.0, "--steps", 5
    )
    assert folder.name == "AT_PGD_L2_def"
    check(folder, data_dir, load_pipeline(pipeline["classifier"], pipeline["mse"]).at(0.25), 1.0, "l2")
    assert json.loads((folder / "manifest.csv.json").read_text())["target"] == "defended"


def test_smoothed_target(generate, data_dir, pipeline):
    flags = (
        *("--pretrained_denoiser", pipeline["mse"], "--target", "smoothed", "--attack", "PGD", "--norm", "L2"),
        *("--eps", 0.5, "--steps", 2, "--draws", 4, "--N", 50, "--skip", 12),
    )
    folder = generate("_smooth", *flags)
    rows = rows_of(folder)
    assert {int(row["queries"]) for row in rows} == {8}
    assert all(float(row["l2"]) <= 0.5 + 1e-6 for row in rows)
    assert {int(row["predict_clean"]) for row in rows} <= {-1, 0, 1, 2, 3}
    for row in rows:  # an abstention is no success
        assert row["success"] == "0" or row["predict_attacked"] not in ("-1", row["label"])


def test_smoothed_attacks_depend_on_neither_batch_nor_the_images_before(generate, pipeline):
    flags = (
        *("--pretrained_denoiser", pipeline["mse"], "--target", "smoothed", "--attack", "PGD", "--norm", "L2"),
        *("--steps", 2, "--draws", 4, "--N", 20),
    )
    for more in ((), ("--fresh",)):
        one, other = f"_s{len(more)}", f"_b{len(more)}"
        whole = generate(one, *flags, *more, "--skip", 12)
        part = generate(other, *flags, *more, "--skip", 12, "--batch", 8)
        alike = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(each)] for each in (whole, part)]
        assert alike[0] == alike[1]


def test_interrupted_it_resumes_and_is_the_same(generate, data_dir, monkeypatch, tmp_path):
    flags = ("--attack", "PGD", "--steps", 3, "--batch", 2)
    whole = generate("_whole", *flags)
    save, calls = AttackedFolder.save, []

    def stop_at_fourth(self, *values):
        calls.append(values)
        if len(calls) == 4:
            raise KeyboardInterrupt
        save(self, *values)

    monkeypatch.setattr(AttackedFolder, "save", stop_at_fourth)
    with pytest.raises(SystemExit) as stop:
        generate("_cut", *flags)
    assert stop.value.code == 130
    monkeypatch.undo()
    cut = data_dir / "Phantom_MRI" / "AT_PGD_cut"
    assert len(rows_of(cut)) == 3
    with pytest.raises(ValueError, match="images of split test are missing"):
        get_attacked("Phantom_MRI", "PGD_cut", 32, 3, None, data_dir)
    with (cut / "manifest.csv").open("a") as stream:
        stream.write("test,18,0/te")  # killed in the middle of a line
    generate("_cut", *flags)
    assert [row["path"] for row in rows_of(cut)] == [row["path"] for row in rows_of(whole)]
    for row in rows_of(whole):
        assert (whole / row["path"]).read_bytes() == (cut / row["path"]).read_bytes()
    # A finished folder is not attacked again, another split is added to it.
    monkeypatch.setattr(attacks.generate, "run_attack", lambda *_: pytest.fail("attacked again"))
    generate("_cut", *flags)
    monkeypatch.undo()
    before = get_attacked("Phantom_MRI", "PGD_cut", 32, 3, None, data_dir).manifest.digest
    generate("_cut", *flags, "--split", "val")
    assert {row["split"] for row in rows_of(cut)} == {"val", "test"}
    after = [get_attacked("Phantom_MRI", f"PGD_{name}", 32, 3, None, data_dir) for name in ("cut", "whole", "cut:val")]
    assert before == after[0].manifest.digest == after[1].manifest.digest != after[2].manifest.digest


def test_a_folder_is_a_dataset(generate, data_dir):
    folder = generate("_read", "--attack", "FGSM", "--split", "val", "test")
    for split, name in (("FGSM_read", "test"), ("FGSM_read:val", "val")):
        images = get_attacked("Phantom_MRI", split, 32, 3, "stratified", data_dir)
        rows = [row for row in rows_of(folder) if row["split"] == name]
        assert len(images) == len(rows)
        for i, row in enumerate(rows):
            image, label = images[i]
            assert label == int(row["label"]) == images.labels[i]
            assert torch.equal(image, saved(folder / row["path"]))
        assert images.manifest.settings["protocol"] == "stratified"
        assert len(images.manifest.digest) == 64
        clean = get_dataset("Phantom_MRI", name, 32, data_dir=data_dir)
        for i, row in enumerate(rows):  # an attacked image has the number of the image it was made of
            assert images.place(int(row["idx"])) == i
            assert clean[clean.place(int(row["idx"]))][1] == images[i][1]
    for arguments, word in (
        (("Phantom_MRI", "FGSM_read", 64, 3, None), "holds 32 px"),
        (("Phantom_MRI", "FGSM_read:old", 32, 3, None), "must be train, val, test or"),
        (("Phantom_MRI", "GONE", 32, 3, None), "FGSM_read"),
        (("Phantom_MRI", "FGSM_read:train", 32, 3, None), "are missing; make them with --split train in"),
        (("Phantom_MRI", "FGSM_read", 32, 3, "official"), "--protocol stratified, not official"),
    ):
        with pytest.raises(ValueError, match=word):
            get_attacked(*arguments, data_dir)


def test_a_black_box_is_attacked_by_labels_alone(data_dir, tmp_path, monkeypatch, fails):
    dataset = get_dataset("Phantom_MRI", "test", 32, channels=1, data_dir=data_dir)
    middle = np.median([dataset[i][0].mean().item() for i in range(len(dataset))])  # as many on either side
    (tmp_path / "labelling.py").write_text(
        f"def classify(images):\n    return (images.reshape(len(images), -1).mean(1) > {middle}).astype(int)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    common = (
        *("--data_dir", data_dir, "--classifier", "labelling:classify", "--dataset", "Phantom_MRI", "--image_size", 32),
        *("--channels", 1, "--scores", "labels", "--skip", 4, "--suffix", "_box"),
    )
    fails(1, ("FGSM", "gradients", "labelling:classify", "HSJ"), "attacks.generate", *common, "--attack", "FGSM", "HSJ")
    run_script("attacks.generate", *common, "--attack", "HSJ", "--steps", 2)
    rows = rows_of(data_dir / "Phantom_MRI" / "AT_HSJ_box")
    right = [row for row in rows if row["predict_clean"] == row["label"]]
    assert right
    assert all(row["success"] == row["success_saved"] == "1" for row in right)
    assert all(int(row["queries"]) > 200 for row in right)
    assert all(int(row["queries"]) == 1 and float(row["l2"]) == 0 for row in rows if row not in right)


def test_bad_input(generate, pipeline, data_dir, fails, tmp_path, capsys):
    common = ("attacks.generate", "--data_dir", data_dir, "--classifier", pipeline["classifier"], "--suffix", "_bad")
    fails(2, ("--attack", "PGM", "FGSM", "APGD"), *common, "--attack", "PGM")
    fails(1, ("--norm L2", "FGSM knows Linf"), *common, "--norm", "L2")
    fails(1, ("--target defended", "--pretrained_denoiser"), *common, "--target", "defended")
    fails(1, ("--target smoothed", "--noise_sd"), *common, "--target", "smoothed", "--noise_sd", 0)
    fails(2, ("--eps",), *common, "--eps", 0)
    fails(1, ("--eps", "not for DDN", "--max_norm"), *common, "--attack", "DDN", "--eps", 0.1)
    fails(1, ("--max_norm", "not for FGSM, PGD"), *common, "--attack", "FGSM", "PGD", "--max_norm", 0.1)
    assert not list((data_dir / "Phantom_MRI").glob("AT_*_bad"))
    generate("_other", "--eps", 0.02)
    fails(1, ("AT_FGSM_other", "eps 0.02 (now 0.03)", "--suffix"), *common[:-1], "_other", "--skip", 6, "--eps", 0.03)
    old = rows_of(data_dir / "Phantom_MRI" / "AT_FGSM_other")
    again = generate("_other", "--eps", 0.03, "--overwrite", "--split", "val")
    assert {row["split"] for row in old} == {"test"}
    assert {row["split"] for row in rows_of(again)} == {"val"}
    assert not list(again.rglob("test_*.png"))
    kept = rows_of(again)
    assert rows_of(generate("_other", "--eps", 0.03, "--overwrite", "--split", "val", "test")) == [
        *kept,
        *[row for row in rows_of(again) if row["split"] == "test"],
    ]
    assert len(rows_of(again)) == len(kept) + len(old)
    (again / "manifest.csv.json").write_text("{")
    fails(1, ("manifest.csv.json", "not a JSON file"), *common[:-1], "_other", "--eps", 0.03)
    assert len(rows_of(generate("_other", "--eps", 0.03, "--overwrite"))) == len(old)
    fails(1, ("--steps", "FGSM takes one step"), *common, "--steps", 10)
    fails(1, ("--draws", "--target smoothed"), *common, "--draws", 3)
    capsys.readouterr()
    folder = generate("_faint", "--eps", 0.003)
    assert "0.003 is below 1/255" in capsys.readouterr().err
    assert all(float(row["l2"]) == 0 == int(row["success_saved"]) for row in rows_of(folder))


def test_images_without_labels_are_refused(pipeline, data_dir, tmp_path, fails):
    root = tmp_path / "Phantom_MRI"
    root.mkdir()
    (root / "manifest.csv").write_bytes((data_dir / "Phantom_MRI" / "manifest.csv").read_bytes())
    settings = json.loads((data_dir / "Phantom_MRI" / "manifest.json").read_text())
    del settings["sha256"]  # older ones have no fingerprint, and so may have been changed by hand
    (root / "manifest.json").write_text(json.dumps(settings))
    with (root / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0]["label"] = ""
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    fails(
        1,
        (rows[0]["path"], "has label ''"),
        "attacks.generate",
        *("--data_dir", tmp_path, "--classifier", pipeline["classifier"]),
    )
