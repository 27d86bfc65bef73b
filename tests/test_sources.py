"""A user's own images: folders with and without splits, tables, volumes, odd names; other label schemes; phantoms."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
from conftest import run_script, write_dicom, write_image
from PIL import Image

from datasets import get_dataset, read_manifest
from imaging.catalogue import DATASETS, dataset_info
from imaging.images import read_image, to_array
from preparation import scan
from preparation.phantom_cytology import _texture


def prepare(source, data_dir, *more, name="Mine"):
    run_script("prepare_data", "--dataset", name, "--source", source, "--data_dir", data_dir, *more)
    folder = data_dir / name
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return rows, json.loads((folder / "manifest.json").read_text())


def fill(folder, count, seed=0, names="{:02d}.png", **options):
    for i in range(count):
        write_image(folder / names.format(i), 1000 * seed + i, **options)


def splits_of(rows, key="class"):
    found = defaultdict(set)
    for row in rows:
        found[row[key]].add(row["split"])
    return found


def test_a_folder_for_each_class(tmp_path):
    for c, name in enumerate(("benign", "malignant", "weird klasse ä")):
        fill(tmp_path / "S" / name, 20, c)
    rows, settings = prepare(tmp_path / "S", tmp_path / "D", "--disease", "malignant")
    assert settings["info"]["classes"] == ["benign", "malignant", "weird klasse ä"]
    assert all(found == {"train", "val", "test"} for found in splits_of(rows).values())
    info = dataset_info("Mine", tmp_path / "D")
    assert info.groups == {"disease": (1,), "healthy": (0, 2)}
    assert info.mean == pytest.approx(0.5, abs=0.02)  # uniform noise
    dataset = get_dataset("Mine", "test", 16, data_dir=tmp_path / "D")
    assert dataset.info.classes == info.classes
    assert Counter(dataset.labels.tolist()) == {0: 4, 1: 4, 2: 4}


def test_a_published_split_in_other_words(tmp_path):
    for s, split in enumerate(("train", "valid", "test")):
        for c, name in enumerate("ab"):
            fill(tmp_path / "S" / split / name, 6, 10 * s + c)
    write_image(tmp_path / "S" / "train" / "a" / "leak.png", 10_000)  # the first image of valid/a
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--protocol", "official")
    for row in rows:
        published = {"train": "train", "valid": "val", "test": "test"}[row["path"].split("/")[0]]
        assert row["split"] == (published if not row["excluded"] else "")
    excluded = [(row["path"], row["excluded"]) for row in rows if row["excluded"]]
    assert excluded == [("train/a/leak.png", "also in val: valid/a/00.png")]


def test_official_needs_a_published_split(tmp_path, fails):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 6, c)
    flags = ("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D")
    fails(
        1, ("--protocol official", "no published split", "stratified"), "prepare_data", *flags, "--protocol", "official"
    )


def test_a_table(tmp_path, fails):
    fill(tmp_path / "images", 40, names="scan {:02d} ü.png")
    table = tmp_path / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "group", "split"))
        for i in range(40):
            writer.writerow((f"images/scan {i:02d} ü.png", "ab"[i % 2], f"patient {i // 4}", ""))
    rows, _ = prepare(table, tmp_path / "D")
    assert all(len(found) == 1 for found in splits_of(rows, "group").values())
    assert {row["group"] for row in rows} == {f"patient {i}" for i in range(10)}
    assert len(get_dataset("Mine", "train", 8, data_dir=tmp_path / "D")) > 20
    flags = ("prepare_data", "--dataset", "Mine", "--data_dir", tmp_path / "E", "--source", table)
    for text, words in (
        ('path,label\n"x.png,a\ny.png,b\n', ("not a UTF-8 table",)),
        ("path,label\nx,y.png,a\n", ("line 2", "3 cells, not 2", "quotes")),
        ("path,class\nx.png,a\n", ("path,label",)),
        ("path,label,split\nx.png,a,somewhere\n", ("line 2", "somewhere", "training")),
        ("path,label\nx.png,\n", ("line 2", "no label")),
        ("path,label\nx.png,a\n", ("1 class",)),
        ("path,label\ngone.png,a\nimages/scan 00 ü.png,b\n", ("unreadable", "gone.png")),
        ("path,label\nx.png,a\ny.png,b\nx.png,b\n", ("line 4", "x.png again", "line 2")),
    ):
        table.write_text(text)
        fails(1, (str(table) if "unreadable" not in words else "gone", *words), *flags)
    for encoding in ("latin-1", "utf-16"):
        table.write_text("path,label\nscän.png,a\n", encoding=encoding)
        fails(1, (table, "not a UTF-8 table"), *flags)
    table.write_text(
        " path ,label, group\n"
        + "".join(f"images/scan {i:02d} ü.png, {'ab'[i % 2]}{' ' * (i % 3)},{i} \n" for i in range(40)),
        encoding="utf-8",
    )
    rows, _ = prepare(table, tmp_path / "D")
    assert Counter(row["class"] for row in rows) == {"a": 20, "b": 20}
    assert {row["group"] for row in rows} == set(map(str, range(40)))
    table.write_text("path,label\nx.png,ill\n")
    flags = ("prepare_data", "--dataset", "Brain_Tumor", "--data_dir", tmp_path / "E", "--source", table)
    fails(1, (table, "line 2", "unknown class 'ill'", "glioma_tumor"), *flags)


def test_groups_by_a_regular_expression(tmp_path, fails):
    for c in range(24):  # two images of each subject
        fill(tmp_path / "S" / "ab"[c % 2], 2, c, names=f"subject{c:02d}_{{}}.png")
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--group_by", r"/(subject\d\d)")
    assert {row["group"] for row in rows} == {f"subject{c:02d}" for c in range(24)}
    assert all(len(found) == 1 for found in splits_of(rows, "group").values())
    flags = (
        "prepare_data",
        *("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D", "--group_by"),
    )
    fails(1, ("--group_by", "finds nothing in", "47 more"), *flags, "patient")
    fails(1, ("--group_by", "not a regular expression"), *flags, "(")


def test_a_leaky_split_says_so(tmp_path, capsys, fails):
    for c in range(24):
        fill(tmp_path / "S" / "ab"[c % 2], 3, c, names=f"subject{c:02d}_{{}}.png")
    flags = ("--group_by", r"/(subject\d\d)", "--leaky")
    rows, settings = prepare(tmp_path / "S", tmp_path / "D", *flags)
    assert settings["leaky"]
    assert any(len(found) > 1 for found in splits_of(rows, "group").values())
    assert any(
        "groups in two splits" in line and line.startswith("error") for line in capsys.readouterr().out.splitlines()
    )
    flags = ("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D", *flags, "--strict")
    fails(1, ("not fit for use", "groups in two splits"), "prepare_data", *flags)


def test_bad_trees(tmp_path, fails):
    flags = ("prepare_data", "--dataset", "Mine", "--data_dir", tmp_path / "D", "--source", tmp_path / "S")
    fill(tmp_path / "S" / "a", 6)
    fails(1, ("1 class", "at least two"), *flags)
    write_image(tmp_path / "S" / "b" / "0.png", 99)  # one image cannot be in three splits
    fails(1, ("too few images", "none of class", "b"), *flags)
    fails(1, ("--disease c", "a, b"), *flags, "--disease", "c")
    fails(1, ("--disease", "every class"), *flags, "--disease", "b", "a")
    fails(1, ("--label_scheme three", "none"), *flags, "--label_scheme", "three")
    (tmp_path / "E").mkdir()
    fails(1, ("no images",), *flags[:-1], tmp_path / "E")


@pytest.mark.parametrize("names", [("0", "1"), ("grade 1", "2"), ("001", "002")])
def test_classes_called_by_numbers(names, tmp_path):
    for c, name in enumerate(names):
        fill(tmp_path / "S" / name, 10, c)
    rows, settings = prepare(tmp_path / "S", tmp_path / "D")
    assert {row["class"]: row["label"] for row in rows} == {name: str(i) for i, name in enumerate(sorted(names))}
    assert settings["info"]["classes"] == sorted(names)


def test_splits_below_the_classes(tmp_path, fails):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name / "train", 12, c)
        fill(tmp_path / "S" / name / "test", 4, 10 + c)
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--protocol", "official")
    assert {row["split"] == "test" for row in rows if "/test/" in row["path"]} == {True}
    assert {row["split"] == "test" for row in rows if "/train/" in row["path"]} == {False}
    write_image(tmp_path / "S" / "a" / "more.png", 99)
    fails(
        1,
        ("--protocol official", "1 images are in no part", "a/more.png"),
        "prepare_data",
        *("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D", "--protocol", "official"),
    )


def test_a_manifest_does_not_tell_where_the_images_lie(tmp_path):
    """Nor do the reasons for which images were set aside."""
    nibabel = pytest.importorskip("nibabel")
    for c, name in enumerate("ab"):
        fill(tmp_path / "here" / name, 10, c)
    volume = np.random.default_rng(0).random((8, 8, 9))
    volume[2, 3] = np.inf
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "here" / "a" / "inf.nii.gz")
    for name in ("a/torn.nii", "a/torn.png", "b/torn.dcm"):
        (tmp_path / "here" / name).write_bytes(b"torn")
    elsewhere = ("there", "it's", "two  blanks", "line\u2028\n", "back\\slash \"'")
    for folder in elsewhere:
        shutil.copytree(tmp_path / "here", tmp_path / folder)
    tables = []
    for folder in ("here", *elsewhere):
        rows, _ = prepare(tmp_path / folder, tmp_path / "D", "--skip_unreadable")
        assert sum("unreadable" in row["excluded"] for row in rows) == 4
        assert not any(str(tmp_path) in row["excluded"] for row in rows)
        tables.append((tmp_path / "D" / "Mine" / "manifest.csv").read_bytes())
        assert not any("blanks/" in row["excluded"] or "slash" in row["excluded"] for row in rows)
    assert tables[0] == tables[1] == tables[2]


def test_a_class_in_testing_only(tmp_path, fails):
    for name in "ab":
        fill(tmp_path / "S" / "Training" / name, 12, ord(name))
    for name in "abc":
        fill(tmp_path / "S" / "Testing" / name, 6, 50 + ord(name))
    flags = ("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D", "--protocol", "official")
    fails(1, ("split train has none of class c",), "prepare_data", *flags)


def test_links(tmp_path):
    """A class folder may be a link, and so may a patient's folder in it."""
    for c, name in enumerate("ab"):
        fill(tmp_path / "elsewhere" / name, 12, c)
        fill(tmp_path / "patients" / name, 2, 10 + c)
    (tmp_path / "S").mkdir()
    for name in "ab":
        (tmp_path / "S" / name).symlink_to(tmp_path / "elsewhere" / name)
        (tmp_path / "elsewhere" / name / "patient").symlink_to(tmp_path / "patients" / name)
    rows, _ = prepare(tmp_path / "S", tmp_path / "D")
    assert Counter(row["class"] for row in rows) == {"a": 14, "b": 14}


