"""ONNX files as people have them: their files, inputs, outputs and faults. The networks are small and linear, so that
what they must answer is one line of NumPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from conftest import run_script

from common import files
from datasets import get_dataset
from models import fingerprint, load_classifier
from models.measurements import load_reconstructor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, Type = onnx.helper, onnx.TensorProto

CLASSES, SIZE = 4, 8
WEIGHTS = np.random.default_rng(0).normal(size=(3 * SIZE**2, CLASSES)).astype(np.float32)
IMAGES = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
NAMES = ("fish", "bird", "cat", "dog")


def logits(images):
    """What all networks here answer to images `[B, 3, H, W]`."""
    return (np.asarray(images).reshape(len(images), -1) - 0.5) @ WEIGHTS


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


# The classifier proper, from `images` [b, 3, 8, 8].
CORE = [
    node("Sub", "images half", "centred"),
    node("Flatten", "centred", "flat"),
    node("MatMul", "flat weights", "logits"),
]


def network(
    shape=("b", 3, SIZE, SIZE), before=(), after=(), outputs=(("logits", ["b", CLASSES]),), kind=Type.FLOAT, **stored
):
    """A model: `before` leads from `x` to `images`, `after` from `logits` to `outputs` (name, shape[, type])."""
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    inputs += stored.pop("more_inputs", [])
    made = [each if len(each) == 3 else (*each, Type.FLOAT) for each in outputs]
    stored = {"half": np.full((1, 3, 1, 1), 0.5, dtype=np.float32), "weights": WEIGHTS, **stored}
    graph = helper.make_graph(
        [*(before or [node("Identity", "x", "images")]), *CORE, *after],
        "linear",
        inputs,
        [
            each if isinstance(each[1], onnx.TypeProto) else helper.make_tensor_value_info(each[0], each[2], each[1])
            for each in made
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def load(tmp_path):
    """`load(model or path, …)`: the classifier of an ONNX file, as `--classifier` loads it."""

    def loaded(model, scores="logits", **described):
        path = tmp_path / "mine.onnx"
        if isinstance(model, onnx.ModelProto):
            onnx.save(model, path)
        else:
            path = model
        described = {
            **{"dataset": "Mine", "image_size": SIZE, "channels": 3, "num_classes": CLASSES, "classes": NAMES},
            **described,
        }
        return load_classifier(path, scores=scores, **described)[0]

    return loaded


def answers(classifier, expected=None):
    """Whether it answers like `expected` (by default the logits) to 1, 2 and 5 images."""
    for count in (1, 2, 5):
        found = classifier(IMAGES[:count])
        right = torch.from_numpy(logits(IMAGES[:count])) if expected is None else expected[:count]
        torch.testing.assert_close(found, right, atol=1e-3, rtol=1e-3)


# ---- weights in files of their own -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"location": "mine.onnx.data"},
        {"location": "parts/weights.bin"},
        {"all_tensors_to_one_file": False},
    ],
)
def test_weights_in_other_files(load, tmp_path, monkeypatch, how):
    """They lie beside the model; files of these names in the current folder are others. Every file counts in the
    fingerprint; that of a single file is its SHA-256."""
    folder, elsewhere = tmp_path / "there", tmp_path / "here"
    for each in (folder / "parts", elsewhere / "parts"):
        each.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    path, other = folder / "mine.onnx", elsewhere / "mine.onnx"
    onnx.save(network(), path, save_as_external_data=True, size_threshold=0, **how)
    onnx.save(network(weights=-WEIGHTS), other, save_as_external_data=True, size_threshold=0, **how)
    answers(load(path))
    answers(load("../there/mine.onnx"))
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    answers(load(link))
    before = fingerprint(path)
    assert before != fingerprint(other)
    assert path.read_bytes() == other.read_bytes()
    weights = max(
        (each for each in folder.rglob("*") if each.is_file() and each != path), key=lambda p: p.stat().st_size
    )
    changed = bytearray(weights.read_bytes())
    changed[-5] ^= 1
    weights.write_bytes(changed)
    assert fingerprint(path) not in (before, files.sha256(path))
    weights.write_bytes(changed[:-40])
    with pytest.raises(ValueError, match=rf"mine\.onnx: its file .*{weights.name} is incomplete"):
        load(path)
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=rf"{weights.name}: is only a pointer of Git LFS"):
        load(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=rf"keeps weights in .*{weights.name} beside it, and there is no such"):
        load(path)


def test_the_fingerprint_of_one_file_is_its_digest(tmp_path):
    onnx.save(network(), tmp_path / "one.onnx")
    assert fingerprint(tmp_path / "one.onnx") == files.sha256(tmp_path / "one.onnx")


# ---- inputs ----------------------------------------------------------------------------------------------------------

WAYS = {
    "batch first": {"shape": ("b", 3, SIZE, SIZE)},
    "nothing fixed": {"shape": ("a", "b", "c", "d")},
    "no shape": {"shape": None},
    "channels last": {"shape": ("b", SIZE, SIZE, 3), "before": [node("Transpose", "x", "images", perm=[0, 3, 1, 2])]},
    "channels last, nothing fixed": {
        "shape": ("a", "b", "c", "d"),
        "before": [node("Transpose", "x", "images", perm=[0, 3, 1, 2])],
    },
    "channels last, three at a time": {
        "shape": (3, SIZE, SIZE, 3),
        "before": [node("Transpose", "x", "images", perm=[0, 3, 1, 2])],
    },
    "one image": {
        "shape": (3, SIZE, SIZE),
        "before": [node("Unsqueeze", "x zero", "images")],
        "zero": np.array([0]),
    },
    "one image, its axis missing behind": {
        "shape": (1, 3, SIZE, SIZE),
        "after": [node("Squeeze", "logits zero", "scores")],
        "outputs": (("scores", [CLASSES]),),
        "zero": np.array([0]),
    },
    "a batch of one inside": {
        "after": [node("Reshape", "logits one", "scores")],
        "outputs": (("scores", ["b", CLASSES]),),
        "one": np.array([1, CLASSES]),
    },
    "double": {"kind": Type.DOUBLE, "before": [node("Cast", "x", "images", to=Type.FLOAT)]},
    "half": {"kind": Type.FLOAT16, "before": [node("Cast", "x", "images", to=Type.FLOAT)]},
    "divided by 255": {"before": [node("Div", "x levels", "images")], "levels": np.float32(255)},
    "times 1/255": {"before": [node("Mul", "levels x", "images")], "levels": np.float32(1 / 255)},
    "of a convolution": {
        "after": [node("Reshape", "logits four", "scores")],
        "outputs": (("scores", ["b", CLASSES, 1, 1]),),
        "four": np.array([-1, CLASSES, 1, 1]),
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:.*takes levels from 0 to 255")
def test_how_images_go_in(load, way):
    classifier = load(network(**WAYS[way]))
    if way == "half":
        for found, right in zip(classifier(IMAGES), logits(IMAGES.half().float()), strict=True):
            torch.testing.assert_close(found, torch.from_numpy(right), atol=1e-4, rtol=1e-4)
    else:
        answers(classifier)


@pytest.mark.parametrize("kind", [Type.UINT8, Type.INT32])
def test_levels_from_0_to_255(load, kind):
    """Noise leaves [0, 1]: it is cut off, and does not wrap around."""
    model = network(
        kind=kind,
        before=[node("Cast", "x", "floats", to=Type.FLOAT), node("Div", "floats levels", "images")],
        levels=np.float32(255),
    )
    with pytest.warns(UserWarning, match="takes levels from 0 to 255: images, with their noise, are cut off"):
        classifier = load(model)
    noisy = 2 * IMAGES - 0.5
    seen = np.rint(np.clip(noisy.numpy(), 0, 1) * 255) / 255
    torch.testing.assert_close(classifier(noisy), torch.from_numpy(logits(seen)), atol=1e-3, rtol=1e-3)


def test_the_order_of_the_axes_is_asked_for(load, fails):
    """One line of numbers per image does not tell it; of grey images there is one."""
    line = {"shape": ("b", 3 * SIZE**2)}
    rows = network(**line, before=[node("Reshape", "x four", "images")], four=np.array([-1, 3, SIZE, SIZE]))
    last = network(
        **line,
        before=[node("Reshape", "x four", "last"), node("Transpose", "last", "images", perm=[0, 3, 1, 2])],
        four=np.array([-1, SIZE, SIZE, 3]),
    )
    for model in (rows, last):
        with pytest.raises(ValueError, match=r"mine\.onnx: .*give --axes NCHW or NHWC"):
            load(model)
    answers(load(rows, axes="NCHW"))
    answers(load(last, axes="NHWC"))
    with pytest.raises(ValueError, match=r"takes \[any, 3, 8, 8\], not images of 3×8×8 in the order NHWC"):
        load(network(), axes="NHWC")
    grey = network(shape=("b", SIZE**2), half=np.float32(0.5), weights=WEIGHTS[: SIZE**2])
    found = load(grey, channels=1)(IMAGES[:, :1])
    right = (IMAGES[:, 0].reshape(5, -1).numpy() - 0.5) @ WEIGHTS[: SIZE**2]
    torch.testing.assert_close(found, torch.from_numpy(right), atol=1e-4, rtol=1e-4)


def test_the_file_tells_size_and_channels(load):
    answers(load(network(), image_size=None, channels=None))
    answers(load(network(**WAYS["channels last"]), image_size=None, channels=None))
    for flags, words in (({"image_size": 16}, "image_size 8, not 16"), ({"channels": 1}, "channels 3, not 1")):
        with pytest.raises(ValueError, match=rf"mine\.onnx: has {words}"):
            load(network(), **flags)
    with pytest.raises(ValueError, match="does not say its image_size, channels; give --image_size, --channels"):
        load(network(shape=None), image_size=None, channels=None)


RESHAPED = {"before": [node("Reshape", "x four", "images")], "four": np.array([-1, 3, SIZE, SIZE])}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": ("b", 3, SIZE, 9), **RESHAPED}, "images of 9×8 px"),
        ({"shape": ("b", 4, SIZE, SIZE), **RESHAPED}, r"takes x tensor\(float\) \[any, 4, 8, 8\], not grey or RGB"),
        ({"shape": ("b", 1, 3, SIZE, SIZE), **RESHAPED}, "not grey or RGB"),
        ({"kind": Type.BOOL, "before": [node("Cast", "x", "images", to=Type.FLOAT)]}, "not grey or RGB"),
        (
            {"more_inputs": [helper.make_tensor_value_info("age", Type.FLOAT, ["b", 1])]},
            r"besides the images \(x\) also age tensor\(float\) \[any, 1\]",
        ),
    ],
)
def test_inputs_that_are_no_images(load, changes, words):
    with pytest.raises(ValueError, match=rf"mine\.onnx: .*{words}"):
        load(network(**changes))


# ---- outputs ---------------------------------------------------------------------------------------------------------

NEGATIVE = node("Neg", "logits", "neg")
SOFTMAX = node("Softmax", "logits", "p", axis=1)
LABEL = node("ArgMax", "logits", "label", axis=1, keepdims=0)


def zipmap(**classes):
    """The list of dictionaries in which scikit-learn's exporter answers, after the labels."""
    key = Type.INT64 if "classlabels_int64s" in classes else Type.STRING
    value = helper.make_tensor_type_proto(Type.FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    model = network(
        after=[SOFTMAX, LABEL, node("Gather", "p order", "q", axis=1)],
        outputs=(("label", ["b"], Type.INT64),),
        order=np.array([2, 0, 3, 1]),
    )
    model.graph.node.append(node("ZipMap", "q", "output_probability", domain="ai.onnx.ml", **classes))
    model.graph.output.append(helper.make_value_info("output_probability", kind))
    return model


OUTPUTS = {
    "by its name": network(after=[NEGATIVE], outputs=(("neg", ["b", CLASSES]), ("logits", ["b", CLASSES]))),
    "by its shape": network(
        after=[node("Identity", "logits", "head")], outputs=(("flat", ["b", 192]), ("head", ["b", CLASSES]))
    ),
    "its shape unknown": network(outputs=(("logits", None),)),
    "not by its own name, which has another shape": network(
        after=[node("Identity", "logits", "head"), node("Tile", "logits twice", "scores")],
        outputs=(("scores", ["b", 8]), ("head", ["b", CLASSES])),
        twice=np.array([1, 2]),
    ),
    "logarithms": network(after=[node("LogSoftmax", "logits", "logp", axis=1)], outputs=(("logp", ["b", CLASSES]),)),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_which_output(load, kind):
    classifier = load(OUTPUTS[kind])
    right = torch.from_numpy(logits(IMAGES))
    answers(classifier, right.log_softmax(dim=1) if kind == "logarithms" else right)


PROBABLE = {
    "softmax": network(after=[SOFTMAX], outputs=(("p", ["b", CLASSES]),)),
    "label, then probabilities": network(
        after=[SOFTMAX, LABEL, node("Identity", "p", "probabilities")],
        outputs=(("label", ["b"], Type.INT64), ("probabilities", ["b", CLASSES])),
    ),
    "dictionaries by number": zipmap(classlabels_int64s=[2, 0, 3, 1]),
    "dictionaries by name": zipmap(classlabels_strings=[NAMES[k] for k in (2, 0, 3, 1)]),
}


@pytest.mark.parametrize("kind", PROBABLE)
def test_probabilities_are_known_by_the_graph(load, kind):
    right = torch.from_numpy(logits(IMAGES)).softmax(dim=1)
    with pytest.warns(UserWarning, match="its answers are probabilities, and are taken as such"):
        classifier = load(PROBABLE[kind])
    assert classifier.scores == "probabilities"
    torch.testing.assert_close(classifier(IMAGES).softmax(dim=1), right, atol=1e-4, rtol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(PROBABLE[kind], scores="probabilities")
    labels = load(PROBABLE[kind], scores="labels") if "dict" in kind or "label" in kind else None
    if labels is not None:
        assert torch.equal(labels(IMAGES).argmax(dim=1), right.argmax(dim=1))


@pytest.mark.filterwarnings("ignore:.*are probabilities")
def test_one_output_for_two_classes(load):
    sigmoid = network(after=[node("Sigmoid", "logits", "p")], outputs=(("p", ["b", 1]),), weights=WEIGHTS[:, :1].copy())
    linear = network(outputs=(("logits", ["b", 1]),), weights=WEIGHTS[:, :1].copy())
    right = torch.from_numpy(logits(IMAGES)[:, 0]).sigmoid()
    for model, scores in ((sigmoid, "probabilities"), (sigmoid, "logits"), (linear, "logits")):
        found = load(model, scores, num_classes=2, classes=("no", "yes"))(IMAGES).softmax(dim=1)
        torch.testing.assert_close(found[:, 1], right, atol=1e-4, rtol=1e-3)


def test_an_output_that_is_asked_for(load):
    two = network(
        after=[NEGATIVE, node("Identity", "logits", "pos")], outputs=(("neg", ["b", CLASSES]), ("pos", ["b", CLASSES]))
    )
    with pytest.raises(ValueError, match=r"neg \[2, 4\], pos \[2, 4\]; name one with --output NAME"):
        load(two)
    answers(load(two, output="pos"))
    answers(load(two, output="neg"), -torch.from_numpy(logits(IMAGES)))
    with pytest.raises(ValueError, match="--output head is none of them"):
        load(two, output="head")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"after": [LABEL], "outputs": (("label", ["b"], Type.INT64),)}, r"label \[2\], not \[2, 4\]; --scores can be"),
        (
            {"after": [node("Transpose", "logits", "t", perm=[1, 0])], "outputs": (("t", [CLASSES, "b"]),)},
            "transpose it",
        ),
        (
            {"after": [node("Tile", "logits twice", "t")], "outputs": (("t", ["b", 8]),), "twice": np.array([1, 2])},
            "the data has 4 classes",
        ),
    ],
)
def test_outputs_that_are_no_scores(load, changes, words):
    with pytest.raises(ValueError, match=rf"mine\.onnx: .*{words}"):
        load(network(**changes))


