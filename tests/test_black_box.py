"""Classifiers that may only be queried: what they answer, that they are counted, what happens when they fail."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
import torch
from conftest import run_script

from common import files
from models import BlackBox, QueriedClassifier, fingerprint, load_classifier, load_model, steady

IMAGES = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def logits(images):
    return images.reshape(len(images), -1)[:, :4] * 3


def softmax(x):
    exp = np.exp(x - x.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def test_kinds_of_scores():
    plain = QueriedClassifier(logits, "f", 4)(IMAGES)
    torch.testing.assert_close(plain, torch.from_numpy(logits(IMAGES.numpy())))
    probable = QueriedClassifier(lambda x: softmax(logits(x)), "f", 4, "probabilities")(IMAGES)
    torch.testing.assert_close(probable.softmax(1), plain.softmax(1))
    labels = QueriedClassifier(lambda x: logits(x).argmax(1), "f", 4, "labels")(IMAGES)
    assert torch.equal(labels.argmax(1), plain.argmax(1))
    wrong = (plain.argmax(1) + 1) % 4
    for target, loss in ((plain.argmax(1), 0), (wrong, 10)):
        assert torch.nn.functional.cross_entropy(labels, target).item() == pytest.approx(loss, abs=1e-3)


def test_scores_that_are_not_what_was_said():
    for classify, scores, words in (
        (logits, "labels", r"returned shape \[16, 4\].*--scores"),
        (lambda x: logits(x)[:, :3], "logits", r"returned shape \[16, 3\]"),
        (lambda x: logits(x) - 1, "probabilities", "no probabilities"),
        (lambda x: np.full(len(x), 4), "labels", "outside 0 … 3"),
    ):
        with pytest.raises(ValueError, match=words):
            QueriedClassifier(classify, "f", 4, scores)(IMAGES)


def test_scores_that_are_not_finite():
    for bad in (np.nan, np.inf):
        for scores in ("logits", "probabilities"):
            with pytest.raises(FloatingPointError, match="--classifier f: returned numbers that are not finite"):
                QueriedClassifier(lambda x, bad=bad: logits(x) * bad, "f", 4, scores)(IMAGES)


def test_text_is_no_score():
    with pytest.raises(ValueError, match="not numbers"):
        QueriedClassifier(lambda images: np.array(["glioma"] * len(images)), "f", 2)(torch.rand(3, 1, 2, 2))


@pytest.mark.parametrize("kind", [np.uint16, np.int8, np.float64, ">f4", bool])
def test_numbers_of_any_type(kind):
    numbered = QueriedClassifier(lambda x: np.arange(len(x)).astype(kind)[::-1], "f", 4, "labels", checked=True)
    labels = numbered(IMAGES[:2])
    assert labels.argmax(dim=1).tolist() == [1, 0]


def test_rows_of_unequal_length_are_no_scores():
    with pytest.raises(ValueError, match="--classifier f: returned list, not an array"):
        QueriedClassifier(lambda images: [[0.5, 0.5], [1.0]], "f", 2)(IMAGES)


def test_no_gradient_and_every_query_counts():
    box = BlackBox(QueriedClassifier(logits, "f", 4))
    assert not box.query(IMAGES.clone().requires_grad_()).requires_grad
    box.query(IMAGES[:2])
    assert box.queries == steady.QUERIES + 5
    with pytest.raises(ValueError, match="no gradients"):
        QueriedClassifier(logits, "f", 4)(IMAGES.clone().requires_grad_())


def test_a_failing_query_is_repeated_then_given_up():
    calls, pauses = [], []

    def flaky(images):
        calls.append(len(images))
        if len(calls) < 3:
            raise TimeoutError("no answer")
        return logits(images)

    found = QueriedClassifier(flaky, "f", 4, sleep=pauses.append)(IMAGES)
    torch.testing.assert_close(found, torch.from_numpy(logits(IMAGES.numpy())))
    assert pauses == [1, 2]

    def dead(images):
        raise TimeoutError("no answer")

    with pytest.raises(OSError, match="failed 6 times: TimeoutError: no answer"):
        QueriedClassifier(dead, "f", 4, sleep=pauses.append)(IMAGES)
    assert pauses[2:] == [1, 2, 4, 8, 16]


@pytest.fixture(scope="module")
def onnx(pipeline, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("onnx") / "classifier.onnx"
    run_script("export_model", "--model", pipeline["classifier"], "--outfile", path)
    return path


def test_exported_classifier_answers_alike(onnx, pipeline):
    original, made = load_model(pipeline["classifier"], "classifier")
    queried, described = load_classifier(onnx)
    assert {key: described[key] for key in ("dataset", "image_size")} == {k: made[k] for k in ("dataset", "image_size")}
    assert described["arch_kwargs"] == {"channels": 3, "num_classes": 4}
    assert not list(queried.parameters())
    for count in (1, 5):
        x = torch.rand(count, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(queried(x), original(x), atol=1e-4, rtol=1e-4)


def test_an_onnx_file_is_defended_and_certified_by_queries(onnx, pipeline, data_dir, tmp_path):
    """The same queries as to the checkpoint give the same training, and the same certificates."""
    answers = []
    for name, classifier in (("onnx", onnx), ("checkpoint", pipeline["classifier"])):
        run_script(
            "main_ds",
            *("--data_dir", data_dir, "--classifier", classifier, "--pretrained_denoiser", pipeline["mse"]),
            *("--optimization_method", "ZO", "--q", 1, "--epochs", 1, "--batch", 40, "--no-amp"),
            *("--outdir", tmp_path / name),
        )
        row = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        run_script(
            "AE_DS_verify",
            *("--data_dir", data_dir, "--classifier", classifier, "--denoiser", tmp_path / name / "best.pth.tar"),
            *("--sigma", 0.25, "--N0", 10, "--N", 20, "--max", 2, "--no-amp", "--outfile", tmp_path / f"{name}.tsv"),
        )
        lines = (tmp_path / f"{name}.tsv").read_text().splitlines()
        answers.append((row["queries"], row["val_agreement"], [line.split("\t")[2] for line in lines]))
    assert answers[0][0] == answers[1][0] + steady.QUERIES
    assert answers[0][1:] == answers[1][1:]


def test_an_onnx_file_with_a_fixed_batch(tmp_path):
    """Whatever the number of images: by so many as the file takes. What it cannot take is not asked for again."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["scores"], axes=[2, 3], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("x", number, [4, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", number, [4, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "four.onnx")
    described = {"dataset": "Phantom_MRI", "image_size": 8, "channels": 3, "num_classes": 3}
    classifier, _ = load_classifier(tmp_path / "four.onnx", **described)
    for count in (1, 4, 9):
        x = torch.rand(count, 3, 8, 8)
        torch.testing.assert_close(classifier(x), x.mean(dim=(2, 3)))
    with pytest.raises(OSError, match=r"four\.onnx: a query failed: "):
        classifier(torch.rand(4, 3, 9, 9))