def test_nothing_vanishes_unseen(tmp_path, fails, forbid):
    """A class of which no image is read stops the run, as does a folder that may not be read; hidden files do not."""
    for c, name in enumerate("abc"):
        fill(tmp_path / "S" / name, 12, c)
    (tmp_path / "S" / "d").mkdir()
    flags = ("prepare_data", "--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D")
    fails(1, (tmp_path / "S" / "d", "no images in it", ".png"), *flags)
    (tmp_path / "S" / "d" / "photo.gif").write_bytes(b"GIF")
    fails(1, (tmp_path / "S" / "d", "no images in it"), *flags)
    (tmp_path / "S" / "d" / "photo.gif").unlink()
    (tmp_path / "S" / "d").rmdir()
    for name in ("a/._x.png", "a/.x.tmp.png", "__MACOSX/a/._x.png"):
        (tmp_path / "S" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "S" / name).write_bytes(b"no image")
    assert len(prepare(tmp_path / "S", tmp_path / "D")[0]) == 36
    write_image(tmp_path / "S" / "stray.png", 7)
    fails(1, ("stray.png", "no folder of a class"), *flags)
    (tmp_path / "S" / "stray.png").unlink()
    forbid(tmp_path / "S" / "b")
    fails(1, (tmp_path / "S" / "b", "Permission denied"), *flags)