def test_names_that_are_not_those_of_the_classes(load):
    with pytest.raises(ValueError, match="values for a, b, c, d, but the classes are fish, bird, cat, dog"):
        load(zipmap(classlabels_strings=list("abcd")))


def test_labels_by_name(load):
    """As scikit-learn's exporter gives them, if it was trained on names."""
    model = network(
        after=[LABEL, node("Gather", "names label", "output_label", axis=0)],
        outputs=(("output_label", ["b"], Type.STRING),),
        names=np.array(NAMES, dtype=object),
    )
    found = load(model, "labels")(IMAGES)
    assert found.argmax(dim=1).tolist() == logits(IMAGES).argmax(axis=1).tolist()


def test_a_network_from_images_to_images(tmp_path):
    """Channels last go in and come out."""
    graph = helper.make_graph(
        [node("Mul", "x two", "y"), node("Identity", "x", "z")],
        "double",
        [helper.make_tensor_value_info("x", Type.FLOAT, ["b", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info(name, Type.FLOAT, ["b", SIZE, SIZE, 3]) for name in "zy"],
        [onnx.numpy_helper.from_array(np.float32([1, 2, 3]), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "R.onnx")
    described = {"dataset": "Mine", "image_size": None, "channels": None, "measurement": "undersampled"}
    with pytest.raises(
        ValueError, match=r"R\.onnx: returned z \[2, 3, 8, 8\], y \[2, 3, 8, 8\]; name one with --output"
    ):
        load_reconstructor(tmp_path / "R.onnx", **described)
    network, _, made = load_reconstructor(tmp_path / "R.onnx", output="y", **described)
    assert (made["image_size"], made["arch_kwargs"]["channels"]) == (SIZE, 3)
    torch.testing.assert_close(network(IMAGES), IMAGES * torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1))


# ---- networks that are no functions, and files that are no networks --------------------------------------------------


def test_dropout_that_was_left_on(load):
    model = network(before=[node("Dropout", "x share on", "images")], share=np.float32(0.3), on=np.array(True))
    with pytest.raises(ValueError, match=r"mine\.onnx: answers differently .*same images again"):
        load(model)(IMAGES)


def test_answers_that_depend_on_the_batch(load):
    model = network(
        after=[node("ReduceMean", "logits", "mean", axes=[0]), node("Sub", "logits mean", "scores")],
        outputs=(("scores", ["b", CLASSES]),),
    )
    with pytest.raises(ValueError, match=r"mine\.onnx: answers differently .*other images"):
        load(model)(IMAGES)


def test_quantised_by_the_batch_is_asked_one_by_one(load):
    """Scale and zero point of DynamicQuantizeLinear come from all its input: here from one image at a time."""
    model = network(
        before=[
            node("DynamicQuantizeLinear", "x", "q scale zero"),
            node("DequantizeLinear", "q scale zero", "images"),
        ]
    )
    with pytest.warns(UserWarning, match="asked image by image"):
        classifier = load(model)
    images = IMAGES * torch.tensor([1.0, 0.1, 0.5, 2.0, 1.0]).view(-1, 1, 1, 1)
    low, high = (f(images.flatten(1).numpy(), axis=1).reshape(-1, 1, 1, 1) for f in (np.min, np.max))
    scale = (np.maximum(high, 0) - np.minimum(low, 0)) / 255
    seen = np.rint(images.numpy() / scale) * scale
    torch.testing.assert_close(classifier(images), torch.from_numpy(logits(seen).astype(np.float32)), atol=0.05, rtol=0)


def test_files_that_are_none(load, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    onnx.save(network(), tmp_path / "UPPER.ONNX")
    whole = (tmp_path / "UPPER.ONNX").read_bytes()
    answers(load(tmp_path / "UPPER.ONNX"))
    contents = {
        "empty": (b"", "is empty"),
        "text": (b"no protobuf", "not a readable ONNX file"),
        "cut": (whole[: len(whole) // 2], "not a readable ONNX file"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "page": (b"\n<!DOCTYPE html><html>", "is a web page"),
    }
    for name, (content, words) in contents.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=rf"--classifier .*{name}\.onnx: .*{words}") as failed:
            load(tmp_path / f"{name}.onnx")
        assert "\n" not in str(failed.value)
    with pytest.raises(ValueError, match=r"folder\.onnx: is a folder"):
        load(tmp_path / "folder.onnx")
    for name in ("gone.onnx", "12:30/gone.onnx", r"C:\x\gone.onnx"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            load(name)


def test_files_of_tomorrow(load):
    for change, words in (("opset", "needs opset 99"), ("ir", r"version 99 of the format \(IR\)")):
        model = network()
        if change == "opset":
            model.opset_import[0].version = 99
        else:
            model.ir_version = 99
        with pytest.raises(ValueError, match=rf"mine\.onnx: .*{words}.*, newer than onnxruntime .* knows: pip install"):
            load(model)


def test_an_operator_that_nobody_knows(load):
    model = network(after=[node("Magic", "logits", "m", domain="my.own")], outputs=(("m", ["b", CLASSES]),))
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    with pytest.raises(ValueError, match=r"mine\.onnx: not a readable ONNX file: .*my\.own:Magic"):
        load(model)


# ---- through the real command line -----------------------------------------------------------------------------------


def test_flags_that_choose(data_dir, tmp_path, fails):
    """One of two outputs by name, the order of axes by a flag; a file with its weights beside it certifies as its own
    fingerprint."""
    size, outputs = SIZE, (("neg", ["b", CLASSES]), ("pos", ["b", CLASSES]))
    two = network(
        shape=("b", 3 * size**2),
        before=[node("Reshape", "x four", "images")],
        after=[NEGATIVE, node("Identity", "logits", "pos")],
        outputs=outputs,
        four=np.array([-1, 3, size, size]),
    )
    path = tmp_path / "two.onnx"
    onnx.save(two, path, save_as_external_data=True, location="two.onnx.data", size_threshold=1000)
    common = ("--data_dir", data_dir, "--classifier", path, "--dataset", "Phantom_MRI", "--image_size", size)
    common = (*common, "--channels", 3)
    fails(1, ("two.onnx", "neg [2, 4], pos [2, 4]", "--output NAME"), "evaluate", *common)
    fails(1, ("two.onnx", "--axes NCHW or NHWC"), "evaluate", *common, "--output", "pos")
    chosen = (*common, "--output", "pos", "--axes", "NCHW")
    run_script("evaluate", *chosen, "--predictions", tmp_path / "p.tsv")
    found = np.loadtxt(tmp_path / "p.tsv", skiprows=1, dtype=int)
    data = get_dataset("Phantom_MRI", "test", size, data_dir=data_dir)
    images = torch.stack([data[i][0] for i in range(len(data))])
    assert found[:, 2].tolist() == logits(images).argmax(axis=1).tolist()
    certify = ("AE_DS_verify", *chosen, "--sigma", 0.25, "--radii", 0, "--N0", 10, "--N", 20, "--max", 1)
    run_script(*certify, "--outfile", tmp_path / "c.tsv")
    settings = files.read_json(tmp_path / "c.tsv.json")
    assert (settings["output"], settings["axes"]) == ("pos", "NCHW")
    assert settings["classifier_sha256"] == fingerprint(path) != files.sha256(path)
    fails(1, ("axes NCHW (now NHWC)",), *certify, "--axes", "NHWC", "--outfile", tmp_path / "c.tsv")