def test_a_checkpoint_lets_out_no_more_than_its_scores(pipeline, data_dir, tmp_path, fails):
    """Labels alone: no gradients, training by queries, and the certificates that the logits give."""
    x = torch.rand(5, 3, 32, 32)
    plain, _ = load_classifier(pipeline["classifier"])
    with torch.no_grad():
        expected = plain(x)
        probable, _ = load_classifier(pipeline["classifier"], scores="probabilities")
        torch.testing.assert_close(probable(x).softmax(dim=1), expected.softmax(dim=1), atol=1e-4, rtol=1e-3)
    labels, made = load_classifier(pipeline["classifier"], scores="labels")
    assert torch.equal(labels(x), 10.0 * torch.nn.functional.one_hot(expected.argmax(dim=1), 4) - 10)
    assert (made["image_size"], list(labels.parameters())) == (32, [])
    with pytest.raises(ValueError, match="no gradients"):
        labels(x.requires_grad_())
    common = ("--data_dir", data_dir, "--classifier", pipeline["classifier"])
    denoised = ("--denoiser", pipeline["mse"], "--no-amp")
    fails(1, ("no gradients", "ZO"), "main_ds", *common, "--scores", "labels", "--outdir", tmp_path / "no")
    zo = ("main_ds", *common, "--scores", "labels", "--optimization_method", "ZO", "--outdir", tmp_path / "run")
    fails(1, ("--scores labels", "AE_DS", "DCT", "--mu"), *zo)
    run_script(
        *zo,
        *("--pretrained_denoiser", pipeline["mse"], "--zo_method", "DCT", "--zo_grey", "--q", 1, "--epochs", 1),
        *("--batch", 40),
    )
    assert json.loads((tmp_path / "run" / "args.json").read_text())["mu"] == 1
    answers = []
    for scores in ("logits", "labels"):
        run_script(
            "AE_DS_verify",
            *common,
            *denoised,
            *("--scores", scores, "--sigma", 0.25, "--N0", 10, "--N", 20, "--max", 2),
            *("--outfile", tmp_path / f"{scores}.tsv"),
        )
        lines = (tmp_path / f"{scores}.tsv").read_text().splitlines()
        answers.append([line.split("\t")[2:4] for line in lines])
    assert answers[0] == answers[1]