def test_images_that_lie_where_the_manifest_goes(tmp_path):
    """What the first run and the attacks put beside them are no classes; elsewhere such names are."""
    for c, name in enumerate(("a", "b", "AT_rich")):
        fill(tmp_path / "D" / "Mine" / name, 12, c)
    first, _ = prepare(tmp_path / "D" / "Mine", tmp_path / "E")
    assert {row["class"] for row in first} == {"a", "b", "AT_rich"}
    (tmp_path / "D" / "Mine" / "AT_rich").rename(tmp_path / "D" / "Mine" / "c")
    first, _ = prepare(tmp_path / "D" / "Mine", tmp_path / "D")
    get_dataset("Mine", "test", 8, data_dir=tmp_path / "D")
    fill(tmp_path / "D" / "Mine" / "AT_FGSM" / "0", 3, 9)
    second, _ = prepare(tmp_path / "D" / "Mine", tmp_path / "D")
    assert second == first


def test_odd_files(tmp_path):
    """16-bit, alpha, palette: read as 8-bit RGB; a truncated JPEG: set aside by name."""
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 10, c)
    ramp = np.linspace(0, 4095, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(ramp).save(tmp_path / "S" / "a" / "sixteen.png")
    Image.fromarray(ramp.astype(np.uint8)).convert("P").save(tmp_path / "S" / "a" / "palette.png")
    Image.fromarray(np.stack([ramp.astype(np.uint8)] * 4, axis=-1)).save(tmp_path / "S" / "a" / "alpha.png")
    write_image(tmp_path / "S" / "b" / "torn.jpg", 7, size=(60, 60))
    torn = tmp_path / "S" / "b" / "torn.jpg"
    torn.write_bytes(torn.read_bytes()[:900])
    rows, settings = prepare(tmp_path / "S", tmp_path / "D", "--skip_unreadable")
    assert settings["unreadable"] == 1
    assert [row["path"] for row in rows if row["excluded"]] == ["b/torn.jpg"]
    stretched = np.asarray(read_image(tmp_path / "S" / "a" / "sixteen.png"))
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_letterbox_keeps_the_proportions():
    image = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8)[:, None] * 6, (1, 20)))
    stretched, boxed = (to_array(image, 40, 1, fit)[0] for fit in ("resize", "letterbox"))
    assert (boxed[:, 10:30] == np.asarray(image)).all()
    assert (boxed[:, :10] == boxed[:, 10:11]).all()
    assert stretched.shape == boxed.shape == (40, 40)


