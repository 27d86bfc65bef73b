"""The audit: each planted fault is found, a clean tree passes; near duplicates, shortcuts, what random splits leak."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from conftest import CLASSES, run_script, write_image
from PIL import ExifTags, Image, ImageEnhance

from common import files
from datasets import read_manifest
from imaging.catalogue import DatasetInfo
from preparation.audit import (
    audit,
    check_balance,
    check_duplicates,
    check_groups,
    draw_duplicates,
    random_split_leak,
)
from preparation.duplicates import group_names, near_duplicates, near_pairs
from preparation.scan import Record, read_images
from preparation.shortcuts import shortcuts
from preparation.sources import find_images, find_subjects, other_files
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


def audited(source, protocol="stratified", subjects=None):
    """(records, their splits, findings by check), as prepare_data.py makes them."""
    records, _ = find_images(source, None)
    find_subjects(records, source, subjects)
    read_images(records, source, INFO, source.parent / "kept")
    near = near_duplicates(records, 0.98)
    groups = group_names(records, near)
    splits = assign_splits(records, groups, protocol, seed=0, pictures=group_names(records, near, subjects=False))
    found = audit(records, near, groups, splits, INFO, other_files(source))
    return records, splits, {each.check: each for each in found}


def findings_of(source):
    return audited(source)[2]


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
    records, splits, found = audited(pictures)
    (group,) = found["nearly identical images"].images
    assert len({split for record, split in zip(records, splits, strict=True) if record.path in group}) == 1
    assert found["nearly identical images"].done == "kept in one split"
    assert sorted(group) == [
        "glioma_tumor/darker.png",
        "no_tumor/00.png",
        "no_tumor/jpeg.jpg",
        "no_tumor/larger.png",
    ]
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
    write_sixteen = np.random.default_rng(0).integers(0, 60_000, (64, 64), dtype=np.uint16)
    Image.fromarray(write_sixteen).save(pictures / "no_tumor" / "sixteen.png")
    (pictures / "no_tumor" / "outline.dat").write_text("1 2 3")
    found = findings_of(pictures)
    assert (found["other files"].severity, found["other files"].detail) == ("note", "1 .dat")
    assert found["identical images"].count == 2
    assert found["identical, two labels"].severity == "error"
    assert found["identical, two labels"].images == (("no_tumor/02.png", "pituitary_tumor/copy.png"),)
    assert found["unreadable files"].images == (("no_tumor/torn.png",),)
    odd = {images[0] for images in found["odd pixel formats"].images}
    assert odd == {"no_tumor/palette.png", "no_tumor/alpha.png", "no_tumor/sixteen.png"}
    assert found["sides below 32 px"].images == (("no_tumor/small.png",),)


def test_pictures_are_turned_and_the_first_page_is_read(pictures):
    folder, turned = pictures / "no_tumor", Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    tall = smooth_image(903, (64, 96))
    for name in ("turned.jpg", "turned.png", "turned.tif"):
        tall.save(folder / name, exif=turned)
    tall.save(folder / "pages.tif", save_all=True, append_images=[smooth_image(904), smooth_image(905)])
    records, _, found = audited(pictures)
    read = {record.path: record for record in records}
    names = ("pages.tif", "turned.jpg", "turned.png", "turned.tif")
    assert found["orientation and pages"].images == tuple((f"no_tumor/{name}",) for name in names)
    assert found["orientation and pages"].severity == "note"
    assert found["orientation and pages"].detail == "3 turned as its header says, 1 page 1 of 3"
    assert [read[f"no_tumor/{name}"].height for name in names] == [96, 64, 64, 64]


def test_flat_images_and_doubtful_levels_are_found(pictures):
    """Images that show nothing; pictures of 16 bits that were given different scales; kinds that are not read."""
    folder = pictures / "no_tumor"
    for name in ("constant.png", "saturated.bmp"):
        pixels = np.zeros((64, 64), np.uint8)
        pixels[:, : 30 * name.startswith("s")] = 255
        Image.fromarray(pixels).save(folder / name)
    noise = np.random.default_rng(0).integers(120, 130, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "photo.HEIC").write_bytes(b"a picture")
    found = audited(pictures)[2]
    assert found["flat images"].severity == "warning"
    assert {path for (path,) in found["flat images"].images} == {
        "no_tumor/constant.png",
        "no_tumor/noise.png",
        "no_tumor/saturated.bmp",
    }
    assert set(found["flat images"].detail.split(", ")) == {"1 constant", "1 almost constant", "1 saturated"}
    assert (found["pictures of other kinds"].severity, found["pictures of other kinds"].count) == ("warning", 1)
    assert found["levels and colours"].severity == "ok"
    for bits in (12, 16):
        top = 2**bits - 1
        deep = np.random.default_rng(bits).integers(0, top, (64, 64)).astype(np.uint16)
        Image.fromarray(deep).save(folder / f"{bits}.png")
        level = audited(pictures)[2]["levels and colours"]
        assert (level.severity, level.count) == (("note", 1) if bits == 12 else ("warning", 2))
        assert f"1 16 bit, white is {top}" in level.detail
    assert "--window" in level.done


@pytest.fixture
def published(pictures):
    """The same pictures with a published split, in which the first eight of each class are for training: one of them
    lies in Testing too, one nearly, and subject 8 of each class has an image on each side."""
    for c, name in enumerate(CLASSES):
        for split in ("Training", "Testing"):
            (pictures / split / name).mkdir(parents=True)
        for i in range(12):
            (pictures / name / f"{i:02d}.png").rename(
                pictures / ("Testing", "Training")[i < 8] / name / f"s{i:02d}.png"
            )
        (pictures / name).rmdir()
        smooth_image(1000 + c).save(pictures / "Training" / name / "s08_again.png")
    training, testing = pictures / "Training" / "no_tumor", pictures / "Testing" / "no_tumor"
    shutil.copy(training / "s00.png", testing / "s00_copy.png")
    Image.open(training / "s01.png").save(testing / "s01_jpeg.jpg", quality=60)
    return pictures


def test_the_published_split(published):
    """Copies, near copies and subjects on both of its sides are reported, each with what was done about it."""
    records, splits, found = audited(published, "official", r"/(\w+/s\d\d)")
    assert found["identical, published split"].images == (
        ("Testing/no_tumor/s00_copy.png", "Training/no_tumor/s00.png"),
    )
    assert found["nearly identical, published split"].images == (
        ("Testing/no_tumor/s01_jpeg.jpg", "Training/no_tumor/s01.png"),
    )
    for kind in ("identical", "nearly identical"):
        assert found[f"{kind}, published split"].detail == "groups in two of its splits, with 1 of its 18 test images"
        assert found[f"{kind}, published split"].done == "1 image left out of training or validation"
    groups = found["groups, published split"]
    assert (groups.severity, groups.count) == ("warning", 6)
    assert groups.done == "6 images left out of training or validation"
    reasons = {record.path: record.excluded for record in records if record.excluded}
    assert reasons == {
        "Training/no_tumor/s00.png": "also in test: Testing/no_tumor/s00_copy.png",
        "Training/no_tumor/s01.png": "also in test: Testing/no_tumor/s01_jpeg.jpg",
        **{f"Training/{name}/s08_again.png": "its group is in test" for name in CLASSES},
    }
    assert all((split == "") == bool(record.excluded) for record, split in zip(records, splits, strict=True))
    assert found["groups in two splits"].count == 0


def test_what_a_leaky_split_does_is_not_called_kept(published, tmp_path, capsys):
    flags = ("--dataset", "M", "--source", published, "--data_dir", tmp_path / "D", "--group_by", r"/(\w+/s\d\d)")
    run_script("prepare_data", *flags, "--leaky", "--audit", "--seed", 1)
    text = capsys.readouterr().out
    assert "of them in two splits" in text
    assert "groups stay whole" not in text
    for wrong in (("--leaky",), ("--fold", "1/5")):
        with pytest.raises(SystemExit):
            run_script("prepare_data", *flags, "--protocol", "official", *wrong)
        assert f"{wrong[0]} deals images anew" in capsys.readouterr().err


def test_near_and_fit_make_another_manifest(pictures, tmp_path):
    """--near 1 keeps identical images together only; another --fit makes another digest of the same table."""
    Image.open(pictures / "no_tumor" / "00.png").save(pictures / "no_tumor" / "jpeg.jpg", quality=60)
    found = {}
    for name, flags in (("A", ()), ("B", ("--near", 1)), ("C", ("--fit", "letterbox"))):
        run_script("prepare_data", "--dataset", "M", "--source", pictures, "--data_dir", tmp_path / name, *flags)
        found[name] = read_manifest("M", tmp_path / name)
    of_pair = {
        name: {row["group"] for row in manifest.rows if row["path"] in ("no_tumor/00.png", "no_tumor/jpeg.jpg")}
        for name, manifest in found.items()
    }
    assert {name: len(groups) for name, groups in of_pair.items()} == {"A": 1, "B": 2, "C": 1}
    assert [manifest.settings["near"] for manifest in found.values()] == [0.98, None, 0.98]
    assert len({manifest.digest for manifest in found.values()}) == 3
    assert found["A"].digest == files.sha256(found["A"].path)  # what checkpoints of old hold
    assert found["A"].rows == found["C"].rows
    assert found["C"].info.fit == "letterbox"


def test_an_audit_looks_past_unreadable_files(pictures, tmp_path, fails, capsys):
    (pictures / "no_tumor" / "torn.png").write_bytes((pictures / "no_tumor" / "03.png").read_bytes()[:300])
    shutil.copy(pictures / "no_tumor" / "01.png", pictures / "no_tumor" / "copy.png")
    flags = ("prepare_data", "--dataset", "M", "--source", pictures, "--data_dir", tmp_path / "D")
    fails(1, ("1 unreadable", "torn.png", "--skip_unreadable"), *flags, "--audit")
    with (tmp_path / "D" / "M" / "audit.csv").open(newline="") as stream:
        found = {row["check"]: row for row in csv.DictReader(stream) if not row["images"]}
    assert (found["unreadable files"]["count"], found["identical images"]["count"]) == ("1", "1")
    assert not (tmp_path / "D" / "M" / "manifest.csv").exists()


def test_the_picture_of_duplicates(tmp_path, monkeypatch):
    """The pair that makes the finding, as bright as it is, whatever its name; how many there are is said."""
    from matplotlib.figure import Figure

    def record(path, class_name, source_split, level):
        thumbnail = np.full((64, 64), level, np.uint8)
        return Record(path, class_name, source_split, sha256="same", thumbnail=thumbnail)

    records = [
        record("a/first $x^$.png", "a", "train", 250),
        record("a/mate.png", "a", "train", 250),
        record("a/other side.png", "a", "test", 250),
        record("b/other $label.png", "b", "train", 250),
    ]
    findings = check_duplicates(records, [], ["train"] * 4)
    titles, levels = [], []

    def look(figure, path, **_):
        drawn = [axis for axis in figure.axes if axis.images]
        titles.append(figure.get_suptitle())
        titles.extend(axis.get_title() for axis in drawn)
        save(figure, path, dpi=50)
        levels.append(np.asarray(Image.open(path).convert("L")))

    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", look)
    assert draw_duplicates(tmp_path / "d.png", findings, records, synthetic=True)
    assert titles == [
        "SYNTHETIC: alike images, 3 of 3",
        "identical, two labels\na train\na/first $x^$.png",
        "\nb train\nb/other $label.png",
        "identical, published split\na train\na/first $x^$.png",
        "\na test\na/other side.png",
        "identical images\na train\na/first $x^$.png",
        "\na train\na/mate.png",
    ]
    (level,) = levels
    assert 0.05 < (level == 250).mean() < 0.5  # the six thumbnails
    assert (level < 60).mean() < 0.02
    monkeypatch.setattr("preparation.audit.PAIRS", 2)
    draw_duplicates(tmp_path / "d.png", findings, records, synthetic=False)
    assert "Alike images, 2 of 3" in titles
    assert not draw_duplicates(tmp_path / "d.png", [], records, synthetic=False)
    assert not (tmp_path / "d.png").exists()  # it would be of other images


def test_near_pairs_do_not_depend_on_the_block():
    thumbnails = np.random.default_rng(0).integers(0, 256, (23, 8, 8), dtype=np.uint8)
    thumbnails[20] = thumbnails[3] // 2 + 40
    thumbnails[22] = 7  # one grey value: like nothing, not even itself
    thumbnails[21] = 7
    assert [(i, j) for i, j, _ in near_pairs(thumbnails, 0.98, block=5)] == [(3, 20)]
    small, large = (sorted(near_pairs(thumbnails, 0.1, block=block)) for block in (4, 100))
    assert len(small) > 5
    assert np.allclose(small, large)


def test_many_alike_images_need_no_memory_for_their_pairs():
    """Two films of 40 frames each, 780 pairs: as few as join the frames of each to one group, whatever the block."""
    thumbnails = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)[np.arange(80) % 2]
    records = [Record(path=str(i), class_name="a", sha256=str(i)) for i in range(80)]
    assert len(near_pairs(thumbnails, 0.98)) == 2 * 780
    for block in (30, 100):
        pairs = near_pairs(thumbnails, 0.98, block, many=50)
        assert len(pairs) < 300
        assert all(i < j and (j - i) % 2 == 0 for i, j, _ in pairs)
        assert len(set(group_names(records, pairs))) == 2


def test_groups_in_two_splits_are_an_error():
    records = [Record(path=str(i), class_name="a") for i in range(4)]
    _, leak, _ = check_groups(records, ["g", "g", "h", "h"], ["train", "test", "val", "val"])
    assert (leak.severity, leak.count) == ("error", 1)


def test_what_a_random_split_leaks():
    assert random_split_leak([str(i) for i in range(1000)]) == 0  # every image a group of its own
    # Pairs: the mate of a test image is in training with probability 0.7.
    assert random_split_leak([str(i // 2) for i in range(4000)]) == pytest.approx(0.7, abs=0.03)


def test_missing_and_rare_classes():
    records = [Record(path=str(i), class_name=CLASSES[i % 4]) for i in range(40)]
    splits = ["train"] * 16 + ["val"] * 12 + ["test"] * 12
    groups = [record.path for record in records]

    def balance(records, splits):
        found = check_balance(records, groups[: len(records)], splits, INFO)
        return {each.check: each for each in found}

    few = balance(records, splits)["classes a split hardly has"]
    assert (few.severity, few.count) == ("warning", 12)
    assert balance(records[:1] + records[4:], splits[:-3])["class imbalance"].severity == "ok"
    assert balance(records, ["train"] * 40)["classes a split hardly has"].severity == "error"
    unequal = records + [Record(path=f"more {i}", class_name=CLASSES[0]) for i in range(25)]
    groups += [record.path for record in unequal[40:]]
    assert balance(unequal, splits + ["train"] * 25)["class imbalance"].severity == "warning"


def test_a_group_too_large_to_deal():
    """Half of a class is one patient: wherever that goes, the split is none of 70/10/20."""
    records = [Record(path=str(i), class_name=CLASSES[i % 4]) for i in range(80)]
    groups = ["one" if i % 4 == 1 and i < 40 else str(i) for i in range(80)]
    (found,) = (each for each in check_balance(records, groups, ["train"] * 80, INFO) if "large" in each.check)
    assert (found.severity, found.count, found.detail) == ("warning", 1, f"one holds 50% of {CLASSES[1]}")


def test_a_class_that_the_published_split_has_on_one_side(published):
    assert audited(published)[2]["classes, published split"].severity == "ok"
    (published / "Testing" / "new").mkdir()
    for i in range(12):
        smooth_image(3000 + i).save(published / "Testing" / "new" / f"{i}.png")
    records, classes = find_images(published, None)
    splits = ["train"] * len(records)
    found = check_balance(records, [r.path for r in records], splits, DatasetInfo(title="", classes=classes))
    assert ("classes, published split", "warning", "no new in train") in {
        (f.check, f.severity, f.detail) for f in found
    }


@pytest.mark.parametrize("planted", ["image size", "border", "mean intensity", "how it was saved"])
def test_shortcuts(planted):
    """A class that only its size, its border, its brightness or its file tells is found by that trait and no other."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(200):
        label = i % 2
        record = Record(str(i), "ab"[label], width=100, height=100, format="PNG", mode="L")
        record.bytes = int(rng.integers(900, 1100))
        record.thumbnail = rng.integers(90, 160, (64, 64), dtype=np.uint8) + np.uint8(rng.integers(0, 10))
        if label and planted == "image size":
            record.height = 101
        elif label and planted == "border":
            record.thumbnail[:3] = 0
            record.thumbnail[20:50] += 13  # so that the mean stays
        elif label and planted == "mean intensity":
            record.thumbnail[20:50, 10:50] += 40
        elif label:
            record.format, record.quantisation = "JPEG", 10.0
        records.append(record)
    found = {name: accuracy for name, (accuracy, _) in shortcuts(records, [str(i // 2) for i in range(200)]).items()}
    assert len(found) == 4
    assert found.pop(planted) > 0.95
    assert max(found.values()) < 0.65


def test_no_shortcut_where_nothing_differs():
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
