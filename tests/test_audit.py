"""The audit: each planted fault is found, a clean tree passes; near duplicates, shortcuts, what random splits leak."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from conftest import CLASSES, run_script, write_image
from PIL import Image, ImageEnhance

from catalogue import DatasetInfo
from preparation.audit import audit, check_balance, check_groups, random_split_leak
from preparation.duplicates import group_names, near_duplicates, near_pairs
from preparation.scan import Record, read_images
from preparation.shortcuts import shortcuts
from preparation.sources import find_images
from preparation.splits import assign_splits

INFO = DatasetInfo(title="made up", classes=CLASSES)


def smooth_image(seed, size=(64, 64)):
    """A picture with structure at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [Image.fromarray(rng.integers(0, 256, (n, n), dtype=np.uint8)).resize(size) for n in (4, 8, 16, 32)]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8)).convert("RGB")


@pytest.fixture
def pictures(tmp_path):
    """A folder for each class, 12 different pictures in each."""
    for c, name in enumerate(CLASSES):
        (tmp_path / "P" / name).mkdir(parents=True)
        for i in range(12):
            smooth_image(100 * c + i).save(tmp_path / "P" / name / f"{i:02d}.png")
    return tmp_path / "P"


def findings_of(source):
    records, _ = find_images(source, None)
    read_images(records, source, INFO)
    near = near_duplicates(records, 0.98)
    groups = group_names(records, near)
    splits = assign_splits(records, groups, "stratified", seed=0)
    return {found.check: found for found in audit(records, near, groups, splits, INFO)}


def test_a_clean_tree_passes(pictures):
    found = findings_of(pictures)
    wrong = {name: f for name, f in found.items() if f.severity not in ("ok", "note")}
    assert set(wrong) <= {"classes a split hardly has", *(name for name in found if name.startswith("shortcut"))}
    assert found["classes a split hardly has"].severity == "warning"  # 12 images: one or two for validation
    assert found["groups in two splits"].count == 0


def test_the_same_picture_in_other_words(pictures):
    """Compressed, resized, brightened: one picture; mirrored or drawn anew: another."""
    first = Image.open(pictures / "no_tumor" / "00.png")
    first.save(pictures / "no_tumor" / "jpeg.jpg", quality=60)
    first.resize((91, 91)).save(pictures / "no_tumor" / "larger.png")
    ImageEnhance.Brightness(first).enhance(0.8).save(pictures / "glioma_tumor" / "darker.png")
    first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pictures / "no_tumor" / "mirrored.png")
    found = findings_of(pictures)
    (group,) = found["nearly identical images"].images
    assert sorted(group) == [
        "glioma_tumor/darker.png", "no_tumor/00.png", "no_tumor/jpeg.jpg", "no_tumor/larger.png",
    ]  # fmt: skip
    assert found["nearly identical, two labels"].images == (group,)
    assert found["nearly identical, two labels"].severity == "warning"
    assert found["groups in two splits"].count == 0


def test_planted_faults(pictures):
    shutil.copy(pictures / "no_tumor" / "01.png", pictures / "no_tumor" / "copy.png")
    shutil.copy(pictures / "no_tumor" / "02.png", pictures / "pituitary_tumor" / "copy.png")
    (pictures / "no_tumor" / "torn.png").write_bytes((pictures / "no_tumor" / "03.png").read_bytes()[:300])
    smooth_image(900).convert("P").save(pictures / "no_tumor" / "palette.png")
    smooth_image(901).convert("RGBA").save(pictures / "no_tumor" / "alpha.png")
    smooth_image(902, (20, 50)).save(pictures / "no_tumor" / "small.png")
    found = findings_of(pictures)
    assert found["identical images"].count == 2
    assert found["identical, two labels"].severity == "error"
    assert found["identical, two labels"].images == (("no_tumor/02.png", "pituitary_tumor/copy.png"),)
    assert found["unreadable files"].images == (("no_tumor/torn.png",),)
    assert {images[0] for images in found["odd pixel formats"].images} == {"no_tumor/palette.png", "no_tumor/alpha.png"}
    assert found["sides below 32 px"].images == (("no_tumor/small.png",),)