def test_volumes_and_windows(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for c, name in enumerate("ab"):
        (tmp_path / "S" / name).mkdir(parents=True)
        for i in range(8):
            volume = np.random.default_rng([c, i]).normal(100 * c, 10, (16, 12, 20))
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "S" / name / f"{i}.nii.gz")
    rows, settings = prepare(tmp_path / "S", tmp_path / "D", "--slices", 3, "--window", -50, 150)
    assert len(rows) == 48
    assert {row["path"] for row in rows if row["group"] == "a/0.nii.gz"} == {f"a/0.nii.gz[{k}]" for k in (6, 10, 13)}
    assert all(len(found) == 1 for found in splits_of(rows, "group").values())
    assert settings["info"]["window"] == [-50, 150]
    dataset = get_dataset("Mine", "train", 16, channels=1, data_dir=tmp_path / "D")
    image, label = dataset[0]
    assert float(image.mean()) == pytest.approx((50 + 100 * label) / 200, abs=0.02)
    wide = read_image(tmp_path / "S" / "a" / "0.nii.gz[6]", (-1000, 1000))
    assert np.ptp(np.asarray(wide)) < 12
    with pytest.raises(ValueError, match="no slice 20"):
        read_image(tmp_path / "S" / "a" / "0.nii.gz[20]")
    torn = tmp_path / "S" / "a" / "1.nii.gz"
    torn.write_bytes(torn.read_bytes()[:40])
    rows, settings = prepare(tmp_path / "S", tmp_path / "D", "--skip_unreadable")
    assert settings["unreadable"] == 1
    assert [row["path"] for row in rows if row["excluded"]] == ["a/1.nii.gz"]


