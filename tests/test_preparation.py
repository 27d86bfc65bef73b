"""Scanning, duplicates, splits: on made-up trees, and on the real set where it lies beside the project."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest
from conftest import CLASSES, run_script, write_image
from PIL import Image

from datasets import MANIFEST_COLUMNS, PROTOCOLS
from preparation.scan import Record, mean_and_std
from preparation.splits import assign_splits


def prepare(source, data_dir, *more):
    run_script("prepare_data", "--dataset", "Brain_Tumor", "--source", source, "--data_dir", data_dir, *more)
    folder = data_dir / "Brain_Tumor"
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return rows, json.loads((folder / "manifest.json").read_text())


def assert_no_leak(rows):
    splits = defaultdict(set)
    for row in rows:
        if row["split"]:
            splits["pixels", row["sha256"]].add(row["split"])
            splits["group", row["group"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_manifest(made_up_tree, tmp_path, protocol):
    rows, settings = prepare(made_up_tree, tmp_path / "D", "--protocol", protocol)
    assert tuple(rows[0]) == MANIFEST_COLUMNS
    assert len(rows) == 100
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert_no_leak(rows)
    for row in rows:
        with Image.open(made_up_tree / row["path"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert row["sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
        assert (int(row["width"]), int(row["height"])) == (16, 20)
        assert CLASSES[int(row["label"])] == row["class"] == row["path"].split("/")[1]
    counts = Counter((row["split"], row["class"]) for row in rows)
    if protocol == "official":
        assert all((row["split"] == "test") == row["path"].startswith("Testing") for row in rows)
        assert all(counts["val", name] == 2 for name in CLASSES)
    else:  # 25 per class: 70/10/20 is 17.5/2.5/5
        assert all(counts["test", name] == 5 and counts["val", name] in (2, 3) for name in CLASSES)
    assert settings["counts"]["train"]["no_tumor"] == counts["train", "no_tumor"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_duplicates_are_found_and_never_leak(made_up_tree, tmp_path, protocol):
    training, testing = made_up_tree / "Training", made_up_tree / "Testing"
    # Twice within Training; in Training and Testing; in Training and twice in Testing; same pixels, other file format.
    shutil.copy(training / "no_tumor" / "00.png", training / "no_tumor" / "copy.png")
    shutil.copy(training / "no_tumor" / "01.png", testing / "no_tumor" / "copy.png")
    for i in range(2):
        shutil.copy(training / "glioma_tumor" / "02.png", testing / "glioma_tumor" / f"copy{i}.png")
    with Image.open(training / "pituitary_tumor" / "03.png") as image:
        image.save(testing / "pituitary_tumor" / "copy.bmp")
    rows, settings = prepare(made_up_tree, tmp_path / "D", "--protocol", protocol)
    assert settings["duplicate_groups"] == 4
    assert settings["superfluous_images"] == 5
    assert settings["duplicate_groups_across_training_and_testing"] == 3
    assert settings["testing_images_also_in_training"] == 4
    assert settings["duplicate_groups_with_conflicting_labels"] == 0
    assert_no_leak(rows)
    excluded = {row["path"]: row["excluded"] for row in rows if row["excluded"]}
    if protocol == "official":
        assert set(excluded) == {
            "Training/no_tumor/01.png",
            "Training/glioma_tumor/02.png",
            "Training/pituitary_tumor/03.png",
        }
        assert "Testing/no_tumor/copy.png" in excluded["Training/no_tumor/01.png"]
        assert all(row["split"] == "" for row in rows if row["excluded"])
    else:
        assert not excluded


def test_validation_images_are_no_training_images(made_up_tree, tmp_path):
    """A test image that also lies in the published validation folder is not "also in Training" for that."""
    testing, validation = made_up_tree / "Testing", made_up_tree / "Validation"
    for c, name in enumerate(CLASSES):
        for i in range(3):
            write_image(validation / name / f"{i}.png", 5000 + 10 * c + i)
    shutil.copy(testing / "no_tumor" / "00.png", validation / "no_tumor" / "copy.png")
    rows, settings = prepare(made_up_tree, tmp_path / "D", "--protocol", "official")
    assert settings["duplicate_groups"] == 1
    assert settings["duplicate_groups_across_training_and_testing"] == settings["testing_images_also_in_training"] == 0
    assert [row["path"] for row in rows if row["excluded"]] == ["Validation/no_tumor/copy.png"]


def test_same_pixels_with_other_labels_are_counted(made_up_tree, tmp_path):
    shutil.copy(made_up_tree / "Training/no_tumor/00.png", made_up_tree / "Training/glioma_tumor/copy.png")
    rows, settings = prepare(made_up_tree, tmp_path / "D")
    assert settings["duplicate_groups_with_conflicting_labels"] == 1
    assert_no_leak(rows)


def test_both_spellings_of_the_classes(made_up_tree, tmp_path):
    reference, _ = prepare(made_up_tree, tmp_path / "A")
    for split in ("Training", "Testing"):
        for name, other in zip(CLASSES, ("glioma", "meningioma", "notumor", "pituitary"), strict=True):
            (made_up_tree / split / name).rename(made_up_tree / split / other)
    rows, _ = prepare(made_up_tree, tmp_path / "B")
    same = ("label", "class", "split", "group", "sha256")
    assert [[row[key] for key in same] for row in rows] == [[row[key] for key in same] for row in reference]


def test_splits_follow_content_not_file_names(made_up_tree, tmp_path):
    first, _ = prepare(made_up_tree, tmp_path / "A")
    for i, path in enumerate(sorted(made_up_tree.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed{i:03d}.png"))
    second, _ = prepare(made_up_tree, tmp_path / "B")
    assert {r["sha256"]: r["split"] for r in first} == {r["sha256"]: r["split"] for r in second}
    third, _ = prepare(made_up_tree, tmp_path / "C", "--seed", 1)
    assert {r["sha256"]: r["split"] for r in first} != {r["sha256"]: r["split"] for r in third}


def made_up_records(subjects, images, name="subject {}"):
    """`images` records of each of so many subjects, of three classes in turn, their pixels' fingerprints made up."""
    return [
        Record(
            f"{k}.png",
            "abc"[k // images % 3],
            subject=name.format(k // images),
            sha256=hashlib.sha256(str(k).encode()).hexdigest(),
        )
        for k in range(subjects * images)
    ]


def splits_by_image(records, **options):
    splits = assign_splits(records, [record.subject for record in records], "stratified", **{"seed": 0, **options})
    return dict(zip((record.sha256 for record in records), splits, strict=True))


def test_splits_are_what_they_were():
    """Whatever the version of scikit-learn: checkpoints carry the split's digest."""
    splits = splits_by_image(made_up_records(60, 2))
    letters = "".join(splits[record.sha256][1] for record in made_up_records(60, 2))  # tRain, vAl, tEst
    assert Counter(letters) == {"r": 84, "a": 12, "e": 24}
    assert hashlib.sha256(letters.encode()).hexdigest()[:16] == "0e650e2db7510226"


def test_splits_do_not_follow_the_names_of_subjects():
    """Renamed, or their order turned round: the same images in the same splits."""
    first = splits_by_image(made_up_records(60, 2))
    renamed = made_up_records(60, 2)
    for record in renamed:
        record.subject = hashlib.sha256(record.subject.encode()).hexdigest()
    assert splits_by_image(renamed) == first
    assert splits_by_image(renamed[::-1]) == first
    assert splits_by_image(renamed, seed=1) != first


def test_mean_and_std_of_many_images_need_no_memory_for_them():
    thumbnails = np.random.default_rng(0).integers(0, 200, (300, 64, 64), dtype=np.uint8)
    records = [Record(str(i), "a", thumbnail=thumbnail) for i, thumbnail in enumerate(thumbnails)]
    tracemalloc.start()
    found = mean_and_std(records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == (round(float((thumbnails / 255).mean()), 3), round(float((thumbnails / 255).std()), 3))
    assert peak < thumbnails.nbytes / 2
    assert mean_and_std([Record("x", "a", thumbnail=np.full((64, 64), 51, np.uint8))]) == (0.2, 0.001)


@pytest.mark.parametrize("subjects", [12, 15, 18])
def test_small_studies_have_every_class_in_every_split(subjects):
    """An eighth of what is left would be less than one subject of each class: then it is more than an eighth."""
    records = made_up_records(subjects, 4)
    splits = splits_by_image(records, fold=(0, 4))
    found = {(splits[record.sha256], record.class_name) for record in records}
    assert found == {(split, name) for split in ("train", "val", "test") for name in "abc"}


def test_subjects_of_phantoms_stay_whole(data_dir):
    with (data_dir / "Phantom_MRI" / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert_no_leak(rows)
    assert len({row["group"] for row in rows}) == 60


def test_unreadable_images_stop_or_are_set_aside(made_up_tree, tmp_path, fails):
    broken = made_up_tree / "Training" / "no_tumor" / "00.png"
    broken.write_bytes(broken.read_bytes()[:200])
    (made_up_tree / "Testing" / "glioma_tumor" / "00.png").write_text("not an image")
    flags = ("--dataset", "Brain_Tumor", "--source", made_up_tree, "--data_dir", tmp_path / "D")
    fails(1, ("2 unreadable", broken, "--skip_unreadable"), "prepare_data", *flags)
    assert not (tmp_path / "D" / "Brain_Tumor" / "manifest.csv").exists()
    rows, settings = prepare(made_up_tree, tmp_path / "D", "--skip_unreadable")
    excluded = [row for row in rows if row["excluded"]]
    assert settings["unreadable"] == len(excluded) == 2
    assert all(row["excluded"].startswith("unreadable: ") and row["split"] == "" for row in excluded)


def test_a_jpeg_whose_only_table_has_the_number_1(made_up_tree, tmp_path):
    path = made_up_tree / "Training" / "no_tumor" / "odd.jpg"
    write_image(path, 500, size=(64, 64), quality=60)
    with Image.open(path) as image:
        image.convert("L").save(path, quality=60)
    data = path.read_bytes()
    table, frame = data.index(b"\xff\xdb") + 4, data.index(b"\xff\xc0") + 12
    data = bytearray(data)
    assert (data[table], data[frame]) == (0, 0)
    data[table] = data[frame] = 1
    path.write_bytes(data)
    rows, _ = prepare(made_up_tree, tmp_path / "D")
    assert [row["excluded"] for row in rows if row["path"].endswith("odd.jpg")] == [""]


def test_bad_sources(made_up_tree, tmp_path, fails):
    flags = ("prepare_data", "--dataset", "Brain_Tumor", "--data_dir", tmp_path / "D", "--source")
    fails(1, (tmp_path / "gone", "no such folder"), *flags, tmp_path / "gone")
    for name in ("cats", "dogs"):
        write_image(tmp_path / "pets" / name / "0.png", 998)
    fails(1, (tmp_path / "pets", "neither Training/ and Testing/", "no_tumor"), *flags, tmp_path / "pets")
    write_image(made_up_tree / "Training" / "oedema" / "0.png", 999)
    fails(1, ("oedema", "unknown class", "no_tumor"), *flags, made_up_tree)
    shutil.rmtree(made_up_tree / "Training" / "oedema")
    shutil.rmtree(made_up_tree / "Testing" / "no_tumor")
    (made_up_tree / "Testing" / "no_tumor").mkdir()
    fails(1, (made_up_tree / "Testing" / "no_tumor", "no images in it"), *flags, made_up_tree)
    (made_up_tree / "Testing" / "no_tumor").rmdir()
    fails(1, ("Testing", "no images of class no_tumor"), *flags, made_up_tree)
    fails(1, ("--source", "--download"), *flags[:-1])
    fails(1, ("--dataset", "Brain_Tumor", "--source"), "prepare_data", "--dataset", "Brains")
    fails(1, ("plain folder name",), "prepare_data", "--dataset", "a/b")


def test_failed_download_says_what_to_do_by_hand(tmp_path, fails, monkeypatch):
    import sys
    import types

    def unreachable(slug):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=unreachable))
    words = ("kaggle.com/datasets/sartajbhuvaji", "unzip", "prepare_data.py --dataset Brain_Tumor --source")
    flags = ("prepare_data", "--dataset", "Brain_Tumor", "--download", "--data_dir", tmp_path)
    fails(1, words, *flags)
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    fails(1, ("pip install kagglehub", *words), *flags)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_brain_tumor_set(brain_tumor_source, tmp_path, protocol):
    """The published facts: 3,264 images, 300 groups of identical ones, 213 of them across Training and Testing."""
    rows, settings = prepare(brain_tumor_source, tmp_path, "--protocol", protocol)
    assert len(rows) == 3264
    assert settings["duplicate_groups"] == 300
    assert settings["superfluous_images"] == 394
    assert settings["duplicate_groups_across_training_and_testing"] == 213
    assert (settings["testing_images_also_in_training"], settings["testing_images"]) == (251, 394)
    assert settings["duplicate_groups_with_conflicting_labels"] == 0
    assert_no_leak(rows)
    if protocol == "stratified":
        assert not any(row["excluded"] for row in rows)
        shares = Counter(row["split"] for row in rows)
        assert shares["test"] / 3264 == pytest.approx(0.2, abs=0.005)
        assert shares["val"] / 3264 == pytest.approx(0.1, abs=0.005)
