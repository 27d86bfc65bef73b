"""The order of the classes: natural, stated, or given; output k of a classifier means class k."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from conftest import run_script, write_image
from PIL import Image

from datasets import get_dataset, read_manifest
from imaging.catalogue import DATASETS
from preparation.classes import in_order, natural_order, other_order


@pytest.mark.parametrize(
    "names",
    [
        [*map(str, range(12))],
        ["grade1", "grade2", "grade10"],
        ["T1a", "T1b", "T2", "T10"],
        ["benign", "Malignant", "normal"],
        ["-1", "0", "1", "10"],
        ["0.25", "0.5", "1", "10.0"],
        ["v1.2", "v1.10"],
        ["007", "8", "010"],
        ["a", "a1", "a2b", "a10"],
        ["BI-RADS 2", "BI-RADS 4a", "BI-RADS 4b", "BI-RADS 5"],
        ["class 02", "class 3", "class 10"],
        ["٢", "١٠"],  # 2 and 10 in Arabic digits
        ["1" * 5000, "2" * 5000],
        ["grade 9", "grade 1" + "0" * 5000],
        ["A", "a2"],
    ],
    ids=lambda names: " ".join(names)[:30],
)
def test_natural_order(names):
    """Whatever order they come in."""
    for shift in range(len(names)):
        assert natural_order([*names[shift:], *names[:shift]]) == tuple(names)


def test_an_order_that_is_given():
    classes = ("a", "b", "c,d")
    assert in_order(classes, ["c,d", "a", "b"]) == ("c,d", "a", "b")
    for wanted, words in (
        (["a", "b"], "lacks c,d"),
        (["a", "b", "c,d", "e"], "no such class: e"),
        (["a", "b", "b", "c,d"], "named twice: b"),
        (["a", "B", "c,d"], "lacks b; no such class: B"),
    ):
        with pytest.raises(ValueError, match=f"--classes: {words}.*classes are a, b, c,d"):
            in_order(classes, wanted)


def test_how_others_sort_is_mentioned():
    assert other_order(("a", "b")) == ""
    assert other_order(("0", "1", "2", "10")).endswith("--classes 0 1 10 2")
    assert other_order(("a b", "-x", "A")).endswith("--classes=-x --classes=A --classes='a b'")


@pytest.fixture(scope="module")
def eleven(tmp_path_factory):
    """Folders 0 … 10; the brightness of an image is its class."""
    source, rng = tmp_path_factory.mktemp("eleven"), np.random.default_rng(0)
    for k in range(11):
        (source / str(k)).mkdir()
        for i in range(8):
            pixels = np.clip(20 * k + 20 + rng.normal(0, 4, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(source / str(k) / f"{i}.png")
    return source


@pytest.fixture
def of_brightness(monkeypatch):
    """A user's own function: output k is brightness k."""
    module = types.ModuleType("of_brightness")
    module.predict = lambda x: -((((x.mean((1, 2, 3)) * 255 - 20) / 20)[:, None] - np.arange(11)) ** 2)
    monkeypatch.setitem(sys.modules, "of_brightness", module)
    return ("--classifier", "of_brightness:predict", "--dataset", "Mine", "--image_size", 16, "--channels", 1)