def test_what_lies_beside_a_published_split(tmp_path, fails):
    """A further folder of images, or images in no class; folders without images do not matter."""
    source = tmp_path / "S"
    for c, (split, count) in enumerate((("train", 12), ("test", 4))):
        for name in "ab":
            fill(source / split / name, count, 10 * c + ord(name))
    (source / "docs").mkdir()
    (source / "docs" / "read.me").write_text("…")
    assert len(prepare(source, tmp_path / "D")[0]) == 32
    flags = ("prepare_data", "--dataset", "Mine", "--source", source, "--data_dir", tmp_path / "D")
    write_image(source / "elsewhere" / "a" / "0.png", 5)
    fails(1, (source / "elsewhere", "no split", "test", "--layout classes"), *flags)
    (source / "elsewhere" / "a" / "0.png").rename(source / "train" / "0.png")
    fails(1, (source / "train" / "0.png", "no folder of a class"), *flags)


def test_spellings_of_class_names(tmp_path, fails):
    """Composed and decomposed letters are the same (macOS writes the latter); names that differ in case may be."""
    for c, (split, name) in enumerate(
        (("Training", "b\u00f6se"), ("Training", "gut"), ("Testing", "bo\u0308se"), ("Testing", "gut"))
    ):
        fill(tmp_path / "S" / split / name, 10, c)
    rows, _ = prepare(tmp_path / "S", tmp_path / "D")
    assert {row["class"] for row in rows} == {"b\u00f6se", "gut"}
    fill(tmp_path / "S" / "Testing" / "Gut", 3, 9)
    fails(
        1,
        ("Gut, gut", "case"),
        "prepare_data",
        *("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D"),
    )


def test_names_that_are_not_utf8(tmp_path, fails):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 10, c)
    (tmp_path / "S" / "a" / "00.png").rename(os.fsdecode(os.fsencode(tmp_path / "S" / "a") + b"/\xff.png"))
    flags = ("prepare_data", "--dataset", "Mine", "--data_dir", tmp_path / "D", "--source")
    fails(1, (r"a/\udcff.png", "not UTF-8"), *flags, tmp_path / "S")
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    fails(1, ("x.xlsx", "neither a folder nor a .csv"), *flags, tmp_path / "x.xlsx")


def test_process_folder(tmp_path):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / "process" / "train" / name, 10, c)
        fill(tmp_path / "S" / "process" / "test" / name, 4, 10 + c)
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--protocol", "official")
    assert {row["path"].split("/")[0] for row in rows} == {"process"}
    assert len(get_dataset("Mine", "test", 8, data_dir=tmp_path / "D")) == 8


def test_one_image_for_each_class(tmp_path, fails):
    for c, name in enumerate("abc"):
        fill(tmp_path / "S" / name, 1, c)
    fails(
        1,
        ("too few images", "a, b, c"),
        "prepare_data",
        *("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D"),
    )


def test_an_image_that_changed_after_its_preparation(tmp_path):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 10, c)
    prepare(tmp_path / "S", tmp_path / "D")
    write_image(tmp_path / "S" / "a" / "05.png", 77)
    with pytest.raises(ValueError, match=r"05\.png: is not the image any more"):
        get_dataset("Mine", "train", 8, data_dir=tmp_path / "D")
    prepare(tmp_path / "S", tmp_path / "D")
    assert len(get_dataset("Mine", "train", 8, data_dir=tmp_path / "D"))
    (tmp_path / "S").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"no such image; if .* run prepare_data\.py again"):
        get_dataset("Mine", "train", 9, data_dir=tmp_path / "D")