def test_exporting_without_its_packages(pipeline, tmp_path, monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "onnx", None)
    fails(
        1,
        ("--outfile", "pip install onnx"),
        "export_model",
        *("--model", pipeline["classifier"], "--outfile", tmp_path / "f.onnx"),
    )


def test_a_python_function(data_dir, tmp_path, monkeypatch):
    (tmp_path / "service.py").write_text("def classify(images):\n    return images.reshape(len(images), -1)[:, :4]\n")
    monkeypatch.chdir(tmp_path)  # found there without being on Python's path
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "service", raising=False)
    run_script(
        "evaluate",
        *("--data_dir", data_dir, "--classifier", "service:classify", "--dataset", "Phantom_MRI", "--image_size", 32),
        *("--channels", 1, "--outfile", tmp_path / "report.json"),
    )
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 36
    assert fingerprint("service:classify") == f"service:classify {files.sha256(tmp_path / 'service.py')}"


def test_refused(fails, onnx, data_dir, tmp_path, monkeypatch):
    common = ("--data_dir", data_dir, "--outdir", tmp_path / "run")
    fails(1, (onnx, "no gradients", "ZO"), "main_ds", *common, "--classifier", onnx)
    fails(1, ("no_such_module:f", "cannot be imported"), "main_ds", *common, "--classifier", "no_such_module:f")
    fails(1, ("json:dumps", "channels, num_classes"), "main_ds", *common, "--classifier", "json:dumps")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torn.py").write_text("def f(:")
    (tmp_path / "needy.py").write_text("raise RuntimeError('no key for the service')")
    for spec, words in (("torn:f", "SyntaxError"), ("needy:f", "no key"), (".needy:f", "no such"), (":f", "no such")):
        fails(1, (f"--classifier {spec}", words), "main_ds", *common, "--classifier", spec)
    fails(1, (onnx, "image_size 32, not 64"), "main_ds", *common, "--classifier", onnx, "--image_size", 64)
    fails(1, ("gone.onnx", "no such file"), "main_ds", *common, "--classifier", tmp_path / "gone.onnx")
    (tmp_path / "bad.onnx").write_text("no protobuf")
    fails(1, ("bad.onnx", "not a readable ONNX file"), "main_ds", *common, "--classifier", tmp_path / "bad.onnx")


def test_an_onnx_file_is_attacked_by_labels(onnx, data_dir):
    run_script(
        "attacks.generate",
        *("--data_dir", data_dir, "--classifier", onnx, "--attack", "HSJ", "--steps", 1, "--skip", 18),
        *("--suffix", "_onnx"),
    )
    with (data_dir / "Phantom_MRI" / "AT_HSJ_onnx" / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    assert all(int(row["queries"]) >= 1 for row in rows)


# ---- functions that are hard on their images, through the real command lines ----------------------------------------

SERVICE = """
import numpy as np

asked = [0]


def plain(images):
    asked[0] += len(images)
    return (images.reshape(len(images), -1) - 0.3) @ np.random.default_rng(0).normal(size=(1024, 4))


def spoils(images):
    images *= 4
    return plain(images / 4)  # exactly


def random(images):
    return plain(images) + np.random.normal(size=(len(images), 4)) * 9


def batch(images):
    return plain(images) - plain(images).mean(axis=0)
"""


@pytest.fixture
def service(tmp_path, monkeypatch):
    (tmp_path / "rough.py").write_text(SERVICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "rough"
    sys.modules.pop("rough", None)


def described(classifier, data_dir):
    return (
        *("--data_dir", data_dir, "--classifier", classifier, "--dataset", "Phantom_MRI", "--image_size", 32),
        *("--channels", 1),
    )


def test_a_function_that_works_in_place_is_certified_attacked_and_trained_against(service, data_dir, tmp_path):
    """As if it did not: the same certificates, attacked images and losses."""
    found = {}
    for name in ("plain", "spoils"):
        common = described(f"{service}:{name}", data_dir)
        run_script(
            "AE_DS_verify",
            *common,
            *("--sigma", 0.1, "--N0", 10, "--N", 40, "--max", 3, "--outfile", tmp_path / f"{name}.tsv"),
        )
        lines = (tmp_path / f"{name}.tsv").read_text().splitlines()
        run_script("attacks.generate", *common, *("--attack", "HSJ", "--steps", 1, "--skip", 12, "--suffix", name))
        with (data_dir / "Phantom_MRI" / f"AT_HSJ{name}" / "manifest.csv").open(newline="") as stream:
            attacked = [[row["l2"], row["linf"], row["queries"]] for row in csv.DictReader(stream)]
        run_script(
            "main_ds",
            *common,
            *("--optimization_method", "ZO", "--zo_method", "DCT", "--q", 2, "--noise_sd", 0.1, "--epochs", 1),
            *("--batch", 40, "--outdir", tmp_path / name),
        )
        row = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        votes = [[value for k, value in enumerate(line.split("\t")) if k != 5] for line in lines]  # but the time
        found[name] = (votes, attacked, row["train_loss"], row["val_agreement"], row["queries"])
    assert found["plain"] == found["spoils"]
    assert all(float(linf) <= 1 for _, linf, _ in found["plain"][1])


@pytest.mark.parametrize(("name", "words"), [("random", "same images again"), ("batch", "other images")])
def test_what_is_no_function_is_refused_before_any_result(service, name, words, data_dir, tmp_path, fails):
    common = described(f"{service}:{name}", data_dir)
    fails(1, (f"rough:{name}", words), "evaluate", *common, "--outfile", tmp_path / "e.json")
    certify = ("AE_DS_verify", *common, "--sigma", 0.25, "--N", 100)
    fails(1, (words,), *certify, "--outfile", tmp_path / "c.tsv")
    assert len((tmp_path / "c.tsv").read_text().splitlines()) == 1
    image = next((data_dir / "Phantom_MRI").rglob("*.png"))
    fails(1, (words,), *certify, "--predict", image, "--outfile", tmp_path / "p.json")
    fails(1, (words,), "attacks.generate", *common, "--attack", "HSJ", "--skip", 30, "--suffix", name)
    zo = ("--optimization_method", "ZO", "--q", 2, "--batch", 40)
    fails(1, (words,), "main_ds", *common, *zo, "--outdir", tmp_path / "run")
    assert not [*tmp_path.glob("[ep].json"), *tmp_path.glob("run/*.tar")]
    assert not list((data_dir / "Phantom_MRI" / f"AT_HSJ{name}").rglob("*.png"))


def test_the_query_budget_covers_the_check(service, data_dir, tmp_path, monkeypatch):
    """Of all images that the function is asked about."""
    run_script(
        "main_ds",
        *described(f"{service}:plain", data_dir),
        *("--optimization_method", "ZO", "--q", 1, "--batch", 40, "--epochs", 3),
        *("--query_budget", 900, "--outdir", tmp_path / "run"),
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sys.modules[service].asked[0] == rows[-1]["queries"] <= 900
    assert len(rows) == 2