def test_a_function_of_eleven_classes_means_what_it_says(eleven, of_brightness, tmp_path, capsys):
    flags = ("--dataset", "Mine", "--source", eleven, "--data_dir", tmp_path / "D")
    run_script("prepare_data", *flags)
    order = ", ".join(f"{k} = {k}" for k in range(11))
    printed = capsys.readouterr().out
    assert f"classes: {order}\n" in printed
    assert "--classes 0 1 10 2 3" in printed  # how ImageFolder would sort
    assert read_manifest("Mine", tmp_path / "D").settings["info"]["classes"] == [*map(str, range(11))]
    own = (*of_brightness, "--data_dir", tmp_path / "D")
    run_script("evaluate", *own, "--outfile", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["accuracy"] == 1
    assert capsys.readouterr().out.count(f"its outputs mean {order}") == 1
    run_script(
        "AE_DS_verify",
        *(*own, "--sigma", 0.01, "--N0", 5, "--N", 50, "--radii", 0, "--outfile", tmp_path / "p.json"),
        *("--predict", eleven / "10" / "0.png", eleven / "2" / "0.png"),
    )
    assert [each["class"] for each in json.loads((tmp_path / "p.json").read_text())["answers"]] == ["10", "2"]
    assert capsys.readouterr().out.count(f"its outputs mean {order}") == 1


def test_a_function_that_sorts_as_text(eleven, of_brightness, tmp_path, fails):
    """The order that is given decides; an older manifest keeps its own."""
    flags = ("prepare_data", "--dataset", "Mine", "--source", eleven, "--data_dir", tmp_path / "D")
    as_text = sorted(map(str, range(11)))
    run_script(*flags, "--classes", *as_text)
    manifest = read_manifest("Mine", tmp_path / "D")
    assert manifest.settings["info"]["classes"] == as_text
    assert {row["class"]: int(row["label"]) for row in manifest.rows} == {name: k for k, name in enumerate(as_text)}
    assert get_dataset("Mine", "test", 16, data_dir=tmp_path / "D").info.order.startswith("0 = 0, 1 = 1, 2 = 10, 3 = 2")
    run_script("evaluate", *of_brightness, "--data_dir", tmp_path / "D", "--outfile", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["accuracy"] < 0.3  # these classes are other ones
    fails(1, ("--classes", "lacks 10", "classes are 0, 1, 2"), *flags, "--classes", *range(10))
    fails(1, ("--disease 11", "no such class"), *flags, "--classes", *as_text, "--disease", 11)


def test_known_sets_keep_their_order_unless_it_is_given(made_up_tree, tmp_path, capsys):
    flags = ("--dataset", "Brain_Tumor", "--source", made_up_tree, "--data_dir", tmp_path / "D")
    run_script("prepare_data", *flags)
    printed = capsys.readouterr().out
    assert "classes: 0 = glioma_tumor, 1 = meningioma_tumor, 2 = no_tumor, 3 = pituitary_tumor\n" in printed
    assert "published split: train = Training (80 images), test = Testing (20 images)\n" in printed
    wanted = ["no_tumor", *(name for name in DATASETS["Brain_Tumor"].classes if name != "no_tumor")]
    run_script("prepare_data", *flags, "--classes", *wanted)
    info = read_manifest("Brain_Tumor", tmp_path / "D").info
    assert list(info.classes) == wanted
    assert info.groups == {"disease": (1, 2, 3), "healthy": (0,)}


def test_folders_of_splits_by_the_command_line(tmp_path, fails, capsys):
    """training_set and test_set are no classes; folds are asked about, and the manifest keeps the answer."""
    for s, (split, count) in enumerate((("training_set", 10), ("test_set", 5))):
        for c, name in enumerate(("benign", "malignant")):
            for i in range(count):
                write_image(tmp_path / "S" / split / name / f"{i}.png", 100 * s + 20 * c + i)
    flags = ("prepare_data", "--dataset", "Mine", "--data_dir", tmp_path / "D", "--near", 1, "--source")
    run_script(*flags, tmp_path / "S", "--protocol", "official")
    manifest = read_manifest("Mine", tmp_path / "D")
    assert manifest.info.classes == ("benign", "malignant")
    assert {row["path"].split("/")[0] for row in manifest.split("test")} == {"test_set"}
    assert "train = training_set (20 images), test = test_set (10 images)" in capsys.readouterr().out
    (tmp_path / "S" / "training_set").rename(tmp_path / "S" / "fold1")
    (tmp_path / "S" / "test_set").rename(tmp_path / "S" / "fold2")
    words = ("--layout classes: 2 classes, fold1 (20 images", "--layout splits: 2 classes, benign (15 images")
    fails(1, (tmp_path / "S", *words), *flags, tmp_path / "S")
    run_script(*flags, tmp_path / "S", "--layout", "splits")
    assert read_manifest("Mine", tmp_path / "D").settings["layout"] == "splits"
    assert read_manifest("Mine", tmp_path / "D").info.classes == ("benign", "malignant")
    for path in sorted((tmp_path / "S").rglob("*.png")):
        Image.new("L", (16, 16)).save(path.with_name(f"{path.stem}_mask.png"))
    fails(1, ("30 of 60 images", "--leave_out '*_mask*'", "--keep_masks"), *flags, tmp_path / "S", "--layout", "splits")
    fails(1, ("--leave_out *.tif", "matches no image"), *flags, tmp_path / "S", "--leave_out", "*.tif")
    run_script(*flags, tmp_path / "S", "--layout", "splits", "--leave_out", "*_mask*")
    manifest = read_manifest("Mine", tmp_path / "D")
    assert len(manifest.rows) == 30
    assert manifest.settings["leave_out"] == ["*_mask*"]
    (tmp_path / "S" / "t.csv").write_text("path,label\n")
    fails(1, ("--layout splits", "is a table"), *flags, tmp_path / "S" / "t.csv", "--layout", "splits")
    fails(2, ("--layout", "innermost"), *flags, tmp_path / "S", "--layout", "folders")