def test_slices_of_a_series_in_single_files(tmp_path):
    """In the order of the scan, whatever the files are called, from the middle half; by their number where they tell no
    position. Without --slices all are taken."""
    for c, name in enumerate("ab"):
        for patient in range(6):
            for k in range(8):
                values = np.random.default_rng([c, patient, k]).integers(0, 4000, (12, 12))
                place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 3.0 * k]}
                told = place if name == "a" else {"InstanceNumber": k}
                told |= {"PatientID": f"{name}{patient}", "SeriesInstanceUID": f"1.2.{c}.{patient}"}
                write_dicom(tmp_path / "S" / name / f"{patient}_{(5 * k) % 8}.dcm", values, **told)
    assert len(prepare(tmp_path / "S", tmp_path / "D")[0]) == 96
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--slices", 2)
    assert len(rows) == 24
    assert {row["path"].rpartition("_")[2] for row in rows} == {f"{(5 * k) % 8}.dcm" for k in (3, 5)}
    assert len(prepare(tmp_path / "S", tmp_path / "D", "--slices", 9)[0]) == 96  # a series of fewer gives them all


def test_dicom_files_group_by_patient(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    data = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "S" / name).mkdir(parents=True)
        for i in range(16):
            data.PatientID = f"{name} {i // 2}"
            data.PixelData = rng.integers(0, 1000, data.pixel_array.shape).astype(data.pixel_array.dtype).tobytes()
            data.save_as(tmp_path / "S" / name / f"{i}.dcm")
    rows, _ = prepare(tmp_path / "S", tmp_path / "D")
    assert len({row["group"] for row in rows}) == 16
    assert all(row["group"].startswith("patient ") and "a 0" not in row["group"] for row in rows)
    assert all(len(found) == 1 for found in splits_of(rows, "group").values())
    # Anonymised: the study tells them apart, and where that is gone too, the series.
    for kept, lost in (("StudyInstanceUID", "PatientID"), ("SeriesInstanceUID", "StudyInstanceUID")):
        for path in (tmp_path / "S").rglob("*.dcm"):
            data = pydicom.dcmread(path)
            setattr(data, kept, f"1.2.{ord(path.parent.name)}.{int(path.stem) // 4}")
            setattr(data, lost, "")
            data.save_as(path)
        rows, _ = prepare(tmp_path / "S", tmp_path / "D")
        assert len({row["group"] for row in rows}) == 8
        assert all(row["group"].startswith(f"{kept.removesuffix('InstanceUID').lower()} ") for row in rows)
        assert all(len(found) == 1 for found in splits_of(rows, "group").values())


def test_frames_of_dicom_files_are_slices(tmp_path, fails):
    for c, name in enumerate("ab"):
        for i in range(8):
            values = np.random.default_rng([c, i]).integers(0, 4000, (8, 12, 12))
            write_dicom(tmp_path / "S" / name / f"{i}.dcm", values, frames=8, PatientID=f"{name} {i // 2}")
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--slices", 2)
    assert len(rows) == 32
    assert {row["path"].rpartition("[")[2] for row in rows} == {"3]", "5]"}
    assert len({row["group"] for row in rows}) == 8
    assert all(len(found) == 1 for found in splits_of(rows, "group").values())
    assert read_manifest("Mine", tmp_path / "D").settings["slices"] == 2
    before = read_manifest("Mine", tmp_path / "D").digest
    prepare(tmp_path / "S", tmp_path / "D", "--slices", 2, "--window", 0, 2000)
    assert read_manifest("Mine", tmp_path / "D").digest != before  # the table holds the pixels as they are read
    for path in (tmp_path / "S").rglob("*.dcm"):
        write_dicom(path, np.random.default_rng(len(path.name)).integers(0, 4000, (12, 12)))
    flags = ("--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D")
    fails(1, ("--slices 2", "several frames"), "prepare_data", *flags, "--slices", 2)


def test_folds_cover_everything_once(tmp_path, fails):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 20, c)
    tested = Counter()
    for k in range(4):
        rows, settings = prepare(tmp_path / "S", tmp_path / "D", "--fold", f"{k}/4")
        assert settings["fold"] == f"{k}/4"
        tested.update(row["path"] for row in rows if row["split"] == "test")
    assert len(tested) == 40
    assert set(tested.values()) == {1}
    fails(2, ("--fold", "I/K"), "prepare_data", "--fold", "4/4")
    fails(1, ("--fold 0/1", "K must be at least 2"), "prepare_data", "--fold", "0/1")
    fails(1, ("--window 150 -50", "LOW < HIGH"), "prepare_data", "--window", 150, -50)
    fails(2, ("--near", "above 0"), "prepare_data", "--near", 0)