def test_near_pairs_do_not_depend_on_the_block():
    thumbnails = np.random.default_rng(0).integers(0, 256, (23, 8, 8), dtype=np.uint8)
    thumbnails[20] = thumbnails[3] // 2 + 40
    thumbnails[22] = 7  # one grey value: like nothing, not even itself
    thumbnails[21] = 7
    assert [(i, j) for i, j, _ in near_pairs(thumbnails, 0.98, block=5)] == [(3, 20)]
    small, large = (sorted(near_pairs(thumbnails, 0.1, block=block)) for block in (4, 100))
    assert len(small) > 5
    assert np.allclose(small, large)


def test_groups_in_two_splits_are_an_error():
    records = [Record(path=str(i), class_name="a") for i in range(4)]
    leak, _ = check_groups(records, ["g", "g", "h", "h"], ["train", "test", "val", "val"])
    assert (leak.severity, leak.count) == ("error", 1)


def test_what_a_random_split_leaks():
    assert random_split_leak([str(i) for i in range(1000)]) == 0  # every image a group of its own
    # Pairs: the mate of a test image is in training with probability 0.7.
    assert random_split_leak([str(i // 2) for i in range(4000)]) == pytest.approx(0.7, abs=0.03)


def test_missing_and_rare_classes():
    records = [Record(path=str(i), class_name=CLASSES[i % 4]) for i in range(40)]
    splits = ["train"] * 16 + ["val"] * 12 + ["test"] * 12
    few, _ = check_balance(records, splits, INFO)
    assert (few.severity, few.count) == ("warning", 12)
    few, balance = check_balance(records[:1] + records[4:], splits[:-3], INFO)
    assert balance.severity == "ok"
    few, _ = check_balance(records, ["train"] * 40, INFO)
    assert few.severity == "error"


def test_shortcuts():
    """A class that only its size, or only its border, tells is found by that trait and by no other."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(200):
        thumbnail = rng.integers(90, 160, (64, 64), dtype=np.uint8)
        label = i % 2
        if label:
            thumbnail[:3] = 0
            thumbnail[32:34] += 80  # the mean is the same
        records.append(Record(str(i), "ab"[label], width=100, height=100 + label, thumbnail=thumbnail, format="PNG",
                              mode="L", bytes=1000))  # fmt: skip
    found = shortcuts(records, [str(i // 2) for i in range(200)])
    assert found["image size"][0] == 1
    assert found["border"][0] > 0.95
    same = [Record(str(i), "ab"[i % 2], width=9, height=9, thumbnail=np.full((64, 64), 9, np.uint8)) for i in range(50)]
    assert {accuracy for accuracy, _ in shortcuts(same, [str(i) for i in range(50)]).values()} == {0.5}
    assert shortcuts(same[:6], list("abcdef")) == {}


def test_command_line(pictures, tmp_path, fails, capsys):
    flags = ("--dataset", "Mine", "--source", pictures, "--data_dir", tmp_path / "D")
    run_script("prepare_data", *flags, "--audit", "--strict")
    shown = capsys.readouterr().out
    assert "identical images" in shown
    folder = tmp_path / "D" / "Mine"
    assert not (folder / "manifest.csv").exists()
    assert not (folder / "duplicates.png").exists()
    shutil.copy(pictures / "no_tumor" / "02.png", pictures / "pituitary_tumor" / "copy.png")
    fails(1, ("not fit for use", "two labels"), "prepare_data", *flags, "--strict")
    assert not (folder / "manifest.csv").exists()
    run_script("prepare_data", *flags)
    assert (folder / "manifest.csv").exists()
    assert (folder / "duplicates.png").exists()
    with (folder / "audit.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["check"] == "identical, two labels"]
    assert [row["images"] for row in rows] == ["", "no_tumor/02.png | pituitary_tumor/copy.png"]


def test_size_shortcut_is_reported(tmp_path, capsys):
    for c, name in enumerate(("a", "b")):
        for i in range(30):
            write_image(tmp_path / "S" / name / f"{i}.png", 30 * c + i, size=(40, 40 + 5 * c))
    run_script("prepare_data", "--dataset", "S", "--source", tmp_path / "S", "--data_dir", tmp_path / "D", "--audit")
    line = next(line for line in capsys.readouterr().out.splitlines() if "shortcut: image size" in line)
    assert line.startswith("warning") and " 100 " in line