def test_too_few_groups_are_called_so(tmp_path, fails):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 9, c, names="{0:02d}.png")
    flags = ("prepare_data", "--dataset", "Mine", "--source", tmp_path / "S", "--data_dir", tmp_path / "D")
    fails(1, ("too few images", "18 images are 2 groups", "--near, --group_by"), *flags, "--group_by", "[ab]/")


def test_an_interrupted_preparation_resumes(tmp_path, monkeypatch):
    """What was read of an image is not read again, unless it changed; the manifest is that of an uninterrupted run."""
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 20, c)
    expected, _ = prepare(tmp_path / "S", tmp_path / "whole")
    read = scan.read_image
    seen = []

    def stops(path, window):
        seen.append(path)
        if len(seen) == 30:
            raise KeyboardInterrupt
        return read(path, window)

    monkeypatch.setattr(scan, "read_image", stops)
    with pytest.raises(SystemExit) as stopped:
        prepare(tmp_path / "S", tmp_path / "D")
    assert stopped.value.code == 130
    kept = (tmp_path / "D" / "Mine" / "cache" / "read.csv").read_text().splitlines()[1:]
    assert 20 < len(kept) < 40
    with (tmp_path / "D" / "Mine" / "cache" / "read.csv").open("a") as stream:
        stream.write("b/19.png,12")  # torn by a power cut
    seen[:] = range(100)
    assert prepare(tmp_path / "S", tmp_path / "D")[0] == expected
    assert len(seen) - 100 == 40 - len(kept)
    seen[:] = range(100)
    write_image(tmp_path / "S" / "a" / "03.png", 555)
    rows, _ = prepare(tmp_path / "S", tmp_path / "D", "--seed", 1)
    assert len(seen) == 101
    assert next(row["sha256"] for row in rows if row["path"] == "a/03.png") != expected[3]["sha256"]
    beside = tmp_path / "D" / "Mine" / "cache" / "read.csv.json"
    for content in (b'{"reading": 0}', b'{"reading"'):  # of another version; damaged
        seen[:] = range(100)
        beside.write_bytes(content)
        prepare(tmp_path / "S", tmp_path / "D")
        assert len(seen) == 140


def test_an_interrupted_manifest_is_found_out(tmp_path, monkeypatch):
    for c, name in enumerate("ab"):
        fill(tmp_path / "S" / name, 10, c)
    expected, _ = prepare(tmp_path / "S", tmp_path / "D")
    before = (tmp_path / "D" / "Mine" / "manifest.csv").read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr("prepare_data.write_manifest", stop)
        prepare(tmp_path / "S", tmp_path / "D", "--seed", 1)
    assert stopped.value.code == 130
    assert (tmp_path / "D" / "Mine" / "manifest.csv").read_bytes() == before
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        # when the table is written, what it was made with is not yet
        patched.setattr("preparation.manifest.files.write_json", stop)
        prepare(tmp_path / "S", tmp_path / "D", "--seed", 1)
    with pytest.raises(
        ValueError, match=r"manifest\.csv: is not the table that manifest\.json .*written halfway.*; run: "
    ):
        get_dataset("Mine", "train", 8, data_dir=tmp_path / "D")
    assert prepare(tmp_path / "S", tmp_path / "D")[0] == expected


def test_cells_and_their_schemes(tmp_path, fails, monkeypatch):
    flags = ("--dataset", "Phantom_Cytology", "--subjects", 50, "--phantom_size", 24)
    run_script("prepare_data", *flags, "--data_dir", tmp_path / "5")
    run_script("prepare_data", *flags, "--data_dir", tmp_path / "3", "--label_scheme", "three")
    five, three = (read_manifest("Phantom_Cytology", tmp_path / n) for n in "53")
    assert five.info.synthetic
    assert five.info.classes == DATASETS["SIPADMEK"].classes
    assert three.info.classes == ("abnormal", "benign", "normal")
    assert three.info.groups == {"disease": (0,), "healthy": (1, 2)}
    assert len({row["group"] for row in five.rows}) <= 50
    to_three = {r["path"]: r["class"] for r in three.rows}
    assert all(DATASETS["SIPADMEK"].schemes["three"][r["class"]] == to_three[r["path"]] for r in five.rows)
    sizes = {(row["width"], row["height"]) for row in five.rows}
    assert len(sizes) > 5
    # The same files under the other name: SIPaKMeD is laid out like this; contours and whole clusters are left alone.
    source = next((tmp_path / "5" / "Phantom_Cytology").glob("phantoms_*"))
    cells = source / "im_Parabasal" / "im_Parabasal"
    (cells / "CROPPED" / "001_01.dat").write_text("1,2\n")
    write_image(cells / "001.bmp", 5)
    rows, _ = prepare(source, tmp_path / "D", name="SIPADMEK")
    assert len(rows) == len(five.rows)
    assert all(len(found) == 1 for found in splits_of(rows, "group").values())
    fails(1, ("--label_scheme two", "three"), "prepare_data", *flags, "--label_scheme", "two", "--data_dir", tmp_path)
    scheme = (*flags, "--data_dir", tmp_path / "3", "--label_scheme", "three", "--disease")
    run_script("prepare_data", *scheme, "abnormal", "benign")
    assert read_manifest("Phantom_Cytology", tmp_path / "3").info.groups == {"disease": (0, 1), "healthy": (2,)}
    fails(1, ("--disease koilocytotic", "abnormal, benign, normal"), "prepare_data", *scheme, "koilocytotic")
    # Phantoms that an older generator drew are not taken for those of this one.
    monkeypatch.setattr("preparation.phantom_cytology.VERSION", 99)
    run_script("prepare_data", *flags, "--data_dir", tmp_path / "5")
    assert "phantoms_v99_" in read_manifest("Phantom_Cytology", tmp_path / "5").settings["source"]


def test_textures_have_mean_0_and_variance_1_however_smooth():
    """Smoothed over a third of a crop, noise is nearly constant; scaled with its mean it blotted cells out."""
    for seed in range(200):
        texture = _texture(np.array([96, 70]), 29, np.random.default_rng(seed))
        assert texture.mean() == pytest.approx(0, abs=1e-6)
        assert texture.std() == pytest.approx(1)


@pytest.mark.parametrize(("name", "shape"), [("CIFAR10", (32, 32, 3)), ("MNIST", (28, 28))])
def test_torchvision_sets(name, shape, tmp_path, monkeypatch, fails):
    """Their test images keep the published order, in which others' tables number them, and their size."""
    import torchvision

    class Fake:
        def __init__(self, root, train, download):
            if not download:
                raise RuntimeError("Dataset not found or corrupted.")
            rng = np.random.default_rng(int(train))
            images = rng.integers(0, 256, (100 if train else 30, *shape), dtype=np.uint8)
            self.samples = [(Image.fromarray(image), i % 10) for i, image in enumerate(images)]

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, i):
            return self.samples[i]

    monkeypatch.setattr(torchvision.datasets, name, Fake)
    flags = ("--dataset", name.lower(), "--data_dir", tmp_path)  # the published split, where nothing else is asked for
    fails(1, (name, "--source", "--download"), "prepare_data", *flags)
    run_script("prepare_data", *flags, "--download")
    counts = Counter(row["split"] for row in read_manifest(name, tmp_path).rows)
    assert counts == {"test": 30, "train": 90, "val": 10}
    test, published = get_dataset(name, "test", shape[0], data_dir=tmp_path), Fake(None, False, True)
    for i in range(30):
        image, label = test[i]
        expected = np.asarray(published[i][0].convert("RGB"))
        assert label == published[i][1]
        assert (image.permute(1, 2, 0).numpy() * 255 == expected).all()
    run_script("ds_main", *flags, "--arch", "dncnn", "--epochs", 1, "--outdir", tmp_path / "mse")
    assert json.loads((tmp_path / "mse" / "args.json").read_text())["image_size"] == shape[0]


@pytest.mark.parametrize("name", ["SIPADMEK", "sipakmed", "SIPaKMeD"])
def test_other_spellings(name, tmp_path, fails):
    fails(1, ("SIPADMEK", "--source"), "prepare_data", "--dataset", name, "--data_dir", tmp_path)
